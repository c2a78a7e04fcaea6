//! What retention makes of the state: which snapshots stay and why, which oplog is needed, which images may be used.
//!
//! Whoever acts on [`plan`] submits a command, and the command decides again here: between looking and submitting a
//! restore may have begun, or a user may have said that a snapshot stays.

use headwater_model::{Epoch, Incarnation, Optime, Phase, ReplicaSetId, SnapshotId, Ts};

use crate::apply::Answer;
use crate::checkpoints;
use crate::command::{RefusalKind, Response};
use crate::deployments::Deployment;
use crate::replica_sets::{self, ImageRef, ReplicaSet, check_epoch};
use crate::restores::RestoreState;
use crate::retention::{self, HeadAt, Held, Reason, RetentionPlan};
use crate::sharding;
use crate::snapshots::not_found;
use crate::state::State;

/// The images that running restores of the replica set begin with, and the one that waits for the others of its checkpoint.
pub fn used<'a>(state: &'a State, set: &'a ReplicaSetId) -> impl Iterator<Item = &'a ImageRef> {
    let running = state.restores.values().filter(|r| r.state == RestoreState::Running);
    running
        .filter_map(move |restore| restore.uses.get(set))
        .chain(checkpoints::images(state, set))
}

/// The complete snapshots of a replica set as retention sees them.
fn held(state: &State, set: &ReplicaSetId) -> Vec<Held> {
    let complete = state.snapshots.iter().filter(|((of, _), _)| of == set);
    let complete = complete.filter_map(|((_, id), snapshot)| Some((id, snapshot, snapshot.image.as_ref()?)));
    complete
        .map(|(id, snapshot, image)| Held {
            id: id.clone(),
            incarnation: image.incarnation,
            completed_ms: snapshot.completed_ms.unwrap_or(snapshot.asked_ms),
            at: image.at,
            replay_from: image.replay_from,
            expires_ms: snapshot.expires_ms,
            keep: snapshot.keep,
            in_use: used(state, set).any(|used| (used.incarnation, &used.name) == (image.incarnation, &image.name)),
        })
        .collect()
}

/// The head of a complete copy, by its last waypoint. That of a shard that was removed follows nothing any more.
fn head_of(state: &State, set: &ReplicaSetId, record: &ReplicaSet, deployment: &Deployment) -> Option<HeadAt> {
    let is_removed = sharding::member_of(state, set).is_some_and(|member| member.removed);
    let waypoint = record.waypoint.as_ref().filter(|_| record.phase == Phase::Complete);
    waypoint.map(|image| HeadAt {
        at: image.at,
        replay_from: image.replay_from,
        follows: deployment.active && !is_removed,
    })
}

/// What is to become of a replica set's snapshots and oplog; `None` when it is not known.
pub fn plan(state: &State, set: &ReplicaSetId, now_ms: i64) -> Option<RetentionPlan> {
    let record = state.replica_sets.get(set)?;
    let deployment = state.deployments.get(set.deployment())?;
    let retention = &deployment.schedule.retention;
    let head = head_of(state, set, record, deployment);
    let mut plan = retention::plan(retention, &held(state, set), record.incarnation, head, now_ms);
    let restores = used(state, set).filter(|image| image.incarnation == record.incarnation);
    let restores = restores.map(|image| image.replay_from.min(image.at)).min();
    plan.oplog_needed_from = plan
        .oplog_needed_from
        .map(|from| restores.map_or(from, |restores| from.min(restores)));
    Some(plan)
}

/// Whether the oplog of an ended history may go: the present one can be restored, no instant of the ended one, whose last
/// entry is `tip`, lies in the window any more, and no restore reads it.
pub fn is_over(state: &State, set: &ReplicaSetId, incarnation: Incarnation, tip: Optime, now_ms: i64) -> bool {
    let (Some(record), Some(deployment)) = (state.replica_sets.get(set), state.deployments.get(set.deployment()))
    else {
        return false;
    };
    let window_ms = i64::from(deployment.schedule.retention.point_in_time_window_hours) * 3_600_000;
    let today_ms = retention::today_ms(head_of(state, set, record, deployment), now_ms);
    let of_present = |snapshot: &crate::Snapshot| {
        let image = snapshot.image.as_ref();
        image.is_some_and(|image| image.incarnation == record.incarnation)
    };
    let has_snapshot = state
        .snapshots
        .iter()
        .any(|((of, _), snapshot)| of == set && of_present(snapshot));
    incarnation < record.incarnation
        && record.phase == Phase::Complete
        && has_snapshot
        && i64::from(tip.ts.seconds()) * 1000 < today_ms.saturating_sub(window_ms)
        && used(state, set).all(|image| image.incarnation != incarnation)
}

/// Where the oplog of a history begins by what was given up; `None` when nothing was.
pub fn oplog_floor(state: &State, set: &ReplicaSetId, incarnation: Incarnation) -> Option<Optime> {
    state.oplog_floors.get(&(set.clone(), incarnation)).copied()
}

/// Whether all of an ended history was given up: whatever of it is stored, or comes to be stored by a write that takes effect
/// late, is nobody's.
pub fn is_given_up(state: &State, set: &ReplicaSetId, incarnation: Incarnation) -> bool {
    oplog_floor(state, set, incarnation) == Some(Optime::LAST)
}

/// Refuses a restore that would begin with something that is on its way out.
pub(crate) fn check_usable(state: &State, set: &ReplicaSetId, image: &ImageRef, until: Ts) -> Result<(), Response> {
    let is = |other: &ImageRef| (other.incarnation, &other.name) == (image.incarnation, &image.name);
    let snapshots = state.snapshots.iter().filter(|((of, _), _)| of == set);
    let known = snapshots.filter_map(|(_, snapshot)| snapshot.image.as_ref()).any(is)
        || state
            .replica_sets
            .get(set)
            .and_then(|record| record.waypoint.as_ref())
            .is_some_and(is);
    if !known {
        let message = format!(
            "the image {} of {set} was given up meanwhile; plan the restore again",
            image.name
        );
        return Err(Response::refused(RefusalKind::OutOfOrder, message));
    }
    let floor = oplog_floor(state, set, image.incarnation);
    if until > image.at.ts && floor.is_some_and(|floor| image.at < floor) {
        let message = format!(
            "the oplog of {set} after {} was given up; choose another instant",
            image.at
        );
        return Err(Response::refused(RefusalKind::OutOfOrder, message));
    }
    Ok(())
}

/// The plan of the first member that needs its snapshot of a checkpoint still, or that of the last: they go together.
fn plan_of_siblings(state: &State, set: &ReplicaSetId, id: &SnapshotId, now_ms: i64) -> RetentionPlan {
    let mut plan_of_one = RetentionPlan::default();
    for (member, _) in checkpoints::siblings(state, set, id) {
        plan_of_one = plan(state, &member, now_ms).unwrap_or_default();
        if !plan_of_one.dropped.contains(id) {
            break;
        }
    }
    plan_of_one
}

/// Whether nobody needs a snapshot any more, nor those of the other members that were cut with it.
pub fn may_expire(state: &State, set: &ReplicaSetId, id: &SnapshotId, now_ms: i64) -> bool {
    plan_of_siblings(state, set, id, now_ms).dropped.contains(id)
}

pub(crate) fn expire(state: &mut State, set: &ReplicaSetId, id: &SnapshotId, epoch: Epoch, now_ms: i64) -> Answer {
    check_epoch(set, replica_sets::find(state, set)?, epoch)?;
    let key = (set.clone(), id.clone());
    if !state.snapshots.contains_key(&key) {
        return Err(not_found(set, id));
    }
    let plan_of_one = plan_of_siblings(state, set, id, now_ms);
    if plan_of_one.dropped.contains(id) {
        checkpoints::remove_together(state, set, id);
        return Ok(Response::Done);
    }
    let reasons = plan_of_one.kept.iter().find(|(kept, _)| kept == id);
    let reasons = reasons.map_or_else(
        || "it is not complete".to_owned(),
        |(_, reasons)| {
            let words: Vec<&str> = reasons.iter().map(|reason| reason.text()).collect();
            words.join(", ")
        },
    );
    let message = format!("snapshot {id} of {set} stays: {reasons}");
    Err(Response::refused(RefusalKind::OutOfOrder, message))
}

pub(crate) fn trim(
    state: &mut State,
    set: &ReplicaSetId,
    incarnation: Incarnation,
    epoch: Epoch,
    keep_after: Optime,
    now_ms: i64,
) -> Answer {
    let record = replica_sets::find(state, set)?;
    check_epoch(set, record, epoch)?;
    let present = record.incarnation;
    if incarnation > present {
        let message = format!("{set} is at incarnation {present}, there is no {incarnation}");
        return Err(Response::refused(RefusalKind::NotFound, message));
    }
    let (allowed, floor) = if incarnation == present {
        let needed = plan(state, set, now_ms).and_then(|plan| plan.oplog_needed_from);
        (needed.is_some_and(|needed| keep_after <= needed), keep_after)
    } else {
        // An ended history goes as a whole.
        (is_over(state, set, incarnation, keep_after, now_ms), Optime::LAST)
    };
    if !allowed {
        let message = format!("the oplog of {set} up to {keep_after} is still needed");
        return Err(Response::refused(RefusalKind::OutOfOrder, message));
    }
    let known = state.oplog_floors.entry((set.clone(), incarnation)).or_insert(floor);
    *known = floor.max(*known);
    Ok(Response::Done)
}

impl Reason {
    /// In words.
    pub fn text(self) -> &'static str {
        match self {
            Reason::Keep => "marked to be kept",
            Reason::NotExpired => "its date has not come",
            Reason::Window => "the point-in-time window begins at it",
            Reason::LastGood => "it is the last good one",
            Reason::InUse => "a restore reads it",
        }
    }
}
