//! The owner lost at chosen phases of its work: another goes on with it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use headwater_tests::ballast::{self, Churn};
use headwater_tests::{Bed, LogWatch, ReplicaSetSpec, Trio, Workload, WorkloadSpec, proof};

use crate::faults::Fault;

/// Daemons that spill at every mebibyte and tell what they do.
async fn talkative(bed: &Bed) -> Result<Trio> {
    let headwater = bed.headwater()?;
    let headwater = headwater.with_env("HEADWATER_HEAD_MEMTABLE_BUDGET", "1MiB").with_env(
        "HEADWATER_LOG",
        "info,openraft=warn,actix_server=warn,headwater_actors=debug",
    );
    Trio::start_gated(headwater, 3).await
}

/// Waits until any daemon logs `words`, and says which.
async fn until_told(watches: &mut [LogWatch], words: &str) -> Result<usize> {
    headwater_tests::until(words, || {
        let seen = watches
            .iter_mut()
            .position(|watch| watch.seen().is_ok_and(|text| text.contains(words)));
        async move { Ok(seen) }
    })
    .await
}

fn watches(trio: &Trio) -> Result<Vec<LogWatch>> {
    (0..trio.daemons())
        .map(|number| LogWatch::from_now(&trio.commands().log(&format!("daemon-{number}"))))
        .collect()
}

/// Strikes whoever logs `words` first, lets it be missed until another goes on, and brings it back. Gives watches of
/// what was logged since the strike: the next phase may be over before the struck one is back.
async fn struck(
    trio: &mut Trio,
    mut seen: Vec<LogWatch>,
    words: &str,
    strike: fn(usize) -> Fault,
) -> Result<Vec<LogWatch>> {
    let owner = until_told(&mut seen, words).await?;
    let fault = strike(owner);
    fault.begin(trio).await?;
    let since = watches(trio)?;
    eprintln!("{words:?}: {fault}");
    trio.until_moved_from(owner)
        .await
        .with_context(|| format!("{words}: {fault}"))?;
    fault.end(trio).await?;
    trio.until_whole().await?;
    Ok(since)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_lost_in_any_phase_of_a_first_copy_is_followed_by_another() -> Result<()> {
    let bed = Bed::new().await?;
    let source = bed.replica_set(ReplicaSetSpec::single("6.0.5")).await?;
    ballast::fill(source.client(), 4000, 12_000).await?;
    let workload = Workload::start(&source, WorkloadSpec::seeded(31).rate(60)).await?;
    let mut trio = talkative(&bed).await?;
    let mut seen = watches(&trio)?;
    let uri = source.uri();
    trio.commands()
        .json(&["deployment", "add", "default", "--uri", &uri])
        .await?;
    trio.start_agent(0)?;
    for (words, strike) in [
        ("first copy: transferring", Fault::DaemonKilled as fn(usize) -> Fault),
        ("first copy: building", Fault::DaemonFrozen),
        ("first copy: applying oplog", Fault::CutOff),
        ("first copy: validating", Fault::DaemonKilled),
    ] {
        seen = struck(&mut trio, seen, words, strike).await?;
    }
    trio.until_complete().await?;
    workload.stop().await?;
    trio.comes_back(&bed, &source).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_lost_in_spill_fold_snapshot_or_restore_is_followed_by_another() -> Result<()> {
    let bed = Bed::new().await?;
    let source = bed.replica_set(ReplicaSetSpec::single("6.0.5")).await?;
    ballast::fill(source.client(), 4000, 12_000).await?;
    let mut trio = talkative(&bed).await?;
    let uri = source.uri();
    trio.commands()
        .json(&["deployment", "add", "default", "--uri", &uri])
        .await?;
    trio.start_agent(0)?;
    trio.until_complete().await?;
    let workload = Workload::start(&source, WorkloadSpec::seeded(32).rate(60)).await?;
    let churn = Churn::start(source.client(), 32, Duration::from_millis(3));
    for (words, strike) in [
        ("spill begins", Fault::DaemonKilled as fn(usize) -> Fault),
        ("spill begins", Fault::DaemonFrozen),
        ("fold begins", Fault::CutOff),
        ("image begins", Fault::DaemonKilled),
        ("image begins", Fault::DaemonFrozen),
    ] {
        let seen = watches(&trio)?;
        if words.starts_with("image") {
            trio.commands().json(&["snapshot", "take", "default"]).await?;
        }
        struck(&mut trio, seen, words, strike).await?;
    }
    churn.stop().await?;
    workload.stop().await?;
    let end = source.mark("end").await?;
    trio.until_applied(end).await?;

    let target = bed
        .replica_set(ReplicaSetSpec::single("6.0.5").not_replayable())
        .await?;
    let seen = watches(&trio)?;
    let (at, to) = (end.to_string(), target.uri());
    let arguments = [
        "restore",
        "default",
        "--at",
        &at,
        "--to-uri",
        &to,
        "--with-users",
        "--yes",
    ];
    let follower = tokio::process::Command::from(trio.commands().command(arguments))
        .kill_on_drop(true)
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()?;
    struck(&mut trio, seen, "restore step=documents", Fault::DaemonKilled).await?;
    let followed = follower.wait_with_output().await?;
    ensure!(
        followed.status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&followed.stderr),
        trio.logs()
    );
    proof::compare(source.client(), target.client(), "the restore whose owner was lost").await
}
