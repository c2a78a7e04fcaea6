//! Which children a replica set needs: decided here, acted on by the supervisor.

use headwater_model::Phase;

/// The children of a supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChildKind {
    /// Makes the head from the first copy.
    Sync,
    /// Applies the oplog to the head; cuts images on request.
    OplogApply,
    /// Takes snapshots that are due or asked for.
    Snapshot,
    /// Removes what nothing refers to any more.
    Groom,
    /// Carries out restores.
    Restore,
    /// Lets snapshots and oplog go when their time is over.
    Retention,
}

impl ChildKind {
    /// For logs and status.
    pub fn name(self) -> &'static str {
        match self {
            ChildKind::Sync => "sync",
            ChildKind::OplogApply => "oplog apply",
            ChildKind::Snapshot => "snapshot",
            ChildKind::Groom => "groom",
            ChildKind::Restore => "restore",
            ChildKind::Retention => "retention",
        }
    }
}

/// The children for a phase. Restores, retention and grooms work in every phase: old snapshots stay restorable in a resync.
pub fn wanted(phase: Phase, active: bool) -> Vec<ChildKind> {
    use ChildKind::{Groom, OplogApply, Restore, Retention, Snapshot, Sync};
    match phase {
        _ if !active => vec![Groom, Restore, Retention],
        Phase::Starting => vec![Groom, Restore, Retention],
        Phase::Transferring | Phase::Building | Phase::ApplyingOplog | Phase::FetchingMissing | Phase::Validating => {
            vec![Sync, Groom, Restore, Retention]
        }
        Phase::Complete => vec![OplogApply, Snapshot, Groom, Restore, Retention],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_never_worked_on_by_two_children() {
        for phase in Phase::ALL {
            for active in [true, false] {
                let kinds = wanted(phase, active);
                let owners = kinds
                    .iter()
                    .filter(|k| matches!(k, ChildKind::Sync | ChildKind::OplogApply))
                    .count();
                assert!(owners <= 1, "{phase:?}");
                assert!(
                    kinds.contains(&ChildKind::Restore),
                    "{phase:?}: restores must always work"
                );
            }
        }
    }
}
