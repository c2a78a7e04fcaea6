//! Raft, by openraft 0.9. The only folder that names it.
//!
//! House rules, each the answer to a defect found by simulation (`reference/simulation.md` §2):
//! - leader ids are the default kind; `single-term-leader` can leave a cluster without a leader for ever;
//! - an entry carries a list of commands, since this version writes one entry per flush;
//! - the log is purged only as far as the durable control image reaches ([`log_store`]);
//! - nothing of openraft's own is kept on disk or sent: [`records`] mirrors it, so that an upgrade cannot change either;
//! - a disk in doubt ends the process ([`disk`]): a node that forgot a promise must not go on making them.

pub(crate) mod disk;
pub(crate) mod image;
pub(crate) mod log_store;
pub(crate) mod members;
pub(crate) mod network;
pub(crate) mod node;
pub(crate) mod records;
pub(crate) mod runtime;
pub(crate) mod serve;
pub(crate) mod state_machine;
#[cfg(test)]
mod tests;
pub(crate) mod wire;

use openraft::BasicNode;

use crate::command::{Command, Response};
use runtime::AppRuntime;

openraft::declare_raft_types!(
    /// The types Raft is used with.
    pub(crate) TypeConfig:
        D = Vec<Command>,
        R = Vec<Response>,
        NodeId = u64,
        Node = BasicNode,
        SnapshotData = Vec<u8>,
        AsyncRuntime = AppRuntime
);

pub(crate) type Raft = openraft::Raft<TypeConfig>;
pub(crate) type Entry = openraft::Entry<TypeConfig>;
pub(crate) type LogId = openraft::LogId<u64>;
pub(crate) type Vote = openraft::Vote<u64>;
pub(crate) type Membership = openraft::Membership<u64, BasicNode>;
pub(crate) type StoredMembership = openraft::StoredMembership<u64, BasicNode>;
pub(crate) type SnapshotMeta = openraft::SnapshotMeta<u64, BasicNode>;
pub(crate) type Snapshot = openraft::Snapshot<TypeConfig>;
pub(crate) type StorageError = openraft::StorageError<u64>;
