//! Three daemons as one: killed, frozen, cut off, cut down to a minority, restarted, replaced; nothing acknowledged is lost, and
//! what comes back is what the source had.

use std::time::Duration;

use anyhow::{Result, ensure};
use headwater_tests::{Bed, ReplicaSet, ReplicaSetSpec, Trio, Workload, WorkloadSpec};
use serde_json::Value;
use tokio::time::Instant;

mod checkpoints;
mod faults;
mod partitions;
mod phases;
mod storm;

async fn protected(bed: &Bed, source: &ReplicaSet, agents: usize) -> Result<Trio> {
    let mut trio = Trio::start_gated(bed.headwater()?, 3).await?;
    trio.commands()
        .json(&["deployment", "add", "default", "--uri", &source.uri()])
        .await?;
    for number in 0..agents {
        trio.start_agent(number)?;
    }
    Ok(trio)
}

async fn quiet_source(bed: &Bed) -> Result<ReplicaSet> {
    bed.replica_set(ReplicaSetSpec::single("6.0.5").not_replayable()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_owner_killed_another_goes_on_within_seconds() -> Result<()> {
    let bed = Bed::new().await?;
    let source = quiet_source(&bed).await?;
    let workload = Workload::start(&source, WorkloadSpec::seeded(3).rate(100)).await?;
    let mut trio = protected(&bed, &source, 2).await?;
    trio.until_complete().await?;
    for _ in 0..2 {
        let owner = trio.owner().await?;
        let killed = Instant::now();
        trio.daemon(owner)?.kill()?;
        let ts = source.mark("after the kill").await?;
        trio.until_applied(ts).await?;
        let took = killed.elapsed();
        eprintln!("another head had caught up {:.1} s after the kill", took.as_secs_f64());
        ensure!(took < Duration::from_secs(10), "it took {took:?}\n{}", trio.logs());
        ensure!(trio.owner().await? != owner);
        trio.start_daemon(owner).await?;
        trio.until_whole().await?;
    }
    workload.stop().await?;
    trio.comes_back(&bed, &source).await
}

#[tokio::test(flavor = "multi_thread")]
async fn all_three_are_restarted_one_after_the_other_without_a_gap() -> Result<()> {
    let bed = Bed::new().await?;
    let source = quiet_source(&bed).await?;
    let workload = Workload::start(&source, WorkloadSpec::seeded(5).rate(100)).await?;
    let mut trio = protected(&bed, &source, 1).await?;
    trio.until_complete().await?;
    for number in 0..trio.daemons() {
        let began = Instant::now();
        let status = trio.daemon(number)?.stop().await?;
        ensure!(status.success(), "daemon {number} ended with {status}\n{}", trio.logs());
        let ts = source.mark("after a daemon left").await?;
        trio.until_applied(ts).await?;
        let took = began.elapsed();
        eprintln!(
            "daemon {number} left; another head had caught up {:.1} s after it was told to",
            took.as_secs_f64()
        );
        trio.start_daemon(number).await?;
        trio.until_whole().await?;
    }
    workload.stop().await?;
    trio.comes_back(&bed, &source).await
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_majority_nothing_changes_and_everything_heals() -> Result<()> {
    let bed = Bed::new().await?;
    let source = quiet_source(&bed).await?;
    let mut trio = protected(&bed, &source, 1).await?;
    trio.until_complete().await?;
    let owner = trio.owner().await?;
    let (one, other) = ((owner + 1) % 3, (owner + 2) % 3);
    trio.daemon(one)?.kill()?;
    trio.daemon(other)?.kill()?;
    let refused = trio
        .commands()
        .run(["deployment", "add", "second", "--uri", &source.uri()])
        .await?;
    ensure!(
        matches!(refused.code, 7 | 75),
        "{} {}\n{}",
        refused.code,
        refused.stderr,
        trio.logs()
    );
    // The owner goes on with what it has: what it stores is fenced by the store, not by a majority.
    let ts = source.mark("in the minority").await?;
    trio.until_applied(ts).await?;
    trio.start_daemon(one).await?;
    trio.start_daemon(other).await?;
    trio.until_whole().await?;
    let added = trio
        .commands()
        .run(["deployment", "add", "third", "--uri", &source.uri()])
        .await?;
    ensure!(added.code == 0, "{}\n{}", added.stderr, trio.logs());
    trio.commands().run(["deployment", "remove", "third", "--yes"]).await?;
    trio.comes_back(&bed, &source).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_is_drained_removed_and_one_that_lost_its_disk_is_replaced() -> Result<()> {
    let bed = Bed::new().await?;
    let source = quiet_source(&bed).await?;
    let mut trio = protected(&bed, &source, 1).await?;
    trio.until_complete().await?;
    let owner = trio.owner().await?;
    let node = trio.node_at(owner).await?.to_string();
    trio.commands().json(&["cluster", "drain", &node]).await?;
    let elsewhere = |view: &Value| {
        let nodes = view["nodes"].as_array()?;
        let drained = nodes.iter().find(|known| known["id"].as_u64() == node.parse().ok())?;
        drained["replica_sets"].as_array()?.is_empty().then_some(())
    };
    trio.until("the drained node to own nothing", &["cluster", "status"], elsewhere)
        .await?;
    trio.until_applied(source.mark("after the drain").await?).await?;
    // Not the first: its folder holds the keys that this test uses.
    let lost = (1..3).find(|number| *number != owner).unwrap_or(1);
    let before = trio.node_at(lost).await?;
    trio.wipe(lost)?;
    trio.start_daemon(lost).await?;
    trio.until_whole().await?;
    let after = trio.node_at(lost).await?;
    ensure!(after > before, "node {before} came back under its old number");
    trio.until_applied(source.mark("after the loss").await?).await?;
    let leaving = trio.node_at(owner).await?.to_string();
    trio.commands().json(&["cluster", "remove", &leaving]).await?;
    let gone = |view: &Value| (view["nodes"].as_array()?.len() == 2).then_some(());
    trio.until("the node to be gone", &["cluster", "status"], gone).await?;
    trio.comes_back(&bed, &source).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agent_that_streams_is_killed_then_frozen_and_the_other_goes_on() -> Result<()> {
    let bed = Bed::new().await?;
    let source = quiet_source(&bed).await?;
    let workload = Workload::start(&source, WorkloadSpec::seeded(8).rate(50)).await?;
    let mut trio = protected(&bed, &source, 2).await?;
    trio.until_complete().await?;
    for kill in [true, false] {
        let agent = trio.streaming_agent().await?;
        let began = Instant::now();
        match kill {
            true => trio.agent(agent)?.kill()?,
            false => trio.agent(agent)?.freeze()?,
        }
        trio.until_applied(source.mark("after the agent was lost").await?)
            .await?;
        let took = began.elapsed();
        eprintln!("the other agent streams, {:.1} s after", took.as_secs_f64());
        ensure!(took < Duration::from_secs(20), "it took {took:?}\n{}", trio.logs());
        ensure!(trio.streaming_agent().await? != agent);
        match kill {
            true => trio.start_agent(agent)?,
            false => trio.agent(agent)?.resume()?,
        }
        // It is told that it has lost the lease, and leaves the stream alone.
        let ts = source.mark("both are there").await?;
        trio.until_applied(ts).await?;
        ensure!(trio.streaming_agent().await? != agent);
    }
    workload.stop().await?;
    trio.comes_back(&bed, &source).await
}
