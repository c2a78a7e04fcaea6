//! Checkpoints: one instant of a whole sharded cluster, agreed on step by step. Pure.
//!
//! | step | command | by |
//! |---|---|---|
//! | it is open: no head applies what it has not applied yet | [`Command::OpenCheckpoint`] | the leader when one is due, any node when a user asks |
//! | a note is in the oplog of one member; its head may go on up to there | [`Command::NoteCheckpoint`] | the owner, told by the agent |
//! | all notes are there: the cut is at the greatest | the last of them | |
//! | the head of one member stands at the cut, its image is durable | [`Command::CutCheckpoint`] | the owner |
//! | all images are there: every member gets its snapshot, in one step | the last of them | |
//! | it takes too long, or a member is not what it was | [`Command::FailCheckpoint`] | the leader, by [`plan`] |
//!
//! Everything that is known of a checkpoint is here, so that it goes on whoever leads and whoever owns. A note is asked for
//! only after the checkpoint is open, so everything that a head had applied by then lies before the note, and the note at or
//! before the cut.

use std::collections::BTreeMap;

use headwater_model::{DeploymentName, Epoch, Incarnation, Phase, ReplicaSetId, SnapshotId, Ts, limits};
use serde::{Deserialize, Serialize};

use crate::apply::{Answer, shorten};
use crate::command::{Command, RefusalKind, Response};
use crate::replica_sets::{self, ImageRef, check_epoch, check_image, check_incarnation};
use crate::sharding::Role;
use crate::snapshots;
use crate::state::State;
use crate::{deployments, sharding};

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
    /// Up to the cut, where its image is wanted for this checkpoint.
    Cut(SnapshotId, Ts),
}

/// The open checkpoint of a deployment.
pub fn open_of<'a>(state: &'a State, name: &DeploymentName) -> Option<(&'a SnapshotId, &'a Checkpoint)> {
    let all = &state.checkpoints.get(name)?.all;
    all.iter().find(|(_, checkpoint)| checkpoint.outcome == Outcome::Open)
}

/// What a replica set has to do with an open checkpoint.
fn part_of<'a>(state: &'a State, set: &ReplicaSetId) -> Option<(&'a SnapshotId, &'a Checkpoint, &'a Part)> {
    let (id, checkpoint) = open_of(state, set.deployment())?;
    Some((id, checkpoint, checkpoint.members.get(set.set())?))
}

/// How far the head of a replica set may go.
pub fn bound(state: &State, set: &ReplicaSetId) -> Bound {
    match part_of(state, set) {
        None => Bound::Free,
        Some((_, _, part)) if part.image.is_some() => Bound::Free,
        Some((id, checkpoint, part)) => match (checkpoint.at(), part.note) {
            (Some(at), _) => Bound::Cut(id.clone(), at),
            (None, Some(note)) => Bound::UpTo(note),
            (None, None) => Bound::Here,
        },
    }
}

/// What is wanted of the agent of a replica set: a note for this checkpoint, at this time or later. `tip` is the last entry
/// stored.
pub fn wanted_note(state: &State, set: &ReplicaSetId, tip: Ts) -> Option<(SnapshotId, Ts)> {
    let (id, checkpoint, part) = part_of(state, set)?;
    match (part.note, checkpoint.at()) {
        (None, _) => Some((id.clone(), Ts::ZERO)),
        // What an idle member has stored would never show that nothing more comes before the cut.
        (Some(_), Some(at)) if tip < at && part.image.is_none() => Some((id.clone(), at)),
        _ => None,
    }
}

/// The images of open checkpoints: nobody else names them yet.
pub fn images<'a>(state: &'a State, set: &ReplicaSetId) -> Option<&'a ImageRef> {
    let (image, _) = part_of(state, set)?.2.image.as_ref()?;
    Some(image)
}

/// What the leader shall submit: failures of what cannot be completed, then what is due. `open_ms` is for how long this leader
/// has seen a checkpoint open: who asked for it had another clock. `new_id` names a new one.
pub fn plan(
    state: &State,
    now_ms: i64,
    open_ms: impl Fn(&DeploymentName, &SnapshotId) -> i64,
    mut new_id: impl FnMut() -> Option<SnapshotId>,
) -> Vec<Command> {
    let mut commands = Vec::new();
    for (name, deployment) in &state.deployments {
        if deployment.sharding.is_none() {
            continue;
        }
        if let Some((id, checkpoint)) = open_of(state, name) {
            if let Some(why) = hopeless(state, name, checkpoint, open_ms(name, id)) {
                commands.push(Command::FailCheckpoint {
                    name: name.clone(),
                    id: id.clone(),
                    why,
                });
            }
            continue;
        }
        let last_ms = state.checkpoints.get(name).and_then(|all| all.last_ms);
        let due = last_ms.is_none_or(|last| deployment.schedule.timetable.next_after(last) <= now_ms);
        if due
            && ready(state, name).is_ok()
            && let Some(id) = new_id()
        {
            commands.push(Command::OpenCheckpoint {
                name: name.clone(),
                id,
                reason: "schedule".to_owned(),
                asked_ms: now_ms,
            });
        }
    }
    commands
}

/// Why an open checkpoint can never be sealed; `None` as long as it can.
fn hopeless(state: &State, name: &DeploymentName, checkpoint: &Checkpoint, open_ms: i64) -> Option<String> {
    let present = ready(state, name);
    let members = match present {
        Err(refusal) => return Some(words_of(refusal)),
        Ok(members) => members,
    };
    for (set, incarnation) in &members {
        match checkpoint.members.get(set) {
            None => return Some(format!("{set} joined the cluster meanwhile")),
            Some(part) if part.incarnation != *incarnation => return Some(format!("{set} was copied anew meanwhile")),
            Some(_) => {}
        }
    }
    if let Some(gone) = checkpoint.members.keys().find(|set| !members.contains_key(*set)) {
        return Some(format!("{gone} left the cluster meanwhile"));
    }
    if open_ms < PATIENCE_MS {
        return None;
    }
    let without = |is_without: fn(&Part) -> bool| -> Vec<&str> {
        let parts = checkpoint.members.iter().filter(|(_, part)| is_without(part));
        parts.map(|(set, _)| set.as_str()).collect()
    };
    let (notes, images) = (
        without(|part| part.note.is_none()),
        without(|part| part.image.is_none()),
    );
    let late = match notes.is_empty() {
        false => format!("no note is in the oplog of {}", notes.join(", ")),
        true => format!("the head of {} is not at the cut", images.join(", ")),
    };
    Some(format!(
        "{late} after {} s: see `headwater status` for its agent and its lag",
        PATIENCE_MS / 1000
    ))
}

fn words_of(refusal: Response) -> String {
    match refusal {
        Response::Refused { message, .. } => message,
        _ => "the cluster is not ready".to_owned(),
    }
}

/// The present members with their histories, if all are in routine operation.
fn ready(state: &State, name: &DeploymentName) -> Result<BTreeMap<String, Incarnation>, Response> {
    let refused = |message: String| Err(Response::refused(RefusalKind::NotReady, message));
    let Some(deployment) = state.deployments.get(name) else {
        return refused(format!("there is no deployment {name}"));
    };
    let Some(sharding) = &deployment.sharding else {
        return refused(format!("{name} is no sharded cluster"));
    };
    if !deployment.active {
        return refused(format!("{name} is stopped; restart it first"));
    }
    let mut members = BTreeMap::new();
    for (set, _) in sharding.present() {
        let id = ReplicaSetId::new(name.clone(), set);
        let record = id.ok().and_then(|id| state.replica_sets.get(&id));
        match record {
            Some(record) if record.phase == Phase::Complete => members.insert(set.clone(), record.incarnation),
            Some(record) => {
                return refused(format!(
                    "{name}/{set} is {}; the cluster can be cut once the initial sync of every member is complete",
                    record.phase.text()
                ));
            }
            None => return refused(format!("no agent has reached {name}/{set} yet")),
        };
    }
    Ok(members)
}

pub(crate) fn open(state: &mut State, name: &DeploymentName, id: &SnapshotId, reason: &str, asked_ms: i64) -> Answer {
    deployments::find(state, name)?;
    if reason.len() > limits::NAME_MAX_BYTES {
        return Err(Response::refused(RefusalKind::Limit, "a reason is one short word"));
    }
    if let Some((open, _)) = open_of(state, name) {
        if open == id {
            return Ok(Response::Done);
        }
        let message = format!("checkpoint {open} of {name} is being taken already; wait for it");
        return Err(Response::refused(RefusalKind::NotReady, message));
    }
    let taken = state.checkpoints.get(name).is_some_and(|all| all.all.contains_key(id));
    if taken
        || state
            .snapshots
            .keys()
            .any(|(set, other)| set.deployment() == name && other == id)
    {
        let message = format!("there is another snapshot {id} of {name}; choose an id");
        return Err(Response::refused(RefusalKind::Conflict, message));
    }
    let part = |(set, incarnation)| {
        let part = Part {
            incarnation,
            note: None,
            image: None,
        };
        (set, part)
    };
    let checkpoint = Checkpoint {
        reason: reason.to_owned(),
        asked_ms,
        members: ready(state, name)?.into_iter().map(part).collect(),
        outcome: Outcome::Open,
    };
    let all = state.checkpoints.entry(name.clone()).or_default();
    if reason != snapshots::DEMAND {
        all.last_ms = Some(asked_ms);
    }
    forget_failed(all);
    all.all.insert(id.clone(), checkpoint);
    Ok(Response::Done)
}

/// Of checkpoints that failed the newest few are remembered.
fn forget_failed(all: &mut Checkpoints) {
    const REMEMBERED: usize = 8;
    let failed = |checkpoint: &Checkpoint| matches!(checkpoint.outcome, Outcome::Failed(_));
    let mut oldest: Vec<(i64, SnapshotId)> = all
        .all
        .iter()
        .filter(|(_, checkpoint)| failed(checkpoint))
        .map(|(id, checkpoint)| (checkpoint.asked_ms, id.clone()))
        .collect();
    oldest.sort();
    for (_, id) in oldest.iter().rev().skip(REMEMBERED - 1) {
        all.all.remove(id);
    }
}

/// The part of a member in an open checkpoint, for whoever owns that member now.
fn own_part<'a>(
    state: &'a mut State,
    set: &ReplicaSetId,
    id: &SnapshotId,
    epoch: Epoch,
) -> Result<&'a mut Checkpoint, Response> {
    let record = replica_sets::find(state, set)?;
    check_epoch(set, record, epoch)?;
    let record = record.clone();
    let all = state.checkpoints.get_mut(set.deployment());
    let checkpoint = all.and_then(|all| all.all.get_mut(id));
    let over = || {
        let message = format!("checkpoint {id} of {} is over", set.deployment());
        Response::refused(RefusalKind::OutOfOrder, message)
    };
    let checkpoint = checkpoint
        .filter(|checkpoint| checkpoint.outcome == Outcome::Open)
        .ok_or_else(over)?;
    let part = checkpoint.members.get(set.set()).ok_or_else(over)?;
    check_incarnation(set, &record, part.incarnation)?;
    Ok(checkpoint)
}

pub(crate) fn note(state: &mut State, set: &ReplicaSetId, id: &SnapshotId, epoch: Epoch, at: Ts) -> Answer {
    let checkpoint = own_part(state, set, id, epoch)?;
    if let Some(part) = checkpoint.members.get_mut(set.set()) {
        // The first that is known counts: the head may have gone on to it.
        part.note.get_or_insert(at);
    }
    Ok(Response::Done)
}

pub(crate) fn cut(
    state: &mut State,
    set: &ReplicaSetId,
    id: &SnapshotId,
    epoch: Epoch,
    image: &ImageRef,
    stored_bytes: u64,
    completed_ms: i64,
) -> Answer {
    check_image(image)?;
    let known = replica_sets::find(state, set)?.clone();
    check_incarnation(set, &known, image.incarnation)?;
    let checkpoint = own_part(state, set, id, epoch)?;
    let Some(at) = checkpoint.at().filter(|at| image.at.ts <= *at) else {
        let message = format!("the image {} of {set} is not at the cut of checkpoint {id}", image.name);
        return Err(Response::refused(RefusalKind::OutOfOrder, message));
    };
    if let Some(part) = checkpoint.members.get_mut(set.set()) {
        part.image.get_or_insert((image.clone(), stored_bytes));
    }
    if checkpoint.members.values().all(|part| part.image.is_some()) {
        checkpoint.outcome = Outcome::Sealed;
        let sealed = checkpoint.clone();
        seal(state, set.deployment(), id, &sealed, at, completed_ms);
    }
    Ok(Response::Done)
}

/// Every member gets its snapshot; all of them stay equally long.
fn seal(state: &mut State, name: &DeploymentName, id: &SnapshotId, sealed: &Checkpoint, at: Ts, completed_ms: i64) {
    let stamp = snapshots::stamp_of_checkpoint(state, name, &sealed.reason, completed_ms);
    for (set, part) in &sealed.members {
        let (Ok(set), Some((image, stored_bytes))) = (ReplicaSetId::new(name.clone(), set), &part.image) else {
            continue;
        };
        let snapshot = snapshots::Snapshot {
            incarnation: part.incarnation,
            image: Some(image.clone()),
            asked_ms: sealed.asked_ms,
            completed_ms: Some(completed_ms),
            reason: sealed.reason.clone(),
            stored_bytes: *stored_bytes,
            tiers: stamp.tiers.clone(),
            expires_ms: Some(stamp.expires_ms),
            keep: false,
            checkpoint: Some(at),
        };
        state.snapshots.insert((set, id.clone()), snapshot);
    }
}

pub(crate) fn fail(state: &mut State, name: &DeploymentName, id: &SnapshotId, why: &str) -> Answer {
    let all = state.checkpoints.get_mut(name);
    let checkpoint = all.and_then(|all| all.all.get_mut(id));
    match checkpoint {
        Some(checkpoint) if checkpoint.outcome == Outcome::Open => {
            checkpoint.outcome = Outcome::Failed(shorten(why, limits::PROBLEM_MAX_BYTES));
            Ok(Response::Done)
        }
        Some(_) => Err(Response::refused(
            RefusalKind::OutOfOrder,
            format!("checkpoint {id} of {name} is over"),
        )),
        None => Err(Response::refused(
            RefusalKind::NotFound,
            format!("there is no checkpoint {id} of {name}"),
        )),
    }
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
