//! Three daemons as one: killed, frozen, cut down to a minority, restarted, replaced; nothing acknowledged is lost, and
//! what comes back is what the source had.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use headwater_model::Ts;
use headwater_tests::{Bed, ReplicaSet, ReplicaSetSpec, Trio, Workload, WorkloadSpec, proof, replay, versions};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;
use tokio::time::{Instant, sleep};

/// So many faults in one storm, unless `HEADWATER_FAULTS` says otherwise.
const FAULTS: usize = 10;

async fn protected(bed: &Bed, source: &ReplicaSet, agents: usize) -> Result<Trio> {
    let mut trio = Trio::start(bed.headwater()?, 3).await?;
    trio.commands()
        .json(&["deployment", "add", "default", "--uri", &source.uri()])
        .await?;
    for number in 0..agents {
        trio.start_agent(number)?;
    }
    Ok(trio)
}

fn complete(status: &Value) -> Option<()> {
    let set = proof::set_of(status)?;
    (set.get("phase")?.as_str()? == "complete" && !set.get("restorable")?.is_null()).then_some(())
}

/// Whether the head has everything up to `ts`, on whichever node it is.
fn applied(status: &Value, ts: Ts) -> Option<()> {
    let at = proof::position(proof::set_of(status)?.get("applied")?)?;
    (at >= (u64::from(ts.seconds()), u64::from(ts.ordinal()))).then_some(())
}

async fn until_applied(trio: &Trio, ts: Ts) -> Result<()> {
    trio.until("a head that has caught up", &["status"], |status| applied(status, ts))
        .await
}

/// What is restored at the end of everything equals the source.
async fn comes_back(bed: &Bed, trio: &Trio, source: &ReplicaSet) -> Result<()> {
    let end = source.mark("end").await?;
    until_applied(trio, end).await?;
    let target = proof::restored(bed, trio.commands(), source.version(), &end.to_string()).await;
    let target = target.with_context(|| trio.logs())?;
    proof::compare(source.client(), target.client(), "the end").await
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
    trio.until("a first restorable point", &["status"], complete).await?;
    for _ in 0..2 {
        let owner = trio.owner().await?;
        let killed = Instant::now();
        trio.daemon(owner)?.kill()?;
        let ts = source.mark("after the kill").await?;
        until_applied(&trio, ts).await?;
        let took = killed.elapsed();
        eprintln!("another head had caught up {:.1} s after the kill", took.as_secs_f64());
        ensure!(took < Duration::from_secs(10), "it took {took:?}\n{}", trio.logs());
        ensure!(trio.owner().await? != owner);
        trio.start_daemon(owner).await?;
        trio.until_whole().await?;
    }
    workload.stop().await?;
    comes_back(&bed, &trio, &source).await
}

/// One thing that goes wrong, and is over when this answers.
async fn fault(trio: &mut Trio, random: &mut StdRng) -> Result<String> {
    let moment = |random: &mut StdRng, from: u64, to: u64| Duration::from_millis(random.gen_range(from..to));
    sleep(moment(random, 100, 1500)).await;
    let daemon = match random.gen_range(0..4) {
        0 => trio.owner().await.unwrap_or(0),
        1 => trio.leader().await.unwrap_or(1),
        _ => random.gen_range(0..trio.daemons()),
    };
    let agent = random.gen_range(0..trio.agents());
    let pause = moment(random, 200, 3500);
    let told = match random.gen_range(0..10) {
        0..4 => {
            trio.daemon(daemon)?.kill()?;
            sleep(pause).await;
            trio.start_daemon(daemon).await?;
            format!("daemon {daemon} killed, back after {pause:?}")
        }
        4..6 => {
            trio.daemon(daemon)?.freeze()?;
            sleep(pause).await;
            trio.daemon(daemon)?.resume()?;
            format!("daemon {daemon} frozen for {pause:?}")
        }
        6 => {
            let second = (daemon + 1) % trio.daemons();
            let between = moment(random, 100, 1500);
            trio.daemon(daemon)?.kill()?;
            sleep(between).await;
            trio.daemon(second)?.kill()?;
            sleep(pause).await;
            trio.start_daemon(second).await?;
            trio.start_daemon(daemon).await?;
            format!("daemon {daemon} killed, then {second} after {between:?}, back after {pause:?}")
        }
        7 | 8 => {
            trio.agent(agent)?.kill()?;
            sleep(pause).await;
            trio.start_agent(agent)?;
            format!("agent {agent} killed, back after {pause:?}")
        }
        _ => {
            trio.agent(agent)?.freeze()?;
            sleep(pause).await;
            trio.agent(agent)?.resume()?;
            format!("agent {agent} frozen for {pause:?}")
        }
    };
    Ok(told)
}

/// Random entries of the source's oplog that can be restored.
async fn instants(trio: &Trio, source: &ReplicaSet, random: &mut StdRng, count: usize) -> Result<Vec<Ts>> {
    let status = trio.commands().json(&["status"]).await?;
    let set = proof::set_of(&status).context("no replica set in status")?;
    let edge = |name: &str| -> Result<bson::Timestamp> {
        let (t, i) = set
            .pointer(&format!("/restorable/{name}"))
            .and_then(proof::position)
            .context("nothing restorable")?;
        Ok(Ts::new(u32::try_from(t)?, u32::try_from(i)?).into())
    };
    let within = bson::doc! { "ts": { "$gte": edge("from")?, "$lte": edge("to")? } };
    let oplog = source
        .client()
        .database("local")
        .collection::<bson::Document>("oplog.rs");
    let mut entries = oplog.find(within).projection(bson::doc! { "ts": 1 }).await?;
    let mut all = Vec::new();
    while entries.advance().await? {
        all.push(Ts::from(entries.deserialize_current()?.get_timestamp("ts")?));
    }
    ensure!(all.len() > 50, "only {} entries to choose from", all.len());
    let mut chosen: Vec<_> = (0..count).map(|_| all[random.gen_range(0..all.len())]).collect();
    chosen.sort();
    Ok(chosen)
}

async fn a_storm_is_weathered(version: &str, seed: u64) -> Result<()> {
    let faults = std::env::var("HEADWATER_FAULTS").map_or(Ok(FAULTS), |text| text.parse())?;
    let bed = Bed::new().await?;
    let source = bed.replica_set(ReplicaSetSpec::single(version)).await?;
    let workload = Workload::start(&source, WorkloadSpec::seeded(seed).rate(60)).await?;
    workload.reach(300).await?;
    let mut trio = protected(&bed, &source, 2).await?;
    let mut random = StdRng::seed_from_u64(seed);
    // The first ones hit the first copy at whatever phase it is.
    for number in 0..faults {
        if number == faults / 3 {
            trio.until("a first restorable point", &["status"], complete).await?;
        }
        let told = fault(&mut trio, &mut random).await.with_context(|| trio.logs())?;
        eprintln!("{version}: fault {} of {faults}: {told}", number + 1);
        trio.require_running()?;
    }
    trio.until_whole().await?;
    trio.until("a first restorable point", &["status"], complete).await?;
    let done = workload.report().total();
    workload.reach(done + 100).await?;
    workload.stop().await?;
    comes_back(&bed, &trio, &source).await?;
    for instant in instants(&trio, &source, &mut random, 2).await? {
        let target = proof::restored(&bed, trio.commands(), version, &instant.to_string()).await?;
        let model = replay::to(&bed, &source, instant).await?;
        proof::compare(model.client(), target.client(), &instant.to_string()).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_kills_and_freezes_loses_nothing() -> Result<()> {
    for (n, version) in versions().iter().take(1).enumerate() {
        let seed = std::env::var("HEADWATER_SEED").map_or(Ok(71 + n as u64), |text| text.parse())?;
        a_storm_is_weathered(version, seed).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn all_three_are_restarted_one_after_the_other_without_a_gap() -> Result<()> {
    let bed = Bed::new().await?;
    let source = quiet_source(&bed).await?;
    let workload = Workload::start(&source, WorkloadSpec::seeded(5).rate(100)).await?;
    let mut trio = protected(&bed, &source, 1).await?;
    trio.until("a first restorable point", &["status"], complete).await?;
    for number in 0..trio.daemons() {
        let began = Instant::now();
        let status = trio.daemon(number)?.stop().await?;
        ensure!(status.success(), "daemon {number} ended with {status}\n{}", trio.logs());
        let ts = source.mark("after a daemon left").await?;
        until_applied(&trio, ts).await?;
        let took = began.elapsed();
        eprintln!(
            "daemon {number} left; another head had caught up {:.1} s after it was told to",
            took.as_secs_f64()
        );
        trio.start_daemon(number).await?;
        trio.until_whole().await?;
    }
    workload.stop().await?;
    comes_back(&bed, &trio, &source).await
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_majority_nothing_changes_and_everything_heals() -> Result<()> {
    let bed = Bed::new().await?;
    let source = quiet_source(&bed).await?;
    let mut trio = protected(&bed, &source, 1).await?;
    trio.until("a first restorable point", &["status"], complete).await?;
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
    until_applied(&trio, ts).await?;
    trio.start_daemon(one).await?;
    trio.start_daemon(other).await?;
    trio.until_whole().await?;
    let added = trio
        .commands()
        .run(["deployment", "add", "third", "--uri", &source.uri()])
        .await?;
    ensure!(added.code == 0, "{}\n{}", added.stderr, trio.logs());
    trio.commands().run(["deployment", "remove", "third", "--yes"]).await?;
    comes_back(&bed, &trio, &source).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_is_drained_removed_and_one_that_lost_its_disk_is_replaced() -> Result<()> {
    let bed = Bed::new().await?;
    let source = quiet_source(&bed).await?;
    let mut trio = protected(&bed, &source, 1).await?;
    trio.until("a first restorable point", &["status"], complete).await?;
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
    until_applied(&trio, source.mark("after the drain").await?).await?;
    // Not the first: its folder holds the keys that this test uses.
    let lost = (1..3).find(|number| *number != owner).unwrap_or(1);
    let before = trio.node_at(lost).await?;
    trio.wipe(lost)?;
    trio.start_daemon(lost).await?;
    trio.until_whole().await?;
    let after = trio.node_at(lost).await?;
    ensure!(after > before, "node {before} came back under its old number");
    until_applied(&trio, source.mark("after the loss").await?).await?;
    let leaving = trio.node_at(owner).await?.to_string();
    trio.commands().json(&["cluster", "remove", &leaving]).await?;
    let gone = |view: &Value| (view["nodes"].as_array()?.len() == 2).then_some(());
    trio.until("the node to be gone", &["cluster", "status"], gone).await?;
    comes_back(&bed, &trio, &source).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agent_that_streams_is_killed_then_frozen_and_the_other_goes_on() -> Result<()> {
    let bed = Bed::new().await?;
    let source = quiet_source(&bed).await?;
    let workload = Workload::start(&source, WorkloadSpec::seeded(8).rate(50)).await?;
    let mut trio = protected(&bed, &source, 2).await?;
    trio.until("a first restorable point", &["status"], complete).await?;
    for kill in [true, false] {
        let agent = trio.streaming_agent().await?;
        let began = Instant::now();
        match kill {
            true => trio.agent(agent)?.kill()?,
            false => trio.agent(agent)?.freeze()?,
        }
        until_applied(&trio, source.mark("after the agent was lost").await?).await?;
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
        until_applied(&trio, ts).await?;
        ensure!(trio.streaming_agent().await? != agent);
    }
    workload.stop().await?;
    comes_back(&bed, &trio, &source).await
}
