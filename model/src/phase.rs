//! How far the backup of a replica set is.

use serde::{Deserialize, Serialize};

/// The phases of a replica set's backup, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Waiting for an agent to begin.
    Starting,
    /// Sync slices are arriving.
    Transferring,
    /// The head is made from the slices.
    Building,
    /// The oplog of the time of the scan is applied.
    ApplyingOplog,
    /// Documents the scan missed are read from the source.
    FetchingMissing,
    /// Counts and digests are compared.
    Validating,
    /// Routine operation.
    Complete,
}

impl Phase {
    /// All of them, in order.
    pub const ALL: [Phase; 7] = [
        Phase::Starting,
        Phase::Transferring,
        Phase::Building,
        Phase::ApplyingOplog,
        Phase::FetchingMissing,
        Phase::Validating,
        Phase::Complete,
    ];

    /// As users read it.
    pub fn text(self) -> &'static str {
        match self {
            Phase::Starting => "starting",
            Phase::Transferring => "transferring",
            Phase::Building => "building",
            Phase::ApplyingOplog => "applying oplog",
            Phase::FetchingMissing => "fetching missing documents",
            Phase::Validating => "validating",
            Phase::Complete => "complete",
        }
    }
}
