//! Snapshots: asked for, complete, dropped.

use headwater_model::{Epoch, Incarnation, Phase, ReplicaSetId, SnapshotId, limits};
use serde::{Deserialize, Serialize};

use crate::apply::Answer;
use crate::command::{RefusalKind, Response};
use crate::replica_sets::{self, ImageRef, check_epoch, check_image, check_incarnation};
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
}

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
            Ok(Response::Done)
        }
    }
}

pub(crate) fn drop_snapshot(state: &mut State, set: &ReplicaSetId, id: &SnapshotId) -> Answer {
    match state.snapshots.remove(&(set.clone(), id.clone())) {
        Some(_) => Ok(Response::Done),
        None => Err(Response::refused(
            RefusalKind::NotFound,
            format!("there is no snapshot {id} of {set}"),
        )),
    }
}

pub(crate) fn schedule(state: &mut State, set: &ReplicaSetId, next_ms: Option<i64>) -> Answer {
    replica_sets::find(state, set)?.next_snapshot_ms = next_ms;
    Ok(Response::Done)
}
