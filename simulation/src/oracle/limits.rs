//! What a daemon remembers and what waits in it stays within `model/src/limits.rs`.
//!
//! Not looked at: bytes of bodies in flight, which the service's reader bounds, and it is not simulated.

use headwater_cluster::{Figures, RestoreState, State};
use headwater_model::limits;

/// What one slice of the source brings at the most, in memory.
const SLICE_BYTES: usize = 512 << 10;

/// More than there may be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("nothing grows without end: {count} {what}, {limit} at most")]
pub struct Beyond {
    /// Of what.
    pub what: &'static str,
    /// How much there is.
    pub count: usize,
    /// How much there may be.
    pub limit: usize,
}

/// Judges a control state.
pub fn state(state: &State) -> Result<(), Beyond> {
    let running = state.restores.values().filter(|r| r.state == RestoreState::Running);
    let open = state.alerts.values().filter(|alert| alert.ended_ms.is_none()).count();
    within("restores that run", running.count(), limits::RESTORES_RUNNING_MAX)?;
    within(
        "restores that are remembered",
        state.restores.len(),
        limits::RESTORES_KEPT,
    )?;
    // What is open is never forgotten.
    within(
        "alerts that are remembered",
        state.alerts.len(),
        limits::ALERTS_KEPT.max(open),
    )?;
    within("deeds that are remembered", state.audit.len(), limits::AUDIT_KEPT)?;
    within("nodes", state.nodes.len(), limits::NODES_MAX)?;
    within("keys", state.keys.len(), limits::KEYS_MAX)?;
    for set in state.replica_sets.keys() {
        let of_set = state.snapshots.iter().filter(|((of, _), _)| of == set);
        let waiting = of_set.filter(|(_, snapshot)| snapshot.image.is_none()).count();
        within("snapshots that wait", waiting, limits::SNAPSHOTS_WAITING_PER_SET)?;
    }
    for known in state.integrity.values() {
        let waiting = known.checks.values().filter(|check| check.is_running()).count();
        within("checks that wait", waiting, limits::CHECKS_WAITING_PER_SET)?;
        within("damaged objects", known.damage.len(), limits::DAMAGE_KEPT_PER_SET)?;
    }
    Ok(())
}

/// Judges what a member says of its queue.
pub fn figures(figures: Figures) -> Result<(), Beyond> {
    let waiting = usize::try_from(figures.waiting).unwrap_or(usize::MAX);
    within("commands that wait", waiting, limits::CONTROL_MAILBOX_CAPACITY)
}

/// Judges what a daemon tells in its metrics of the memory of heads, which have a budget of so many bytes: twice that, and what
/// one slice brings.
pub fn memory(metrics: &str, budget: usize) -> Result<(), Beyond> {
    let told = metrics
        .lines()
        .filter(|line| line.starts_with("headwater_memtable_bytes{"));
    let bytes = told.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
    let most = bytes.fold(0.0, f64::max) as usize;
    within("bytes of changes in memory", most, 2 * budget + SLICE_BYTES)
}

fn within(what: &'static str, count: usize, limit: usize) -> Result<(), Beyond> {
    match count <= limit {
        true => Ok(()),
        false => Err(Beyond { what, count, limit }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_as_may_be_are_within_and_one_more_is_beyond() {
        assert_eq!(state(&State::default()), Ok(()));
        let told = "# HELP headwater_memtable_bytes x\nheadwater_memtable_bytes{replica_set=\"rs0\"} 600000\n";
        assert_eq!(memory(told, 50_000), Ok(()));
        assert_eq!(memory(told, 30_000).map_err(|beyond| beyond.count), Err(600_000));
        assert_eq!(within("nodes", 3, 3), Ok(()));
        assert!(within("nodes", 4, 3).is_err());
        let waiting = |waiting| {
            figures(Figures {
                waiting,
                ..Figures::default()
            })
        };
        assert_eq!(waiting(limits::CONTROL_MAILBOX_CAPACITY as u64), Ok(()));
        assert!(waiting(limits::CONTROL_MAILBOX_CAPACITY as u64 + 1).is_err());
    }
}
