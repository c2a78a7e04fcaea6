//! Many faults one after the other, under load.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use headwater_tests::{Bed, ReplicaSetSpec, Workload, WorkloadSpec, versions};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::sleep;

use crate::faults::Fault;
use crate::protected;

/// So many faults in one storm, unless `HEADWATER_FAULTS` says otherwise.
const FAULTS: usize = 12;

async fn a_storm_is_weathered(version: &str, seed: u64) -> Result<()> {
    let faults: usize = std::env::var("HEADWATER_FAULTS").map_or(Ok(FAULTS), |text| text.parse())?;
    let instants = if faults > FAULTS { 10 } else { 2 };
    let bed = Bed::new().await?;
    let source = bed.replica_set(ReplicaSetSpec::single(version)).await?;
    let workload = Workload::start(&source, WorkloadSpec::seeded(seed).rate(60)).await?;
    workload.reach(300).await?;
    let mut trio = protected(&bed, &source, 2).await?;
    let mut counts = BTreeMap::<_, usize>::new();
    let mut random = StdRng::seed_from_u64(seed);
    // The first ones hit the first copy at whatever phase it is.
    for number in 0..faults {
        if number == faults / 3 {
            trio.until_complete().await?;
        }
        sleep(Duration::from_millis(random.gen_range(100..1500))).await;
        let fault = Fault::draw(&trio, &mut random).await;
        let lasts = Duration::from_millis(random.gen_range(200..4500));
        eprintln!("{version}: fault {} of {faults}: {fault}, for {lasts:?}", number + 1);
        fault.begin(&mut trio).await.with_context(|| trio.logs())?;
        sleep(lasts).await;
        fault.end(&mut trio).await.with_context(|| trio.logs())?;
        *counts.entry(fault.kind()).or_default() += 1;
        trio.require_running()?;
    }
    eprintln!("{version}: weathered {counts:?}");
    trio.until_whole().await?;
    trio.until_complete().await?;
    let done = workload.report().total();
    workload.reach(done + 100).await?;
    workload.stop().await?;
    trio.comes_back(&bed, &source).await?;
    trio.instants_come_back(&bed, &source, &mut random, instants).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_kills_and_freezes_loses_nothing() -> Result<()> {
    for (n, version) in versions().iter().take(1).enumerate() {
        let seed = std::env::var("HEADWATER_SEED").map_or(Ok(71 + n as u64), |text| text.parse())?;
        a_storm_is_weathered(version, seed).await?;
    }
    Ok(())
}
