//! Snapshots: asked for, complete, dropped.

use std::collections::BTreeSet;

use headwater_model::{DeploymentName, Epoch, Incarnation, Phase, ReplicaSetId, SnapshotId, Ts, limits};
use serde::{Deserialize, Serialize};

use crate::apply::Answer;
use crate::checkpoints;
use crate::command::{RefusalKind, Response};
use crate::replica_sets::{self, ImageRef, check_epoch, check_image, check_incarnation};
use crate::retention::{Retention, Stamp, Tier, stamp};
use crate::state::State;

/// A retained image, or the wish for one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Of which history.
    pub incarnation: Incarnation,
    /// What it holds; `None` until it is complete.
    pub image: Option<ImageRef>,
    /// When it was asked for, milliseconds since 1970.
    pub asked_ms: i64,
    /// When it was complete.
    pub completed_ms: Option<i64>,
    /// `schedule`, `demand` or `sync`.
    pub reason: String,
    /// Bytes newly stored for it.
    pub stored_bytes: u64,
    /// As what it is kept; stamped when it completes.
    pub tiers: BTreeSet<Tier>,
    /// Until when, milliseconds since 1970; stamped when it completes, unless a user was quicker. `None` for ever.
    pub expires_ms: Option<i64>,
    /// A user's wish that it stays whatever its date.
    pub keep: bool,
    /// The cluster time that it shows together with the snapshots of the same id of all members of its sharded cluster;
    /// `None` for one that stands for itself.
    #[serde(default)]
    pub checkpoint: Option<Ts>,
    /// Why it may not fit together with the snapshots of the other members.
    #[serde(default)]
    pub possibly_inconsistent: Option<String>,
}

/// The reason of a snapshot that a user asked for. It is no part of the schedule and never promoted.
pub(crate) const DEMAND: &str = "demand";

pub(crate) fn request(
    state: &mut State,
    set: &ReplicaSetId,
    id: &SnapshotId,
    incarnation: Incarnation,
    reason: &str,
    asked_ms: i64,
) -> Answer {
    let known = replica_sets::find(state, set)?;
    check_incarnation(set, known, incarnation)?;
    if known.phase != Phase::Complete {
        let message = format!(
            "{set} is {}; a snapshot can be taken once the initial sync is complete",
            known.phase.text()
        );
        return Err(Response::refused(RefusalKind::NotReady, message));
    }
    if reason.len() > limits::NAME_MAX_BYTES {
        return Err(Response::refused(RefusalKind::Limit, "a reason is one short word"));
    }
    let key = (set.clone(), id.clone());
    let checkpoints = state.checkpoints.get(set.deployment());
    if checkpoints.is_some_and(|checkpoints| checkpoints.all.contains_key(id)) {
        let message = format!("{id} is a checkpoint of {}; choose an id", set.deployment());
        return Err(Response::refused(RefusalKind::Conflict, message));
    }
    match state.snapshots.get(&key) {
        Some(there) if there.incarnation == incarnation && there.reason == reason => return Ok(Response::Done),
        Some(_) => {
            let message = format!("there is another snapshot {id} of {set}; choose an id");
            return Err(Response::refused(RefusalKind::Conflict, message));
        }
        None => {}
    }
    let waiting = state
        .snapshots
        .iter()
        .filter(|((of, _), snapshot)| of == set && snapshot.image.is_none())
        .count();
    if waiting >= limits::SNAPSHOTS_WAITING_PER_SET {
        let message = format!("{waiting} snapshots of {set} are being taken already; wait for one of them");
        return Err(Response::refused(RefusalKind::NotReady, message));
    }
    let reason = reason.to_owned();
    let snapshot = Snapshot {
        incarnation,
        image: None,
        asked_ms,
        completed_ms: None,
        reason,
        stored_bytes: 0,
        tiers: BTreeSet::new(),
        expires_ms: None,
        keep: false,
        checkpoint: None,
        possibly_inconsistent: None,
    };
    state.snapshots.insert(key, snapshot);
    Ok(Response::Done)
}

pub(crate) fn complete(
    state: &mut State,
    set: &ReplicaSetId,
    id: &SnapshotId,
    epoch: Epoch,
    image: &ImageRef,
    stored_bytes: u64,
    completed_ms: i64,
) -> Answer {
    check_image(image)?;
    let known = replica_sets::find(state, set)?;
    check_incarnation(set, known, image.incarnation)?;
    check_epoch(set, known, epoch)?;
    let stamp = stamp_of(state, set, id, completed_ms);
    let Some(snapshot) = state.snapshots.get_mut(&(set.clone(), id.clone())) else {
        let message = format!("nobody asks for snapshot {id} of {set} any more");
        return Err(Response::refused(RefusalKind::NotFound, message));
    };
    match &snapshot.image {
        Some(there) if there == image => Ok(Response::Done),
        Some(_) => {
            let message = format!("snapshot {id} of {set} is complete already with another image");
            Err(Response::refused(RefusalKind::Conflict, message))
        }
        None => {
            snapshot.image = Some(image.clone());
            snapshot.completed_ms = Some(completed_ms);
            snapshot.stored_bytes = stored_bytes;
            snapshot.tiers = stamp.tiers;
            snapshot.expires_ms = snapshot.expires_ms.or(Some(stamp.expires_ms));
            Ok(Response::Done)
        }
    }
}

/// What a snapshot gets when it completes now.
fn stamp_of(state: &State, set: &ReplicaSetId, id: &SnapshotId, completed_ms: i64) -> Stamp {
    let deployment = state.deployments.get(set.deployment());
    let retention = deployment.map_or_else(Retention::default, |deployment| deployment.schedule.retention);
    let own = state.snapshots.get(&(set.clone(), id.clone()));
    if own.is_some_and(|own| own.reason == DEMAND) {
        return Stamp::base_only(&retention, completed_ms);
    }
    let others = state.snapshots.iter().filter(|((of, _), _)| of == set);
    let scheduled = others.filter(|(_, other)| other.reason != DEMAND);
    stamp(
        &retention,
        scheduled.filter_map(|(_, other)| other.completed_ms),
        completed_ms,
    )
}

/// What the snapshots of a checkpoint get: all the same, so that they stay and go together. Reckoned among the checkpoints.
pub(crate) fn stamp_of_checkpoint(state: &State, name: &DeploymentName, reason: &str, completed_ms: i64) -> Stamp {
    let retention = state
        .deployments
        .get(name)
        .map_or_else(Retention::default, |d| d.schedule.retention);
    if reason == DEMAND {
        return Stamp::base_only(&retention, completed_ms);
    }
    let others = state.snapshots.iter().filter(|((of, _), _)| of.deployment() == name);
    let scheduled = others.filter(|(_, other)| other.checkpoint.is_some() && other.reason != DEMAND);
    stamp(
        &retention,
        scheduled.filter_map(|(_, other)| other.completed_ms),
        completed_ms,
    )
}

pub(crate) fn update(
    state: &mut State,
    set: &ReplicaSetId,
    id: &SnapshotId,
    keep: bool,
    expires_ms: Option<i64>,
) -> Answer {
    if !state.snapshots.contains_key(&(set.clone(), id.clone())) {
        return Err(not_found(set, id));
    }
    for key in checkpoints::siblings(state, set, id) {
        if let Some(snapshot) = state.snapshots.get_mut(&key) {
            snapshot.keep = keep;
            snapshot.expires_ms = expires_ms;
        }
    }
    Ok(Response::Done)
}

pub(crate) fn not_found(set: &ReplicaSetId, id: &SnapshotId) -> Response {
    Response::refused(RefusalKind::NotFound, format!("there is no snapshot {id} of {set}"))
}

pub(crate) fn drop_snapshot(state: &mut State, set: &ReplicaSetId, id: &SnapshotId) -> Answer {
    if !state.snapshots.contains_key(&(set.clone(), id.clone())) {
        return Err(not_found(set, id));
    }
    checkpoints::remove_together(state, set, id);
    Ok(Response::Done)
}

pub(crate) fn schedule(state: &mut State, set: &ReplicaSetId, next_ms: Option<i64>) -> Answer {
    replica_sets::find(state, set)?.next_snapshot_ms = next_ms;
    Ok(Response::Done)
}
