//! A cluster that several tasks use while its servers are killed and started again.

use anyhow::Result;
use tokio::sync::{RwLock, RwLockReadGuard};

use super::{Cluster, Router};
use crate::replica_set::ReplicaSet;
use crate::until;

/// A running cluster. Whoever wants a router waits while a server is being restarted.
#[derive(Debug)]
pub struct Shared(RwLock<Cluster>);

impl Shared {
    /// Shares a cluster.
    pub fn new(cluster: Cluster) -> Shared {
        Shared(RwLock::new(cluster))
    }

    /// The cluster as it is now; nothing is killed meanwhile.
    pub async fn cluster(&self) -> RwLockReadGuard<'_, Cluster> {
        self.0.read().await
    }

    /// A new router, with connections of its own.
    pub async fn router(&self) -> Result<Router> {
        until("a router that reaches every member", || async {
            Ok(self.0.read().await.router().await.ok())
        })
        .await
    }

    /// Ends the only member of a shard as a power cut would, and starts it again. The name of the shard.
    pub async fn restart_shard(&self, number: usize) -> Result<String> {
        let mut cluster = self.0.write().await;
        let shard = cluster.shard_mut(number);
        cut_power(shard).await?;
        Ok(shard.name().to_owned())
    }

    /// The same with the config servers.
    pub async fn restart_config(&self) -> Result<()> {
        cut_power(self.0.write().await.config_mut()).await
    }
}

async fn cut_power(set: &mut ReplicaSet) -> Result<()> {
    set.member_mut(0).kill()?;
    set.member_mut(0).start_again().await?;
    set.primary().await.map(drop)
}
