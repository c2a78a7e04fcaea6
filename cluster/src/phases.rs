//! Which phase may follow which.
//!
//! ```text
//! starting → transferring → building → applying oplog → fetching missing ⇄ validating → complete
//!                                            └───────────────────────────────↑
//! ```
//! Nothing leads back to the transfer or the build: both end with something that lasts, the slices and a waypoint. (A
//! command that was sent twice may arrive when its phase is long over. It must not take anything back.)
//!
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
        ApplyingOplog => &[FetchingMissing, Validating],
        FetchingMissing => &[Validating],
        // Validation folds everything, which may find documents missing that no fold had met.
        Validating => &[Complete, FetchingMissing],
        Complete => &[],
    };
    from == to || successors.contains(&to)
}

/// Whether `to` was passed before `now` and is not entered again: to ask for it is a command that comes late, and changes
/// nothing. Only of the phases that agents end; those of the head's owner are refused.
pub fn is_passed(now: Phase, to: Phase) -> bool {
    to < now && matches!(to, Phase::Transferring | Phase::Building)
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
            "...yyy.", // applying oplog
            "....yy.", // fetching missing
            "....yyy", // validating
            "......y", // complete
        ];
        for (from, row) in Phase::ALL.into_iter().zip(table) {
            for (to, cell) in Phase::ALL.into_iter().zip(row.chars()) {
                assert_eq!(is_legal(from, to), cell == 'y', "{} to {}", from.text(), to.text());
            }
        }
    }
}
