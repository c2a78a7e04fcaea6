//! What the leader does about checkpoints: opens what is due, begins new attempts, gives up what can never be sealed.

use std::collections::BTreeMap;

use headwater_model::{DeploymentName, Incarnation, Phase, ReplicaSetId, SnapshotId, limits};

use super::{Checkpoint, PATIENCE_MS, Part, Stage, open_of};
use crate::balancer;
use crate::command::{Command, RefusalKind, Response};
use crate::state::State;

/// What the leader shall submit: failures of what cannot be completed, then what is due. `stage_ms` is for how long this leader
/// has seen an open checkpoint at its stage: who asked for it had another clock. `new_id` names a new one.
pub fn plan(
    state: &State,
    now_ms: i64,
    stage_ms: impl Fn(&DeploymentName, &SnapshotId) -> i64,
    mut new_id: impl FnMut() -> Option<SnapshotId>,
) -> Vec<Command> {
    let mut commands = Vec::new();
    for (name, deployment) in &state.deployments {
        if deployment.sharding.is_none() {
            continue;
        }
        if let Some((id, checkpoint)) = open_of(state, name) {
            commands.extend(next_step(state, name, (id, checkpoint), stage_ms(name, id)));
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

fn next_step(
    state: &State,
    name: &DeploymentName,
    (id, checkpoint): (&SnapshotId, &Checkpoint),
    stage_ms: i64,
) -> Option<Command> {
    if let Some(why) = hopeless(state, name, checkpoint, stage_ms) {
        return Some(Command::FailCheckpoint {
            name: name.clone(),
            id: id.clone(),
            why,
        });
    }
    match checkpoint.stage() {
        Stage::Rest(attempt) if stage_ms >= rest_ms(attempt) => Some(Command::ResumeCheckpoint {
            name: name.clone(),
            id: id.clone(),
            attempt,
        }),
        Stage::Balancer if stage_ms >= balancer::PATIENCE_MS => {
            let (step, outcome) = balancer::late(&state.deployments.get(name)?.balancer, id);
            Some(Command::NoteBalancer {
                name: name.clone(),
                step,
                outcome,
            })
        }
        Stage::Rest(_) | Stage::Balancer | Stage::Attempt(_) => None,
    }
}

/// The pause before an attempt. Most things take a moment, a resharding takes minutes, and every attempt costs images.
fn rest_ms(attempt: u32) -> i64 {
    let doubled = limits::CHECKPOINT_REST_MS.checked_shl(attempt.saturating_sub(1).min(16));
    doubled.map_or(limits::CHECKPOINT_REST_MAX_MS, |ms| {
        ms.min(limits::CHECKPOINT_REST_MAX_MS)
    })
}

/// Why an open checkpoint can never be sealed; `None` as long as it can.
fn hopeless(state: &State, name: &DeploymentName, checkpoint: &Checkpoint, stage_ms: i64) -> Option<String> {
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
    if !checkpoint.concerns_members() || stage_ms < PATIENCE_MS {
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
pub(super) fn ready(state: &State, name: &DeploymentName) -> Result<BTreeMap<String, Incarnation>, Response> {
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
