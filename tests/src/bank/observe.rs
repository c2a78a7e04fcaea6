//! Asks for checkpoints and asks the servers what was true, while everything goes on.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bson::Timestamp;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;
use tokio::time::{Instant, sleep, sleep_until};

use super::latency::Latencies;
use super::money::Business;
use super::truth::{Routing, Truth};
use crate::headwater::Headwater;
use crate::sharded::Shared;
use crate::until;

/// What the observers saw.
#[derive(Debug, Default)]
pub struct Seen {
    /// Checkpoints that were sealed, by id, with what was true then.
    pub sealed: BTreeMap<String, Truth>,
    /// Checkpoints that were given up, and why.
    pub given_up: Vec<String>,
    /// From asking to sealed.
    pub took: Vec<Duration>,
    /// Other cluster times.
    pub instants: Vec<Truth>,
}

/// A position of JSON.
pub fn position(value: &Value) -> Option<Timestamp> {
    Some(Timestamp {
        time: u32::try_from(value.get("t")?.as_u64()?).ok()?,
        increment: u32::try_from(value.get("i")?.as_u64()?).ok()?,
    })
}

/// Asks for a checkpoint as often as `every`, until so long is over. The first one is asked for at once.
pub async fn take_checkpoints(
    headwater: &Headwater,
    cluster: &Shared,
    latencies: &Latencies,
    every: Duration,
    lasts: Duration,
) -> Result<Seen> {
    let mut seen = Seen::default();
    let end = Instant::now() + lasts;
    let mut next = Instant::now();
    while next < end {
        sleep_until(next).await;
        next = Instant::now().max(next) + every;
        let (id, asked) = ask(headwater).await?;
        let outcome = outcome(headwater, &id).await?;
        match outcome {
            Ok(at) => {
                seen.took.push(asked.elapsed());
                latencies.checkpoint(asked);
                eprintln!("checkpoint {id}: sealed after {:.1?}", asked.elapsed());
                seen.sealed.insert(id, truth(cluster, at).await?);
            }
            Err(why) => {
                eprintln!("{why}");
                seen.given_up.push(why);
            }
        }
    }
    sleep_until(end).await;
    Ok(seen)
}

/// Asks until it is not refused: another one may be open, or daemons dead. Answers when the successful call began.
pub async fn ask(headwater: &Headwater) -> Result<(String, Instant)> {
    until("a checkpoint to be asked for", || async {
        let asked = Instant::now();
        let taken = headwater.json(&["snapshot", "take", "shop"]).await;
        let taken = taken.inspect_err(|refused| eprintln!("{refused:#}"));
        Ok(taken
            .ok()
            .and_then(|view| Some((view["id"].as_str()?.to_owned(), asked))))
    })
    .await
}

/// Waits for the end of a checkpoint: its cluster time, or why it was given up.
pub async fn outcome(headwater: &Headwater, id: &str) -> Result<Result<Timestamp, String>> {
    // Longer than the service has patience.
    for _ in 0..2 {
        let waited = until("a checkpoint to be sealed or given up", || async {
            let ended = headwater
                .run(["snapshot", "show", "shop", id, "--output", "json"])
                .await?;
            if ended.stderr.contains("given up") {
                return Ok(Some(Err(ended.stderr)));
            }
            let view: Value = match serde_json::from_str(&ended.stdout) {
                Ok(view) if ended.code == 0 => view,
                _ => return Ok(None),
            };
            let at = position(&view["at"]).filter(|_| view["complete"] == true);
            Ok(at.map(Ok))
        });
        if let Ok(outcome) = waited.await {
            return Ok(outcome);
        }
    }
    bail!("checkpoint {id} is neither sealed nor given up")
}

/// Chooses cluster times, about one a `pause`, until the business is closed.
pub async fn choose_instants(business: &Business, cluster: &Shared, pause: Duration, seed: u64) -> Result<Vec<Truth>> {
    // What lies before may not be restorable.
    let from = level(cluster).await?;
    let mut random = StdRng::seed_from_u64(seed);
    let mut truths = Vec::new();
    while business.is_open() {
        let now = level(cluster).await?;
        let at = Timestamp {
            time: now.time - random.gen_range(1..4),
            increment: random.gen_range(1..60),
        };
        truths.push(truth(cluster, at.max(from)).await?);
        sleep(pause.mul_f64(random.gen_range(0.5..1.5))).await;
    }
    Ok(truths)
}

/// A cluster time that every server has reached.
pub async fn level(cluster: &Shared) -> Result<Timestamp> {
    until("every member to take a note", || async {
        Ok(cluster.router().await?.level().await.ok())
    })
    .await
}

/// What the servers say of a cluster time, which lies in the past.
async fn truth(cluster: &Shared, at: Timestamp) -> Result<Truth> {
    level(cluster).await?;
    let asked = until("the servers to say what was true", || async {
        let mut router = cluster.router().await?;
        match Truth::of(&mut router, at).await {
            Ok(truth) => Ok(Some(truth)),
            Err(refused) if format!("{refused:#}").contains("SnapshotTooOld") => Ok(Some(Truth {
                at,
                routing: Routing::at(&mut router, at).await?,
                accounts: None,
            })),
            Err(_) => Ok(None),
        }
    });
    asked.await.with_context(|| format!("at {at:?}"))
}

/// Waits until what is stored of every member reaches beyond a cluster time.
pub async fn until_stored(headwater: &Headwater, at: Timestamp) -> Result<()> {
    let past = |shown: &Value| {
        let mut sets = shown["replica_sets"].as_array()?.iter();
        let beyond = |set: &Value| position(&set["tip"]).is_some_and(|tip| tip > at);
        sets.all(beyond).then_some(())
    };
    headwater
        .until("every oplog to be stored", &["deployment", "show", "shop"], past)
        .await
}

/// Waits until the first copies of all members are complete.
pub async fn until_complete(headwater: &Headwater, members: usize) -> Result<Vec<Value>> {
    until("all members to be complete", || async {
        let shown = headwater
            .json(&["deployment", "show", "shop"])
            .await
            .unwrap_or_default();
        let all = shown["replica_sets"].as_array().cloned().unwrap_or_default();
        let complete = all.iter().filter(|set| set["phase"] == "complete").count();
        Ok((complete == members).then_some(all))
    })
    .await
    .with_context(|| headwater.log_tail("agent"))
}
