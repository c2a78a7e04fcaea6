//! Alerts: what a user must know. [`evaluate`] decides by the state, by what can be seen, and by the time; [`plan`] says
//! which alerts begin and end. Both are pure; the leader submits and tells.
//!
//! Thresholds are Ops Manager's where it has one (`reference/opsmanager.md` §17). An alert's id is its kind and what it is
//! about: the same trouble has the same id, and begins once.

use std::collections::BTreeMap;

use headwater_model::{ReplicaSetId, limits};
use serde::{Deserialize, Serialize};

use crate::apply::{Answer, shorten};
use crate::command::{Command, RefusalKind, Response};
use crate::integrity::CheckKind;
use crate::placement::Sight;
use crate::sharding;
use crate::state::{NodeId, State};

/// An alert that began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    /// One word of [`KINDS`].
    pub kind: String,
    /// A replica set, a deployment or a node.
    pub subject: String,
    /// For people, with the cure.
    pub text: String,
    /// When it began, milliseconds since 1970.
    pub begun_ms: i64,
    /// When it ended.
    pub ended_ms: Option<i64>,
    /// Who is looking after it, in their words.
    pub acknowledged: Option<String>,
    /// Whether its begin was told.
    pub begin_told: bool,
    /// Whether its end was told.
    pub end_told: bool,
    /// Why the webhook did not take what was told last.
    pub untold: Option<String>,
}

/// All kinds, each with what it means.
pub const KINDS: [(&str, &str); 8] = [
    ("oplog_behind", "the newest oplog entry received is too old"),
    ("head_behind", "the head is too far behind the oplog received"),
    ("backup_problem", "a backup cannot go on by itself"),
    ("snapshot_late", "no snapshot was completed for twice the interval"),
    ("agent_down", "no agent was heard of a deployment"),
    ("node_down", "a node of the cluster does not answer"),
    ("damage", "something at rest is damaged"),
    ("proof_late", "no proof restore agreed for three times the interval"),
];

/// When trouble is worth an alert. Seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// Age of the newest oplog entry received, and of the newest applied behind that.
    pub oplog_behind_s: u64,
    /// Silence of all agents of a deployment.
    pub agent_down_s: u64,
    /// Silence of a node.
    pub node_down_s: u64,
    /// Seconds between proof restores; 0 for none.
    pub proof_interval_s: u64,
}

impl Default for Thresholds {
    /// 75 minutes, 1 hour, 15 minutes as in Ops Manager; a day between proofs.
    fn default() -> Self {
        Thresholds {
            oplog_behind_s: 75 * 60,
            agent_down_s: 3600,
            node_down_s: 15 * 60,
            proof_interval_s: 86_400,
        }
    }
}

/// What the owner of a replica set can see of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SetSight {
    /// Second of the newest entry received.
    pub tip_s: Option<u32>,
    /// Second of the newest entry applied.
    pub applied_s: Option<u32>,
    /// What keeps it from going on.
    pub problem: Option<String>,
    /// Seconds since an agent was heard of it.
    pub agent_silent_s: Option<u64>,
}

/// What can be seen now.
#[derive(Clone, Debug, Default)]
pub struct Sights {
    /// Replica sets whose owner answered.
    pub sets: BTreeMap<ReplicaSetId, SetSight>,
    /// All nodes.
    pub nodes: BTreeMap<NodeId, Sight>,
}

/// Trouble that holds now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// One word of [`KINDS`].
    pub kind: &'static str,
    /// What it is about.
    pub subject: String,
    /// For people.
    pub text: String,
}

impl Trouble {
    /// The id of its alert.
    pub fn id(&self) -> String {
        format!("{}:{}", self.kind, self.subject)
    }
}

/// What is wrong now. Of what cannot be seen nothing is said here: [`plan`] leaves those alerts as they are.
pub fn evaluate(state: &State, sights: &Sights, limits: &Thresholds, now_ms: i64) -> Vec<Trouble> {
    let mut found = Vec::new();
    for (set, record) in &state.replica_sets {
        let Some(deployment) = state.deployments.get(set.deployment()).filter(|d| d.active) else {
            continue;
        };
        let mut say = |kind, text: String| {
            found.push(Trouble {
                kind,
                subject: set.to_string(),
                text,
            });
        };
        // A shard that left its cluster is silent for good.
        let left = sharding::member_of(state, set).is_some_and(|member| member.removed);
        if let Some(sight) = sights.sets.get(set).filter(|_| !left) {
            of_sight(
                record.phase == headwater_model::Phase::Complete,
                sight,
                limits,
                now_ms,
                &mut say,
            );
        }
        if !left {
            of_snapshots(state, set, deployment.schedule.timetable.interval_s, now_ms, &mut say);
        }
        of_integrity(state, set, limits, now_ms, &mut say);
    }
    for (node, sight) in &sights.nodes {
        if sight.silent_ms > limits.node_down_s * 1000 && !sight.leaving {
            let address = state.nodes.get(node).map_or("", |known| known.address.as_str());
            let silent = sight.silent_ms / 60_000;
            found.push(Trouble {
                kind: "node_down",
                subject: format!("node {node}"),
                text: format!("node {node} at {address} has not answered for {silent} min: start it, or remove it"),
            });
        }
    }
    found
}

fn of_sight(
    complete: bool,
    sight: &SetSight,
    limits: &Thresholds,
    now_ms: i64,
    say: &mut impl FnMut(&'static str, String),
) {
    let age_s = |second: u32| u64::try_from(now_ms / 1000 - i64::from(second)).unwrap_or(0);
    if let Some(age) = sight
        .tip_s
        .map(age_s)
        .filter(|age| complete && *age > limits.oplog_behind_s)
    {
        say(
            "oplog_behind",
            format!(
                "the newest oplog entry received is {} min old: see whether agent and source run",
                age / 60
            ),
        );
    }
    if let (true, Some(tip), Some(applied)) = (complete, sight.tip_s, sight.applied_s) {
        let behind = u64::from(tip.saturating_sub(applied));
        if behind > limits.oplog_behind_s {
            let text = format!(
                "the head is {} min behind the oplog received: see the daemon's log and load",
                behind / 60
            );
            say("head_behind", text);
        }
    }
    if let Some(problem) = &sight.problem {
        say("backup_problem", problem.clone());
    }
    if let Some(silent) = sight.agent_silent_s.filter(|silent| *silent > limits.agent_down_s) {
        say(
            "agent_down",
            format!("no agent was heard for {} min: start one", silent / 60),
        );
    }
}

fn of_snapshots(
    state: &State,
    set: &ReplicaSetId,
    interval_s: u64,
    now_ms: i64,
    say: &mut impl FnMut(&'static str, String),
) {
    let complete = state.snapshots.iter().filter(|((of, _), _)| of == set);
    let Some(last) = complete.filter_map(|(_, snapshot)| snapshot.completed_ms).max() else {
        return;
    };
    let allowed = i64::try_from(interval_s.saturating_mul(2000)).unwrap_or(i64::MAX);
    if now_ms.saturating_sub(last) > allowed {
        let age = (now_ms - last) / 60_000;
        say(
            "snapshot_late",
            format!("the last snapshot was completed {age} min ago: see `headwater status`"),
        );
    }
}

fn of_integrity(
    state: &State,
    set: &ReplicaSetId,
    limits: &Thresholds,
    now_ms: i64,
    say: &mut impl FnMut(&'static str, String),
) {
    let Some(known) = state.integrity_of(set) else { return };
    if let Some((object, damage)) = known.damage.iter().next() {
        let (all, name) = (known.damage.len(), set.deployment());
        let text = format!(
            "{all} damaged objects, first {object}: {}; see `headwater check status {name}`",
            damage.detail
        );
        say("damage", text);
    }
    let Some(pass) = known.pass.as_ref().filter(|_| limits.proof_interval_s > 0) else {
        return;
    };
    let proofs = known
        .checks
        .values()
        .filter(|check| matches!(check.kind, CheckKind::Proof(_)));
    let agreed = proofs.filter(|check| check.standing.proof.as_ref().is_some_and(|proof| proof.agree));
    let last = agreed
        .filter_map(|check| check.standing.ended_ms)
        .max()
        .unwrap_or(pass.begun_ms);
    let allowed = i64::try_from(limits.proof_interval_s.saturating_mul(3000)).unwrap_or(i64::MAX);
    if now_ms.saturating_sub(last) > allowed {
        let text = format!(
            "no proof restore has agreed for {} h: run `headwater proof run {}`",
            (now_ms - last) / 3_600_000,
            set.deployment()
        );
        say("proof_late", text);
    }
}

/// Which alerts begin and end. One whose subject cannot be seen now stays as it is.
pub fn plan(state: &State, sights: &Sights, troubles: &[Trouble], now_ms: i64) -> Vec<Command> {
    let now: BTreeMap<String, &Trouble> = troubles.iter().map(|trouble| (trouble.id(), trouble)).collect();
    let mut commands = Vec::new();
    for (id, trouble) in &now {
        if state.alerts.get(id).is_none_or(|alert| alert.ended_ms.is_some()) {
            commands.push(Command::BeginAlert {
                id: id.clone(),
                kind: trouble.kind.to_owned(),
                subject: trouble.subject.clone(),
                text: shorten(&trouble.text, limits::PROBLEM_MAX_BYTES),
                begun_ms: now_ms,
            });
        }
    }
    let open = state.alerts.iter().filter(|(_, alert)| alert.ended_ms.is_none());
    for (id, _) in open.filter(|(id, alert)| !now.contains_key(*id) && is_seen(state, sights, alert)) {
        commands.push(Command::EndAlert {
            id: id.clone(),
            ended_ms: now_ms,
        });
    }
    commands
}

/// Whether the subject of an alert can be judged now, or is gone.
fn is_seen(state: &State, sights: &Sights, alert: &Alert) -> bool {
    let by_sight = ["oplog_behind", "head_behind", "backup_problem", "agent_down"];
    if !by_sight.contains(&alert.kind.as_str()) {
        return true;
    }
    let set = state.replica_sets.keys().find(|set| set.to_string() == alert.subject);
    set.is_none_or(|set| {
        let stopped = state.deployments.get(set.deployment()).is_none_or(|d| !d.active);
        stopped || sights.sets.contains_key(set)
    })
}

pub(crate) fn begin(state: &mut State, id: &str, kind: &str, subject: &str, text: &str, begun_ms: i64) -> Answer {
    match state.alerts.get(id) {
        Some(there) if there.ended_ms.is_none() => return Ok(Response::Done),
        // The same command may come again after the end: it does not begin twice.
        Some(there) if there.begun_ms == begun_ms => return Ok(Response::Done),
        _ => {}
    }
    if text.len() > limits::PROBLEM_MAX_BYTES || id.len() + kind.len() + subject.len() > limits::ALERT_ID_MAX_BYTES {
        return Err(Response::refused(
            RefusalKind::Limit,
            "the words of an alert are too long",
        ));
    }
    let alert = Alert {
        kind: kind.to_owned(),
        subject: subject.to_owned(),
        text: text.to_owned(),
        begun_ms,
        ended_ms: None,
        acknowledged: None,
        begin_told: false,
        end_told: false,
        untold: None,
    };
    state.alerts.insert(id.to_owned(), alert);
    // What ended longest ago is forgotten first; what is open never is.
    while state.alerts.len() > limits::ALERTS_KEPT {
        let ended = state
            .alerts
            .iter()
            .filter_map(|(id, alert)| Some((alert.ended_ms?, id.clone())));
        let Some((_, oldest)) = ended.min() else { break };
        state.alerts.remove(&oldest);
    }
    Ok(Response::Done)
}

pub(crate) fn end(state: &mut State, id: &str, ended_ms: i64) -> Answer {
    let alert = find(state, id)?;
    alert.ended_ms = alert.ended_ms.or(Some(ended_ms));
    Ok(Response::Done)
}

pub(crate) fn acknowledge(state: &mut State, id: &str, words: &str) -> Answer {
    find(state, id)?.acknowledged = Some(shorten(words, limits::FINDING_MAX_BYTES));
    Ok(Response::Done)
}

pub(crate) fn told(state: &mut State, id: &str, begun_ms: i64, end: bool, failure: Option<&str>) -> Answer {
    let alert = find(state, id)?;
    if alert.begun_ms == begun_ms {
        alert.untold = failure.map(|why| shorten(why, limits::FINDING_MAX_BYTES));
        match (failure, end) {
            (Some(_), _) => {}
            (None, true) => alert.end_told = true,
            (None, false) => alert.begin_told = true,
        }
    }
    Ok(Response::Done)
}

fn find<'a>(state: &'a mut State, id: &str) -> Result<&'a mut Alert, Response> {
    let missing = || Response::refused(RefusalKind::NotFound, format!("there is no alert {id}"));
    state.alerts.get_mut(id).ok_or_else(missing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply::apply;

    const NOW_MS: i64 = 1_795_400_000_000;

    fn set() -> ReplicaSetId {
        "shop/rs0".parse().unwrap()
    }

    fn state() -> State {
        let mut state = State::default();
        let add = Command::AddDeployment {
            name: set().deployment().clone(),
            uri: "mongodb://h".into(),
            snapshot_interval_s: 3600,
            created_ms: 0,
            key: None,
        };
        let register = Command::RegisterReplicaSet {
            set: set(),
            node: NodeId(1),
            source_version: "6.0.5".into(),
        };
        for command in [add, register] {
            assert!(!apply(&mut state, &command).is_refused());
        }
        state.replica_sets.get_mut(&set()).unwrap().phase = headwater_model::Phase::Complete;
        state
    }

    fn seeing(sight: SetSight) -> Sights {
        Sights {
            sets: [(set(), sight)].into(),
            nodes: BTreeMap::new(),
        }
    }

    fn kinds(state: &State, sights: &Sights) -> Vec<&'static str> {
        let found = evaluate(state, sights, &Thresholds::default(), NOW_MS);
        found.into_iter().map(|trouble| trouble.kind).collect()
    }

    #[test]
    fn each_threshold_is_met_on_one_side_only() {
        let state = state();
        let ago = |seconds: i64| Some((NOW_MS / 1000 - seconds) as u32);
        for (tip, applied, silent, want) in [
            (4500, 4500, 3600, vec![]),
            (4501, 4501, 3600, vec!["oplog_behind"]),
            (10, 4510, 3600, vec![]),
            (10, 4511, 3600, vec!["head_behind"]),
            (10, 10, 3601, vec!["agent_down"]),
        ] {
            let sights = seeing(SetSight {
                tip_s: ago(tip),
                applied_s: ago(applied),
                problem: None,
                agent_silent_s: Some(silent),
            });
            assert_eq!(kinds(&state, &sights), want, "{tip} {applied} {silent}");
        }
        for (silent_ms, want) in [(900_000, vec![]), (900_001, vec!["node_down"])] {
            let mut sights = Sights::default();
            let sight = Sight {
                silent_ms,
                steady_ms: 0,
                leaving: false,
            };
            sights.nodes.insert(NodeId(2), sight);
            assert_eq!(kinds(&state, &sights), want, "{silent_ms}");
        }
    }

    #[test]
    fn a_stopped_deployment_raises_nothing() {
        let mut state = state();
        let sights = seeing(SetSight {
            problem: Some("no space left".into()),
            ..SetSight::default()
        });
        assert_eq!(kinds(&state, &sights), ["backup_problem"]);
        state.deployments.get_mut(set().deployment()).unwrap().active = false;
        assert_eq!(kinds(&state, &sights), Vec::<&str>::new());
    }

    #[test]
    fn an_alert_begins_once_and_ends_once_and_stays_where_nothing_can_be_seen() {
        let mut state = state();
        let bad = seeing(SetSight {
            problem: Some("no space left".into()),
            ..SetSight::default()
        });
        let mut round = |sights: &Sights, now_ms: i64| -> usize {
            let troubles = evaluate(&state, sights, &Thresholds::default(), now_ms);
            let commands = plan(&state, sights, &troubles, now_ms);
            for command in &commands {
                for _ in 0..2 {
                    assert!(!apply(&mut state, command).is_refused(), "{command:?}");
                }
            }
            commands.len()
        };
        assert_eq!(round(&bad, NOW_MS), 1);
        assert_eq!(round(&bad, NOW_MS + 1), 0);
        assert_eq!(round(&Sights::default(), NOW_MS + 2), 0, "the owner did not answer");
        assert_eq!(round(&seeing(SetSight::default()), NOW_MS + 3), 1);
        assert_eq!(round(&seeing(SetSight::default()), NOW_MS + 4), 0);
        assert_eq!(round(&bad, NOW_MS + 5), 1, "it begins anew under the same id");
        assert_eq!(state.alerts.len(), 1);
        assert_eq!(state.alerts.keys().next().unwrap(), "backup_problem:shop/rs0");
    }

    #[test]
    fn what_the_webhook_did_not_take_is_told_again_and_says_why() {
        let mut state = state();
        assert!(begin(&mut state, "a", "damage", "shop/rs0", "words", 5).is_ok());
        let mut told = |begun_ms, end, failure| {
            assert!(super::told(&mut state, "a", begun_ms, end, failure).is_ok());
            let alert = &state.alerts["a"];
            (alert.begin_told, alert.end_told, alert.untold.clone())
        };
        let why = Some("UnknownIssuer".to_owned());
        assert_eq!(told(5, false, Some("UnknownIssuer")), (false, false, why.clone()));
        assert_eq!(told(4, false, None), (false, false, why), "that was another begin");
        assert_eq!(told(5, false, None), (true, false, None));
        assert_eq!(told(5, true, None), (true, true, None));
    }

    #[test]
    fn every_kind_is_documented() {
        let all: Vec<&str> = KINDS.iter().map(|(kind, _)| *kind).collect();
        let mut sorted = all.clone();
        sorted.dedup();
        assert_eq!(all, sorted);
    }
}
