//! A sharded cluster without mongos: config servers and shards of one member each, joined by internal commands, and a
//! [`Router`] that does what a mongos would. Works with mongod 6.0; the commands are those of `reference/oplog.md` §7.3.

mod ddl;
mod router;
mod shared;
mod table;
mod transaction;

use anyhow::{Context, Result};
use bson::doc;

pub use router::Router;
pub use shared::Shared;
pub use transaction::Transaction;

use crate::bed::Bed;
use crate::replica_set::{ReplicaSet, ReplicaSetSpec};

/// The name of the config servers' replica set.
pub const CONFIG: &str = "cfg";

/// A running cluster. Dropping it kills its servers.
#[derive(Debug)]
pub struct Cluster {
    version: String,
    parameters: Vec<(String, String)>,
    config: ReplicaSet,
    shards: Vec<ReplicaSet>,
}

impl Cluster {
    /// Config servers and shards that do not know of each other.
    pub async fn apart(bed: &Bed, version: &str, shards: usize) -> Result<Cluster> {
        Cluster::apart_with(bed, version, shards, &[]).await
    }

    async fn apart_with(bed: &Bed, version: &str, shards: usize, parameters: &[(&str, &str)]) -> Result<Cluster> {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let parameters: Vec<(String, String)> = parameters.iter().map(owned).collect();
        let config = member(version, CONFIG, "--configsvr", &parameters);
        let mut cluster = Cluster {
            version: version.to_owned(),
            parameters,
            config: bed.replica_set(config).await?,
            shards: Vec::new(),
        };
        for _ in 0..shards {
            cluster.start_shard(bed).await?;
        }
        Ok(cluster)
    }

    /// Starts config servers and shards `sh0`, `sh1`, …, and joins them. The balancer is off.
    pub async fn start(bed: &Bed, version: &str, shards: usize) -> Result<Cluster> {
        Cluster::start_with(bed, version, shards, &[]).await
    }

    /// The same with `--setParameter`s for every server.
    pub async fn start_with(bed: &Bed, version: &str, shards: usize, parameters: &[(&str, &str)]) -> Result<Cluster> {
        let mut cluster = Cluster::apart_with(bed, version, 0, parameters).await?;
        for _ in 0..shards {
            cluster.add_shard(bed).await?;
        }
        let mut router = cluster.router().await?;
        router.on(CONFIG, "admin", doc! { "_configsvrBalancerStop": 1 }).await?;
        Ok(cluster)
    }

    /// Starts one more shard and lets it join.
    pub async fn add_shard(&mut self, bed: &Bed) -> Result<()> {
        let name = self.start_shard(bed).await?;
        let host = self
            .shards
            .last()
            .map(|shard| shard.member(0).address())
            .unwrap_or_default();
        let host = format!("{name}/{host}");
        let command = doc! { "_configsvrAddShard": host, "name": &name, "writeConcern": router::majority() };
        self.router().await?.on(CONFIG, "admin", command).await.map(drop)
    }

    async fn start_shard(&mut self, bed: &Bed) -> Result<String> {
        let name = format!("sh{}", self.shards.len());
        let shard = member(&self.version, &name, "--shardsvr", &self.parameters);
        let shard = bed.replica_set(shard).await?;
        self.shards.push(shard);
        Ok(name)
    }

    /// Stops every server in good order and starts it again.
    pub async fn restart(&mut self) -> Result<()> {
        for set in [&mut self.config].into_iter().chain(&mut self.shards) {
            set.restart_member(0).await?;
        }
        Ok(())
    }

    /// A connection string to the config servers.
    pub fn uri(&self) -> String {
        self.config.uri()
    }

    /// The config servers.
    pub fn config(&self) -> &ReplicaSet {
        &self.config
    }

    /// The config servers, to stop, kill or start their member.
    pub fn config_mut(&mut self) -> &mut ReplicaSet {
        &mut self.config
    }

    /// A shard.
    pub fn shard(&self, number: usize) -> &ReplicaSet {
        &self.shards[number]
    }

    /// A shard, to stop, kill or start its member.
    pub fn shard_mut(&mut self, number: usize) -> &mut ReplicaSet {
        &mut self.shards[number]
    }

    /// Names and replica sets of the shards.
    pub fn shards(&self) -> impl Iterator<Item = &ReplicaSet> {
        self.shards.iter()
    }

    /// A new router, with connections of its own.
    pub async fn router(&self) -> Result<Router> {
        let mut router = Router::default();
        for set in [&self.config].into_iter().chain(&self.shards) {
            let connected = router.connect(set.name(), &set.member(0).address()).await;
            connected.with_context(|| format!("while connecting to {}", set.name()))?;
        }
        Ok(router)
    }
}

fn member(version: &str, name: &str, role: &str, parameters: &[(String, String)]) -> ReplicaSetSpec {
    let mut spec = ReplicaSetSpec::single(version).not_replayable();
    spec.name = name.to_owned();
    spec.mongod.arguments.push(role.to_owned());
    spec.mongod.oplog_mib = 256;
    spec.mongod.parameters.extend_from_slice(parameters);
    spec
}
