//! Checkpoints of sharded clusters, as far as something must be done: notes at members, words for users. Decisions are in
//! `cluster/src/checkpoints.rs`, cuts in `work/oplog_apply.rs`.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use headwater_cluster::checkpoints::{self, Checkpoint, Outcome, Quiet, Stage};
use headwater_cluster::{Command, Snapshot, State};
use headwater_model::{DeploymentName, Incarnation, ReplicaSetId, SnapshotId, Ts};
use headwater_protocol::admin::{Position, SnapshotView};
use headwater_protocol::agent::{NoteOrder, Noted, Refusal, RefusalKind};
use tokio::time::Instant;

use crate::backup::{Backup, not_found};
use crate::commands::submit;
use crate::node::Node;
use crate::set::Set;
use crate::times::rfc3339;
use crate::trouble::refusal;

impl Set {
    /// What is wanted of the agent for an open checkpoint.
    pub(crate) async fn wanted_note(&self) -> Result<Option<NoteOrder>, Refusal> {
        let (state, record) = self.record()?;
        if checkpoints::wanted_note(&state, &self.id, Ts::ZERO).is_none() {
            return Ok(None);
        }
        let stores = self.stores(record.incarnation).await.map_err(refusal)?;
        let tip = stores.oplog.tip().await.map_err(refusal)?;
        let tip = tip.map_or(Ts::ZERO, |tip| tip.after.ts);
        // Looked at after the tip: what is held back is decided by a state at least as new.
        let (state, _) = self.record()?;
        let wanted = checkpoints::wanted_note(&state, &self.id, tip);
        Ok(wanted.map(|wanted| NoteOrder {
            checkpoint: wanted.checkpoint,
            attempt: wanted.attempt,
            at_least: wanted.at_least,
        }))
    }

    /// Takes the word of the agent that a note is there.
    pub(crate) async fn noted(&self, noted: Noted) -> Result<(), Refusal> {
        let (state, record) = self.record()?;
        // By the greatest tip: a note of which the place is not known yet.
        let wanted = checkpoints::wanted_note(&state, &self.id, Ts::MAX);
        if wanted.is_none_or(|wanted| wanted.checkpoint != noted.checkpoint || wanted.attempt != noted.attempt) {
            return Ok(());
        }
        let command = Command::NoteCheckpoint {
            set: self.id.clone(),
            id: noted.checkpoint,
            attempt: noted.attempt,
            epoch: record.epoch,
            at: noted.at,
        };
        match submit(&self.ground.control, command).await {
            Ok(_) => self.head_waker.wake(),
            // The agent tells it again, and its stream must not suffer.
            Err(refusal) => tracing::info!(set = %self.id, "a note is not taken in: {}", refusal.message),
        }
        Ok(())
    }
}

/// At which stage a leader has seen open checkpoints, and since when.
pub type OpenCheckpoints = BTreeMap<(DeploymentName, SnapshotId), (Stage, Instant)>;

impl Node {
    /// Since when this node sees each open checkpoint at its stage: that is no matter of clocks, and those of nodes differ.
    fn open_checkpoints(&self, state: &State) -> OpenCheckpoints {
        let open = state.checkpoints.keys().filter_map(|name| {
            let (id, checkpoint) = checkpoints::open_of(state, name)?;
            Some(((name.clone(), id.clone()), checkpoint.stage()))
        });
        let mut known = self.open_checkpoints.lock().unwrap_or_else(PoisonError::into_inner);
        *known = open
            .map(|(key, stage)| {
                let same = known.get(&key).filter(|(known, _)| *known == stage);
                let since = same.map_or_else(Instant::now, |(_, since)| *since);
                (key, (stage, since))
            })
            .collect();
        known.clone()
    }

    /// Opens checkpoints that are due and gives up those that cannot be completed. A leader does this.
    pub(crate) async fn tend_checkpoints(&self) {
        let state = self.ground.control.state();
        let open = self.open_checkpoints(&state);
        let stage_ms = |name: &DeploymentName, id: &SnapshotId| {
            let since = open.get(&(name.clone(), id.clone()));
            since.map_or(0, |(_, since)| {
                i64::try_from(since.elapsed().as_millis()).unwrap_or(i64::MAX)
            })
        };
        let new_id = || crate::work::snapshot::new_id(&self.ground.host).ok();
        for command in checkpoints::plan(&state, self.ground.host.clock.now_ms(), stage_ms, new_id) {
            match &command {
                Command::FailCheckpoint { name, id, why } => {
                    tracing::warn!(deployment = %name, checkpoint = %id, "a checkpoint is given up: {why}");
                }
                Command::ResumeCheckpoint { name, id, attempt, .. } => {
                    tracing::info!(deployment = %name, checkpoint = %id, attempt, "a checkpoint is tried again");
                }
                Command::NoteBalancer { name, outcome, .. } => {
                    tracing::warn!(deployment = %name, ?outcome, "a checkpoint goes on with a balancer that is not stopped");
                }
                Command::OpenCheckpoint { name, id, .. } => {
                    tracing::info!(deployment = %name, checkpoint = %id, "a checkpoint begins");
                }
                _ => {}
            }
            self.submit_plan(command).await;
        }
    }
}

impl Backup {
    /// Asks for a snapshot of a whole cluster.
    pub(crate) async fn take_checkpoint(&self, name: &DeploymentName) -> Result<SnapshotView, Refusal> {
        let host = &self.node.ground.host;
        let id = crate::work::snapshot::new_id(host).map_err(|e| Refusal::new(RefusalKind::Internal, e.to_string()))?;
        let command = Command::OpenCheckpoint {
            name: name.clone(),
            id: id.clone(),
            reason: "demand".to_owned(),
            asked_ms: self.now_ms(),
        };
        submit(&self.node.ground.control, command).await?;
        self.snapshot(name, &id).await
    }

    /// One snapshot; one of a cluster that will never be is refused with the reason.
    pub(crate) fn checkpoint_failed(&self, name: &DeploymentName, id: &SnapshotId) -> Refusal {
        let state = self.node.ground.control.state();
        let checkpoint = state.checkpoints.get(name).and_then(|all| all.all.get(id));
        match checkpoint.map(|checkpoint| &checkpoint.outcome) {
            Some(Outcome::Failed(why)) => {
                let message = format!("snapshot {id} of {name} was given up: {why}");
                Refusal::new(RefusalKind::Conflict, message)
            }
            _ => not_found("snapshot", id),
        }
    }
}

/// The checkpoints of a cluster that are being taken, as snapshots, with the instant for sorting.
pub fn open_views(state: &State, name: &DeploymentName) -> Option<(i64, SnapshotView)> {
    let (id, checkpoint) = checkpoints::open_of(state, name)?;
    let set = checkpoints::spokesman(state, name)?;
    Some((checkpoint.asked_ms, open_view(set, id, checkpoint)))
}

fn open_view(set: ReplicaSetId, id: &SnapshotId, checkpoint: &Checkpoint) -> SnapshotView {
    let member = |name: &String| ReplicaSetId::new(set.deployment().clone(), name).ok();
    SnapshotView {
        id: id.clone(),
        incarnation: Incarnation(0),
        at: checkpoint.at().map(Position::from),
        created: rfc3339(checkpoint.asked_ms),
        complete: false,
        logical_bytes: 0,
        stored_bytes: 0,
        documents: 0,
        collections: 0,
        reason: checkpoint.reason.clone(),
        tiers: Vec::new(),
        expires: None,
        keep: false,
        kept_because: Vec::new(),
        damaged: None,
        members: checkpoint.members.keys().filter_map(member).collect(),
        possibly_inconsistent: None,
        waits_for: waits_for(checkpoint),
        replica_set: set,
    }
}

fn waits_for(checkpoint: &Checkpoint) -> Option<String> {
    if checkpoint.quiet == Quiet::Wanted {
        return Some("the balancer to be stopped".to_owned());
    }
    checkpoint.waits_for.clone()
}

/// Clusters whose newest checkpoint was given up or is marked, and balancers that are owed their mode, in words.
pub fn troubles(state: &State) -> Vec<String> {
    let newest = state.checkpoints.iter().filter_map(|(name, all)| {
        let (id, newest) = all.all.iter().max_by_key(|(_, checkpoint)| checkpoint.asked_ms)?;
        match &newest.outcome {
            Outcome::Failed(why) => Some(format!("{name}: snapshot {id} was given up: {why}")),
            Outcome::Sealed => {
                let why = newest.doubt.as_ref()?;
                Some(format!("{name}: snapshot {id} is possibly inconsistent: {why}"))
            }
            Outcome::Open => None,
        }
    });
    let owed = state.deployments.iter().filter_map(|(name, deployment)| {
        let mode = deployment.balancer.owed.as_ref()?;
        let is_over = checkpoints::open_of(state, name).is_none();
        let text = format!("{name}: the balancer was stopped for a checkpoint and is not yet put back to {mode}");
        is_over.then_some(text)
    });
    newest.chain(owed).collect()
}

/// Joins the views of a cluster's members at one checkpoint to one.
pub fn joined(views: Vec<(i64, SnapshotView)>, state: &State) -> Vec<(i64, SnapshotView)> {
    let mut all: Vec<(i64, SnapshotView)> = Vec::new();
    for (asked_ms, view) in views {
        let snapshot = state.snapshots.get(&(view.replica_set.clone(), view.id.clone()));
        let Some(at) = snapshot.and_then(|snapshot: &Snapshot| snapshot.checkpoint) else {
            all.push((asked_ms, view));
            continue;
        };
        let spokesman = checkpoints::spokesman(state, view.replica_set.deployment());
        let known = all.iter_mut().map(|(_, other)| other);
        match known
            .into_iter()
            .find(|other| other.id == view.id && !other.members.is_empty())
        {
            Some(whole) => {
                whole.logical_bytes += view.logical_bytes;
                whole.stored_bytes += view.stored_bytes;
                whole.documents += view.documents;
                whole.collections += view.collections;
                whole.damaged = whole.damaged.take().or(view.damaged);
                whole.members.push(view.replica_set);
            }
            None => all.push((
                asked_ms,
                SnapshotView {
                    at: Some(at.into()),
                    members: vec![view.replica_set.clone()],
                    replica_set: spokesman.unwrap_or(view.replica_set),
                    ..view
                },
            )),
        }
    }
    all
}
