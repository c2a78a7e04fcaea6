//! Control state that must agree among the daemons: what is protected, who owns which head at which epoch, which
//! snapshots exist, which restores run.
//!
//! [`apply`](apply::apply) decides what a [`Command`] does to the [`State`]: pure and total, one file per noun.
//! [`placement`] and [`leases`] decide who should own and stream what; the leader submits what they say.
//! [`Control`] is how the rest of the daemon submits commands and reads the state. Raft is in `raft/` and nowhere else.

pub mod addresses;
pub mod alerts;
pub mod apply;
pub mod audit;
pub mod balancer;
pub mod catalog;
pub mod checkpoints;
pub mod codec;
pub mod command;
pub mod control;
pub mod deployments;
pub mod grooms;
pub mod identity;
pub mod integrity;
pub mod keeping;
pub mod keys;
pub mod leases;
pub mod nodes;
pub mod phases;
pub mod placement;
mod raft;
pub mod replica_sets;
pub mod restores;
pub mod retention;
pub mod schedules;
pub mod sharding;
pub mod shares;
pub mod snapshots;
pub mod state;
pub mod timetable;

pub use addresses::Addresses;
pub use apply::apply;
pub use catalog::{Catalog, Piece};
pub use checkpoints::{Checkpoint, Checkpoints};
pub use command::{Command, RefusalKind, Response};
pub use control::{Control, ControlError, Figures, Settings};
pub use deployments::Deployment;
pub use grooms::{GroomReport, Grooming};
pub use identity::{Identity, IdentityError};
pub use keys::Key;
pub use leases::Lease;
pub use nodes::NodeRecord;
pub use replica_sets::{ImageRef, ReplicaSet};
pub use restores::{Restore, RestoreState};
pub use retention::Retention;
pub use schedules::Schedule;
pub use sharding::Sharding;
pub use snapshots::Snapshot;
pub use state::{NodeId, State};
