//! The user's API for checks, proofs and damage; the routes stand in [`crate::admin`].

use headwater_model::{ReplicaSetId, SnapshotId};
use serde::{Deserialize, Serialize};

use crate::admin::{At, Position};

/// A check wanted.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct CheckRequest {
    /// Read and verify every byte too.
    #[serde(default)]
    pub data: bool,
    /// Only this snapshot.
    #[serde(default)]
    pub snapshot: Option<SnapshotId>,
    /// Which replica set of the deployment; may be left out when there is one.
    #[serde(default)]
    pub replica_set: Option<String>,
}

/// A proof restore wanted.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ProofRequest {
    /// Which instant; `None` for one chosen at random.
    #[serde(default)]
    pub at: Option<At>,
    /// Which replica set of the deployment; may be left out when there is one.
    #[serde(default)]
    pub replica_set: Option<String>,
}

/// What a check looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckKind {
    /// That everything is there.
    Structure,
    /// Every byte.
    Data,
    /// The share of every byte whose turn it is.
    Share,
    /// One instant, made in two ways.
    Proof,
}

impl CheckKind {
    /// As one word.
    pub fn text(self) -> &'static str {
        match self {
            CheckKind::Structure => "structure",
            CheckKind::Data => "data",
            CheckKind::Share => "share",
            CheckKind::Proof => "proof",
        }
    }
}

/// The life of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckState {
    /// Waiting or running.
    Running,
    /// It looked at everything and found no fault.
    Sound,
    /// It looked at everything and found faults.
    Damaged,
    /// It could not look at everything.
    Failed,
}

/// A check.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CheckView {
    /// Its number among those of its replica set.
    pub number: u64,
    /// Of what.
    pub replica_set: ReplicaSetId,
    /// What it looks at.
    pub kind: CheckKind,
    /// Only this snapshot.
    pub snapshot: Option<SnapshotId>,
    /// How it stands.
    pub state: CheckState,
    /// When it was asked for, RFC 3339.
    pub asked: String,
    /// When it ended, RFC 3339.
    pub ended: Option<String>,
    /// Seconds it was at work.
    pub seconds: f64,
    /// Images walked.
    pub images: u64,
    /// Blocks above the leaves that were read.
    pub nodes: u64,
    /// Leaves that are referred to.
    pub leaves: u64,
    /// Objects read whole.
    pub objects: u64,
    /// Objects to be read in all.
    pub objects_total: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Bytes to be read in all.
    pub bytes_total: u64,
    /// Oplog entries met.
    pub entries: u64,
    /// Faults found that stay.
    pub faults: u64,
    /// Faults found and mended at once.
    #[serde(default)]
    pub mended: u64,
    /// The first of them, in words.
    pub findings: Vec<String>,
    /// Of a proof: what it has shown.
    pub proof: Option<ProofView>,
    /// Why it failed.
    pub error: Option<String>,
}

/// What a proof has shown.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ProofView {
    /// The instant.
    pub at: Position,
    /// Which two ways were gone.
    pub ways: String,
    /// Whether they agree.
    pub agree: bool,
    /// Documents compared.
    pub documents: u64,
    /// Bytes of BSON compared.
    pub bytes: u64,
}

/// Damage that is known.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DamageView {
    /// The object's key in the store.
    pub object: String,
    /// `blocks`, `pack index`, `image`, `oplog` or `proof`.
    pub kind: String,
    /// What is wrong.
    pub detail: String,
    /// When it was found, RFC 3339.
    pub found: String,
    /// Blocks lost.
    pub blocks: u64,
    /// Snapshots that cannot be restored whole.
    pub snapshots: Vec<SnapshotId>,
    /// Whether the head needs it too.
    pub head: bool,
}

/// How the integrity of a replica set stands.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CheckStatus {
    /// Of what.
    pub replica_set: ReplicaSetId,
    /// Checks that run or were run, newest first.
    pub checks: Vec<CheckView>,
    /// Which share is read when, in words.
    pub share: String,
    /// When the next proof is due, in words.
    pub next_proof: String,
    /// The last proof that agreed.
    pub last_proof: Option<CheckView>,
    /// Damage that is known.
    pub damage: Vec<DamageView>,
}

/// Integrity at a glance, for the status of a replica set.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct IntegrityStatus {
    /// When the last check that looked at all images ended without a fault, RFC 3339.
    pub last_sound_check: Option<String>,
    /// When the last proof that agreed ended, RFC 3339.
    pub last_proof: Option<String>,
    /// Seconds since then.
    pub last_proof_age_seconds: Option<u64>,
    /// Damaged objects known.
    pub damaged_objects: u64,
    /// Snapshots that cannot be restored whole.
    pub damaged_snapshots: Vec<SnapshotId>,
}

/// What happened to an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlertEvent {
    /// It began.
    Begin,
    /// It is over.
    End,
}

/// An alert, as listed and as a webhook gets it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlertView {
    /// The same for the same trouble; with `begun` and `event` it names one message.
    pub id: String,
    /// What happened last; to a webhook: what is told.
    pub event: AlertEvent,
    /// The cluster's name for machines.
    pub cluster: String,
    /// One word, such as `damage`.
    pub kind: String,
    /// What it is about.
    pub subject: String,
    /// For people, with the cure.
    pub text: String,
    /// When it began, RFC 3339.
    pub begun: String,
    /// When it ended, RFC 3339.
    pub ended: Option<String>,
    /// Who looks after it.
    pub acknowledged: Option<String>,
    /// Why the webhook did not take its begin or its end yet; it is told again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub untold: Option<String>,
}

/// Somebody looks after an alert.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Acknowledge {
    /// Its id.
    pub id: String,
    /// Who, or what is done.
    pub comment: String,
}
