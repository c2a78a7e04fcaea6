//! SIGKILL aimed at phases. Each blow waits for the line of the log that opens a phase and counts only if the line that
//! closes it was not logged before the process died; afterwards everything comes back equal to the source, and so do
//! instants before.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use headwater_model::Ts;
use headwater_tests::ballast::{self, Churn};
use headwater_tests::proof::{comes_back, compare, instants_come_back, restored, until_complete, until_stored};
use headwater_tests::{Bed, Headwater, LogWatch, ReplicaSet, ReplicaSetSpec, SlowWay, Workload, WorkloadSpec, replay};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const VERSION: &str = "6.0.5";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Daemon,
    Agent,
    /// A quickstart: both in one process.
    Both,
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

impl Aim {
    /// The same after a blow that came too late: how long a phase lasts is the machine's affair.
    const fn sooner(self) -> Aim {
        Aim {
            within_ms: self.within_ms / 2,
            ..self
        }
    }
}

const fn aim(victim: Victim, begins: &'static str, ends: &'static str, within_ms: u64) -> Aim {
    Aim {
        victim,
        begins,
        ends,
        within_ms,
    }
}

/// Who is hit, and where the blows fall.
struct Stage<'a> {
    headwater: Headwater,
    source: &'a ReplicaSet,
    random: StdRng,
}

impl<'a> Stage<'a> {
    /// A daemon that spills at every mebibyte and tells what it does.
    fn new(bed: &Bed, source: &'a ReplicaSet, seed: u64) -> Result<Stage<'a>> {
        let log = "info,openraft=warn,actix_server=warn,headwater_actors=debug";
        let headwater = bed
            .headwater()?
            .with_env("HEADWATER_HEAD_MEMTABLE_BUDGET", "1MiB")
            .with_env("HEADWATER_LOG", log);
        Ok(Stage {
            headwater,
            source,
            random: StdRng::seed_from_u64(seed),
        })
    }

    fn watch(&self) -> Result<LogWatch> {
        LogWatch::from_now(&self.headwater.log("daemon"))
    }

    /// Begins a first copy, by a daemon and an agent or by both in one process.
    async fn begin(&mut self, as_one: bool) -> Result<()> {
        let uri = self.source.uri();
        if as_one {
            return self.headwater.start_quickstart(&uri, "default").await;
        }
        self.headwater.start_daemon().await?;
        let add = ["deployment", "add", "default", "--uri", &uri];
        self.headwater.json(&add).await?;
        self.headwater.start_agent().await
    }

    /// Waits for the phase, strikes in it, starts the victim again. Whether the blow fell within the phase, and a watch over
    /// what is logged from the blow on.
    async fn strike(&mut self, watch: &mut LogWatch, aim: Aim) -> Result<(bool, LogWatch)> {
        watch.until_logged(aim.begins).await?;
        tokio::time::sleep(Duration::from_millis(self.random.gen_range(0..=aim.within_ms))).await;
        match aim.victim {
            Victim::Daemon | Victim::Both => self.headwater.daemon()?.kill()?,
            Victim::Agent => self.headwater.agent()?.kill()?,
        }
        let hit = watch.is_between(aim.begins, aim.ends)?;
        let after = self.watch()?;
        match aim.victim {
            Victim::Daemon => self.headwater.start_daemon().await?,
            Victim::Agent => self.headwater.start_agent().await?,
            Victim::Both => self.headwater.start_quickstart(&self.source.uri(), "default").await?,
        }
        let outcome = if hit { "hit" } else { "too late" };
        eprintln!("{:?} killed after {:?}: {outcome}", aim.victim, aim.begins);
        Ok((hit, after))
    }

    /// Strikes in first copies, until each phase was hit once; `watch` is there since before the first of them began.
    async fn strike_first_copies(&mut self, mut watch: LogWatch, mut aims: Vec<Aim>) -> Result<()> {
        for round in 0..12 {
            if round > 0 {
                watch = self.watch()?;
                self.headwater.json(&["deployment", "resync", "default"]).await?;
            }
            let mut missed = Vec::new();
            for aim in aims {
                if !self.strike(&mut watch, aim).await?.0 {
                    missed.push(aim.sooner());
                }
            }
            until_complete(&self.headwater).await?;
            aims = missed;
            if aims.is_empty() {
                return Ok(());
            }
        }
        anyhow::bail!("never hit: {aims:?}")
    }

    /// Strikes in routine operation until the phase was hit so often, at least once.
    async fn strike_routine(&mut self, mut aim: Aim, wanted: u32) -> Result<()> {
        let mut hits = 0;
        // Some are over within a millisecond: the blow comes too late more often than not.
        for _ in 0..40 {
            let mut watch = self.watch()?;
            if aim.begins.starts_with("image") {
                self.headwater.json(&["snapshot", "take", "default"]).await?;
            }
            if self.strike(&mut watch, aim).await?.0 {
                hits += 1;
            } else {
                aim = aim.sooner();
            }
            if hits == wanted {
                break;
            }
        }
        ensure!(hits >= 1, "{aim:?} was never hit");
        Ok(())
    }

    /// Restores an instant that is the source's present to a server, and strikes on the way, which is a slow one: no machine is
    /// so fast that it is over before the last blow. It goes on each time, and what it makes equals the source.
    async fn strike_restore(&mut self, bed: &Bed, at: Ts, victim: Victim) -> Result<()> {
        let spec = ReplicaSetSpec::single(VERSION).not_replayable();
        let target = bed.replica_set(spec).await?;
        let way = SlowWay::to(target.member(0).port()).await?;
        let mut watch = self.watch()?;
        let (at, uri) = (at.to_string(), way.uri());
        let what = [
            "restore",
            "default",
            "--at",
            &at,
            "--to-uri",
            &uri,
            "--with-users",
            "--yes",
        ];
        let follower = tokio::process::Command::from(self.headwater.command(what))
            .kill_on_drop(true)
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()?;
        for (begins, within_ms) in [
            // Not "restore begins": who asked for it may not have its answer yet, and cannot know its number.
            ("restore step=", 20),
            ("restore step=documents documents=1", 200),
            ("restore step=documents", 400),
            ("restore step=indexes", 5),
        ] {
            let aim = aim(victim, begins, "restore ended", within_ms);
            let (hit, after) = self.strike(&mut watch, aim).await?;
            ensure!(hit, "the restore was over before {aim:?} could be struck");
            watch = after;
        }
        let followed = follower.wait_with_output().await?;
        let said = String::from_utf8_lossy(&followed.stderr);
        ensure!(
            followed.status.success(),
            "{said}\n{}",
            self.headwater.log_tail("daemon")
        );
        ensure!(
            watch.seen()?.contains("restore ended"),
            "the restore ended before its last daemon was killed"
        );
        let log = std::fs::read_to_string(self.headwater.log("daemon"))?;
        let resumed = log.rsplit("restore goes on").next().unwrap_or_default();
        let first_told = resumed.lines().find(|line| line.contains("restore step=documents"));
        ensure!(
            first_told.is_none_or(|line| !line.contains("documents=0 ")),
            "it began from the beginning: {first_told:?}"
        );
        compare(self.source.client(), target.client(), "the restore that was killed").await
    }
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
    let mut stage = Stage::new(&bed, &source, 7)?;
    let watch = stage.watch()?;
    stage.begin(false).await?;
    let applying = ("first copy: applying oplog", "first copy: fetching");
    let aims = vec![
        aim(Victim::Daemon, "first copy: transferring", "first copy: building", 300),
        aim(Victim::Agent, "first copy: transferring", "first copy: building", 500),
        aim(Victim::Daemon, "first copy: building", applying.0, 250),
        aim(Victim::Daemon, applying.0, applying.1, 80),
        aim(Victim::Agent, applying.0, applying.1, 80),
        aim(Victim::Daemon, "first copy: validating", "first copy: complete", 60),
    ];
    stage.strike_first_copies(watch, aims).await?;
    // So many instants that some can be drawn from them.
    workload.reach(workload.report().total() + 300).await?;
    churn.stop().await?;
    workload.stop().await?;
    comes_back(&bed, &stage.headwater, &source).await?;
    instants_come_back(&bed, &stage.headwater, &source, &mut stage.random, 2).await
}

#[tokio::test(flavor = "multi_thread")]
async fn routine_operation_survives_kills_in_tail_spill_fold_and_snapshot() -> Result<()> {
    let bed = Bed::new().await?;
    let source = source_with_ballast(&bed).await?;
    let mut stage = Stage::new(&bed, &source, 8)?;
    stage.begin(false).await?;
    until_complete(&stage.headwater).await?;
    let workload = Workload::start(&source, WorkloadSpec::seeded(8).rate(100)).await?;
    let churn = Churn::start(source.client(), 8, Duration::from_millis(2));
    let mut middle = None;
    for aim in [
        aim(Victim::Daemon, "oplog slice arrived", "oplog slice stored", 1),
        aim(Victim::Agent, "oplog slice arrived", "oplog slice stored", 1),
        aim(Victim::Daemon, "spill begins", "spill ended", 6),
        aim(Victim::Daemon, "fold begins", "fold ended", 1),
        aim(Victim::Daemon, "image begins", "image ended", 10),
    ] {
        stage.strike_routine(aim, 2).await?;
        if aim.begins.starts_with("spill") {
            middle = Some(source.mark("middle").await?);
        }
    }
    stage.headwater.json(&["snapshot", "take", "default", "--wait"]).await?;
    churn.stop().await?;
    workload.stop().await?;
    comes_back(&bed, &stage.headwater, &source).await?;
    let middle = middle.context("no instant in the middle")?;
    let target = restored(&bed, &stage.headwater, VERSION, &middle.to_string()).await?;
    let model = replay::to(&bed, &source, middle).await?;
    compare(model.client(), target.client(), "the middle").await?;
    instants_come_back(&bed, &stage.headwater, &source, &mut stage.random, 2).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_to_a_server_goes_on_after_its_daemon_was_killed() -> Result<()> {
    let bed = Bed::new().await?;
    let source = source_with_ballast(&bed).await?;
    let mut stage = Stage::new(&bed, &source, 9)?;
    stage.begin(false).await?;
    until_complete(&stage.headwater).await?;
    // Something for the restore to apply on top of the image it starts from.
    let workload = Workload::start(&source, WorkloadSpec::seeded(9).without_ddl()).await?;
    workload.reach(800).await?;
    workload.stop().await?;
    let end = source.mark("end").await?;
    until_stored(&stage.headwater, end).await?;
    stage.strike_restore(&bed, end, Victim::Daemon).await
}

/// Nobody is left who knows anything: what is durable is all there is.
#[tokio::test(flavor = "multi_thread")]
async fn daemon_and_agent_killed_at_once_in_every_phase_lose_nothing() -> Result<()> {
    let bed = Bed::new().await?;
    let source = source_with_ballast(&bed).await?;
    let workload = Workload::start(&source, WorkloadSpec::seeded(10).rate(100)).await?;
    let churn = Churn::start(source.client(), 10, Duration::from_millis(4));
    let mut stage = Stage::new(&bed, &source, 10)?;
    let watch = stage.watch()?;
    stage.begin(true).await?;
    let both = |begins, ends, within_ms| aim(Victim::Both, begins, ends, within_ms);
    let aims = vec![
        both("first copy: transferring", "first copy: building", 300),
        both("first copy: building", "first copy: applying oplog", 250),
        both("first copy: applying oplog", "first copy: fetching", 80),
        both("first copy: validating", "first copy: complete", 60),
    ];
    stage.strike_first_copies(watch, aims).await?;
    for aim in [
        both("oplog slice arrived", "oplog slice stored", 1),
        both("spill begins", "spill ended", 6),
        both("fold begins", "fold ended", 1),
        both("image begins", "image ended", 10),
    ] {
        stage.strike_routine(aim, 1).await?;
    }
    churn.stop().await?;
    workload.stop().await?;
    let end = source.mark("end").await?;
    until_stored(&stage.headwater, end).await?;
    stage.strike_restore(&bed, end, Victim::Both).await?;
    instants_come_back(&bed, &stage.headwater, &source, &mut stage.random, 3).await
}
