//! Restores of a whole sharded cluster: each member at one cluster time, read as one.

use std::collections::BTreeMap;
use std::sync::Arc;

use headwater_cluster::sharding::Role;
use headwater_cluster::{Restore, State};
use headwater_model::{DeploymentName, ReplicaSetId, Ts};
use headwater_protocol::admin::{At, Destination, Range, RestorePlanView, RestoreRequest};
use headwater_protocol::agent::{Refusal, RefusalKind};
use headwater_restore::naming::{Chosen, Kind};
use headwater_restore::plan::{Plan, restorable};
use headwater_restore::rebuild::OldCluster;
use headwater_restore::routing::{Merged, Owned, Routing};
use headwater_restore::source::Source;
use headwater_store::blocks::Blocks;

use super::inventory::inventory;
use super::open::{as_it_lies, chosen, materialize, selection};
use super::plan::{base_name, namespaces, oplog_of, plan_at, plan_kept_at, shown};
use crate::set::{Set, scratch_in_memory};
use crate::sharding::shared;
use crate::trouble::refusal;

/// The replica sets of a cluster, to read from.
pub struct Members {
    /// The config servers.
    pub config: Arc<Set>,
    /// The shards by their names, former ones included.
    pub shards: BTreeMap<String, Arc<Set>>,
    /// The shards that are in the cluster now.
    pub present: Vec<String>,
}

/// The replica sets of a cluster, by name.
pub struct Names {
    config: ReplicaSetId,
    /// The shards by their names, and whether they are in the cluster now.
    shards: BTreeMap<String, (ReplicaSetId, bool)>,
}

impl Names {
    /// Those of a deployment; `None` where it is no sharded cluster.
    pub fn of(state: &State, name: &DeploymentName) -> Option<Names> {
        let sharding = state.deployments.get(name)?.sharding.as_ref()?;
        let (mut config, mut shards) = (None, BTreeMap::new());
        for (set, member) in &sharding.members {
            let id = ReplicaSetId::new(name.clone(), set).ok()?;
            match &member.role {
                Role::ConfigServers => config = Some(id),
                Role::Shard(shard) => _ = shards.insert(shard.clone(), (id, !member.removed)),
            }
        }
        let config = config?;
        Some(Names { config, shards })
    }

    /// All that there is something stored of.
    pub fn stored(&self, state: &State) -> Vec<ReplicaSetId> {
        let shards = self.shards.values().map(|(id, _)| id);
        let all = [&self.config].into_iter().chain(shards);
        all.filter(|id| state.replica_sets.contains_key(*id)).cloned().collect()
    }

    /// The members, of which `opened` are those that can be read.
    pub fn members(self, mut opened: BTreeMap<ReplicaSetId, Arc<Set>>) -> Result<Members, Refusal> {
        let config = opened.remove(&self.config);
        let config = config.ok_or_else(|| refused(format!("there is no backup of {} yet", self.config)))?;
        let shards = self.shards.iter();
        let present = shards.clone().filter(|(_, (_, present))| *present);
        Ok(Members {
            config,
            present: present.map(|(shard, _)| shard.clone()).collect(),
            shards: shards
                .filter_map(|(shard, (id, _))| Some((shard.clone(), opened.remove(id)?)))
                .collect(),
        })
    }
}

impl Members {
    /// Opens them to read, whoever owns them.
    async fn open(anchor: &Set) -> Result<Members, Refusal> {
        let (ground, name) = (&anchor.ground, anchor.id.deployment());
        let state = ground.control.state();
        let names = Names::of(&state, name).ok_or_else(|| refused(format!("{name} is no sharded cluster")))?;
        let mut opened = BTreeMap::new();
        for id in names.stored(&state) {
            let set = Set::open_to_read(ground.clone(), id.clone()).await.map_err(refusal)?;
            opened.insert(id, set);
        }
        names.members(opened)
    }

    fn shard(&self, name: &str) -> Result<&Arc<Set>, Refusal> {
        self.shards.get(name).ok_or_else(|| {
            refused(format!(
                "shard {name} was in the cluster then, and there is no backup of it; choose an instant from `headwater timeline`"
            ))
        })
    }

    fn present(&self) -> Result<Vec<&Arc<Set>>, Refusal> {
        let shards: Result<Vec<_>, _> = self.present.iter().map(|shard| self.shard(shard)).collect();
        Ok([&self.config].into_iter().chain(shards?).collect())
    }
}

fn refused(message: String) -> Refusal {
    Refusal::new(RefusalKind::NotRestorable, message)
}

/// A plan for every member, and what users see of it.
pub struct Planned {
    /// A snapshot, or a cluster time.
    pub at: At,
    /// The config servers first.
    pub plans: Vec<(Arc<Set>, Plan)>,
    /// What users see.
    pub view: RestorePlanView,
}

/// Plans a restore of everything the cluster consisted of at one cluster time.
pub async fn plan(members: &Members, request: &RestoreRequest) -> Result<Planned, Refusal> {
    let selection = selection(request)?;
    check(request)?;
    let at = cluster_time(members, &request.at).await?;
    let config_plan = plan_at(&members.config, &at).await?;
    // The config servers' documents are few: they are made for the very instant.
    let scratch = scratch_in_memory(&members.config).await.map_err(refusal)?;
    let config = materialize(&members.config, &config_plan, scratch).await?;
    let routing = Arc::new(routing(&config).await?);
    if let Destination::Cluster(targets) = &request.to {
        check_targets(&routing, members.config.id.set(), targets)?;
    }
    let mut plans = vec![(members.config.clone(), config_plan)];
    let mut owned = Vec::new();
    for shard in routing.shards().keys() {
        let set = members.shard(shard)?;
        let plan = plan_at(set, &at).await?;
        let source = as_it_lies(set, &plan.base).await?;
        owned.push(Owned::new(shard, Arc::new(source), routing.clone()));
        plans.push((set.clone(), plan));
    }
    let merged = Merged::new(Arc::new(config), owned);
    let chosen = chosen(&merged, &selection).await?;
    let view = view(members, request, &plans, &chosen).await?;
    Ok(Planned { at, plans, view })
}

async fn view(
    members: &Members,
    request: &RestoreRequest,
    plans: &[(Arc<Set>, Plan)],
    chosen: &Chosen,
) -> Result<RestorePlanView, Refusal> {
    let (mut slices, mut bytes) = (0, 0);
    for (set, plan) in plans {
        let (more_slices, more_bytes) = oplog_of(set, plan).await?;
        (slices, bytes) = (slices + more_slices, bytes + more_bytes);
    }
    let (_, of_config) = &plans[0];
    let mut bases: Vec<String> = plans.iter().map(|(_, plan)| base_name(plan)).collect();
    bases.dedup();
    let base_at = plans.iter().map(|(_, plan)| plan.base.at.ts).min().unwrap_or(Ts::ZERO);
    let until = plans.iter().map(|(_, plan)| plan.until).max().unwrap_or(Ts::ZERO);
    Ok(RestorePlanView {
        replica_set: members.config.id.clone(),
        incarnation: of_config.incarnation(),
        at: until.into(),
        base: bases.join(", "),
        base_at: base_at.into(),
        oplog_slices: slices,
        oplog_bytes: bytes,
        namespaces: namespaces(chosen),
        namespaces_left_out: 0,
        bytes_left_out: 0,
        to: shown(&request.to),
        members: plans.iter().map(|(set, _)| set.id.clone()).collect(),
    })
}

async fn routing(config: &dyn Source) -> Result<Routing, Refusal> {
    let read = Routing::read(config).await;
    read.map_err(|e| Refusal::new(RefusalKind::Internal, e.to_string()))
}

/// A new cluster is made whole.
fn check(request: &RestoreRequest) -> Result<(), Refusal> {
    let partial = !request.include.is_empty() || !request.rename.is_empty();
    if matches!(request.to, Destination::Cluster(_)) && partial {
        let message = "a new cluster is made whole: leave the choice of namespaces and their new names out, or restore to a \
                       replica set or a dump";
        return Err(Refusal::new(RefusalKind::Invalid, message));
    }
    Ok(())
}

/// Every member needs a target, and every target a member.
fn check_targets(routing: &Routing, config: &str, targets: &BTreeMap<String, String>) -> Result<(), Refusal> {
    let members: Vec<&str> = [config]
        .into_iter()
        .chain(routing.shards().keys().map(String::as_str))
        .collect();
    let missing: Vec<&str> = members.iter().copied().filter(|m| !targets.contains_key(*m)).collect();
    let unknown: Vec<&str> = targets
        .keys()
        .map(String::as_str)
        .filter(|t| !members.contains(t))
        .collect();
    let message = match (missing.as_slice(), unknown.as_slice()) {
        ([], []) => return Ok(()),
        ([], unknown) => format!(
            "the cluster had no {} then; its members were {}",
            unknown.join(", "),
            members.join(", ")
        ),
        (missing, _) => format!(
            "no target is named for {}: each of {} needs one",
            missing.join(", "),
            members.join(", ")
        ),
    };
    Err(Refusal::new(RefusalKind::Invalid, message))
}

/// The one cluster time, or snapshot, that an instant means for all members.
async fn cluster_time(members: &Members, at: &At) -> Result<At, Refusal> {
    match at {
        At::Snapshot(_) | At::Position(_) => Ok(at.clone()),
        At::WallClock(_) => {
            let mut last = Ts::ZERO;
            for set in members.present()? {
                last = last.max(plan_at(set, at).await?.until);
            }
            Ok(At::Position(last.into()))
        }
        At::Latest => {
            let mut common: Option<Vec<Range>> = None;
            for set in members.present()? {
                let (bases, ranges, _) = inventory(set).await?;
                let own = restorable(&bases, &ranges).into_iter().map(|range| Range {
                    from: range.from.into(),
                    to: range.to.into(),
                });
                let own: Vec<Range> = own.collect();
                common = Some(common.map_or(own.clone(), |common| shared(&common, &own)));
            }
            let latest = common.unwrap_or_default().into_iter().map(|range| range.to).max();
            latest.map(At::Position).ok_or_else(|| {
                refused(
                    "there is no instant yet at which every member can be restored: wait for the first checkpoint"
                        .to_owned(),
                )
            })
        }
    }
}

/// A cluster at one cluster time.
pub struct Opened {
    config: Arc<dyn Source>,
    shards: Vec<Owned>,
    version: String,
}

/// Opens what a restore in the control state reads. `anchor` is the replica set it is carried out by.
pub async fn open(anchor: &Set, at: &At, restore: &Restore, scratch: Arc<dyn Blocks>) -> Result<Opened, Refusal> {
    let members = Members::open(anchor).await?;
    let plan = plan_kept_at(&members.config, at, restore).await?;
    let config = materialize(&members.config, &plan, scratch.clone()).await?;
    let version = config.source_version().to_owned();
    let routing = Arc::new(routing(&config).await?);
    let mut shards = Vec::new();
    for shard in routing.shards().keys() {
        let set = members.shard(shard)?;
        let plan = plan_kept_at(set, at, restore).await?;
        let source = materialize(set, &plan, scratch.clone()).await?;
        shards.push(Owned::new(shard, Arc::new(source), routing.clone()));
    }
    Ok(Opened {
        config: Arc::new(config),
        shards,
        version,
    })
}

impl Opened {
    /// As its routers would show it, and the version of the servers.
    pub fn merged(self) -> (Arc<dyn Source>, String) {
        (Arc::new(Merged::new(self.config, self.shards)), self.version)
    }

    /// Member by member, to make a cluster of it.
    pub async fn into_old_cluster(self, request: &RestoreRequest) -> Result<(OldCluster, String), Refusal> {
        let selection = selection(request)?;
        let mut config_chosen = chosen(&*self.config, &selection).await?;
        let is_account = |kind: &Kind| matches!(kind, Kind::Users | Kind::Roles | Kind::AuthSchema);
        config_chosen.items.retain(|item| is_account(&item.kind));
        let mut shards = Vec::new();
        for shard in self.shards {
            let chosen = chosen(&shard, &selection).await?;
            shards.push((shard, chosen));
        }
        let old = OldCluster {
            config: self.config,
            config_chosen,
            shards,
        };
        Ok((old, self.version))
    }
}
