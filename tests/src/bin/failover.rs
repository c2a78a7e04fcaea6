//! Measures how long a head is gone when its daemon dies: `cargo xtask failover [RUNS]` runs this in release.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use headwater_model::Ts;
use headwater_tests::{Bed, ReplicaSetSpec, Trio, Workload, WorkloadSpec, ballast, proof};
use serde_json::Value;

const VERSION: &str = "6.0.5";
/// Bytes of a document: they do not compress.
const DOCUMENT: usize = 8192;

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let runs: usize = arguments
        .next()
        .map_or(Ok(20), |text| text.parse())
        .context("a number of runs")?;
    let sizes: Vec<f64> = arguments.map(|text| text.parse()).collect::<Result<_, _>>()?;
    println!(
        "| data | runs | kill → another head caught up: p50 | max | kill → another leader: p50 | max | ingest stall: max |"
    );
    println!("|---|---|---|---|---|---|---|");
    for gigabytes in if sizes.is_empty() { vec![0.01, 3.0] } else { sizes } {
        measure(runs, gigabytes).await?;
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "this program measures real time")]
fn now() -> Instant {
    Instant::now()
}

async fn measure(runs: usize, gigabytes: f64) -> Result<()> {
    let bed = Bed::new().await?;
    let source = bed
        .replica_set(ReplicaSetSpec::single(VERSION).not_replayable().oplog_mib(4096))
        .await?;
    ballast::fill(source.client(), (gigabytes * 1e9) as u64 / DOCUMENT as u64, DOCUMENT).await?;
    let mut trio = Trio::start(bed.headwater()?, 3).await?;
    trio.commands()
        .json(&["deployment", "add", "bench", "--uri", &source.uri()])
        .await?;
    trio.start_agent(0)?;
    let complete = |status: &Value| (proof::set_of(status)?.get("phase")?.as_str()? == "complete").then_some(());
    trio.until("the first copy", &["status"], complete).await?;
    let workload = Workload::start(&source, WorkloadSpec::seeded(9).rate(100).without_ddl()).await?;
    let (mut heads, mut leaders, mut stalls) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..runs {
        let (owner, leader) = (trio.owner().await?, trio.leader().await?);
        let old = trio.node_at(leader).await?;
        let killed = now();
        trio.daemon(owner)?.kill()?;
        let mark = source.mark("after the kill").await?;
        if leader == owner {
            let another = |view: &Value| (view.get("leader")?.as_u64()? != old).then_some(());
            trio.until("another leader", &["cluster", "status"], another).await?;
            leaders.push(killed.elapsed());
        }
        let stored = |status: &Value| (at(status, "/restorable/to")? >= mark).then_some(());
        trio.until("the ingest to go on", &["status"], stored).await?;
        stalls.push(killed.elapsed());
        let applied = |status: &Value| (at(status, "/applied")? >= mark).then_some(());
        trio.until("another head", &["status"], applied).await?;
        heads.push(killed.elapsed());
        trio.start_daemon(owner).await?;
        trio.until_whole().await?;
    }
    workload.stop().await?;
    println!(
        "| {gigabytes:.2} GB | {runs} | {} | {} | {} | {} | {} |",
        share(&mut heads, 50),
        share(&mut heads, 100),
        share(&mut leaders, 50),
        share(&mut leaders, 100),
        share(&mut stalls, 100),
    );
    Ok(())
}

fn at(status: &Value, path: &str) -> Option<Ts> {
    let (t, i) = proof::position(proof::set_of(status)?.pointer(path)?)?;
    Some(Ts::new(u32::try_from(t).ok()?, u32::try_from(i).ok()?))
}

fn share(times: &mut [Duration], percent: usize) -> String {
    times.sort();
    match times.len() {
        0 => "-".to_owned(),
        count => format!("{:.2} s", times[(count - 1) * percent / 100].as_secs_f64()),
    }
}
