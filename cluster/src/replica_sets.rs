//! Replica sets: which history, which owner, how far.

use headwater_model::{Epoch, Incarnation, Optime, Phase, ReplicaSetId, limits};
use serde::{Deserialize, Serialize};

use crate::apply::{Answer, shorten};
use crate::command::{RefusalKind, Response};
use crate::state::{NodeId, State};
use crate::{deployments, phases};

/// The backup of one replica set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaSet {
    /// The present history.
    pub incarnation: Incarnation,
    /// The present assignment's fencing number.
    pub epoch: Epoch,
    /// The owner of the head.
    pub node: NodeId,
    /// How far the backup is.
    pub phase: Phase,
    /// The source's version.
    pub source_version: String,
    /// The majority point at the end of the scan.
    pub sync_stop: Option<Optime>,
    /// From where on images are consistent.
    pub consistent_from: Option<Optime>,
    /// The newest published image.
    pub waypoint: Option<ImageRef>,
    /// Why the backup cannot go on, for users.
    pub problem: Option<String>,
    /// When the next scheduled snapshot is due, milliseconds since 1970.
    pub next_snapshot_ms: Option<i64>,
}

/// Names an image in a repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRef {
    /// In the image store.
    pub name: String,
    /// Of which history.
    pub incarnation: Incarnation,
    /// The instant it shows.
    pub at: Optime,
    /// Where replay must start again.
    pub replay_from: Optime,
    /// Documents it holds.
    pub documents: u64,
    /// Collections it holds.
    pub collections: u64,
    /// Bytes of BSON it holds.
    pub logical_bytes: u64,
}

impl ReplicaSet {
    fn assigned(&self) -> Response {
        Response::Assigned {
            node: self.node,
            epoch: self.epoch,
            incarnation: self.incarnation,
        }
    }
}

pub(crate) fn register(state: &mut State, set: &ReplicaSetId, node: NodeId, source_version: &str) -> Answer {
    if !deployments::find(state, set.deployment())?.active {
        let message = format!("{} is stopped; restart it first", set.deployment());
        return Err(Response::refused(RefusalKind::NotReady, message));
    }
    if source_version.is_empty() || source_version.len() > limits::NAME_MAX_BYTES {
        return Err(Response::refused(
            RefusalKind::Limit,
            "a version is a short text such as 6.0.5",
        ));
    }
    if let Some(known) = state.replica_sets.get_mut(set) {
        source_version.clone_into(&mut known.source_version);
        return Ok(known.assigned());
    }
    let members = state
        .replica_sets
        .keys()
        .filter(|known| known.deployment() == set.deployment())
        .count();
    if members >= limits::REPLICA_SETS_PER_DEPLOYMENT {
        let message = format!(
            "a deployment has at most {} replica sets",
            limits::REPLICA_SETS_PER_DEPLOYMENT
        );
        return Err(Response::refused(RefusalKind::Limit, message));
    }
    let before = state.retired.remove(set).unwrap_or_default();
    let fresh = ReplicaSet {
        incarnation: Incarnation(before.0.saturating_add(1)),
        epoch: next_epoch(state),
        node,
        phase: Phase::Starting,
        source_version: source_version.to_owned(),
        sync_stop: None,
        consistent_from: None,
        waypoint: None,
        problem: None,
        next_snapshot_ms: None,
    };
    let answer = fresh.assigned();
    state.replica_sets.insert(set.clone(), fresh);
    Ok(answer)
}

pub(crate) fn assign(state: &mut State, set: &ReplicaSetId, node: NodeId, expected: Epoch) -> Answer {
    check_epoch(set, find(state, set)?, expected)?;
    let epoch = next_epoch(state);
    let known = find(state, set)?;
    known.node = node;
    known.epoch = epoch;
    Ok(known.assigned())
}

pub(crate) fn start_incarnation(state: &mut State, set: &ReplicaSetId, expected: Incarnation) -> Answer {
    let known = find(state, set)?;
    check_incarnation(set, known, expected)?;
    known.incarnation = Incarnation(expected.0.saturating_add(1));
    known.phase = Phase::Starting;
    known.sync_stop = None;
    known.consistent_from = None;
    known.waypoint = None;
    known.problem = None;
    let answer = known.assigned();
    // What was asked of the ended history and is not complete never will be.
    state
        .snapshots
        .retain(|(of, _), snapshot| of != set || snapshot.image.is_some());
    Ok(answer)
}

pub(crate) fn set_phase(
    state: &mut State,
    set: &ReplicaSetId,
    incarnation: Incarnation,
    epoch: Epoch,
    phase: Phase,
) -> Answer {
    let known = find(state, set)?;
    check_incarnation(set, known, incarnation)?;
    check_epoch(set, known, epoch)?;
    if phases::is_passed(known.phase, phase) {
        return Ok(Response::Done);
    }
    if !phases::is_legal(known.phase, phase) {
        let message = format!(
            "{set} is {}, which {} does not follow",
            known.phase.text(),
            phase.text()
        );
        return Err(Response::refused(RefusalKind::OutOfOrder, message));
    }
    if phase == Phase::Complete && known.waypoint.is_none() {
        let message = format!("publish a waypoint of {set} first: without one a crash would lose the head");
        return Err(Response::refused(RefusalKind::OutOfOrder, message));
    }
    known.phase = phase;
    Ok(Response::Done)
}

pub(crate) fn set_sync_stop(state: &mut State, set: &ReplicaSetId, incarnation: Incarnation, stop: Optime) -> Answer {
    let known = find(state, set)?;
    check_incarnation(set, known, incarnation)?;
    if known.sync_stop == Some(stop) {
        return Ok(Response::Done);
    }
    if known.phase > Phase::Transferring {
        let message = format!("the scan of {set} has ended already");
        return Err(Response::refused(RefusalKind::OutOfOrder, message));
    }
    known.sync_stop = Some(stop);
    Ok(Response::Done)
}

pub(crate) fn set_consistent_from(
    state: &mut State,
    set: &ReplicaSetId,
    incarnation: Incarnation,
    epoch: Epoch,
    from: Optime,
) -> Answer {
    let known = find(state, set)?;
    check_incarnation(set, known, incarnation)?;
    check_epoch(set, known, epoch)?;
    if known.consistent_from.is_some_and(|now| from < now) {
        let message = format!("images of {set} are known to be inconsistent before a later position");
        return Err(Response::refused(RefusalKind::OutOfOrder, message));
    }
    known.consistent_from = Some(from);
    Ok(Response::Done)
}

pub(crate) fn publish_waypoint(state: &mut State, set: &ReplicaSetId, epoch: Epoch, image: &ImageRef) -> Answer {
    check_image(image)?;
    let known = find(state, set)?;
    check_incarnation(set, known, image.incarnation)?;
    check_epoch(set, known, epoch)?;
    if known.waypoint.as_ref().is_some_and(|now| image.at < now.at) {
        let message = format!("a newer waypoint of {set} is published already");
        return Err(Response::refused(RefusalKind::OutOfOrder, message));
    }
    // One that was cut while the first copy was checked may come late; the newer one at the same position counts.
    let is_another = |now: &ImageRef| image.at == now.at && image.name != now.name;
    if known.phase == Phase::Complete && known.waypoint.as_ref().is_some_and(is_another) {
        let message = format!("a waypoint of {set} at that position is published already");
        return Err(Response::refused(RefusalKind::OutOfOrder, message));
    }
    known.waypoint = Some(image.clone());
    Ok(Response::Done)
}

pub(crate) fn set_problem(
    state: &mut State,
    set: &ReplicaSetId,
    incarnation: Incarnation,
    problem: Option<&str>,
) -> Answer {
    let known = find(state, set)?;
    check_incarnation(set, known, incarnation)?;
    known.problem = problem.map(|text| shorten(text, limits::PROBLEM_MAX_BYTES));
    Ok(Response::Done)
}

pub(crate) fn find<'a>(state: &'a mut State, set: &ReplicaSetId) -> Result<&'a mut ReplicaSet, Response> {
    let message = || format!("replica set {set} is not known; it is registered when its agent first reports");
    state
        .replica_sets
        .get_mut(set)
        .ok_or_else(|| Response::refused(RefusalKind::NotFound, message()))
}

pub(crate) fn check_incarnation(set: &ReplicaSetId, known: &ReplicaSet, given: Incarnation) -> Result<(), Response> {
    if known.incarnation == given {
        return Ok(());
    }
    let message = format!("{set} is at incarnation {}, not {given}", known.incarnation);
    Err(Response::refused(RefusalKind::Stale, message))
}

pub(crate) fn check_epoch(set: &ReplicaSetId, known: &ReplicaSet, given: Epoch) -> Result<(), Response> {
    if known.epoch == given {
        return Ok(());
    }
    let message = format!(
        "{set} is assigned to node {} at epoch {}, not {given}; stop",
        known.node, known.epoch
    );
    Err(Response::refused(RefusalKind::Stale, message))
}

pub(crate) fn check_image(image: &ImageRef) -> Result<(), Response> {
    if image.name.is_empty() || image.name.len() > limits::IMAGE_NAME_MAX_BYTES {
        let message = format!("an image's name has 1 to {} bytes", limits::IMAGE_NAME_MAX_BYTES);
        return Err(Response::refused(RefusalKind::Limit, message));
    }
    Ok(())
}

pub(crate) fn next_epoch(state: &mut State) -> Epoch {
    state.last_epoch = Epoch(state.last_epoch.0.saturating_add(1));
    state.last_epoch
}
