//! The steps of a checkpoint, as commands take them.

use headwater_model::{DeploymentName, Epoch, ReplicaSetId, SnapshotId, Ts, limits};
use serde::{Deserialize, Serialize};

use super::plan::ready;
use super::{Checkpoint, Checkpoints, Outcome, Part, Quiet, open_of};
use crate::apply::{Answer, shorten};
use crate::command::{RefusalKind, Response};
use crate::replica_sets::{self, ImageRef, check_epoch, check_image, check_incarnation};
use crate::state::State;
use crate::{deployments, integrity, snapshots};

pub(crate) fn open(state: &mut State, name: &DeploymentName, id: &SnapshotId, reason: &str, asked_ms: i64) -> Answer {
    let stops_balancer = deployments::find(state, name)?.balancer.stop;
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
            under_way: Vec::new(),
        };
        (set, part)
    };
    let checkpoint = Checkpoint {
        reason: reason.to_owned(),
        asked_ms,
        members: ready(state, name)?.into_iter().map(part).collect(),
        outcome: Outcome::Open,
        attempt: 0,
        waits_for: None,
        quiet: match stops_balancer {
            true => Quiet::Wanted,
            false => Quiet::Unneeded,
        },
        doubt: None,
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

/// What is known of the balancer of an open checkpoint that waits for it.
pub(crate) fn quieted(state: &mut State, name: &DeploymentName, quiet: Quiet) {
    let all = state.checkpoints.get_mut(name).into_iter();
    let mut open = all.flat_map(|all| all.all.values_mut());
    let waiting = open.find(|checkpoint| checkpoint.outcome == Outcome::Open && checkpoint.quiet == Quiet::Wanted);
    if let Some(checkpoint) = waiting {
        checkpoint.quiet = quiet;
    }
}

/// Begins the next attempt at a checkpoint.
pub(crate) fn resume(state: &mut State, name: &DeploymentName, id: &SnapshotId, attempt: u32) -> Answer {
    let all = state.checkpoints.get_mut(name);
    let checkpoint = all.and_then(|all| all.all.get_mut(id));
    match checkpoint {
        Some(checkpoint) if checkpoint.outcome == Outcome::Open && checkpoint.attempt == attempt => {
            checkpoint.waits_for = None;
            Ok(Response::Done)
        }
        _ => Err(over(name, id)),
    }
}

fn over(name: &DeploymentName, id: &SnapshotId) -> Response {
    Response::refused(RefusalKind::OutOfOrder, format!("checkpoint {id} of {name} is over"))
}

/// The part of a member in an attempt at an open checkpoint, for whoever owns that member now.
fn own_part<'a>(
    state: &'a mut State,
    set: &ReplicaSetId,
    id: &SnapshotId,
    attempt: u32,
    epoch: Epoch,
) -> Result<&'a mut Checkpoint, Response> {
    let record = replica_sets::find(state, set)?;
    check_epoch(set, record, epoch)?;
    let record = record.clone();
    let all = state.checkpoints.get_mut(set.deployment());
    let checkpoint = all.and_then(|all| all.all.get_mut(id));
    let present = |checkpoint: &&mut Checkpoint| {
        checkpoint.outcome == Outcome::Open && checkpoint.attempt == attempt && checkpoint.concerns_members()
    };
    let over = || over(set.deployment(), id);
    let checkpoint = checkpoint.filter(present).ok_or_else(over)?;
    let part = checkpoint.members.get(set.set()).ok_or_else(over)?;
    check_incarnation(set, &record, part.incarnation)?;
    Ok(checkpoint)
}

pub(crate) fn note(
    state: &mut State,
    set: &ReplicaSetId,
    id: &SnapshotId,
    attempt: u32,
    epoch: Epoch,
    at: Ts,
) -> Answer {
    let checkpoint = own_part(state, set, id, attempt, epoch)?;
    if let Some(part) = checkpoint.members.get_mut(set.set()) {
        // The first that is known counts: the head may have gone on to it.
        part.note.get_or_insert(at);
    }
    Ok(Response::Done)
}

/// A member's image at the cut, as its owner tells of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberCut {
    /// What it holds.
    pub image: ImageRef,
    /// Bytes newly stored for it.
    pub stored_bytes: u64,
    /// What is on its way there, so that the data of all members may not fit together; in words, at most
    /// [`limits::UNDER_WAY_KEPT`] of [`limits::UNDER_WAY_MAX_BYTES`] each.
    pub under_way: Vec<String>,
    /// By the owner's clock, milliseconds since 1970.
    pub completed_ms: i64,
}

pub(crate) fn cut(
    state: &mut State,
    set: &ReplicaSetId,
    id: &SnapshotId,
    attempt: u32,
    epoch: Epoch,
    cut: &MemberCut,
) -> Answer {
    let image = &cut.image;
    check_image(image)?;
    let known = replica_sets::find(state, set)?.clone();
    check_incarnation(set, &known, image.incarnation)?;
    let checkpoint = own_part(state, set, id, attempt, epoch)?;
    let Some(at) = checkpoint.at().filter(|at| image.at.ts <= *at) else {
        let message = format!("the image {} of {set} is not at the cut of checkpoint {id}", image.name);
        return Err(Response::refused(RefusalKind::OutOfOrder, message));
    };
    if let Some(part) = checkpoint.members.get_mut(set.set())
        && part.image.is_none()
    {
        part.image = Some((image.clone(), cut.stored_bytes));
        let texts = cut.under_way.iter().take(limits::UNDER_WAY_KEPT);
        part.under_way = texts.map(|text| shorten(text, limits::UNDER_WAY_MAX_BYTES)).collect();
    }
    if checkpoint.members.values().any(|part| part.image.is_none()) {
        return Ok(Response::Done);
    }
    match verdict(checkpoint) {
        Verdict::Again(waits_for) => {
            checkpoint.attempt += 1;
            checkpoint.waits_for = Some(waits_for);
            for part in checkpoint.members.values_mut() {
                (part.note, part.image) = (None, None);
                part.under_way.clear();
            }
        }
        Verdict::Seal(doubt) => {
            checkpoint.doubt = doubt;
            checkpoint.outcome = Outcome::Sealed;
            let sealed = checkpoint.clone();
            seal(state, set.deployment(), id, &sealed, at, cut.completed_ms);
        }
    }
    Ok(Response::Done)
}

/// What becomes of a checkpoint of which all images are there.
#[derive(Debug)]
enum Verdict {
    /// It is sealed; what may not fit together, in words.
    Seal(Option<String>),
    /// Another attempt is made later; what it waits for.
    Again(String),
}

/// Something on its way is waited for until a limit; then, and when the balancer could not be stopped, the checkpoint is marked.
fn verdict(checkpoint: &Checkpoint) -> Verdict {
    let texts = checkpoint.members.iter().flat_map(|(set, part)| {
        let of = move |text: &String| format!("{text} ({set})");
        part.under_way.iter().map(of)
    });
    let under_way: Vec<String> = texts.take(limits::UNDER_WAY_KEPT).collect();
    if !under_way.is_empty() && checkpoint.attempt + 1 < limits::CHECKPOINT_ATTEMPTS {
        return Verdict::Again(under_way.join(", "));
    }
    let mut doubts = Vec::new();
    if let Quiet::Failed(why) = &checkpoint.quiet {
        doubts.push(format!("the balancer was not stopped: {why}"));
    }
    if !under_way.is_empty() {
        doubts.push(format!("under way at the cut: {}", under_way.join(", ")));
    }
    Verdict::Seal((!doubts.is_empty()).then(|| shorten(&doubts.join("; "), limits::PROBLEM_MAX_BYTES)))
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
            possibly_inconsistent: sealed.doubt.clone(),
        };
        integrity::note_cut_of_head(state, &set, id);
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
        Some(_) => Err(over(name, id)),
        None => Err(Response::refused(
            RefusalKind::NotFound,
            format!("there is no checkpoint {id} of {name}"),
        )),
    }
}
