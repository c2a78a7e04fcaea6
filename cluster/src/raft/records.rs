//! Our own shapes of what Raft keeps and sends, and the way there and back.
//!
//! They are what is pinned by golden bytes; openraft's types may change under them.

use std::collections::{BTreeMap, BTreeSet};

use openraft::{BasicNode, CommittedLeaderId, EntryPayload};
use serde::{Deserialize, Serialize};

use super::{Entry, LogId, Membership, SnapshotMeta, StoredMembership, Vote};
use crate::command::Command;

/// The name of a log entry: unique over all histories of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LogIdRecord {
    pub term: u64,
    pub node: u64,
    pub index: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VoteRecord {
    pub term: u64,
    pub node: u64,
    pub committed: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MembershipRecord {
    /// One set of voters, or two while they change.
    pub voters: Vec<BTreeSet<u64>>,
    /// Every member with its address.
    pub addresses: BTreeMap<u64, String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum PayloadRecord {
    Blank,
    Commands(Vec<Command>),
    Membership(MembershipRecord),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EntryRecord {
    pub id: LogIdRecord,
    pub payload: PayloadRecord,
}

/// What a control image is of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MetaRecord {
    pub last: Option<LogIdRecord>,
    pub membership_at: Option<LogIdRecord>,
    pub membership: MembershipRecord,
    pub name: String,
}

impl From<LogId> for LogIdRecord {
    fn from(id: LogId) -> Self {
        LogIdRecord {
            term: id.leader_id.term,
            node: id.leader_id.node_id,
            index: id.index,
        }
    }
}

impl From<LogIdRecord> for LogId {
    fn from(id: LogIdRecord) -> Self {
        LogId::new(CommittedLeaderId::new(id.term, id.node), id.index)
    }
}

impl From<&Vote> for VoteRecord {
    fn from(vote: &Vote) -> Self {
        VoteRecord {
            term: vote.leader_id.term,
            node: vote.leader_id.node_id,
            committed: vote.committed,
        }
    }
}

impl From<VoteRecord> for Vote {
    fn from(vote: VoteRecord) -> Self {
        match vote.committed {
            true => Vote::new_committed(vote.term, vote.node),
            false => Vote::new(vote.term, vote.node),
        }
    }
}

impl From<&Membership> for MembershipRecord {
    fn from(membership: &Membership) -> Self {
        MembershipRecord {
            voters: membership.get_joint_config().clone(),
            addresses: membership.nodes().map(|(id, node)| (*id, node.addr.clone())).collect(),
        }
    }
}

impl From<MembershipRecord> for Membership {
    fn from(record: MembershipRecord) -> Self {
        let nodes = record
            .addresses
            .into_iter()
            .map(|(id, address)| (id, BasicNode::new(address)));
        Membership::new(record.voters, nodes.collect::<BTreeMap<_, _>>())
    }
}

impl From<&Entry> for EntryRecord {
    fn from(entry: &Entry) -> Self {
        let payload = match &entry.payload {
            EntryPayload::Blank => PayloadRecord::Blank,
            EntryPayload::Normal(commands) => PayloadRecord::Commands(commands.clone()),
            EntryPayload::Membership(membership) => PayloadRecord::Membership(membership.into()),
        };
        EntryRecord {
            id: entry.log_id.into(),
            payload,
        }
    }
}

impl From<EntryRecord> for Entry {
    fn from(record: EntryRecord) -> Self {
        let payload = match record.payload {
            PayloadRecord::Blank => EntryPayload::Blank,
            PayloadRecord::Commands(commands) => EntryPayload::Normal(commands),
            PayloadRecord::Membership(membership) => EntryPayload::Membership(membership.into()),
        };
        Entry {
            log_id: record.id.into(),
            payload,
        }
    }
}

impl From<&SnapshotMeta> for MetaRecord {
    fn from(meta: &SnapshotMeta) -> Self {
        MetaRecord {
            last: meta.last_log_id.map(LogIdRecord::from),
            membership_at: meta.last_membership.log_id().map(LogIdRecord::from),
            membership: meta.last_membership.membership().into(),
            name: meta.snapshot_id.clone(),
        }
    }
}

impl From<MetaRecord> for SnapshotMeta {
    fn from(record: MetaRecord) -> Self {
        SnapshotMeta {
            last_log_id: record.last.map(LogId::from),
            last_membership: StoredMembership::new(record.membership_at.map(LogId::from), record.membership.into()),
            snapshot_id: record.name,
        }
    }
}
