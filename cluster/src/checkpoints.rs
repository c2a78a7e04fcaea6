//! Checkpoints: one instant of a whole sharded cluster, agreed on step by step. Pure.
//!
//! | step | command | by |
//! |---|---|---|
//! | it is open: no head applies what it has not applied yet | [`crate::Command::OpenCheckpoint`] | the leader when one is due, any node when a user asks |
//! | before that, where users wish so: the balancer is stopped | [`crate::Command::NoteBalancer`] | see [`crate::balancer`] |
//! | a note is in the oplog of one member; its head may go on up to there | [`crate::Command::NoteCheckpoint`] | the owner, told by the agent |
//! | all notes are there: the cut is at the greatest | the last of them | |
//! | the head of one member stands at the cut, its image is durable | [`crate::Command::CutCheckpoint`] | the owner |
//! | all images are there: every member gets its snapshot, in one step | the last of them | |
//! | but something was on its way at the cut (`under_way`): another attempt, a little later, until a limit | the last of them, then [`crate::Command::ResumeCheckpoint`] | the leader, by [`plan()`] |
//! | it takes too long, or a member is not what it was | [`crate::Command::FailCheckpoint`] | the leader, by [`plan()`] |
//!
//! Everything that is known of a checkpoint is here, so that it goes on whoever leads and whoever owns. A note is asked for
//! only after the checkpoint is open, so everything that a head had applied by then lies before the note, and the note at or
//! before the cut.

mod plan;
mod steps;

use std::collections::BTreeMap;

use headwater_model::{DeploymentName, Incarnation, ReplicaSetId, SnapshotId, Ts};
use serde::{Deserialize, Serialize};

pub use plan::plan;
pub use steps::MemberCut;
pub(crate) use steps::{cut, fail, note, open, quieted, resume};

use crate::replica_sets::ImageRef;
use crate::sharding::{self, Role};
use crate::state::State;

/// A checkpoint that a leader sees open for this time fails, in milliseconds. Heads stand still that long at the most, or a
/// little longer when leaders change.
pub const PATIENCE_MS: i64 = 120_000;

/// The checkpoints of one cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoints {
    /// When the newest was opened by the timetable, milliseconds since 1970.
    pub last_ms: Option<i64>,
    /// By the id that the snapshots of all members get.
    pub all: BTreeMap<SnapshotId, Checkpoint>,
}

/// A checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// `schedule` or `demand`.
    pub reason: String,
    /// When it was opened, milliseconds since 1970.
    pub asked_ms: i64,
    /// The members of the cluster when it was opened, by replica set.
    pub members: BTreeMap<String, Part>,
    /// How it stands.
    pub outcome: Outcome,
    /// How many attempts there were before this one.
    pub attempt: u32,
    /// What the next attempt waits for; nobody has to do anything meanwhile.
    pub waits_for: Option<String>,
    /// How the balancer is.
    pub quiet: Quiet,
    /// Why what it shows may not fit together.
    pub doubt: Option<String>,
}

/// What an open checkpoint is at. How long it has been so is seen by the leader: clocks of nodes differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// The balancer is to be stopped.
    Balancer,
    /// Members work on this attempt.
    Attempt(u32),
    /// The pause before this attempt.
    Rest(u32),
}

/// How the balancer of the cluster is for a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Quiet {
    /// It need not be stopped.
    Unneeded,
    /// It is not stopped yet; notes wait for that.
    Wanted,
    /// It is stopped.
    Stopped,
    /// It could not be stopped, and why.
    Failed(String),
}

/// What is known of one member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Its history when the checkpoint was opened.
    pub incarnation: Incarnation,
    /// Where the note lies in its oplog.
    pub note: Option<Ts>,
    /// Its image at the cut, and the bytes newly stored for it.
    pub image: Option<(ImageRef, u64)>,
    /// What was on its way there at the cut, so that the data of all members may not fit together; in words.
    pub under_way: Vec<String>,
}

/// How a checkpoint stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It goes on.
    Open,
    /// Every member has its snapshot.
    Sealed,
    /// There is no snapshot, and why.
    Failed(String),
}

impl Checkpoint {
    /// The cluster time of the cut; known once every member has its note.
    pub fn at(&self) -> Option<Ts> {
        let notes: Option<Vec<Ts>> = self.members.values().map(|part| part.note).collect();
        notes?.into_iter().max()
    }

    /// What it is at, while it is open.
    pub fn stage(&self) -> Stage {
        match (&self.quiet, &self.waits_for) {
            (Quiet::Wanted, _) => Stage::Balancer,
            (_, None) => Stage::Attempt(self.attempt),
            (_, Some(_)) => Stage::Rest(self.attempt),
        }
    }

    /// Whether members have to do something for it now.
    fn concerns_members(&self) -> bool {
        matches!(self.stage(), Stage::Attempt(_))
    }
}

/// How far a head may go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bound {
    /// As far as it can.
    Free,
    /// No further: its note is not known yet.
    Here,
    /// Up to its own note: the cut is there or later.
    UpTo(Ts),
    /// Up to the cut, where its image is wanted for this attempt at this checkpoint.
    Cut(SnapshotId, u32, Ts),
}

/// The open checkpoint of a deployment.
pub fn open_of<'a>(state: &'a State, name: &DeploymentName) -> Option<(&'a SnapshotId, &'a Checkpoint)> {
    let all = &state.checkpoints.get(name)?.all;
    all.iter().find(|(_, checkpoint)| checkpoint.outcome == Outcome::Open)
}

/// What a replica set has to do with an open checkpoint.
fn part_of<'a>(state: &'a State, set: &ReplicaSetId) -> Option<(&'a SnapshotId, &'a Checkpoint, &'a Part)> {
    let (id, checkpoint) = open_of(state, set.deployment())?;
    let part = checkpoint.members.get(set.set())?;
    checkpoint.concerns_members().then_some((id, checkpoint, part))
}

/// How far the head of a replica set may go.
pub fn bound(state: &State, set: &ReplicaSetId) -> Bound {
    match part_of(state, set) {
        None => Bound::Free,
        Some((_, _, part)) if part.image.is_some() => Bound::Free,
        Some((id, checkpoint, part)) => match (checkpoint.at(), part.note) {
            (Some(at), _) => Bound::Cut(id.clone(), checkpoint.attempt, at),
            (None, Some(note)) => Bound::UpTo(note),
            (None, None) => Bound::Here,
        },
    }
}

/// A note that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedNote {
    /// For which checkpoint.
    pub checkpoint: SnapshotId,
    /// For which attempt at it.
    pub attempt: u32,
    /// At this time or later.
    pub at_least: Ts,
}

/// What is wanted of the agent of a replica set. `tip` is the last entry stored.
pub fn wanted_note(state: &State, set: &ReplicaSetId, tip: Ts) -> Option<WantedNote> {
    let (id, checkpoint, part) = part_of(state, set)?;
    let note = |at_least| WantedNote {
        checkpoint: id.clone(),
        attempt: checkpoint.attempt,
        at_least,
    };
    match (part.note, checkpoint.at()) {
        (None, _) => Some(note(Ts::ZERO)),
        // What an idle member has stored would never show that nothing more comes before the cut.
        (Some(_), Some(at)) if tip < at && part.image.is_none() => Some(note(at)),
        _ => None,
    }
}

/// The images of open checkpoints: nobody else names them yet.
pub fn images<'a>(state: &'a State, set: &ReplicaSetId) -> Option<&'a ImageRef> {
    let (image, _) = part_of(state, set)?.2.image.as_ref()?;
    Some(image)
}

/// The config servers' replica set, which speaks for the whole where one member must.
pub fn spokesman(state: &State, name: &DeploymentName) -> Option<ReplicaSetId> {
    let sharding = state.deployments.get(name)?.sharding.as_ref()?;
    let mut members = sharding.members.iter();
    let (set, _) = members.find(|(_, member)| member.role == Role::ConfigServers)?;
    ReplicaSetId::new(name.clone(), set).ok()
}

/// The snapshots that belong together with this one, itself included: those of all members of a cluster at one checkpoint.
pub(crate) fn siblings(state: &State, set: &ReplicaSetId, id: &SnapshotId) -> Vec<(ReplicaSetId, SnapshotId)> {
    let key = (set.clone(), id.clone());
    let of_checkpoint = |key: &(ReplicaSetId, SnapshotId)| {
        let snapshot = state.snapshots.get(key);
        snapshot.is_some_and(|snapshot| snapshot.checkpoint.is_some())
    };
    if !of_checkpoint(&key) {
        return vec![key];
    }
    let together = |other: &&(ReplicaSetId, SnapshotId)| {
        other.0.deployment() == set.deployment() && other.1 == *id && of_checkpoint(other)
    };
    state.snapshots.keys().filter(together).cloned().collect()
}

/// Forgets the snapshots that belong together with this one, and their checkpoint.
pub(crate) fn remove_together(state: &mut State, set: &ReplicaSetId, id: &SnapshotId) {
    for key in siblings(state, set, id) {
        state.snapshots.remove(&key);
    }
    if let Some(all) = state.checkpoints.get_mut(set.deployment()) {
        all.all
            .retain(|other, checkpoint| other != id || checkpoint.outcome == Outcome::Open);
    }
}

/// Whether a replica set is cut together with others, so that it takes no snapshots of its own by the timetable.
pub fn is_cut_together(state: &State, set: &ReplicaSetId) -> bool {
    sharding::member_of(state, set).is_some()
}
