//! Sharded clusters: what agents find becomes control state, and from there orders and words for users.

use std::collections::BTreeMap;

use headwater_cluster::sharding::{self, Member, Role};
use headwater_cluster::{Deployment, Sharding, State};
use headwater_model::{DeploymentName, ReplicaSetId};
use headwater_protocol::admin::{Range, TimelineRange};
use headwater_protocol::agent::{ClusterReport, MemberOrder, OrdersRequest, Refusal, RefusalKind};

use crate::board::AgentWord;
use crate::commands::submit;
use crate::node::Node;

fn found(report: &ClusterReport) -> Sharding {
    let members = report.members.iter().map(|member| {
        let role = member.shard.clone().map_or(Role::ConfigServers, Role::Shard);
        let known = Member {
            role,
            hosts: member.hosts.clone(),
            removed: false,
        };
        (member.set.clone(), known)
    });
    Sharding {
        cluster: report.cluster.clone(),
        members: members.collect(),
    }
}

/// The members of a deployment to stream; none for a replica set.
pub fn orders(deployment: &Deployment) -> Vec<MemberOrder> {
    let present = deployment.sharding.iter().flat_map(Sharding::present);
    present
        .map(|(set, member)| MemberOrder {
            set: set.clone(),
            hosts: member.hosts.clone(),
        })
        .collect()
}

/// Refuses a stream of a replica set that does not belong to its deployment.
pub fn check_belongs(state: &State, deployment: &Deployment, set: &ReplicaSetId) -> Result<(), Refusal> {
    let conflict = |message: String| Err(Refusal::new(RefusalKind::Conflict, message));
    if let Some(sharding) = &deployment.sharding {
        return match sharding.members.get(set.set()) {
            Some(member) if !member.removed => Ok(()),
            _ => conflict(format!(
                "replica set {} is not a member of the sharded cluster that {} protects",
                set.set(),
                set.deployment()
            )),
        };
    }
    let known = state.replica_sets.keys().find(|id| id.deployment() == set.deployment());
    match known {
        Some(known) if known != set => conflict(format!(
            "deployment {} protects replica set {}, but the source now calls itself {}; if that is meant, remove the \
             deployment and add it again",
            set.deployment(),
            known.set(),
            set.set()
        )),
        _ => Ok(()),
    }
}

/// What a replica set is in its cluster, for users; `None` for a plain one.
pub fn role(state: &State, set: &ReplicaSetId, word: &AgentWord) -> Option<String> {
    let Some(member) = sharding::member_of(state, set) else {
        let shard = word.shard.as_ref()?;
        return Some(format!(
            "shard {shard} by itself: not consistent with the other shards, add its cluster instead"
        ));
    };
    let role = match &member.role {
        Role::ConfigServers => "config servers".to_owned(),
        Role::Shard(shard) => format!("shard {shard}"),
    };
    Some(match member.removed {
        true => format!("{role}, no longer in the cluster; its snapshots stay"),
        false => role,
    })
}

/// The cluster times at which every present member of a cluster can be restored; none for a replica set.
pub fn whole_cluster(state: &State, name: &DeploymentName, ranges: &[TimelineRange]) -> Vec<Range> {
    let Some(sharding) = state.deployments.get(name).and_then(|known| known.sharding.as_ref()) else {
        return Vec::new();
    };
    let of_member = |set: &String| {
        let own = ranges.iter().filter(|range| range.replica_set.set() == set);
        own.map(|range| range.range).collect::<Vec<_>>()
    };
    let members = sharding.present().map(|(set, _)| of_member(set));
    members.reduce(|common, own| shared(&common, &own)).unwrap_or_default()
}

/// What lies in both, oldest first.
pub fn shared(some: &[Range], others: &[Range]) -> Vec<Range> {
    let pairs = some.iter().flat_map(|one| others.iter().map(move |other| (one, other)));
    let mut both: Vec<Range> = pairs
        .map(|(one, other)| Range {
            from: one.from.max(other.from),
            to: one.to.min(other.to),
        })
        .filter(|range| range.from <= range.to)
        .collect();
    both.sort_by_key(|range| range.from);
    both
}

/// How deployments are called by what they are.
pub fn kind(deployment: &Deployment) -> &'static str {
    match deployment.sharding {
        Some(_) => "sharded cluster",
        None => "replica set",
    }
}

/// Names a replica set that was meant, for whoever named only a deployment of several.
pub fn names(sets: &[ReplicaSetId]) -> String {
    let names: Vec<String> = sets.iter().map(ToString::to_string).collect();
    names.join(", ")
}

impl Node {
    /// Makes known what the agent that streams a deployment found, if it is news. A leader does this.
    pub(crate) async fn take_in_clusters(&self, request: &OrdersRequest) {
        let state = self.ground.control.state();
        let reports: BTreeMap<_, _> = request.clusters.iter().map(|r| (&r.deployment, r)).collect();
        for (name, report) in reports {
            let streams = state.leases.get(name).is_some_and(|lease| lease.agent == request.agent);
            let default_s = self.ground.tuning.snapshot_interval_s;
            let Some(command) = sharding::plan(&state, name, &found(report), default_s).filter(|_| streams) else {
                continue;
            };
            match submit(&self.ground.control, command).await {
                Ok(_) => {
                    tracing::info!(deployment = %name, members = report.members.len(), "a sharded cluster has these members now")
                }
                Err(refusal) => tracing::warn!(deployment = %name, "{}", refusal.message),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use headwater_protocol::admin::Position;

    use super::*;

    #[test]
    fn a_cluster_can_be_restored_where_all_members_can() {
        let range = |from: u32, to: u32| {
            let at = |t| Position { t, i: 1 };
            Range {
                from: at(from),
                to: at(to),
            }
        };
        for (some, others, want) in [
            (vec![range(1, 9)], vec![range(3, 12)], vec![range(3, 9)]),
            (
                vec![range(1, 4), range(6, 9)],
                vec![range(3, 7)],
                vec![range(3, 4), range(6, 7)],
            ),
            (vec![range(1, 2)], vec![range(3, 4)], vec![]),
            (vec![range(1, 2)], vec![], vec![]),
        ] {
            assert_eq!(shared(&some, &others), want);
        }
    }
}
