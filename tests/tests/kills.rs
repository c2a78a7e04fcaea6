//! SIGKILL aimed at phases. Each blow waits for the line of the log that opens a phase and counts only if the line that
//! closes it was not logged before the process died; afterwards everything comes back equal to the source.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use headwater_tests::ballast::{self, Churn};
use headwater_tests::proof::{comes_back, compare, restored, until_complete, until_stored};
use headwater_tests::{Bed, Headwater, LogWatch, ReplicaSet, ReplicaSetSpec, Workload, WorkloadSpec, replay};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const VERSION: &str = "6.0.5";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Daemon,
    Agent,
}

/// A phase to be hit, by what the daemon logs at its two ends.
#[derive(Clone, Copy, Debug)]
struct Aim {
    victim: Victim,
    begins: &'static str,
    ends: &'static str,
    /// The blow falls at most so long after the begin, in milliseconds.
    within_ms: u64,
}

const fn aim(victim: Victim, begins: &'static str, ends: &'static str, within_ms: u64) -> Aim {
    Aim {
        victim,
        begins,
        ends,
        within_ms,
    }
}

/// A daemon that spills at every mebibyte and tells what it does.
fn talkative(bed: &Bed) -> Result<Headwater> {
    let headwater = bed.headwater()?;
    Ok(headwater.with_env("HEADWATER_HEAD_MEMTABLE_BUDGET", "1MiB").with_env(
        "HEADWATER_LOG",
        "info,openraft=warn,actix_server=warn,headwater_actors=debug",
    ))
}

/// Waits for the phase, strikes in it, starts the victim again. Whether the blow fell within the phase, and a watch over
/// what is logged from the blow on.
async fn strike(
    headwater: &mut Headwater,
    watch: &mut LogWatch,
    aim: Aim,
    random: &mut StdRng,
) -> Result<(bool, LogWatch)> {
    watch.until_logged(aim.begins).await?;
    tokio::time::sleep(Duration::from_millis(random.gen_range(0..=aim.within_ms))).await;
    match aim.victim {
        Victim::Daemon => headwater.daemon()?.kill()?,
        Victim::Agent => headwater.agent()?.kill()?,
    }
    let hit = watch.is_between(aim.begins, aim.ends)?;
    let after = LogWatch::from_now(&headwater.log("daemon"))?;
    match aim.victim {
        Victim::Daemon => headwater.start_daemon().await?,
        Victim::Agent => headwater.start_agent().await?,
    }
    eprintln!(
        "{:?} killed after {:?}: {}",
        aim.victim,
        aim.begins,
        if hit { "hit" } else { "too late" }
    );
    Ok((hit, after))
}

async fn source_with_ballast(bed: &Bed) -> Result<ReplicaSet> {
    let source = bed.replica_set(ReplicaSetSpec::single(VERSION)).await?;
    ballast::fill(source.client(), 4000, 12_000).await?;
    Ok(source)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_copy_survives_a_kill_in_each_of_its_phases() -> Result<()> {
    let bed = Bed::new().await?;
    let source = source_with_ballast(&bed).await?;
    let workload = Workload::start(&source, WorkloadSpec::seeded(7).rate(100)).await?;
    let churn = Churn::start(source.client(), 7, Duration::from_millis(4));
    let mut headwater = talkative(&bed)?;
    headwater.start_daemon().await?;
    let mut aims = vec![
        aim(Victim::Daemon, "first copy: transferring", "first copy: building", 300),
        aim(Victim::Agent, "first copy: transferring", "first copy: building", 500),
        aim(
            Victim::Daemon,
            "first copy: building",
            "first copy: applying oplog",
            250,
        ),
        aim(Victim::Daemon, "first copy: applying oplog", "first copy: fetching", 80),
        aim(Victim::Agent, "first copy: applying oplog", "first copy: fetching", 80),
        aim(Victim::Daemon, "first copy: validating", "first copy: complete", 60),
    ];
    let mut random = StdRng::seed_from_u64(7);
    let uri = source.uri();
    for round in 0..5 {
        let mut watch = LogWatch::from_now(&headwater.log("daemon"))?;
        if round == 0 {
            headwater.json(&["deployment", "add", "default", "--uri", &uri]).await?;
            headwater.start_agent().await?;
        } else {
            headwater.json(&["deployment", "resync", "default"]).await?;
        }
        let mut missed = Vec::new();
        for aim in aims {
            if !strike(&mut headwater, &mut watch, aim, &mut random).await?.0 {
                missed.push(aim);
            }
        }
        until_complete(&headwater).await?;
        aims = missed;
        if aims.is_empty() {
            break;
        }
    }
    ensure!(aims.is_empty(), "never hit: {aims:?}");
    churn.stop().await?;
    workload.stop().await?;
    comes_back(&bed, &headwater, &source).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn routine_operation_survives_kills_in_tail_spill_fold_and_snapshot() -> Result<()> {
    let bed = Bed::new().await?;
    let source = source_with_ballast(&bed).await?;
    let mut headwater = talkative(&bed)?;
    headwater.start_daemon().await?;
    headwater
        .json(&["deployment", "add", "default", "--uri", &source.uri()])
        .await?;
    headwater.start_agent().await?;
    until_complete(&headwater).await?;
    let workload = Workload::start(&source, WorkloadSpec::seeded(8).rate(100)).await?;
    let churn = Churn::start(source.client(), 8, Duration::from_millis(2));
    let mut random = StdRng::seed_from_u64(8);
    let mut middle = None;
    for aim in [
        aim(Victim::Daemon, "oplog slice arrived", "oplog slice stored", 1),
        aim(Victim::Agent, "oplog slice arrived", "oplog slice stored", 1),
        aim(Victim::Daemon, "spill begins", "spill ended", 6),
        aim(Victim::Daemon, "fold begins", "fold ended", 10),
        aim(Victim::Daemon, "image begins", "image ended", 10),
    ] {
        let mut hits = 0;
        for _ in 0..20 {
            let mut watch = LogWatch::from_now(&headwater.log("daemon"))?;
            if aim.begins.starts_with("image") {
                headwater.json(&["snapshot", "take", "default"]).await?;
            }
            hits += u32::from(strike(&mut headwater, &mut watch, aim, &mut random).await?.0);
            if hits == 2 {
                break;
            }
        }
        ensure!(hits == 2, "{aim:?} was hit {hits} times only");
        if aim.begins.starts_with("spill") {
            middle = Some(source.mark("middle").await?);
        }
    }
    headwater.json(&["snapshot", "take", "default", "--wait"]).await?;
    churn.stop().await?;
    workload.stop().await?;
    comes_back(&bed, &headwater, &source).await?;
    let middle = middle.context("no instant in the middle")?;
    let target = restored(&bed, &headwater, VERSION, &middle.to_string()).await?;
    let model = replay::to(&bed, &source, middle).await?;
    compare(model.client(), target.client(), "the middle").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_to_a_server_goes_on_after_its_daemon_was_killed() -> Result<()> {
    let bed = Bed::new().await?;
    let source = source_with_ballast(&bed).await?;
    let mut headwater = talkative(&bed)?;
    headwater.start_daemon().await?;
    headwater
        .json(&["deployment", "add", "default", "--uri", &source.uri()])
        .await?;
    headwater.start_agent().await?;
    until_complete(&headwater).await?;
    // Something for the restore to apply on top of the image it starts from.
    let workload = Workload::start(&source, WorkloadSpec::seeded(9).without_ddl()).await?;
    workload.reach(800).await?;
    workload.stop().await?;
    let end = source.mark("end").await?;
    until_stored(&headwater, end).await?;
    let mut random = StdRng::seed_from_u64(9);
    let target = bed
        .replica_set(ReplicaSetSpec::single(VERSION).not_replayable())
        .await?;
    let mut watch = LogWatch::from_now(&headwater.log("daemon"))?;
    let (at, uri) = (end.to_string(), target.uri());
    let arguments = [
        "restore",
        "default",
        "--at",
        &at,
        "--to-uri",
        &uri,
        "--with-users",
        "--yes",
    ];
    let follower = tokio::process::Command::from(headwater.command(arguments))
        .kill_on_drop(true)
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()?;
    for aim in [
        aim(Victim::Daemon, "restore begins", "restore ended", 20),
        aim(
            Victim::Daemon,
            "restore step=documents documents=1",
            "restore ended",
            200,
        ),
        aim(Victim::Daemon, "restore step=documents", "restore ended", 400),
        aim(Victim::Daemon, "restore step=indexes", "restore ended", 5),
    ] {
        let (hit, after) = strike(&mut headwater, &mut watch, aim, &mut random).await?;
        ensure!(hit, "the restore was over before {aim:?} could be struck");
        watch = after;
    }
    let followed = follower.wait_with_output().await?;
    ensure!(
        followed.status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&followed.stderr),
        headwater.log_tail("daemon")
    );
    ensure!(
        watch.seen()?.contains("restore ended"),
        "the restore ended before its last daemon was killed"
    );
    let log = std::fs::read_to_string(headwater.log("daemon"))?;
    let resumed = log.rsplit("restore goes on").next().unwrap_or_default();
    let first_told = resumed.lines().find(|line| line.contains("restore step=documents"));
    ensure!(
        first_told.is_none_or(|line| !line.contains("documents=0 ")),
        "it began from the beginning: {first_told:?}"
    );
    compare(source.client(), target.client(), "the restore that was killed").await
}
