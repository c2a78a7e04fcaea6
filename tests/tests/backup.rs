//! The main path against real servers: what comes back is what the source had, at the end and at any instant before.

use std::time::Duration;

use anyhow::{Context, Result};
use bson::doc;
use headwater_tests::proof::{compare, instants_come_back, restored, until_complete, until_stored};
use headwater_tests::{Bed, Headwater, MongodSpec, ReplicaSetSpec, Workload, WorkloadSpec, versions};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;

/// Writes of every kind go on during the whole first copy and after it; what comes back equals the source at its end,
/// and a model replayed by a real mongod at instants before.
async fn a_busy_set_comes_back(version: &str, seed: u64, mishaps: bool) -> Result<()> {
    let bed = Bed::new().await?;
    let source = bed.replica_set(ReplicaSetSpec::single(version)).await?;
    let workload = Workload::start(&source, WorkloadSpec::seeded(seed).rate(150)).await?;
    workload.reach(600).await?;
    let mut headwater = bed.headwater()?;
    headwater.start_daemon().await?;
    headwater
        .json(&["deployment", "add", "default", "--uri", &source.uri()])
        .await?;
    headwater.start_agent().await?;
    let mut random = StdRng::seed_from_u64(seed);
    if mishaps {
        for _ in 0..6 {
            mishap(&mut headwater, &mut random).await?;
        }
    }
    until_complete(&headwater).await?;
    let done = workload.report().total();
    workload.reach(done + 900).await?;
    if mishaps {
        for _ in 0..4 {
            mishap(&mut headwater, &mut random).await?;
        }
    }
    headwater.json(&["snapshot", "take", "default", "--wait"]).await?;
    let done = workload.report().total();
    workload.reach(done + 600).await?;
    workload.stop().await?;
    let end = source.mark("end").await?;
    until_stored(&headwater, end).await?;
    let target = restored(&bed, &headwater, version, &end.to_string()).await?;
    compare(source.client(), target.client(), "the end").await?;
    instants_come_back(&bed, &headwater, &source, &mut random, if mishaps { 4 } else { 10 }).await
}

async fn mishap(headwater: &mut Headwater, random: &mut StdRng) -> Result<()> {
    tokio::time::sleep(Duration::from_millis(random.gen_range(100..900))).await;
    if random.gen_bool(0.5) {
        headwater.daemon()?.kill()?;
        headwater.start_daemon().await
    } else {
        headwater.agent()?.kill()?;
        headwater.start_agent().await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_written_to_all_the_time_comes_back_at_its_end_and_at_random_instants() -> Result<()> {
    for (n, version) in versions().iter().enumerate() {
        a_busy_set_comes_back(version, 11 + n as u64, false).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn daemon_and_agent_killed_at_random_moments_lose_nothing() -> Result<()> {
    a_busy_set_comes_back("6.0.5", 42, true).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instant_outside_of_the_proven_range_is_refused_and_the_nearest_is_named() -> Result<()> {
    let bed = Bed::new().await?;
    let source = bed
        .replica_set(ReplicaSetSpec::single("6.0.5").not_replayable())
        .await?;
    source
        .client()
        .database("shop")
        .collection::<bson::Document>("a")
        .insert_one(doc! { "_id": 1 })
        .await?;
    let mut headwater = bed.headwater()?;
    headwater.start_quickstart(&source.uri(), "default").await?;
    until_complete(&headwater).await?;
    let folder = bed.new_folder("dump")?.join("out");
    let folder = folder.to_str().context("a path that is no text")?;
    for instant in ["1,1", "4294967295,1"] {
        let ended = headwater
            .run(["restore", "default", "--at", instant, "--to-dir", folder])
            .await?;
        assert_eq!(ended.code, 8, "{}", ended.stderr);
        assert!(ended.stderr.contains("restorable instant"), "{}", ended.stderr);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_a_replica_set_is_refused_in_words() -> Result<()> {
    let bed = Bed::new().await?;
    let alone = bed.mongod(MongodSpec::new("6.0.5")).await?;
    let mut headwater = bed.headwater()?;
    headwater.start_quickstart(&alone.uri(), "default").await?;
    let refused = |status: &Value| {
        let alerts = status.get("alerts")?.as_array()?;
        let text = alerts
            .iter()
            .filter_map(Value::as_str)
            .find(|alert| alert.contains("--replSet"))?;
        Some(text.to_owned())
    };
    let alert = headwater
        .until("an alert about the missing replica set", &["status"], refused)
        .await?;
    eprintln!("{alert}");
    Ok(())
}
