//! Kills of daemons, agents, shards and config servers, one at a time, while everything goes on.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::sleep;

use super::money::Business;
use crate::sharded::Shared;
use crate::trio::Trio;

/// How often what was killed.
pub type Kills = BTreeMap<&'static str, usize>;

/// Kills and starts again until the business is closed; then everything runs.
pub async fn kill(business: &Business, trio: &mut Trio, cluster: &Shared, shards: usize, seed: u64) -> Result<Kills> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut kills = Kills::new();
    while business.is_open() {
        sleep(Duration::from_millis(random.gen_range(2_000..10_000))).await;
        let gone = Duration::from_millis(random.gen_range(200..4_000));
        let what = match random.gen_range(0..10) {
            0..4 => {
                let daemon = random.gen_range(0..trio.daemons());
                trio.daemon(daemon)?.kill()?;
                sleep(gone).await;
                trio.start_daemon(daemon).await?;
                trio.until_whole().await?;
                "daemon"
            }
            4..7 => {
                let agent = random.gen_range(0..trio.agents());
                trio.agent(agent)?.kill()?;
                sleep(gone).await;
                trio.start_agent(agent)?;
                "agent"
            }
            7 => {
                cluster.restart_config().await?;
                "config server"
            }
            _ => {
                cluster.restart_shard(random.gen_range(0..shards)).await?;
                "shard"
            }
        };
        *kills.entry(what).or_default() += 1;
    }
    Ok(kills)
}
