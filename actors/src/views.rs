//! The control state, the stores and the board as users see them.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use headwater_cluster::sharding::member_of;
use headwater_cluster::{ReplicaSet, Snapshot, State, keeping};
use headwater_model::{DeploymentName, Incarnation, ReplicaSetId, SnapshotId};
use headwater_protocol::admin::{
    AgentView, DeploymentState, DeploymentView, EncryptionView, Position, Range, ReplicaSetStatus, SnapshotView,
    Status, Timeline, TimelineRange,
};
use headwater_protocol::agent::{DeploymentFault, Refusal, RefusalKind, StreamFault};
use headwater_protocol::redact;
use headwater_restore::plan::{Base, Proven};

use crate::backup::{Backup, not_found};
use crate::board::AgentWord;
use crate::checkpoints;
use crate::keeping::{explain, tier_text};
use crate::peers::Ask;
use crate::restores::{bases, proven, undamaged};
use crate::sharding;
use crate::times::rfc3339;

/// An agent that was not heard of for this long is worth a word.
const AGENT_SILENT_SECONDS: u64 = 30;
/// How the words about such an agent begin.
pub(crate) const AGENT_SILENT: &str = "agent on";
/// How long the owner of a replica set may take to say how it stands.
const STATUS_PATIENCE: Duration = Duration::from_secs(2);

impl Backup {
    pub(crate) async fn deployment_view(&self, name: &DeploymentName) -> Result<DeploymentView, Refusal> {
        let state = self.node.ground.control.state();
        let deployment = state
            .deployments
            .get(name)
            .ok_or_else(|| not_found("deployment", name))?;
        let mut replica_sets = Vec::new();
        for id in self.sets_of(name) {
            replica_sets.push(self.replica_set_status(&state, &id).await?);
        }
        Ok(DeploymentView {
            name: name.clone(),
            uri: redact::uri(&deployment.uri),
            kind: sharding::kind(deployment).to_owned(),
            state: if deployment.active {
                DeploymentState::Active
            } else {
                DeploymentState::Stopped
            },
            snapshot_interval_seconds: deployment.schedule.timetable.interval_s,
            stop_balancer: deployment.balancer.stop,
            encryption: deployment.key.as_ref().map(|wrapped| EncryptionView {
                data_key: wrapped.key,
                master_key: wrapped.master.clone(),
            }),
            replica_sets,
        })
    }

    /// The owner's word; where that does not come, what can be seen from here.
    async fn replica_set_status(&self, state: &State, id: &ReplicaSetId) -> Result<ReplicaSetStatus, Refusal> {
        match self
            .at_owner(id, Ask::Status(id.clone()), Bytes::new(), STATUS_PATIENCE)
            .await
        {
            Err(refusal) if refusal.kind == RefusalKind::Unavailable => {
                let record = state.replica_sets.get(id).ok_or_else(|| not_found("replica set", id))?;
                let proven = match self.to_read(id).await {
                    Ok(set) => proven(&set, state, record.incarnation).await?,
                    // One that cannot be looked at, since its master key is missing, must not hide all others.
                    Err(locked) if locked.kind == RefusalKind::Unavailable => None,
                    Err(other) => return Err(other),
                };
                Ok(ReplicaSetStatus {
                    problem: record.problem.clone().or(Some(refusal.message)),
                    ..self.plain_status(state, id, record, proven)
                })
            }
            answer => answer,
        }
    }

    /// What the control state and the stores tell.
    fn plain_status(
        &self,
        state: &State,
        id: &ReplicaSetId,
        record: &ReplicaSet,
        proven: Option<Proven>,
    ) -> ReplicaSetStatus {
        let ranges = restorable(state, id, record, record.incarnation, proven);
        let views = self.snapshot_views(id.deployment()).into_iter().rev();
        ReplicaSetStatus {
            name: id.clone(),
            role: sharding::role(state, id, &AgentWord::default()),
            node: Some(record.node.0),
            incarnation: record.incarnation,
            phase: record.phase,
            tip: proven.map(|proven| proven.tip.ts.into()),
            applied: None,
            lag_seconds: None,
            restorable: ranges.last().copied(),
            last_snapshot: views
                .into_iter()
                .find(|s| s.complete && (s.replica_set == *id || s.members.contains(id))),
            scan: None,
            problem: record.problem.clone(),
            agent: None,
            integrity: crate::checks::at_a_glance(state, id, self.now_ms()),
        }
    }

    /// How a replica set of this node stands.
    pub(crate) async fn status_here(&self, id: &ReplicaSetId) -> Result<ReplicaSetStatus, Refusal> {
        let set = self.node.set(id).await?;
        let state = self.node.ground.control.state();
        let (_, record) = set.record()?;
        let proven = proven(&set, &state, record.incarnation).await?;
        let tip = proven.map(|proven| proven.tip);
        let word = set.board.word();
        let now_ms = self.now_ms();
        let presence = self.node.agent(&word.agent);
        let agent = (!word.agent.is_empty()).then(|| AgentView {
            id: word.agent.clone(),
            host: presence.as_ref().map_or_else(String::new, |p| p.who.host.clone()),
            version: presence.as_ref().map_or_else(String::new, |p| p.who.version.clone()),
            seen_seconds_ago: seconds_between(word.heard_ms, now_ms),
        });
        let lag_seconds = tip
            .zip(word.source_last)
            .map(|(tip, source)| u64::from(source.ts.seconds().saturating_sub(tip.ts.seconds())));
        let problem = record.problem.clone().or_else(|| set.board.trouble());
        let streamed = member_of(&state, id).is_none_or(|member| !member.removed);
        let active = streamed && state.deployments.get(id.deployment()).is_some_and(|d| d.active);
        let problem = problem.or_else(|| word.fault.as_ref().map(fault_in_words)).or_else(|| {
            // Of a deployment that was stopped, or a shard that left its cluster, nothing is expected.
            let silent = agent
                .as_ref()
                .filter(|a| active && a.seen_seconds_ago > AGENT_SILENT_SECONDS)?;
            Some(format!(
                "{AGENT_SILENT} {} was last heard {} s ago",
                silent.host, silent.seen_seconds_ago
            ))
        });
        Ok(ReplicaSetStatus {
            role: sharding::role(&state, id, &word),
            applied: set.board.applied().map(|a| a.ts.into()),
            lag_seconds,
            scan: word.scan,
            problem,
            agent,
            ..self.plain_status(&state, id, &record, proven)
        })
    }

    pub(crate) fn snapshot_views(&self, name: &DeploymentName) -> Vec<SnapshotView> {
        let state = self.node.ground.control.state();
        let of_deployment = state.snapshots.iter().filter(|((set, _), _)| set.deployment() == name);
        let plans: BTreeMap<ReplicaSetId, _> = self
            .sets_of(name)
            .into_iter()
            .filter_map(|set| Some((set.clone(), keeping::plan(&state, &set, self.now_ms())?)))
            .collect();
        let views: Vec<_> = of_deployment
            .map(|((set, id), s)| {
                let mut view = snapshot_view(&state, set, id, s);
                explain(&mut view, plans.get(set));
                (s.asked_ms, view)
            })
            .collect();
        let mut views = checkpoints::joined(views, &state);
        views.extend(checkpoints::open_views(&state, name));
        views.sort_by(|a, b| (a.0, &a.1.id).cmp(&(b.0, &b.1.id)));
        views.into_iter().map(|(_, view)| view).collect()
    }

    pub(crate) async fn timeline_view(&self, name: &DeploymentName) -> Result<Timeline, Refusal> {
        self.known(name)?;
        // Before the state that the ranges are made of: no snapshot is listed that lies in no range.
        let mut snapshots = self.snapshot_views(name);
        let state = self.node.ground.control.state();
        let mut ranges = Vec::new();
        for id in self.sets_of(name) {
            let set = self.to_read(&id).await?;
            let (_, record) = set.record()?;
            for incarnation in (1..=record.incarnation.0).map(Incarnation) {
                let proven = proven(&set, &state, incarnation).await?;
                for range in restorable(&state, &id, &record, incarnation, proven) {
                    ranges.push(TimelineRange {
                        replica_set: id.clone(),
                        incarnation,
                        range,
                    });
                }
            }
        }
        // One that went meanwhile is not offered.
        snapshots.retain(|view| {
            let of = view.members.first().unwrap_or(&view.replica_set);
            !view.complete || state.snapshots.contains_key(&(of.clone(), view.id.clone()))
        });
        let whole_cluster = sharding::whole_cluster(&state, name, &ranges);
        Ok(Timeline {
            ranges,
            snapshots,
            whole_cluster,
        })
    }

    pub(crate) async fn status_view(&self) -> Result<Status, Refusal> {
        let state = self.node.ground.control.state();
        let mut replica_sets = Vec::new();
        let mut alerts = Vec::new();
        for id in state.replica_sets.keys() {
            let status = self.replica_set_status(&state, id).await?;
            if let Some(problem) = &status.problem {
                alerts.push(format!("{id}: {problem}"));
            }
            for (object, damage) in state.integrity_of(id).into_iter().flat_map(|known| &known.damage) {
                alerts.push(format!("{id}: damage in {object}: {}", damage.detail));
            }
            replica_sets.push(status);
        }
        alerts.extend(checkpoints::troubles(&state));
        let faults: Result<Vec<DeploymentFault>, Refusal> = self.at_leader_soon(Ask::Faults).await;
        for DeploymentFault { deployment, fault } in faults.unwrap_or_else(|_| self.node.deployment_faults()) {
            alerts.push(format!("{deployment}: {}", fault_in_words(&fault)));
        }
        let cluster = self.cluster();
        for node in cluster.nodes.iter().filter(|node| !node.answers) {
            alerts.push(format!("node {} at {} does not answer", node.id, node.address));
        }
        if cluster.leader.is_none() {
            alerts.push(headwater_cluster::ControlError::NoLeader.to_string());
        }
        for (name, deployment) in &state.deployments {
            let known = state.replica_sets.keys().any(|id| id.deployment() == name);
            if deployment.active && !known && alerts.is_empty() {
                alerts.push(format!("{name}: no agent has reached the source yet"));
            }
        }
        Ok(Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            replica_sets,
            alerts,
            open_alerts: self
                .alerts()
                .into_iter()
                .filter(|alert| alert.ended.is_none())
                .collect(),
        })
    }
}

/// The stretches of one incarnation in which every instant can be restored, oldest first. A snapshot whose oplog was given
/// up is no stretch.
fn restorable(
    state: &State,
    id: &ReplicaSetId,
    record: &ReplicaSet,
    incarnation: Incarnation,
    proven: Option<Proven>,
) -> Vec<Range> {
    offered(bases(state, id, record), incarnation, &undamaged(state, id, proven))
}

/// Only what a snapshot leads to: the waypoint is replaced at any moment, and with it would go what it alone leads to.
fn offered(mut bases: Vec<Base>, incarnation: Incarnation, proven: &[Proven]) -> Vec<Range> {
    bases.retain(|base| base.incarnation == incarnation && base.snapshot.is_some());
    let begins = |at| proven.iter().any(|range| range.start <= at && at <= range.tip);
    let newest = bases.iter().map(|base| base.at).max();
    bases.retain(|base| begins(base.at) || Some(base.at) == newest);
    let ranges = headwater_restore::plan::restorable(&bases, proven).into_iter();
    ranges
        .map(|range| Range {
            from: range.from.into(),
            to: range.to.into(),
        })
        .collect()
}

fn snapshot_view(state: &State, set: &ReplicaSetId, id: &SnapshotId, snapshot: &Snapshot) -> SnapshotView {
    let image = snapshot.image.as_ref();
    SnapshotView {
        id: id.clone(),
        replica_set: set.clone(),
        incarnation: image.map_or(Incarnation(0), |i| i.incarnation),
        at: image.map(|i| Position::from(i.at.ts)),
        created: rfc3339(snapshot.completed_ms.unwrap_or(snapshot.asked_ms)),
        complete: image.is_some(),
        logical_bytes: image.map_or(0, |i| i.logical_bytes),
        stored_bytes: snapshot.stored_bytes,
        documents: image.map_or(0, |i| i.documents),
        collections: image.map_or(0, |i| i.collections),
        reason: snapshot.reason.clone(),
        tiers: snapshot.tiers.iter().map(tier_text).collect(),
        expires: snapshot.expires_ms.map(rfc3339),
        keep: snapshot.keep,
        kept_because: Vec::new(),
        damaged: state
            .damage_of(set, id)
            .map(|(object, damage)| format!("{object}: {}", damage.detail)),
        members: Vec::new(),
        possibly_inconsistent: snapshot.possibly_inconsistent.clone(),
        waits_for: None,
    }
}

fn fault_in_words(fault: &StreamFault) -> String {
    match fault {
        StreamFault::HistoryLost { detail } => format!("history lost, a new first copy begins: {detail}"),
        StreamFault::Unreachable { detail } => format!("source not reachable: {detail}"),
        StreamFault::Refused { detail, cure } => format!("source refuses: {detail}. {cure}"),
    }
}

fn seconds_between(then_ms: i64, now_ms: i64) -> u64 {
    u64::try_from((now_ms - then_ms) / 1000).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use headwater_model::{Optime, Ts};

    use super::*;

    fn at(n: u32) -> Optime {
        Optime::new(Ts::new(n, 1), 1)
    }

    fn base(n: u32, is_snapshot: bool) -> Base {
        Base {
            name: n.to_string(),
            snapshot: is_snapshot.then(|| SnapshotId::new(&format!("s-{n}")).unwrap()),
            incarnation: Incarnation(1),
            at: at(n),
            documents: 0,
            bytes: 0,
        }
    }

    #[test]
    fn what_only_a_waypoint_leads_to_is_not_offered() {
        let proven = |start, tip| Proven {
            incarnation: Incarnation(1),
            start: at(start),
            tip: at(tip),
        };
        let offered = |bases: Vec<Base>, proven: &[Proven]| -> Vec<(u32, u32)> {
            let ranges = super::offered(bases, Incarnation(1), proven).into_iter();
            ranges.map(|range| (range.from.t, range.to.t)).collect()
        };
        let (snapshot, waypoint) = (|n| base(n, true), |n| base(n, false));
        assert_eq!(offered(vec![waypoint(20), snapshot(30)], &[proven(10, 40)]), [(30, 40)]);
        assert_eq!(offered(vec![snapshot(20), waypoint(30)], &[proven(10, 40)]), [(20, 40)]);
        assert_eq!(offered(vec![waypoint(30)], &[proven(10, 40)]), []);
        let torn = [proven(10, 25), proven(27, 40)];
        assert_eq!(offered(vec![snapshot(20), waypoint(30)], &torn), [(20, 25)]);
        // A snapshot whose oplog was given up is no stretch; the newest one is an instant all the same.
        assert_eq!(offered(vec![snapshot(5), snapshot(20)], &[proven(10, 40)]), [(20, 40)]);
        assert_eq!(offered(vec![snapshot(5)], &[proven(10, 40)]), [(5, 5)]);
    }
}
