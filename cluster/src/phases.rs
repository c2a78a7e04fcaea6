//! Which phase may follow which.
//!
//! ```text
//! starting → transferring → building → applying oplog ⇄ fetching missing → validating → complete
//!                              ↑             │   └───────────────────────────↑  │
//!                              └─────────────┴── (the head was lost in a crash) ┘
//! ```
//! A new incarnation begins at `starting` from any phase; that is a command of its own. `complete` is left in no other
//! way, and it is reached only with a waypoint published, since the sync slices are removed then.

use headwater_model::Phase;

/// Whether `to` may follow `from`. To stay is always legal, so that a command may come twice.
pub fn is_legal(from: Phase, to: Phase) -> bool {
    use Phase::*;
    let successors: &[Phase] = match from {
        Starting => &[Transferring],
        Transferring => &[Building],
        Building => &[ApplyingOplog],
        ApplyingOplog => &[FetchingMissing, Validating, Building],
        // A head with fetched documents must pass the time of the last fetch.
        FetchingMissing => &[ApplyingOplog, Validating, Building],
        // Validation folds everything, which may find documents missing that no fold had met.
        Validating => &[Complete, FetchingMissing, Building],
        Complete => &[],
    };
    from == to || successors.contains(&to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_of_phases_is_decided_as_drawn() {
        // Rows: from; columns: to; both in the order of Phase::ALL.
        let table = [
            "yy.....", // starting
            ".yy....", // transferring
            "..yy...", // building
            "..yyyy.", // applying oplog
            "..yyyy.", // fetching missing
            "..y.yyy", // validating
            "......y", // complete
        ];
        for (from, row) in Phase::ALL.into_iter().zip(table) {
            for (to, cell) in Phase::ALL.into_iter().zip(row.chars()) {
                assert_eq!(is_legal(from, to), cell == 'y', "{} to {}", from.text(), to.text());
            }
        }
    }
}
