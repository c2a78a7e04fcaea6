//! The user's API. JSON both ways; every request carries `Authorization: Bearer KEY`; an answer other than 2xx is a
//! [`crate::agent::Refusal`].
//!
//! | request | body → reply |
//! |---|---|
//! | `GET /api/v1/deployments` | → `[DeploymentView]` |
//! | `POST /api/v1/deployments` | [`AddDeployment`] → [`DeploymentView`] |
//! | `GET /api/v1/deployments/{name}` | → [`DeploymentView`] |
//! | `DELETE /api/v1/deployments/{name}` | → `{}`: removes it with every snapshot |
//! | `POST /api/v1/deployments/{name}/stop`, `/restart`, `/resync` | → [`DeploymentView`] |
//! | `POST /api/v1/deployments/{name}/rewrap` | → [`Rewrapped`]: its data key is wrapped by the current master key |
//! | `GET /api/v1/deployments/{name}/timeline` | → [`Timeline`] |
//! | `GET /api/v1/deployments/{name}/snapshots` | → `[SnapshotView]` |
//! | `POST /api/v1/deployments/{name}/snapshots` | → [`SnapshotView`], `complete: false` at first |
//! | `GET`, `DELETE /api/v1/deployments/{name}/snapshots/{id}` | → [`SnapshotView`], `{}` |
//! | `POST /api/v1/deployments/{name}/snapshots/{id}` | [`crate::keeping::SnapshotChange`] → [`SnapshotView`] |
//! | `GET /api/v1/deployments/{name}/schedule` | → [`crate::keeping::ScheduleView`] |
//! | `POST /api/v1/deployments/{name}/schedule` | [`crate::keeping::ScheduleChange`] → [`crate::keeping::ScheduleView`] |
//! | `GET /api/v1/deployments/{name}/groom` | → `[crate::keeping::GroomView]` |
//! | `POST /api/v1/deployments/{name}/groom` | [`crate::keeping::GroomRequest`] → `[crate::keeping::GroomView]` |
//! | `POST /api/v1/deployments/{name}/restores/plan` | [`RestoreRequest`] → [`RestorePlanView`] |
//! | `POST /api/v1/deployments/{name}/restores` | [`RestoreRequest`] → [`RestoreView`] |
//! | `POST /api/v1/deployments/{name}/check` | [`crate::integrity::CheckRequest`] → [`crate::integrity::CheckView`] |
//! | `GET /api/v1/deployments/{name}/check` | → [`crate::integrity::CheckStatus`] |
//! | `GET /api/v1/deployments/{name}/check/{number}` | → [`crate::integrity::CheckView`] |
//! | `POST /api/v1/deployments/{name}/proof` | [`crate::integrity::ProofRequest`] → [`crate::integrity::CheckView`] |
//! | `GET /api/v1/restores` , `/api/v1/restores/{id}` | → `[RestoreView]`, [`RestoreView`] |
//! | `POST /api/v1/restores/{id}/cancel` | → [`RestoreView`]; what was written stays |
//! | `GET /api/v1/restores/{id}/archive` | → the archive stream, for a restore `to: archive` |
//! | `GET /api/v1/status` | → [`Status`] |
//! | `GET /api/v1/alerts` | → `[crate::integrity::AlertView]` |
//! | `POST /api/v1/alerts/ack` | [`crate::integrity::Acknowledge`] → [`crate::integrity::AlertView`] |
//! | `GET /api/v1/cluster` | → [`ClusterView`] |
//! | `POST /api/v1/cluster/nodes/{id}/drain`, `/add` | → [`ClusterView`]: everything goes from the node; it takes part again |
//! | `DELETE /api/v1/cluster/nodes/{id}` | → [`ClusterView`]: the node is forgotten |
//! | `GET /api/v1/access/keys` | → `[`[`crate::access::KeyView`]`]` |
//! | `POST /api/v1/access/keys` | [`crate::access::CreateKey`] → [`crate::access::CreatedKey`] |
//! | `DELETE /api/v1/access/keys/{key}` | → `{}`: the key of that name is shut out |
//! | `GET /api/v1/access/log` | → `[`[`crate::access::AuditView`]`]`, newest first |
//! | `GET /metrics`, `GET /livez`, `GET /readyz` | → text, no key needed |

use std::collections::BTreeMap;

pub use headwater_model::Phase;
use headwater_model::{DataKeyId, DeploymentName, Incarnation, MasterKeyId, ReplicaSetId, SnapshotId, Ts};
use serde::{Deserialize, Serialize};

/// A position for people and scripts: `{t, i}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Position {
    /// Seconds since 1970.
    pub t: u32,
    /// Ordinal within the second.
    pub i: u32,
}

impl From<Ts> for Position {
    fn from(ts: Ts) -> Self {
        Position {
            t: ts.seconds(),
            i: ts.ordinal(),
        }
    }
}

impl From<Position> for Ts {
    fn from(p: Position) -> Self {
        Ts::new(p.t, p.i)
    }
}

/// A deployment to protect.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AddDeployment {
    /// Its name.
    pub name: DeploymentName,
    /// Connection string of the source.
    pub uri: String,
    /// Seconds between scheduled snapshots; `None` for what the service is set to, by default 6 hours.
    #[serde(default)]
    pub snapshot_interval_seconds: Option<u64>,
    /// Whether everything of it in the store is encrypted; `None` for what the service is set to. Never changes.
    #[serde(default)]
    pub encrypt: Option<bool>,
    /// Whether the balancer of a sharded cluster is stopped for checkpoints. `false` leaves what was said before.
    #[serde(default)]
    pub stop_balancer: bool,
}

/// Whether a deployment is streamed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeploymentState {
    /// Streamed, applied, snapshotted.
    Active,
    /// Snapshots are kept, nothing new is taken.
    Stopped,
}

/// A protected deployment.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeploymentView {
    /// Its name.
    pub name: DeploymentName,
    /// The source, without credentials.
    pub uri: String,
    /// `replica set` or `sharded cluster`.
    #[serde(default)]
    pub kind: String,
    /// Whether it is streamed.
    pub state: DeploymentState,
    /// Seconds between scheduled snapshots.
    pub snapshot_interval_seconds: u64,
    /// Whether the balancer of a sharded cluster is stopped for checkpoints.
    #[serde(default)]
    pub stop_balancer: bool,
    /// By which keys it is encrypted, if it is.
    #[serde(default)]
    pub encryption: Option<EncryptionView>,
    /// Its replica sets.
    pub replica_sets: Vec<ReplicaSetStatus>,
}

/// The keys of an encrypted deployment, by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EncryptionView {
    /// What its objects are sealed with.
    pub data_key: DataKeyId,
    /// What that is wrapped by.
    pub master_key: MasterKeyId,
}

/// An answer to `rewrap`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rewrapped {
    /// Whether the data key was wrapped by another master key before.
    pub changed: bool,
    /// How it is now.
    #[serde(flatten)]
    pub encryption: EncryptionView,
}

/// Everything about one replica set's backup that a user may want to see at a glance.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReplicaSetStatus {
    /// `deployment/set`.
    pub name: ReplicaSetId,
    /// What it is in its sharded cluster, in words; `None` for a replica set that is none.
    #[serde(default)]
    pub role: Option<String>,
    /// The node that owns it.
    #[serde(default)]
    pub node: Option<u64>,
    /// Which history.
    pub incarnation: Incarnation,
    /// How far its backup is.
    pub phase: Phase,
    /// The last oplog entry durably stored.
    pub tip: Option<Position>,
    /// The last oplog entry in the head.
    pub applied: Option<Position>,
    /// Seconds from the newest entry known at the source to the tip.
    pub lag_seconds: Option<u64>,
    /// What can be restored: any entry from `from` to `to`.
    pub restorable: Option<Range>,
    /// The newest complete snapshot.
    pub last_snapshot: Option<SnapshotView>,
    /// How far the scan is, while transferring.
    pub scan: Option<crate::agent::ScanProgress>,
    /// Why the backup cannot go on, with the cure; `None` when all is well.
    pub problem: Option<String>,
    /// The agent that streams it, and seconds since it was heard of.
    pub agent: Option<AgentView>,
    /// Checks, proofs and damage.
    #[serde(default)]
    pub integrity: crate::integrity::IntegrityStatus,
}

/// Who streams.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AgentView {
    /// Its id.
    pub id: String,
    /// Where it runs.
    pub host: String,
    /// Its version.
    pub version: String,
    /// Seconds since it was last heard of.
    pub seen_seconds_ago: u64,
}

/// From and to, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// First instant.
    pub from: Position,
    /// Last instant.
    pub to: Position,
}

/// A snapshot.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SnapshotView {
    /// Its id.
    pub id: SnapshotId,
    /// Of what.
    pub replica_set: ReplicaSetId,
    /// In which history.
    pub incarnation: Incarnation,
    /// The instant it shows; unknown until complete.
    pub at: Option<Position>,
    /// When it was completed (or asked for), RFC 3339.
    pub created: String,
    /// Whether it can be restored.
    pub complete: bool,
    /// Bytes of BSON it holds.
    pub logical_bytes: u64,
    /// Bytes newly stored for it.
    pub stored_bytes: u64,
    /// Documents it holds.
    pub documents: u64,
    /// Collections it holds.
    pub collections: u64,
    /// Why it was taken: `schedule`, `demand` or `sync`.
    pub reason: String,
    /// As what it is kept: `base`, `daily`, `weekly`, `monthly`; nothing until it is complete.
    #[serde(default)]
    pub tiers: Vec<String>,
    /// Until when, RFC 3339; `None` for ever, or until it is complete.
    #[serde(default)]
    pub expires: Option<String>,
    /// Whether it stays whatever its date.
    #[serde(default)]
    pub keep: bool,
    /// Every reason for which it is there now; none when its time is over.
    #[serde(default)]
    pub kept_because: Vec<String>,
    /// What keeps it from being restored whole; `None` when nothing is known to.
    #[serde(default)]
    pub damaged: Option<String>,
    /// The replica sets of a sharded cluster that it shows together, at one cluster time; none for a snapshot of one replica
    /// set.
    #[serde(default)]
    pub members: Vec<ReplicaSetId>,
    /// Why the data of its members may not fit together; `None` when they do.
    #[serde(default)]
    pub possibly_inconsistent: Option<String>,
    /// What one that is being taken waits for.
    #[serde(default)]
    pub waits_for: Option<String>,
}

/// What can be restored of a deployment.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Timeline {
    /// Ranges in which every oplog entry can be restored, with the history they belong to.
    pub ranges: Vec<TimelineRange>,
    /// Snapshots, oldest first.
    pub snapshots: Vec<SnapshotView>,
    /// Of a sharded cluster: the cluster times at which every present member can be restored.
    #[serde(default)]
    pub whole_cluster: Vec<Range>,
}

/// One proven range.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TimelineRange {
    /// Of what.
    pub replica_set: ReplicaSetId,
    /// In which history.
    pub incarnation: Incarnation,
    /// First and last instant.
    pub range: Range,
}

/// The instant to restore.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum At {
    /// The newest restorable instant.
    Latest,
    /// A snapshot.
    Snapshot(SnapshotId),
    /// Everything up to and including this entry.
    Position(Position),
    /// The last entry at or before the end of this second, by the source's clock, in milliseconds since 1970.
    WallClock(i64),
}

/// Where to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Destination {
    /// A running MongoDB; the daemon writes to it.
    Uri(String),
    /// An archive stream that the asker reads at `GET /api/v1/restores/{id}/archive`.
    Archive,
    /// Of a sharded cluster: fresh replica sets that become a new cluster. A connection string for each shard, by its name, and
    /// for the config servers, by the name of their replica set.
    Cluster(BTreeMap<String, String>),
}

/// A restore ordered.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RestoreOrder {
    /// What is wanted.
    #[serde(flatten)]
    pub request: RestoreRequest,
    /// Drawn at random by whoever orders: the same token again is the same restore, so that an order whose answer was lost can
    /// be repeated. Without one, every order is a new restore.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<u64>,
}

/// A restore wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreRequest {
    /// Which instant.
    pub at: At,
    /// Where to.
    pub to: Destination,
    /// Which replica set of the deployment; without it all there are: of a sharded cluster that is the whole, as its routers
    /// would show it.
    #[serde(default)]
    pub replica_set: Option<String>,
    /// Patterns `db.coll`, `db.*`, `*`; empty for everything.
    #[serde(default)]
    pub include: Vec<String>,
    /// Pairs of patterns; a `*` stands for the same text on both sides.
    #[serde(default)]
    pub rename: Vec<Rename>,
    /// Whether users and roles are restored.
    #[serde(default)]
    pub with_users: bool,
    /// Whether collections that exist at the target are dropped first; without it they make the restore refuse.
    #[serde(default)]
    pub drop: bool,
}

/// `from` becomes `to`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rename {
    /// Name or pattern in the backup.
    pub from: String,
    /// Name or pattern at the target.
    pub to: String,
}

/// What a restore will do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RestorePlanView {
    /// Of what.
    pub replica_set: ReplicaSetId,
    /// In which history.
    pub incarnation: Incarnation,
    /// The exact instant.
    pub at: Position,
    /// The snapshot or waypoint it starts from.
    pub base: String,
    /// The instant of that image.
    pub base_at: Position,
    /// Oplog slices applied on top.
    pub oplog_slices: u64,
    /// Their bytes at rest.
    pub oplog_bytes: u64,
    /// Namespaces, as they will be called at the target, with the documents and bytes of the base image.
    pub namespaces: Vec<PlannedNamespace>,
    /// How many more namespaces there are: of a restore that runs not all are listed when there are thousands.
    #[serde(default)]
    pub namespaces_left_out: u64,
    /// Bytes of BSON in the base image of those.
    #[serde(default)]
    pub bytes_left_out: u64,
    /// Where to, without credentials.
    pub to: String,
    /// Of a whole sharded cluster: its replica sets, config servers first. The base is then that of each of them, in this order,
    /// named once where it is the same, and `base_at` the earliest.
    #[serde(default)]
    pub members: Vec<ReplicaSetId>,
}

/// One collection of a plan.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PlannedNamespace {
    /// In the backup.
    pub from: String,
    /// At the target.
    pub to: String,
    /// Documents in the base image.
    pub documents: u64,
    /// Bytes of BSON in the base image.
    pub bytes: u64,
}

/// The life of a restore.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RestoreState {
    /// Waiting or running.
    Running,
    /// Everything is at the target and was verified there.
    Finished,
    /// It ended without success; `error` says why.
    Failed,
    /// A user ended it; what it wrote until then stays where it is.
    Cancelled,
}

/// A restore that was asked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RestoreView {
    /// Its number.
    pub id: u64,
    /// What it does.
    pub plan: RestorePlanView,
    /// How it stands.
    pub state: RestoreState,
    /// Documents written.
    pub documents_done: u64,
    /// Bytes of BSON written.
    pub bytes_done: u64,
    /// Bytes of BSON expected; an estimate when oplog is applied on top of the base.
    pub bytes_total: u64,
    /// What it is at: `preparing`, `documents`, `indexes`, `verifying`.
    pub step: String,
    /// Why it failed; while it runs, what stands in its way, which is tried again.
    pub error: Option<String>,
    /// What was left out or made otherwise than it was.
    #[serde(default)]
    pub notes: Vec<String>,
    /// When it was asked for, RFC 3339.
    pub created: String,
}

/// The whole service at a glance.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// This node's version.
    pub version: String,
    /// Every replica set.
    pub replica_sets: Vec<ReplicaSetStatus>,
    /// What a user must know now, in words.
    pub alerts: Vec<String>,
    /// Alerts that began and did not end.
    #[serde(default)]
    pub open_alerts: Vec<crate::integrity::AlertView>,
}

/// The nodes of the cluster, as seen from the one that was asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ClusterView {
    /// The cluster's name for machines.
    pub cluster: String,
    /// The node that was asked.
    pub node: u64,
    /// Who leads, if anyone is known to.
    pub leader: Option<u64>,
    /// All nodes.
    pub nodes: Vec<NodeView>,
}

/// One node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NodeView {
    /// Its number, which no other node ever has.
    pub id: u64,
    /// Where the others reach it.
    pub address: String,
    /// Whether it answers.
    pub answers: bool,
    /// Milliseconds since it last answered.
    pub silent_ms: u64,
    /// Whether its vote counts; a new node learns first.
    pub voter: bool,
    /// Whether it leads.
    pub leader: bool,
    /// Whether it is to own nothing.
    pub draining: bool,
    /// Whether its process is about to end.
    pub leaving: bool,
    /// What it owns.
    pub replica_sets: Vec<ReplicaSetId>,
}
