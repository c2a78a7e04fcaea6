//! The replicated state.
//!
//! Every node holds the same one after the same commands. Maps are ordered, so that equal states have equal bytes.

use std::collections::BTreeMap;
use std::fmt;

use headwater_model::{DeploymentName, Epoch, Incarnation, Optime, ReplicaSetId, SnapshotId};
use serde::{Deserialize, Serialize};

use crate::alerts::Alert;
use crate::audit::AuditEntry;
use crate::checkpoints::Checkpoints;
use crate::deployments::Deployment;
use crate::grooms::Grooming;
use crate::integrity::Integrity;
use crate::keys::Key;
use crate::leases::Lease;
use crate::nodes::NodeRecord;
use crate::replica_sets::ReplicaSet;
use crate::restores::Restore;
use crate::snapshots::Snapshot;

/// A daemon of the cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeId(pub u64);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Everything the cluster agrees on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// What is protected.
    pub deployments: BTreeMap<DeploymentName, Deployment>,
    /// Their replica sets.
    pub replica_sets: BTreeMap<ReplicaSetId, ReplicaSet>,
    /// Snapshots, complete or asked for.
    pub snapshots: BTreeMap<(ReplicaSetId, SnapshotId), Snapshot>,
    /// Restores by number, running or ended.
    pub restores: BTreeMap<u64, Restore>,
    /// Who may call, by the id of their key.
    pub keys: BTreeMap<String, Key>,
    /// The last incarnation of replica sets that were removed: a set that comes back counts on from there, so that
    /// nothing left in a store can be taken for its history.
    pub retired: BTreeMap<ReplicaSetId, Incarnation>,
    /// The highest epoch ever given. One counter for all replica sets, so that no epoch is ever given twice.
    pub last_epoch: Epoch,
    /// The highest number ever given to a restore.
    pub last_restore: u64,
    /// The cluster's name for machines; empty until it is begun.
    pub cluster: String,
    /// Its nodes.
    pub nodes: BTreeMap<NodeId, NodeRecord>,
    /// The highest number ever given to a node.
    pub last_node: u64,
    /// Which agent streams which deployment.
    pub leases: BTreeMap<DeploymentName, Lease>,
    /// The highest number ever given to a lease.
    pub last_lease: u64,
    /// Of each history whose oplog was trimmed: entries up to here are given up, whether or not they are deleted yet.
    pub oplog_floors: BTreeMap<(ReplicaSetId, Incarnation), Optime>,
    /// How grooms stand; none for a replica set that was never groomed.
    pub grooms: BTreeMap<ReplicaSetId, Grooming>,
    /// Checks of what is at rest, and the damage they found.
    pub integrity: BTreeMap<ReplicaSetId, Integrity>,
    /// Alerts by id, open or ended.
    pub alerts: BTreeMap<String, Alert>,
    /// Who did what, the newest [`headwater_model::limits::AUDIT_KEPT`], by number.
    pub audit: BTreeMap<u64, AuditEntry>,
    /// The highest number ever given to an entry of it.
    pub last_audit: u64,
    /// How often the store of this cluster was recovered from a total loss.
    pub recoveries: u64,
    /// Checkpoints of sharded clusters.
    pub checkpoints: BTreeMap<DeploymentName, Checkpoints>,
    /// Whether a recovery is taking in what the store says.
    pub recovering: bool,
}
