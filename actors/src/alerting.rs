//! What the leader does about alerts: looks at everything, submits what begins and ends, tells it to the webhook.
//!
//! What is not told yet stands in the control state, so that a new leader goes on telling. An alert is noted as told after
//! the webhook took it: a leader that ends in between lets it be told twice, under the same id and instant.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use headwater_cluster::alerts::{self, Alert, SetSight, Sights};
use headwater_cluster::{Command, State};
use headwater_model::ReplicaSetId;
use headwater_protocol::admin::ReplicaSetStatus;
use headwater_protocol::agent::{Refusal, RefusalKind};
use headwater_protocol::integrity::{AlertEvent, AlertView};
use headwater_protocol::redact;
use tokio::time::Instant;

use crate::backup::Backup;
use crate::commands::submit;
use crate::node::Node;
use crate::peers::Ask;
use crate::times::rfc3339;

/// How often everything is looked at. Ops Manager: every minute.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How long the owner of a replica set may take to say how it stands.
const PATIENCE: Duration = Duration::from_secs(2);
/// A problem that passes sooner is none.
const PROBLEM_LASTS: Duration = Duration::from_secs(60);
/// Alerts told in one round.
const AT_ONCE: usize = 16;
const BACK_OFF_FIRST: Duration = Duration::from_secs(1);
const BACK_OFF_MOST: Duration = Duration::from_secs(300);

/// Takes alerts to somebody outside, as JSON.
pub trait Tell: Send + Sync {
    /// Answers once it was taken; an error is tried again later.
    fn tell(&self, json: Vec<u8>) -> BoxFuture<'static, Result<(), String>>;
}

/// A webhook. Cheap to clone.
#[derive(Clone)]
pub struct Webhook(pub Arc<dyn Tell>);

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Webhook")
    }
}

/// Starts the task. It ends when the node is dropped.
pub(crate) fn spawn(node: &Arc<Node>) {
    drop(node.ground.host.spawn(watch(Arc::downgrade(node))));
}

async fn watch(node: Weak<Node>) {
    let mut watch = Watch::default();
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let Some(node) = node.upgrade() else { return };
        match node.ground.control.is_leader() {
            true => watch.round(Backup { node }).await,
            false => watch = Watch::default(),
        }
    }
}

#[derive(Default)]
struct Watch {
    /// Since when replica sets have had a problem.
    problems: BTreeMap<ReplicaSetId, Instant>,
    back_off: Duration,
    tell_after: Option<Instant>,
}

impl Watch {
    async fn round(&mut self, backup: Backup) {
        let sights = self.look(&backup).await;
        let control = &backup.node.ground.control;
        let (state, now_ms) = (control.state(), backup.now_ms());
        let troubles = alerts::evaluate(&state, &sights, &backup.node.ground.tuning.thresholds, now_ms);
        for command in alerts::plan(&state, &sights, &troubles, now_ms) {
            match &command {
                Command::BeginAlert { id, text, .. } => tracing::warn!(alert = id, "{text}"),
                Command::EndAlert { id, .. } => tracing::info!(alert = id, "an alert ended"),
                _ => {}
            }
            if let Err(refusal) = submit(control, command).await {
                tracing::debug!("an alert could not be noted: {}", refusal.message);
            }
        }
        self.tell(&backup).await;
    }

    async fn look(&mut self, backup: &Backup) -> Sights {
        let state = backup.node.ground.control.state();
        let mut sights = Sights {
            sets: BTreeMap::new(),
            nodes: backup.node.looks(),
        };
        for set in state.replica_sets.keys() {
            let asked = backup.at_owner(set, Ask::Status(set.clone()), Bytes::new(), PATIENCE);
            let status: Result<ReplicaSetStatus, Refusal> = asked.await;
            if let Ok(status) = status {
                let sight = self.sight(set, &status);
                sights.sets.insert(set.clone(), sight);
            }
        }
        self.problems.retain(|set, _| state.replica_sets.contains_key(set));
        sights
    }

    fn sight(&mut self, set: &ReplicaSetId, status: &ReplicaSetStatus) -> SetSight {
        let problem = status
            .problem
            .as_ref()
            .filter(|problem| !problem.starts_with(crate::views::AGENT_SILENT));
        let since = match problem {
            Some(_) => Some(*self.problems.entry(set.clone()).or_insert_with(Instant::now)),
            None => {
                self.problems.remove(set);
                None
            }
        };
        let lasts = since.is_some_and(|since| since.elapsed() >= PROBLEM_LASTS);
        SetSight {
            tip_s: status.tip.map(|at| at.t),
            applied_s: status.applied.map(|at| at.t),
            problem: problem.filter(|_| lasts).cloned(),
            agent_silent_s: status.agent.as_ref().map(|agent| agent.seen_seconds_ago),
        }
    }

    /// Tells what was not told, oldest first; stops at the first that is not taken, and waits longer and longer.
    async fn tell(&mut self, backup: &Backup) {
        let Some(Webhook(webhook)) = &backup.node.ground.tuning.webhook else {
            return;
        };
        if self.tell_after.is_some_and(|at| Instant::now() < at) {
            return;
        }
        let control = &backup.node.ground.control;
        let state = control.state();
        for (id, alert, event) in untold(&state).into_iter().take(AT_ONCE) {
            let view = AlertView {
                event,
                untold: None,
                ..view(&state, &id, &alert)
            };
            let Ok(json) = serde_json::to_vec(&view) else { continue };
            let failure = webhook.tell(json).await.err();
            match &failure {
                None => (self.back_off, self.tell_after) = (Duration::ZERO, None),
                Some(why) => {
                    self.back_off = (self.back_off * 2).clamp(BACK_OFF_FIRST, BACK_OFF_MOST);
                    self.tell_after = Some(Instant::now() + self.back_off);
                    tracing::warn!(
                        alert = id,
                        "the webhook did not take an alert, it is told again later: {why}"
                    );
                }
            }
            let taken = failure.is_none();
            if !taken && failure == alert.untold {
                return;
            }
            let noted = Command::AlertTold {
                id,
                begun_ms: alert.begun_ms,
                end: event == AlertEvent::End,
                failure,
            };
            if let Err(refusal) = submit(control, noted).await {
                tracing::debug!("that an alert was told could not be noted: {}", refusal.message);
                return;
            }
            if !taken {
                return;
            }
        }
    }
}

/// What is to be told, in the order of its happening. The begin of an alert goes before its end.
fn untold(state: &State) -> Vec<(String, Alert, AlertEvent)> {
    let mut all = Vec::new();
    for (id, alert) in &state.alerts {
        if !alert.begin_told {
            all.push((alert.begun_ms, id.clone(), alert.clone(), AlertEvent::Begin));
        }
        if let Some(ended_ms) = alert.ended_ms.filter(|_| !alert.end_told) {
            all.push((ended_ms.max(alert.begun_ms), id.clone(), alert.clone(), AlertEvent::End));
        }
    }
    all.sort_by_key(|(at, id, _, event)| (*at, id.clone(), *event == AlertEvent::End));
    all.into_iter()
        .map(|(_, id, alert, event)| (id, alert, event))
        .collect()
}

/// An alert as users see it.
fn view(state: &State, id: &str, alert: &Alert) -> AlertView {
    AlertView {
        id: id.to_owned(),
        event: match alert.ended_ms {
            Some(_) => AlertEvent::End,
            None => AlertEvent::Begin,
        },
        cluster: state.cluster.clone(),
        kind: alert.kind.clone(),
        subject: alert.subject.clone(),
        text: redact::text(&alert.text),
        begun: rfc3339(alert.begun_ms),
        ended: alert.ended_ms.map(rfc3339),
        acknowledged: alert.acknowledged.clone(),
        untold: alert.untold.clone(),
    }
}

impl Backup {
    /// All alerts that are remembered: open ones first, then the newest.
    pub fn alerts(&self) -> Vec<AlertView> {
        let state = self.node.ground.control.state();
        let mut all: Vec<_> = state.alerts.iter().collect();
        all.sort_by_key(|(_, alert)| (alert.ended_ms.is_some(), std::cmp::Reverse(alert.begun_ms)));
        all.into_iter().map(|(id, alert)| view(&state, id, alert)).collect()
    }

    /// Notes that somebody looks after an alert.
    pub async fn acknowledge(&self, id: &str, words: &str) -> Result<AlertView, Refusal> {
        let command = Command::AcknowledgeAlert {
            id: id.to_owned(),
            words: words.to_owned(),
        };
        submit(&self.node.ground.control, command).await?;
        let found = self.alerts().into_iter().find(|alert| alert.id == id);
        found.ok_or_else(|| Refusal::new(RefusalKind::NotFound, format!("there is no alert {id}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn begins_are_told_before_ends_and_older_ones_first() {
        let alert = |begun_ms, ended_ms, begin_told| Alert {
            kind: "damage".into(),
            subject: "shop/rs0".into(),
            text: String::new(),
            begun_ms,
            ended_ms,
            acknowledged: None,
            begin_told,
            end_told: false,
            untold: None,
        };
        let mut state = State::default();
        state.alerts.insert("a".into(), alert(5, Some(9), false));
        state.alerts.insert("b".into(), alert(3, None, false));
        state.alerts.insert("c".into(), alert(1, Some(4), true));
        state.alerts.insert("d".into(), alert(7, Some(7), false));
        let told: Vec<_> = untold(&state).into_iter().map(|(id, _, event)| (id, event)).collect();
        let (begin, end) = (AlertEvent::Begin, AlertEvent::End);
        let want = [
            ("b", begin),
            ("c", end),
            ("a", begin),
            ("d", begin),
            ("d", end),
            ("a", end),
        ];
        assert_eq!(told, want.map(|(id, event)| (id.to_owned(), event)));
    }
}
