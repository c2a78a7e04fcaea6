//! The conversation between an agent and the service. Requests and replies are JSON unless a frame is named.
//!
//! | request | body → reply |
//! |---|---|
//! | `POST /agent/v1/orders` | [`OrdersRequest`] → [`OrdersReply`], once a second; also the agent's heartbeat |
//! | `POST /agent/v1/{deployment}/{set}/open` | [`OpenRequest`] → [`OpenReply`] |
//! | `POST /agent/v1/{deployment}/{set}/sync/begin` | frame `SyncBegin` ([`SyncBeginHeader`], payload: one [`CollectionMeta`] document per collection) → [`Accepted`] |
//! | `POST /agent/v1/{deployment}/{set}/sync/slice` | frame `SyncSlice` → [`Accepted`] |
//! | `POST /agent/v1/{deployment}/{set}/sync/end` | [`SyncEnd`] → [`Accepted`] |
//! | `POST /agent/v1/{deployment}/{set}/oplog` | frame `OplogSlice` → [`OplogAck`] |
//! | `POST /agent/v1/{deployment}/{set}/documents` | frame `Documents`, as many as the documents asked for need → [`Accepted`] |
//! | `POST /agent/v1/{deployment}/{set}/poll` | [`PollRequest`] → [`PollReply`], twice a second |
//!
//! Every request carries `Authorization: Bearer KEY`. An answer other than 2xx carries a [`Refusal`].
//! An acknowledgement means: durable. Sending the same thing again is harmless and gives the same answer.

use std::collections::BTreeSet;

use headwater_model::{CollectionUuid, DeploymentName, Incarnation, Optime, ReplicaSetId, SnapshotId, Ts};
use serde::{Deserialize, Serialize};

use crate::slices::{PartProgress, optime_bson};

/// Who asks for orders.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OrdersRequest {
    /// The agent's own id, made at its first start and kept.
    pub agent: String,
    /// Where it runs.
    pub host: String,
    /// Its version.
    pub version: String,
    /// What hinders it from even finding the replica set of a deployment; empty when all is well.
    #[serde(default)]
    pub faults: Vec<DeploymentFault>,
    /// The sharded clusters it has looked at.
    #[serde(default)]
    pub clusters: Vec<ClusterReport>,
    /// The deployments its key is for; empty for all. Said by the service; whatever the agent says is passed over.
    #[serde(default)]
    pub scope: BTreeSet<DeploymentName>,
}

/// A sharded cluster as its config servers describe it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterReport {
    /// Which deployment.
    pub deployment: DeploymentName,
    /// `config.version.clusterId` in hexadecimal.
    pub cluster: String,
    /// Its config servers and shards.
    pub members: Vec<MemberReport>,
}

/// A replica set of a sharded cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberReport {
    /// The replica set's name.
    pub set: String,
    /// The shard's name; `None` for the config servers.
    pub shard: Option<String>,
    /// Its members, `host:port`.
    pub hosts: Vec<String>,
}

/// A fault before the replica set's name is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeploymentFault {
    /// Which deployment.
    pub deployment: DeploymentName,
    /// What hinders.
    pub fault: StreamFault,
}

/// What the agent shall protect.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OrdersReply {
    /// All deployments that are to be streamed. One that is missing here is to be let go.
    pub deployments: Vec<DeploymentOrder>,
}

/// One deployment to stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeploymentOrder {
    /// Its name.
    pub deployment: DeploymentName,
    /// The connection string, with credentials: never to be logged.
    pub uri: String,
    /// The members of a sharded cluster, each of which is a stream of its own; none for a replica set, and as long as
    /// nobody knows that it is a cluster.
    #[serde(default)]
    pub members: Vec<MemberOrder>,
}

/// A replica set of a sharded cluster to stream, with the options and the login of the deployment's connection string.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberOrder {
    /// The replica set's name.
    pub set: String,
    /// Where it is reached, `host:port`.
    pub hosts: Vec<String>,
}

/// What the agent found at the source.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OpenRequest {
    /// Who asks.
    pub agent: String,
    /// `buildInfo.version` of the source.
    pub server_version: String,
    /// The feature compatibility version of the source.
    pub fcv: String,
    /// The oldest entry of the source's oplog.
    pub oplog_first: Optime,
    /// The newest majority-committed entry of the source's oplog.
    pub oplog_last: Optime,
    /// The set's members as its own configuration names them, `host:port`.
    #[serde(default)]
    pub members: Vec<String>,
    /// The name of the shard that the replica set says it is.
    #[serde(default)]
    pub shard: Option<String>,
}

/// What to do with the stream. Asked for again after every connection loss and refusal.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OpenReply {
    /// The history every slice must name.
    pub incarnation: Incarnation,
    /// The sync to make or to go on with; `None` when the first copy is complete.
    pub sync: Option<SyncOrder>,
    /// Where to tail from; `None` before `sync/begin` was accepted.
    pub tail: Option<TailOrder>,
}

/// A first copy to make.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SyncOrder {
    /// `None`: send `sync/begin`. Otherwise the sync goes on where the parts say.
    pub begun: Option<SyncBegun>,
}

/// A first copy that was begun.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SyncBegun {
    /// The collections as they were sent with `sync/begin`: UUIDs only.
    pub collections: Vec<CollectionUuid>,
    /// What has arrived of them.
    pub parts: Vec<PartProgress>,
    /// Whether `sync/end` was accepted.
    pub ended: bool,
}

/// Where the tail goes on. The entry at exactly this `(ts, term)` must still be in the source's oplog; if it is not,
/// the agent reports [`StreamFault::HistoryLost`] and the service starts a new incarnation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TailOrder {
    /// The last entry already stored, or the start of the sync.
    pub after: Optime,
    /// Checksum of the last stored slice in hexadecimal; empty for the first.
    pub previous_slice: String,
}

/// Header of a frame of kind `SyncBegin`; its payload is one [`CollectionMeta`] per collection as BSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SyncBeginHeader {
    /// Whose data.
    pub replica_set: ReplicaSetId,
    /// In which history.
    pub incarnation: Incarnation,
    /// `buildInfo.version` of the source.
    pub server_version: String,
    /// The feature compatibility version of the source.
    pub fcv: String,
    /// The tail starts with the first entry after this one (`beginFetching` of `reference/oplog.md` §4.1, one back).
    #[serde(with = "optime_bson")]
    pub tail_after: Optime,
    /// Entries up to here are already in what the scan reads; they matter only as the beginning of transactions
    /// that commit later (`beginApplying`).
    #[serde(with = "optime_bson")]
    pub begin_applying: Optime,
}

/// A collection, view or time-series collection as the scan found it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CollectionMeta {
    /// The database.
    pub db: String,
    /// The name.
    pub name: String,
    /// Its UUID. `system.views` is not readable with role `backup`: its documents are rebuilt from the views listed,
    /// and travel in one sync slice for the UUID given by `listCollections`.
    pub uuid: CollectionUuid,
    /// `options` of listCollections, verbatim.
    pub options: bson::RawDocumentBuf,
    /// Finished indexes as listIndexes gives them, `_id_` or the clustered index included; without `ns`.
    pub indexes: Vec<bson::RawDocumentBuf>,
}

/// The scan is over.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SyncEnd {
    /// In which history.
    pub incarnation: Incarnation,
    /// The newest majority-committed entry after the last read of the scan.
    pub stop: Optime,
    /// Collections that were dropped while they were scanned: their parts may be incomplete.
    pub dropped: Vec<CollectionUuid>,
}

/// Done and durable.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Accepted {}

/// The slice and everything before it is durable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OplogAck {
    /// The last entry stored: the tail goes on after it.
    pub tip: Optime,
    /// Checksum of the last stored slice in hexadecimal.
    pub tip_slice: String,
}

/// How the agent fares with one replica set.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PollRequest {
    /// Who reports.
    pub agent: String,
    /// The history it works in.
    pub incarnation: Incarnation,
    /// The newest majority-committed entry of the source, as far as known.
    pub source_last: Option<Optime>,
    /// Documents and bytes of BSON scanned so far, and an estimate of all there are.
    pub scan: Option<ScanProgress>,
    /// A fault that needs the service or the user.
    pub fault: Option<StreamFault>,
    /// The last note that was written for a checkpoint.
    #[serde(default)]
    pub noted: Option<Noted>,
    /// What became of the last order about the balancer.
    #[serde(default)]
    pub balancer: Option<BalancerWord>,
}

/// A note in the source's oplog, committed by its majority.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Noted {
    /// For which checkpoint.
    pub checkpoint: SnapshotId,
    /// For which attempt at it.
    #[serde(default)]
    pub attempt: u32,
    /// Where it lies.
    pub at: Ts,
}

/// A note to write into the source's oplog.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoteOrder {
    /// For which checkpoint.
    pub checkpoint: SnapshotId,
    /// For which attempt at it.
    #[serde(default)]
    pub attempt: u32,
    /// It must lie here or later: one that came to lie earlier is followed by another.
    pub at_least: Ts,
}

/// Something to do with the balancer of a sharded cluster; only the stream of its config servers gets it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BalancerOrder {
    /// Names the order in the answer.
    pub step: u64,
    /// What.
    pub wish: BalancerWish,
}

/// What to do with a balancer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum BalancerWish {
    /// Say in which mode it is.
    Look,
    /// Stop it, and wait until its round is over.
    Stop,
    /// Put it back to a mode that was found.
    PutBack {
        /// As `config.settings` calls it.
        mode: String,
    },
}

/// What became of an order about the balancer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BalancerWord {
    /// Of which.
    pub step: u64,
    /// What.
    pub outcome: BalancerOutcome,
}

/// What became of an order about the balancer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum BalancerOutcome {
    /// It is in this mode: `full`, `autoSplitOnly`, `off`.
    Found {
        /// As `config.settings` calls it.
        mode: String,
    },
    /// It is stopped.
    Stopped,
    /// It may not be read or stopped with this login, or did not stop.
    Failed {
        /// In words.
        why: String,
    },
    /// It is as it was.
    PutBack,
}

/// How far the scan is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScanProgress {
    /// Documents scanned.
    pub documents: u64,
    /// Bytes of BSON scanned.
    pub bytes: u64,
    /// Documents expected, by collection statistics.
    pub documents_estimated: u64,
    /// Bytes of BSON expected, by collection statistics; 0 when unknown.
    pub bytes_estimated: u64,
}

/// Why a stream cannot go on by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum StreamFault {
    /// The oplog no longer holds the entry the tail must go on after, or holds another one in its place.
    HistoryLost {
        /// What was expected and what was found, for people.
        detail: String,
    },
    /// The source cannot be reached.
    Unreachable {
        /// The driver's words, redacted.
        detail: String,
    },
    /// The source refuses: privileges, no replica set, version.
    Refused {
        /// What was refused.
        detail: String,
        /// What to do, as a command to paste where there is one.
        cure: String,
    },
}

/// What the agent shall do besides streaming.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct PollReply {
    /// Drop everything and `open` again: the incarnation ended.
    pub reopen: bool,
    /// Documents to read at the source.
    pub fetch: Vec<FetchRequest>,
    /// A note to write.
    #[serde(default)]
    pub note: Option<NoteOrder>,
    /// Something to do with the balancer.
    #[serde(default)]
    pub balancer: Option<BalancerOrder>,
}

/// Documents that the oplog changes but the scan did not bring.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FetchRequest {
    /// Names the request in the answer.
    pub request: u64,
    /// The collection.
    pub collection: CollectionUuid,
    /// Hexadecimal of BSON documents `{_id: …}`.
    pub ids: Vec<String>,
}

/// Why a request was not carried out; machine-readable kind, words for people, and how to go on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// What happened.
    pub kind: RefusalKind,
    /// In words: what, why, and what to do.
    pub message: String,
    /// For `gap`: where the tail must go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tail: Option<TailOrder>,
}

/// The kinds of refusals, with the HTTP status each travels under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalKind {
    /// 401: no key or a wrong one.
    Unauthorized,
    /// 403: the key is known and lacks the right.
    Forbidden,
    /// 404: no such thing.
    NotFound,
    /// 400: malformed, hostile or over a limit.
    Invalid,
    /// 409: the slice does not follow the last one stored; go on from `tail`.
    Gap,
    /// 409: another incarnation is current; open again.
    Stale,
    /// 409: not in this state.
    Conflict,
    /// 422: that instant is in no restorable range.
    NotRestorable,
    /// 503: busy, no quorum or starting; ask again later.
    Unavailable,
    /// 507: the store is full; nothing is lost, ask again later.
    StoreFull,
    /// 500: a fault of ours.
    Internal,
}

impl RefusalKind {
    /// The HTTP status.
    pub fn status(self) -> u16 {
        match self {
            RefusalKind::Unauthorized => 401,
            RefusalKind::Forbidden => 403,
            RefusalKind::NotFound => 404,
            RefusalKind::Invalid => 400,
            RefusalKind::Gap | RefusalKind::Stale | RefusalKind::Conflict => 409,
            RefusalKind::NotRestorable => 422,
            RefusalKind::Unavailable => 503,
            RefusalKind::StoreFull => 507,
            RefusalKind::Internal => 500,
        }
    }
}

impl Refusal {
    /// Puts one together.
    pub fn new(kind: RefusalKind, message: impl Into<String>) -> Self {
        Refusal {
            kind,
            message: message.into(),
            tail: None,
        }
    }
}
