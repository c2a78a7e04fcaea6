//! Sharded clusters: the config servers and shards of a deployment, each a replica set with a backup of its own.
//!
//! Agents find them at the source and report them; [`plan`] makes a command of what is new. Orders to stream come from
//! the control state, so that every agent streams the same members.

use std::collections::BTreeMap;

use headwater_model::{DeploymentName, ReplicaSetId, limits};
use serde::{Deserialize, Serialize};

use crate::apply::Answer;
use crate::command::{Command, RefusalKind, Response};
use crate::deployments;
use crate::state::State;
use crate::timetable::{Timetable, TimetableFault};

/// Time between the checkpoints of a cluster that was added without an interval, in seconds.
pub const CHECKPOINT_INTERVAL_S: u64 = 15 * 60;

/// The members of a sharded cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sharding {
    /// `config.version.clusterId` in hexadecimal.
    pub cluster: String,
    /// Its replica sets by their names, former ones included.
    pub members: BTreeMap<String, Member>,
}

/// A replica set of a sharded cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// What it is.
    pub role: Role,
    /// Its members, `host:port`.
    pub hosts: Vec<String>,
    /// Whether it left the cluster: it is streamed no longer, its snapshots stay.
    pub removed: bool,
}

/// What a replica set is in its cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// The config servers.
    ConfigServers,
    /// A shard, by its name.
    Shard(String),
}

impl Sharding {
    /// The members that are in the cluster now.
    pub fn present(&self) -> impl Iterator<Item = (&String, &Member)> {
        self.members.iter().filter(|(_, member)| !member.removed)
    }
}

/// The member that a replica set is; `None` for one that is protected by itself.
pub fn member_of<'a>(state: &'a State, set: &ReplicaSetId) -> Option<&'a Member> {
    let sharding = state.deployments.get(set.deployment())?.sharding.as_ref()?;
    sharding.members.get(set.set())
}

/// The command that makes known what an agent found, if it is news. `default_interval_s` is what deployments get that are
/// added without an interval: for a cluster that becomes [`CHECKPOINT_INTERVAL_S`].
pub fn plan(state: &State, name: &DeploymentName, found: &Sharding, default_interval_s: u64) -> Option<Command> {
    let deployment = state.deployments.get(name)?;
    let known = deployment.sharding.as_ref();
    if known.is_some_and(|known| merged(known, found) == *known) {
        return None;
    }
    let chosen = known.is_some() || deployment.schedule.timetable.interval_s != default_interval_s;
    Some(Command::SetSharding {
        name: name.clone(),
        found: found.clone(),
        interval_s: (!chosen).then_some(CHECKPOINT_INTERVAL_S),
    })
}

/// What is known, with what was found: who is not found any more has left.
fn merged(known: &Sharding, found: &Sharding) -> Sharding {
    let mut members = found.members.clone();
    for (set, member) in &known.members {
        members.entry(set.clone()).or_insert_with(|| Member {
            removed: true,
            ..member.clone()
        });
    }
    Sharding {
        cluster: found.cluster.clone(),
        members,
    }
}

pub(crate) fn set(state: &mut State, name: &DeploymentName, found: &Sharding, interval_s: Option<u64>) -> Answer {
    check(found)?;
    let stranger = state
        .replica_sets
        .keys()
        .find(|set| set.deployment() == name && !found.members.contains_key(set.set()))
        .map(|set| set.set().to_owned());
    let deployment = deployments::find(state, name)?;
    let all = match &deployment.sharding {
        Some(known) if known.cluster != found.cluster => {
            let message = format!(
                "deployment {name} protects the sharded cluster {}, but the source is now {}; if that is meant, remove the \
                 deployment and add it again",
                known.cluster, found.cluster
            );
            return Err(Response::refused(RefusalKind::Conflict, message));
        }
        Some(known) => merged(known, found),
        None => match stranger {
            Some(stranger) => {
                let message = format!(
                    "deployment {name} protects replica set {stranger}, but the source is now a sharded cluster; if that is \
                     meant, remove the deployment and add it again"
                );
                return Err(Response::refused(RefusalKind::Conflict, message));
            }
            None => found.clone(),
        },
    };
    if all.members.len() > limits::REPLICA_SETS_PER_DEPLOYMENT {
        let message = format!(
            "a deployment has at most {} replica sets",
            limits::REPLICA_SETS_PER_DEPLOYMENT
        );
        return Err(Response::refused(RefusalKind::Limit, message));
    }
    if let Some(interval_s) = interval_s {
        // The grid begins anew: that of the longer interval may begin hours from now.
        let reference = deployment.schedule.timetable.reference;
        let timetable = Timetable::changed(None, interval_s, reference, deployment.created_ms);
        let refused = |fault: TimetableFault| Response::refused(RefusalKind::Limit, fault.to_string());
        deployment.schedule.timetable = timetable.map_err(refused)?;
    }
    deployment.sharding = Some(all);
    Ok(Response::Done)
}

fn check(found: &Sharding) -> Result<(), Response> {
    let config_servers = found.members.values().filter(|m| m.role == Role::ConfigServers);
    if config_servers.count() != 1 {
        let message = "a sharded cluster has one replica set of config servers";
        return Err(Response::refused(RefusalKind::Limit, message));
    }
    let short = |text: &str| (1..=limits::NAME_MAX_BYTES).contains(&text.len());
    let named = found.members.iter().all(|(set, member)| match &member.role {
        Role::ConfigServers => short(set),
        Role::Shard(shard) => short(set) && short(shard),
    });
    if !named || !short(&found.cluster) {
        let message = "the names of a cluster, its shards and their replica sets are short texts";
        return Err(Response::refused(RefusalKind::Limit, message));
    }
    Ok(())
}
