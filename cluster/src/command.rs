//! What can be asked of the cluster, and what it answers.

use std::collections::BTreeMap;

use headwater_model::{DeploymentName, Epoch, Incarnation, Optime, Phase, ReplicaSetId, SnapshotId, Ts, WrappedKey};
use serde::{Deserialize, Serialize};

use crate::audit::AuditEntry;
use crate::balancer::BalancerStep;
use crate::catalog::Piece;
use crate::checkpoints::MemberCut;
use crate::grooms::GroomReport;
use crate::integrity::{CheckKind, Damage, Pass, Standing};
use crate::keys::Key;
use crate::replica_sets::ImageRef;
use crate::restores::RestoreState;
use crate::retention::Retention;
use crate::sharding::Sharding;
use crate::state::NodeId;
use crate::timetable::ReferenceTime;

/// A change of the state.
///
/// Submitting one twice is harmless or refused. What only the owner of a replica set may say carries the epoch of its
/// assignment, and what belongs to one history carries the incarnation; both are refused once they are out of date.
///
/// At rest and on the wire a variant is its number: new ones go to the end, none is changed or removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Protects a deployment.
    AddDeployment {
        /// Its name.
        name: DeploymentName,
        /// Connection string of the source, credentials included.
        uri: String,
        /// Seconds between scheduled snapshots, at least 1.
        snapshot_interval_s: u64,
        /// By the submitter's clock, milliseconds since 1970.
        created_ms: i64,
        /// What everything of it in the store shall be sealed with; `None`: not encrypted.
        key: Option<WrappedKey>,
    },
    /// Forgets a deployment with its replica sets and snapshots; its running restores fail.
    RemoveDeployment {
        /// Which.
        name: DeploymentName,
    },
    /// Starts or stops streaming.
    SetDeploymentActive {
        /// Which.
        name: DeploymentName,
        /// Whether it is to be streamed.
        active: bool,
    },
    /// Sets how often snapshots are taken.
    SetSnapshotInterval {
        /// Of which.
        name: DeploymentName,
        /// Seconds, at least 1.
        seconds: u64,
    },
    /// Makes a replica set known and assigns it, or updates the version of one that is known. Answers
    /// [`Response::Assigned`].
    RegisterReplicaSet {
        /// Which.
        set: ReplicaSetId,
        /// Who owns it from now on, if it was not known.
        node: NodeId,
        /// The source's version, such as `6.0.5`.
        source_version: String,
    },
    /// Gives a replica set to a node at a new epoch: whatever the former owner still says is refused. Answers
    /// [`Response::Assigned`].
    Assign {
        /// Which.
        set: ReplicaSetId,
        /// The new owner, which may be the present one: a restarted process fences its former self like this.
        node: NodeId,
        /// The epoch that is to end.
        expected: Epoch,
    },
    /// Begins a new history by a new initial sync. Answers [`Response::Assigned`].
    StartIncarnation {
        /// Of which.
        set: ReplicaSetId,
        /// The incarnation that is to end.
        expected: Incarnation,
    },
    /// Moves on, as far as [`crate::phases::is_legal`] says.
    SetPhase {
        /// Of which.
        set: ReplicaSetId,
        /// The sender's incarnation.
        incarnation: Incarnation,
        /// The sender's epoch.
        epoch: Epoch,
        /// Where to.
        phase: Phase,
    },
    /// Notes the majority point at the end of the scan.
    SetSyncStop {
        /// Of which.
        set: ReplicaSetId,
        /// The sender's incarnation.
        incarnation: Incarnation,
        /// The position.
        stop: Optime,
    },
    /// Notes from where on images are consistent.
    SetConsistentFrom {
        /// Of which.
        set: ReplicaSetId,
        /// The sender's incarnation.
        incarnation: Incarnation,
        /// The sender's epoch.
        epoch: Epoch,
        /// The position; never goes back.
        from: Optime,
    },
    /// Publishes an image from which a head can be opened.
    PublishWaypoint {
        /// Of which.
        set: ReplicaSetId,
        /// The sender's epoch.
        epoch: Epoch,
        /// The image; never older than the one before.
        image: ImageRef,
    },
    /// Says why the backup cannot go on, or that it can.
    SetProblem {
        /// Of which.
        set: ReplicaSetId,
        /// The sender's incarnation.
        incarnation: Incarnation,
        /// For users, with the cure; cut at [`headwater_model::limits::PROBLEM_MAX_BYTES`].
        problem: Option<String>,
    },
    /// Asks for a snapshot.
    RequestSnapshot {
        /// Of which.
        set: ReplicaSetId,
        /// Its id.
        id: SnapshotId,
        /// The sender's incarnation.
        incarnation: Incarnation,
        /// `schedule`, `demand` or `sync`.
        reason: String,
        /// By the submitter's clock, milliseconds since 1970.
        asked_ms: i64,
    },
    /// Makes a snapshot restorable. Its blocks and image are durable before this is submitted.
    CompleteSnapshot {
        /// Of which.
        set: ReplicaSetId,
        /// Which snapshot.
        id: SnapshotId,
        /// The sender's epoch.
        epoch: Epoch,
        /// What it holds.
        image: ImageRef,
        /// Bytes newly stored for it.
        stored_bytes: u64,
        /// By the owner's clock, milliseconds since 1970.
        completed_ms: i64,
    },
    /// Forgets a snapshot.
    DropSnapshot {
        /// Of which.
        set: ReplicaSetId,
        /// Which snapshot.
        id: SnapshotId,
    },
    /// Sets when the next scheduled snapshot is due.
    ScheduleSnapshot {
        /// Of which.
        set: ReplicaSetId,
        /// Milliseconds since 1970; `None` for not at all.
        next_ms: Option<i64>,
    },
    /// Begins a restore. Answers [`Response::RestoreCreated`].
    CreateRestore {
        /// Chosen by whoever orders it; the same token again is the same restore, whatever the plan.
        token: u64,
        /// Of which.
        set: ReplicaSetId,
        /// The request, for whoever carries it out.
        request_json: String,
        /// By the submitter's clock, milliseconds since 1970.
        created_ms: i64,
        /// What it reads of each replica set, which stays as long as it runs; refused when that is on its way out.
        uses: BTreeMap<ReplicaSetId, Use>,
    },
    /// Says how a restore stands.
    UpdateRestore {
        /// Which.
        id: u64,
        /// The sender's epoch for the restore's replica set.
        epoch: Epoch,
        /// How it stands; an ended one stays as it is.
        progress: RestoreProgress,
    },
    /// Lets a key in.
    AddKey {
        /// What the key itself says it is: hexadecimal digits in lower case.
        id: String,
        /// Whose it is, what it may do, and its hash.
        key: Key,
    },
    /// Shuts a key out.
    RemoveKey {
        /// Its id.
        id: String,
    },
    /// Names the cluster and makes its first nodes known.
    BeginCluster {
        /// The cluster's name for machines, chosen at random.
        cluster: String,
        /// Its nodes, each with the address at which the others reach it.
        nodes: BTreeMap<NodeId, String>,
    },
    /// Makes a node known and gives it a number that no node ever had. Answers [`Response::NodeAdded`].
    AddNode {
        /// Chosen by the node; the same token again is the same node.
        token: u64,
        /// Where the others reach it, `host:port`.
        address: String,
    },
    /// A node's process has started: every replica set it owns gets a new epoch, so that whatever a former process of
    /// that node still says is refused. Answers [`Response::Started`].
    StartNode {
        /// Which.
        node: NodeId,
        /// Chosen by the process; the same again is the same start.
        start: u64,
        /// Where the others reach it now.
        address: String,
    },
    /// Lets no replica set stay with a node, or lets them come again.
    SetDraining {
        /// Which.
        node: NodeId,
        /// Whether it is drained.
        draining: bool,
    },
    /// Forgets a node for ever. Its replica sets go to others.
    RemoveNode {
        /// Which.
        node: NodeId,
    },
    /// Lets one agent, and no other, stream a deployment.
    GrantLease {
        /// Which.
        deployment: DeploymentName,
        /// The agent's id.
        agent: String,
        /// The number of the lease that is to end; 0 for none.
        expected: u64,
    },
    /// Says when snapshots of a deployment are taken and how long they stay. Snapshots that exist keep their dates.
    SetSchedule {
        /// Of which.
        name: DeploymentName,
        /// Seconds between snapshots.
        interval_s: u64,
        /// The time of the day that the timetable is reckoned from.
        reference: ReferenceTime,
        /// How long what stays.
        retention: Retention,
        /// By the submitter's clock, milliseconds since 1970: the next snapshot never comes earlier than it would have.
        now_ms: i64,
    },
    /// Says how long one snapshot stays.
    UpdateSnapshot {
        /// Of which.
        set: ReplicaSetId,
        /// Which snapshot.
        id: SnapshotId,
        /// Whether it stays whatever its date.
        keep: bool,
        /// Until when, milliseconds since 1970; `None` for what the policy gives it when it completes, or for ever.
        expires_ms: Option<i64>,
    },
    /// Forgets a snapshot whose time is over. Refused while [`crate::keeping::plan`] knows a reason for it to stay.
    ExpireSnapshot {
        /// Of which.
        set: ReplicaSetId,
        /// Which snapshot.
        id: SnapshotId,
        /// The sender's epoch.
        epoch: Epoch,
        /// By the owner's clock, milliseconds since 1970.
        now_ms: i64,
    },
    /// Gives up the oplog of one history up to a position. It is given up before it is deleted, so that nothing is offered that
    /// may be gone. Refused while [`crate::keeping::plan`] needs it.
    TrimOplog {
        /// Of which.
        set: ReplicaSetId,
        /// Of which history.
        incarnation: Incarnation,
        /// The sender's epoch.
        epoch: Epoch,
        /// Entries after this stay.
        keep_after: Optime,
        /// By the owner's clock, milliseconds since 1970.
        now_ms: i64,
    },
    /// Asks for a groom.
    RequestGroom {
        /// Of which.
        set: ReplicaSetId,
        /// Whether to look only.
        dry_run: bool,
        /// By the submitter's clock, milliseconds since 1970.
        asked_ms: i64,
    },
    /// Makes known that packs go. Their living blocks are durable elsewhere before this is submitted; from now on no owner
    /// trusts them, and they may be deleted.
    CondemnPacks {
        /// Of which.
        set: ReplicaSetId,
        /// The sender's epoch.
        epoch: Epoch,
        /// Their keys.
        packs: Vec<String>,
    },
    /// Makes known that condemned packs are deleted.
    PacksRemoved {
        /// Of which.
        set: ReplicaSetId,
        /// The sender's epoch.
        epoch: Epoch,
        /// Their keys.
        packs: Vec<String>,
    },
    /// Says how a groom ended; what it was asked for is no longer asked for.
    NoteGroom {
        /// Of which.
        set: ReplicaSetId,
        /// The sender's epoch.
        epoch: Epoch,
        /// What it did.
        report: GroomReport,
    },
    /// Asks for a check of what is at rest. Answers [`Response::CheckAsked`].
    AskCheck {
        /// Of which.
        set: ReplicaSetId,
        /// Chosen by the submitter; the same token again is the same check.
        token: u64,
        /// What to look at.
        kind: CheckKind,
        /// Only this snapshot.
        snapshot: Option<SnapshotId>,
        /// By the submitter's clock, milliseconds since 1970.
        asked_ms: i64,
    },
    /// Says how a check stands; an ended one stays as it is.
    UpdateCheck {
        /// Of which.
        set: ReplicaSetId,
        /// The sender's epoch.
        epoch: Epoch,
        /// Which check.
        number: u64,
        /// How it stands.
        standing: Standing,
    },
    /// Says how far the reading of everything is.
    SetPass {
        /// Of which.
        set: ReplicaSetId,
        /// The sender's epoch.
        epoch: Epoch,
        /// How far.
        pass: Pass,
    },
    /// Makes known that an object is damaged, or which snapshots it concerns now.
    NoteDamage {
        /// Of which.
        set: ReplicaSetId,
        /// The sender's epoch.
        epoch: Epoch,
        /// The object's key in the store.
        object: String,
        /// What is wrong with it.
        damage: Damage,
    },
    /// Makes known that an object is whole again, or needed no longer.
    ClearDamage {
        /// Of which.
        set: ReplicaSetId,
        /// The sender's epoch.
        epoch: Epoch,
        /// The object's key in the store.
        object: String,
    },
    /// Something happens that a user must know; nothing changes while it is known already.
    BeginAlert {
        /// The same for the same trouble.
        id: String,
        /// One word of [`crate::alerts::KINDS`].
        kind: String,
        /// What it is about.
        subject: String,
        /// For people, with the cure.
        text: String,
        /// By the submitter's clock, milliseconds since 1970.
        begun_ms: i64,
    },
    /// It is over.
    EndAlert {
        /// Which.
        id: String,
        /// By the submitter's clock, milliseconds since 1970.
        ended_ms: i64,
    },
    /// Somebody looks after it.
    AcknowledgeAlert {
        /// Which.
        id: String,
        /// Who, or what is done.
        words: String,
    },
    /// It was told to the webhook.
    AlertTold {
        /// Which.
        id: String,
        /// Which of its begins.
        begun_ms: i64,
        /// Whether it was its end that was told.
        end: bool,
        /// Why the webhook did not take it; `None` when it did.
        failure: Option<String>,
    },
    /// The data key of a deployment is wrapped by another master key.
    RewrapKey {
        /// Of which.
        name: DeploymentName,
        /// The same data key, at the next revision.
        key: WrappedKey,
    },
    /// Takes in one piece of a catalog, for a cluster that begins where a lost one ended. All of them lie between
    /// [`Piece::Begin`] and [`Piece::End`].
    Recover {
        /// What.
        piece: Box<Piece>,
    },
    /// Makes known what an agent found: the deployment is a sharded cluster with these members.
    SetSharding {
        /// Which.
        name: DeploymentName,
        /// Its present members.
        found: Sharding,
        /// Time between checkpoints from now on, in seconds; `None` leaves it.
        interval_s: Option<u64>,
    },
    /// Begins a checkpoint of a sharded cluster: from now on no head of it goes beyond its note.
    OpenCheckpoint {
        /// Of which.
        name: DeploymentName,
        /// What the snapshots of all members will be called.
        id: SnapshotId,
        /// `schedule` or `demand`.
        reason: String,
        /// By the submitter's clock, milliseconds since 1970.
        asked_ms: i64,
    },
    /// A note is in the oplog of one member, committed by its majority.
    NoteCheckpoint {
        /// Which member.
        set: ReplicaSetId,
        /// Which checkpoint.
        id: SnapshotId,
        /// Which attempt at it.
        attempt: u32,
        /// The sender's epoch.
        epoch: Epoch,
        /// Where it lies.
        at: Ts,
    },
    /// The image of one member at the cut is durable. With the last one every member gets its snapshot, or another attempt is
    /// made.
    CutCheckpoint {
        /// Which member.
        set: ReplicaSetId,
        /// Which checkpoint.
        id: SnapshotId,
        /// Which attempt at it.
        attempt: u32,
        /// The sender's epoch.
        epoch: Epoch,
        /// The image.
        cut: MemberCut,
    },
    /// There will be no such checkpoint.
    FailCheckpoint {
        /// Of which.
        name: DeploymentName,
        /// Which checkpoint.
        id: SnapshotId,
        /// For users; cut at [`headwater_model::limits::PROBLEM_MAX_BYTES`].
        why: String,
    },
    /// Notes that somebody is about to do something.
    BeginAudit {
        /// Who, what, when.
        entry: AuditEntry,
    },
    /// Notes what became of it.
    EndAudit {
        /// Of which.
        token: u64,
        /// Of which deployment it was, if that was known only now.
        deployment: Option<DeploymentName>,
        /// The restore that came of it.
        restore: Option<u64>,
        /// In words.
        outcome: String,
    },
    /// Ends the rest of a checkpoint: its next attempt begins.
    ResumeCheckpoint {
        /// Of which.
        name: DeploymentName,
        /// Which checkpoint.
        id: SnapshotId,
        /// Which attempt.
        attempt: u32,
    },
    /// Says whether the balancer of a sharded cluster is stopped for checkpoints.
    SetStopBalancer {
        /// Of which.
        name: DeploymentName,
        /// Whether.
        stop: bool,
    },
    /// What became of a step with the balancer.
    NoteBalancer {
        /// Of which.
        name: DeploymentName,
        /// Which step.
        step: u64,
        /// What became of it.
        outcome: BalancerStep,
    },
    /// Ends a restore; what it wrote stays where it is.
    CancelRestore {
        /// Which.
        id: u64,
    },
}

/// What a restore reads of one replica set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Use {
    /// The image it begins with.
    pub image: ImageRef,
    /// Up to where it applies the oplog: that of the image itself for no further.
    pub until: Ts,
}

/// How a restore stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreProgress {
    /// Running or ended.
    pub state: RestoreState,
    /// `preparing`, `documents`, `indexes`, `verifying`.
    pub step: String,
    /// Documents written.
    pub done_documents: u64,
    /// Bytes of BSON written.
    pub done_bytes: u64,
    /// Bytes of BSON expected.
    pub total_bytes: u64,
    /// Why it failed; while it runs, what stands in its way.
    pub error: Option<String>,
    /// What was left out or made otherwise than it was; see [`crate::restores::kept_notes`].
    pub notes: Vec<String>,
    /// Where to go on after a crash, for whoever carries it out.
    pub cursor_json: String,
}

/// Why a command changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RefusalKind {
    /// There is no such deployment, replica set, snapshot or restore.
    NotFound,
    /// Something else bears that name already.
    Conflict,
    /// The sender's epoch or incarnation has ended; it must stop what it is doing.
    Stale,
    /// Not a legal step from where things stand.
    OutOfOrder,
    /// Not now; later, or after what the message says.
    NotReady,
    /// Too large, too many, or malformed.
    Limit,
}

/// The answer to a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Response {
    /// It is so now.
    Done,
    /// It is so now, and this is who owns the replica set.
    Assigned {
        /// The owner.
        node: NodeId,
        /// Its epoch.
        epoch: Epoch,
        /// The present history.
        incarnation: Incarnation,
    },
    /// The restore exists.
    RestoreCreated {
        /// Its number.
        id: u64,
    },
    /// Nothing has changed.
    Refused {
        /// For programs.
        kind: RefusalKind,
        /// For people: what to do.
        message: String,
    },
    /// The node is known.
    NodeAdded {
        /// Its number.
        id: NodeId,
    },
    /// The process may work.
    Started {
        /// Epochs above this one are its own; this one and those below were a former process's.
        floor: Epoch,
    },
    /// The check is known.
    CheckAsked {
        /// Its number among those of its replica set.
        number: u64,
    },
}

impl Response {
    /// Whether the command did not take effect.
    pub fn is_refused(&self) -> bool {
        matches!(self, Response::Refused { .. })
    }

    /// The refusal's kind, if it is one.
    pub fn refusal(&self) -> Option<RefusalKind> {
        match self {
            Response::Refused { kind, .. } => Some(*kind),
            _ => None,
        }
    }

    pub(crate) fn refused(kind: RefusalKind, message: impl Into<String>) -> Response {
        Response::Refused {
            kind,
            message: message.into(),
        }
    }
}
