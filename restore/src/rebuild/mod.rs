//! A new sharded cluster out of a backup: fresh config servers and fresh shards become what the old ones were at one
//! instant.
//!
//! 1. Every target is judged before anything is written: is it fresh, has it the right role, is it new enough?
//! 2. Each shard gets the documents it owns, in collections with their UUIDs; what was in the middle of a migration is on
//!    the shard that the routing tables name, and nowhere else.
//! 3. The config servers get the routing tables, with the new hosts of the shards.
//! 4. Each shard is told who it is, and joins at once. Before that no router finds anything.
//!
//! The new cluster keeps its own cluster id; shards keep their names. Sessions, transaction tables, balancer locks and
//! whatever servers note for themselves begin anew. Every step can be done again after an interruption.
//!
//! Source of the order and of what must be written: `reference/oplog.md` §7.4.

mod freshness;
mod tables;
mod whole;

use std::collections::BTreeMap;
use std::sync::Arc;

use bson::{Document, doc};
use futures::{StreamExt, TryStreamExt, stream};

use crate::load::target::majority;
use crate::load::{Cursor, LoadFault, Loaded, Observer, Settings, Step, Target, load};
use crate::naming::Chosen;
use crate::routing::Owned;
use crate::source::Source;

use freshness::Member;
use whole::Whole;

/// Shards that are loaded at once.
const SHARDS_AT_ONCE: usize = 2;

/// Where a cluster is made.
#[derive(Clone, Debug)]
pub struct NewCluster {
    /// The future config servers.
    pub config: Target,
    /// The future shards, by the names of the old ones.
    pub shards: BTreeMap<String, Target>,
}

/// What it is made of.
pub struct OldCluster {
    /// Everything the config servers held.
    pub config: Arc<dyn Source>,
    /// What is restored of the config servers besides the routing tables: users and roles.
    pub config_chosen: Chosen,
    /// What each shard owned, and what is restored of it.
    pub shards: Vec<(Owned, Chosen)>,
}

/// Makes the cluster. `cursor` is empty, or the last one kept of an earlier try of exactly the same.
pub async fn rebuild(
    old: &OldCluster,
    new: &NewCluster,
    settings: &Settings,
    cursor: Cursor,
    observer: &dyn Observer,
) -> Result<Loaded, LoadFault> {
    let settings = Settings {
        keep_uuids: true,
        ..settings.clone()
    };
    let resumed = cursor != Cursor::default();
    let whole = Whole::new(cursor, observer);
    observer.progress(Step::Preparing, 0, 0);
    let members = judge(old, new, &settings, resumed).await?;
    // From here on what is found at the targets is ours.
    whole.keep().await?;
    let shards = stream::iter(&old.shards).map(|(owned, chosen)| {
        let (whole, settings) = (&whole, &settings);
        async move {
            let target = target_of(new, owned.shard())?;
            let observer = whole.of_shard(owned.shard());
            load(
                owned,
                chosen,
                target,
                settings,
                whole.cursor_of(owned.shard()),
                &observer,
            )
            .await
        }
    });
    let shards = shards.buffer_unordered(SHARDS_AT_ONCE);
    let shards: Vec<Loaded> = shards.try_collect().await?;
    let mut loaded = shards.into_iter().fold(Loaded::default(), joined);
    let accounts = whole.of_shard(CONFIG_SERVERS);
    let on_config = load(
        &*old.config,
        &old.config_chosen,
        &new.config,
        &settings,
        whole.cursor_of(CONFIG_SERVERS),
        &accounts,
    );
    loaded = joined(loaded, on_config.await?);
    whole.step(Step::Indexes);
    loaded
        .notes
        .extend(tables::write(&*old.config, &new.config, &members).await?);
    join(new, &members).await?;
    whole.step(Step::Verifying);
    verify(new, &members).await?;
    whole.keep().await?;
    Ok(loaded)
}

/// Under which name the cursor of the config servers' users is kept: no shard is called so.
const CONFIG_SERVERS: &str = "/config";

fn joined(mut all: Loaded, one: Loaded) -> Loaded {
    all.collections.extend(one.collections);
    all.notes.extend(one.notes);
    all
}

fn target_of<'a>(new: &'a NewCluster, shard: &str) -> Result<&'a Target, LoadFault> {
    new.shards.get(shard).ok_or_else(|| LoadFault::Refused {
        what: format!("shard {shard}"),
        detail: "no target is named for it".to_owned(),
    })
}

/// The members of the new cluster as they call themselves.
struct Members {
    /// `config.version.clusterId`.
    cluster_id: bson::Bson,
    config: Member,
    shards: BTreeMap<String, Member>,
}

async fn judge(old: &OldCluster, new: &NewCluster, settings: &Settings, resumed: bool) -> Result<Members, LoadFault> {
    let fcv = crate::load::prepare::source_fcv(&*old.config).await?;
    let needed = fcv.as_deref().unwrap_or(&settings.source_version);
    let config = Member::of(&new.config).await?;
    refuse(
        &new.config,
        freshness::unfit_for_config(&config, new.shards.keys(), resumed),
    )?;
    let mut shards: BTreeMap<String, Member> = BTreeMap::new();
    for (name, target) in &new.shards {
        let member = Member::of(target).await?;
        refuse(target, freshness::unfit_for_shard(&member, name, resumed))?;
        if let Some((other, _)) = shards.iter().find(|(_, other)| other.hosts == member.hosts) {
            refuse(
                target,
                Some(format!("shards {other} and {name} cannot be one replica set")),
            )?;
        }
        shards.insert(name.clone(), member);
    }
    for (target, member) in [(&new.config, &config)].into_iter().chain(pairs(new, &shards)) {
        freshness::raise(target, member, needed).await?;
    }
    let version = new
        .config
        .run("config", &doc! { "find": "version", "limit": 1 })
        .await?;
    let cluster_id = freshness::first(&version).and_then(|version| version.get("clusterId").cloned());
    let cluster_id = cluster_id.ok_or_else(|| LoadFault::Unfit {
        target: new.config.shown().to_owned(),
        why: "it has no cluster id yet: wait until its primary has been elected for a moment".to_owned(),
    })?;
    Ok(Members {
        cluster_id,
        config,
        shards,
    })
}

fn pairs<'a>(
    new: &'a NewCluster,
    shards: &'a BTreeMap<String, Member>,
) -> impl Iterator<Item = (&'a Target, &'a Member)> {
    new.shards
        .iter()
        .filter_map(|(name, target)| Some((target, shards.get(name)?)))
}

fn refuse(target: &Target, why: Option<String>) -> Result<(), LoadFault> {
    why.map_or(Ok(()), |why| {
        Err(LoadFault::Unfit {
            target: target.shown().to_owned(),
            why,
        })
    })
}

/// Tells the shards who they are.
async fn join(new: &NewCluster, members: &Members) -> Result<(), LoadFault> {
    for (name, target) in &new.shards {
        let identity = identity(name, members);
        let update = doc! { "q": { "_id": "shardIdentity" }, "u": identity, "upsert": true };
        let command = doc! { "update": "system.version", "updates": [update], "writeConcern": majority() };
        let reply = target.run("admin", &command).await?;
        if let Err(detail) = crate::load::documents::duplicates(&reply, false) {
            let what = format!("the identity of shard {name}");
            return Err(LoadFault::Refused { what, detail });
        }
    }
    Ok(())
}

fn identity(shard: &str, members: &Members) -> Document {
    doc! {
        "_id": "shardIdentity", "shardName": shard, "clusterId": members.cluster_id.clone(),
        "configsvrConnectionString": members.config.connection_string(),
    }
}

/// Looks whether every shard takes itself for what it is, and the config servers know all of them.
async fn verify(new: &NewCluster, members: &Members) -> Result<(), LoadFault> {
    let refused = |what: String, found: &Document| LoadFault::Refused {
        what,
        detail: format!("it says {found}"),
    };
    for (name, target) in &new.shards {
        let state = target.run("admin", &doc! { "shardingState": 1 }).await?;
        let joined =
            state.get_bool("enabled").unwrap_or(false) && state.get_str("shardName").is_ok_and(|is| is == name);
        if !joined {
            return Err(refused(format!("to be shard {name}"), &state));
        }
    }
    let shards = new
        .config
        .run("config", &doc! { "find": "shards", "batchSize": 1000 })
        .await?;
    let known = freshness::batch(&shards);
    let is_known = |(name, member): (&String, &Member)| {
        known.iter().any(|shard| {
            shard.get_str("_id").is_ok_and(|id| id == name)
                && shard
                    .get_str("host")
                    .is_ok_and(|host| host == member.connection_string())
        })
    };
    match members.shards.iter().all(is_known) {
        true => Ok(()),
        false => Err(refused("to know its shards".to_owned(), &shards)),
    }
}
