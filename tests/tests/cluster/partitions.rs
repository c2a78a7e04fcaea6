//! Daemons that do not reach one another, in all the ways there are; agents and users reach all of them.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use headwater_tests::{Bed, Workload, WorkloadSpec};
use tokio::time::{Instant, sleep};

use crate::faults::Fault;
use crate::{protected, quiet_source};

/// Whoever does not reach the others, or is not reached, holds nothing up: a snapshot is taken while it lasts, and what is
/// written is applied, whichever daemon it came in through.
#[tokio::test(flavor = "multi_thread")]
async fn an_owner_or_leader_that_is_cut_off_either_way_holds_nothing_up() -> Result<()> {
    let bed = Bed::new().await?;
    let source = quiet_source(&bed).await?;
    let workload = Workload::start(&source, WorkloadSpec::seeded(21).rate(60)).await?;
    let mut trio = protected(&bed, &source, 2).await?;
    trio.until_complete().await?;
    for of_leader in [false, true] {
        for cut in [Fault::CutOff, Fault::Deaf, Fault::Mute] {
            let at = match of_leader {
                true => trio.leader().await?,
                false => trio.owner().await?,
            };
            let fault = cut(at);
            fault.begin(&mut trio).await?;
            let began = Instant::now();
            let ts = source.mark("while it lasts").await?;
            trio.until_applied(ts).await.with_context(|| fault.to_string())?;
            let applied = began.elapsed();
            trio.until_snapshot_taken().await.with_context(|| fault.to_string())?;
            eprintln!(
                "{fault}: a head had caught up after {:.1} s, a snapshot was taken after {:.1} s",
                applied.as_secs_f64(),
                began.elapsed().as_secs_f64()
            );
            fault.end(&mut trio).await?;
            trio.until_whole().await.with_context(|| fault.to_string())?;
        }
    }
    workload.stop().await?;
    trio.comes_back(&bed, &source).await
}

/// Answers that are lost, and two of three that do not reach each other: it may go on as it is, but goes on.
#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_reach_its_asker_or_only_goes_around_stops_nothing() -> Result<()> {
    let bed = Bed::new().await?;
    let source = quiet_source(&bed).await?;
    let workload = Workload::start(&source, WorkloadSpec::seeded(22).rate(60)).await?;
    let mut trio = protected(&bed, &source, 1).await?;
    trio.until_complete().await?;
    let owner = trio.owner().await?;
    let leader = trio.leader().await?;
    let aside = (0..3).find(|daemon| *daemon != owner && *daemon != leader).unwrap_or(0);
    for fault in [
        Fault::Unanswered(owner),
        Fault::Unanswered(leader),
        Fault::Parted(owner, aside),
        Fault::Parted(leader, aside),
        Fault::CutOff(leader),
        Fault::CutOff(aside),
    ] {
        fault.begin(&mut trio).await?;
        sleep(Duration::from_secs(4)).await;
        let ts = source.mark("while it lasts").await?;
        trio.until_applied(ts).await.with_context(|| fault.to_string())?;
        fault.end(&mut trio).await?;
        trio.until_whole().await.with_context(|| fault.to_string())?;
    }
    workload.stop().await?;
    ensure!(trio.owner().await.is_ok());
    trio.comes_back(&bed, &source).await
}
