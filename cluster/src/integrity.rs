//! Integrity: checks that were asked for, how they ended, the share of the store read each day, and damage that is known.

use std::collections::{BTreeMap, BTreeSet};

use headwater_model::{Epoch, Incarnation, Optime, ReplicaSetId, SnapshotId, Ts, limits};
use serde::{Deserialize, Serialize};

use crate::apply::{Answer, shorten};
use crate::command::{Command, RefusalKind, Response};
use crate::replica_sets::{self, check_epoch};
use crate::state::State;

/// What is known of one replica set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Integrity {
    /// The highest number ever given to a check of this replica set.
    pub last_check: u64,
    /// Checks by number: those that wait or run, and the last that ended.
    pub checks: BTreeMap<u64, Check>,
    /// The reading of everything that goes on share by share.
    pub pass: Option<Pass>,
    /// Damage by the object it is in.
    pub damage: BTreeMap<String, Damage>,
}

/// What a check looks at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CheckKind {
    /// That everything an image refers to is there.
    Structure,
    /// The same, and every byte of every block and of the oplog.
    Data,
    /// The same for the share of the store whose turn it is.
    Share,
    /// One instant, made in two ways that must agree; `None` for one chosen at random.
    Proof(Option<Ts>),
}

/// A check that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Chosen by who asked for it, so that asking twice is asking once.
    pub token: u64,
    /// What it looks at.
    pub kind: CheckKind,
    /// Only this snapshot.
    pub snapshot: Option<SnapshotId>,
    /// When it was asked for, milliseconds since 1970.
    pub asked_ms: i64,
    /// How it stands.
    pub standing: Standing,
}

/// The life of a check.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum CheckState {
    /// Waiting or running.
    #[default]
    Running,
    /// It looked at everything; what it found is in its findings.
    Finished,
    /// It could not look at everything.
    Failed,
}

/// How a check stands, as its owner says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Running or ended.
    pub state: CheckState,
    /// Where to go on after a crash, for whoever carries it out.
    pub cursor_json: String,
    /// What was looked at.
    pub counts: Counts,
    /// How many faults were found and stay.
    pub faults: u64,
    /// How many were found and mended.
    pub mended: u64,
    /// The first of them, in words.
    pub findings: Vec<String>,
    /// Of a proof: the instant, and how it was proven, in words.
    pub proof: Option<Proven>,
    /// Why it failed.
    pub error: Option<String>,
    /// When it ended, milliseconds since 1970.
    pub ended_ms: Option<i64>,
    /// Milliseconds it was at work.
    pub took_ms: u64,
}

/// What a check has looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Images walked.
    pub images: u64,
    /// Blocks above the leaves that were read.
    pub nodes: u64,
    /// Leaves that are referred to, each known and its pack there.
    pub leaves: u64,
    /// Objects read whole: packs, slices and segments of the oplog.
    pub objects: u64,
    /// Objects to be read in all.
    pub objects_total: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Bytes to be read in all.
    pub bytes_total: u64,
    /// Entries of the oplog met.
    pub entries: u64,
}

/// What a proof has shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proven {
    /// The instant.
    pub at: Ts,
    /// Which two ways were gone, in words.
    pub ways: String,
    /// Whether they agree.
    pub agree: bool,
    /// Documents compared.
    pub documents: u64,
    /// Bytes of BSON compared.
    pub bytes: u64,
}

/// A reading of everything, share by share.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pass {
    /// When it began, milliseconds since 1970.
    pub begun_ms: i64,
    /// The last pack that was read, by name; empty before the first.
    pub after: String,
    /// Bytes of packs read.
    pub bytes: u64,
    /// Whether every pack was read.
    pub whole: bool,
    /// The oplog was read up to here.
    pub oplog: Option<(Incarnation, Optime)>,
    /// When the last share was read.
    pub share_ms: Option<i64>,
}

/// What kind of object is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DamageKind {
    /// Blocks within a pack, or the pack as a whole.
    Blocks,
    /// The index of a pack.
    PackIndex,
    /// The manifest of an image.
    Image,
    /// A slice, a segment or the manifest of the oplog.
    Oplog,
    /// Two ways to one instant gave different data.
    Proof,
}

/// Something at rest that is not what it should be, and could not be mended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Damage {
    /// What it is.
    pub kind: DamageKind,
    /// What is wrong, in words.
    pub detail: String,
    /// When it was found, milliseconds since 1970.
    pub found_ms: i64,
    /// Blocks lost.
    pub blocks: u64,
    /// Snapshots that cannot be restored whole.
    pub snapshots: BTreeSet<SnapshotId>,
    /// Whether the waypoint, and with it whatever is taken from the head, needs it too.
    pub head: bool,
    /// The entries that cannot be read: after the first position, up to the second.
    pub oplog: Option<(Incarnation, Optime, Optime)>,
}

impl State {
    /// What is known of the integrity of a replica set.
    pub fn integrity_of(&self, set: &ReplicaSetId) -> Option<&Integrity> {
        self.integrity.get(set)
    }

    /// The damage that keeps a snapshot from being restored whole.
    pub fn damage_of(&self, set: &ReplicaSetId, snapshot: &SnapshotId) -> Option<(&String, &Damage)> {
        let damage = &self.integrity.get(set)?.damage;
        damage.iter().find(|(_, damage)| damage.snapshots.contains(snapshot))
    }

    /// The damage that keeps the waypoint from being restored whole.
    pub fn damage_of_head(&self, set: &ReplicaSetId) -> Option<(&String, &Damage)> {
        let damage = &self.integrity.get(set)?.damage;
        damage.iter().find(|(_, damage)| damage.head)
    }
}

pub(crate) fn ask(
    state: &mut State,
    set: &ReplicaSetId,
    token: u64,
    kind: &CheckKind,
    snapshot: Option<&SnapshotId>,
    asked_ms: i64,
) -> Answer {
    replica_sets::find(state, set)?;
    if let Some(id) = snapshot
        && !state.snapshots.contains_key(&(set.clone(), id.clone()))
    {
        let message = format!("there is no snapshot {id} of {set}");
        return Err(Response::refused(RefusalKind::NotFound, message));
    }
    let checks = || state.integrity.get(set).into_iter().flat_map(|known| &known.checks);
    if let Some((number, _)) = checks().find(|(_, check)| check.token == token) {
        return Ok(Response::CheckAsked { number: *number });
    }
    let waiting = checks().filter(|(_, check)| check.is_running()).count();
    if waiting >= limits::CHECKS_WAITING_PER_SET {
        let message = format!("{waiting} checks of {set} wait or run already; wait for one of them");
        return Err(Response::refused(RefusalKind::NotReady, message));
    }
    let known = state.integrity.entry(set.clone()).or_default();
    known.last_check = known.last_check.saturating_add(1);
    let check = Check {
        token,
        kind: kind.clone(),
        snapshot: snapshot.cloned(),
        asked_ms,
        standing: Standing::default(),
    };
    known.checks.insert(known.last_check, check);
    forget_old(known);
    Ok(Response::CheckAsked {
        number: known.last_check,
    })
}

impl Check {
    /// Whether it waits or runs.
    pub fn is_running(&self) -> bool {
        self.standing.state == CheckState::Running
    }
}

/// Keeps the last of every kind, so that a rare check is not pushed out by frequent ones.
fn forget_old(known: &mut Integrity) {
    let name = |check: &Check| match check.kind {
        CheckKind::Structure => 0,
        CheckKind::Data => 1,
        CheckKind::Share => 2,
        CheckKind::Proof(_) => 3,
    };
    let mut kept: BTreeMap<u8, usize> = BTreeMap::new();
    let mut gone = Vec::new();
    for (number, check) in known.checks.iter().rev().filter(|(_, check)| !check.is_running()) {
        let count = kept.entry(name(check)).or_default();
        *count += 1;
        if *count > limits::CHECKS_KEPT_PER_KIND {
            gone.push(*number);
        }
    }
    for number in gone {
        known.checks.remove(&number);
    }
}

pub(crate) fn update(state: &mut State, set: &ReplicaSetId, epoch: Epoch, number: u64, standing: &Standing) -> Answer {
    check_epoch(set, replica_sets::find(state, set)?, epoch)?;
    let known = state.integrity.get_mut(set);
    let Some((known, check)) = known.and_then(|known| {
        let check = known.checks.get(&number)?.clone();
        Some((known, check))
    }) else {
        let message = format!("there is no check {number} of {set}");
        return Err(Response::refused(RefusalKind::NotFound, message));
    };
    if !check.is_running() {
        return Ok(Response::Done);
    }
    let mut standing = standing.clone();
    standing.findings.truncate(limits::CHECK_FINDINGS_KEPT);
    for text in standing.findings.iter_mut().chain(standing.error.iter_mut()) {
        *text = shorten(text, limits::FINDING_MAX_BYTES);
    }
    known.checks.insert(number, Check { standing, ..check });
    forget_old(known);
    Ok(Response::Done)
}

pub(crate) fn set_pass(state: &mut State, set: &ReplicaSetId, epoch: Epoch, pass: &Pass) -> Answer {
    check_epoch(set, replica_sets::find(state, set)?, epoch)?;
    state.integrity.entry(set.clone()).or_default().pass = Some(pass.clone());
    Ok(Response::Done)
}

pub(crate) fn note(state: &mut State, set: &ReplicaSetId, epoch: Epoch, object: &str, damage: &Damage) -> Answer {
    check_epoch(set, replica_sets::find(state, set)?, epoch)?;
    let mut damage = damage.clone();
    damage.detail = shorten(&damage.detail, limits::FINDING_MAX_BYTES);
    // Snapshots may have been dropped since they were looked at.
    damage
        .snapshots
        .retain(|id| state.snapshots.contains_key(&(set.clone(), id.clone())));
    let known = &mut state.integrity.entry(set.clone()).or_default().damage;
    let is_one_too_many = !known.contains_key(object) && known.len() + 1 >= limits::DAMAGE_KEPT_PER_SET;
    let object = if is_one_too_many { MORE_OBJECTS } else { object };
    if let Some(before) = known.get(object) {
        damage.found_ms = before.found_ms;
        damage.oplog = around(before.oplog, damage.oplog);
        if is_one_too_many {
            damage.snapshots.extend(before.snapshots.iter().cloned());
            damage.head |= before.head;
            damage.blocks += before.blocks;
        }
    }
    known.insert(object.to_owned(), damage);
    Ok(Response::Done)
}

/// Stands for the damaged objects beyond those that are remembered one by one: whom they concern is known of all of them
/// together. The next check of everything that finds fewer clears it.
const MORE_OBJECTS: &str = "more objects";

/// A segment may be damaged in several places: everything from the first to the last counts as lost.
fn around(
    known: Option<(Incarnation, Optime, Optime)>,
    found: Option<(Incarnation, Optime, Optime)>,
) -> Option<(Incarnation, Optime, Optime)> {
    match (known, found) {
        (Some((incarnation, after, until)), Some((other, from, to))) if incarnation == other => {
            Some((incarnation, after.min(from), until.max(to)))
        }
        (known, found) => found.or(known),
    }
}

pub(crate) fn clear(state: &mut State, set: &ReplicaSetId, epoch: Epoch, object: &str) -> Answer {
    check_epoch(set, replica_sets::find(state, set)?, epoch)?;
    if let Some(known) = state.integrity.get_mut(set) {
        known.damage.remove(object);
    }
    Ok(Response::Done)
}

/// A snapshot of a damaged head is damaged.
pub(crate) fn note_cut_of_head(state: &mut State, set: &ReplicaSetId, id: &SnapshotId) {
    if let Some(known) = state.integrity.get_mut(set) {
        let of_head = known.damage.values_mut().filter(|damage| damage.head);
        of_head.for_each(|damage| _ = damage.snapshots.insert(id.clone()));
    }
}

/// What other commands mean for what is known of damage: a snapshot that comes from a damaged head is damaged too, until a
/// check says otherwise; one that is dropped is nobody's trouble any more.
pub(crate) fn follow(state: &mut State, command: &Command) {
    match command {
        Command::CompleteSnapshot { set, id, .. } => note_cut_of_head(state, set, id),
        Command::DropSnapshot { set, id } | Command::ExpireSnapshot { set, id, .. }
            if !state.snapshots.contains_key(&(set.clone(), id.clone())) =>
        {
            if let Some(known) = state.integrity.get_mut(set) {
                known
                    .damage
                    .values_mut()
                    .for_each(|damage| _ = damage.snapshots.remove(id));
            }
        }
        Command::RemoveDeployment { name } => state.integrity.retain(|set, _| set.deployment() != name),
        Command::StartIncarnation { set, .. } => {
            if let Some(known) = state.integrity.get_mut(set) {
                // The new history has a head of its own.
                known.damage.values_mut().for_each(|damage| damage.head = false);
            }
        }
        _ => {}
    }
}
