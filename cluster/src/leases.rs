//! Leases: which agent streams which deployment. One at a time; the number of a lease grows with every change.
//!
//! A lease keeps two agents from doing the same work. That nothing is stored twice or torn does not rest on it: the oplog
//! store takes exactly one successor for every position.

use std::collections::{BTreeMap, BTreeSet};

use headwater_model::{DeploymentName, limits};
use serde::{Deserialize, Serialize};

use crate::apply::Answer;
use crate::command::{Command, RefusalKind, Response};
use crate::deployments;
use crate::state::State;

/// An agent's right to stream a deployment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The agent's id.
    pub agent: String,
    /// Grows with every change.
    pub number: u64,
}

/// An agent that was not heard of for so long loses its leases, in milliseconds.
pub const AGENT_LOST_MS: u64 = 4_000;

pub(crate) fn grant(state: &mut State, deployment: &DeploymentName, agent: &str, expected: u64) -> Answer {
    deployments::find(state, deployment)?;
    if agent.is_empty() || agent.len() > limits::NAME_MAX_BYTES {
        return Err(Response::refused(RefusalKind::Limit, "an agent's id is a short text"));
    }
    let present = state.leases.get(deployment);
    if present.is_some_and(|lease| lease.agent == agent) {
        return Ok(Response::Done);
    }
    let number = present.map_or(0, |lease| lease.number);
    if number != expected {
        let message = format!("the lease of {deployment} is number {number}, not {expected}");
        return Err(Response::refused(RefusalKind::Stale, message));
    }
    state.last_lease = state.last_lease.saturating_add(1);
    let lease = Lease {
        agent: agent.to_owned(),
        number: state.last_lease,
    };
    state.leases.insert(deployment.clone(), lease);
    Ok(Response::Done)
}

/// An agent that was heard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// How long ago.
    pub silent_ms: u64,
    /// The deployments its key is for; empty for all.
    pub scope: BTreeSet<DeploymentName>,
}

impl Heard {
    fn may(&self, deployment: &DeploymentName) -> bool {
        self.silent_ms < AGENT_LOST_MS && (self.scope.is_empty() || self.scope.contains(deployment))
    }
}

/// What the leader shall grant. `agents` are those heard by it; `leading_ms`, for how long it leads: an agent that another
/// leader heard gets time to be heard here.
pub fn plan(state: &State, agents: &BTreeMap<String, Heard>, leading_ms: u64) -> Vec<Command> {
    let may = |agent: &str, deployment| agents.get(agent).is_some_and(|heard| heard.may(deployment));
    let mut load: BTreeMap<&str, usize> = BTreeMap::new();
    for agent in agents.keys() {
        let held = state.leases.values().filter(|lease| lease.agent == *agent).count();
        load.insert(agent, held);
    }
    let mut grants = Vec::new();
    for deployment in state.deployments.iter().filter(|(_, d)| d.active).map(|(name, _)| name) {
        let lease = state.leases.get(deployment);
        if lease.is_some_and(|lease| may(&lease.agent, deployment) || leading_ms < AGENT_LOST_MS) {
            continue;
        }
        let able = load.iter_mut().filter(|(agent, _)| may(agent, deployment));
        let Some((agent, held)) = able.min_by_key(|(agent, held)| (**held, **agent)) else {
            continue;
        };
        *held += 1;
        grants.push(Command::GrantLease {
            deployment: deployment.clone(),
            agent: (*agent).to_owned(),
            expected: lease.map_or(0, |lease| lease.number),
        });
    }
    grants
}
