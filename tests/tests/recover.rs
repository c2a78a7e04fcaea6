//! Every daemon is lost with everything on its disk, and the store alone suffices.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use headwater_model::Ts;
use headwater_tests::proof::{self, compare, restored, set_of, until_complete, until_stored};
use headwater_tests::{Bed, Headwater, ReplicaSet, ReplicaSetSpec, Trio, Workload, WorkloadSpec, replay, until};
use serde_json::Value;

const VERSION: &str = "6.0.5";

/// The folder of a store that is a directory.
fn folder_of(store: &str) -> Result<PathBuf> {
    Ok(PathBuf::from(store.strip_prefix("file:").context("no directory")?))
}

/// The catalogs in a store, the newest last.
fn catalogs(store: &Path) -> Result<Vec<PathBuf>> {
    let folder = store.join("catalog");
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    paths.sort();
    Ok(paths)
}

/// Waits until the newest catalog names something.
async fn until_catalogued(store: &Path, what: &str) -> Result<()> {
    let named = || async {
        let Some(newest) = catalogs(store)?.pop() else {
            return Ok(None);
        };
        // One that was removed meanwhile was not the newest.
        let text = std::fs::read_to_string(newest).unwrap_or_default();
        Ok(text.contains(what).then_some(()))
    };
    until("the catalog to name a snapshot", named).await
}

fn incarnation(status: &Value) -> Result<u64> {
    let set = set_of(status).context("no replica set")?;
    set["incarnation"].as_u64().context("no incarnation")
}

/// The ids of complete snapshots with their instants.
fn snapshots(list: &Value) -> Result<Vec<(String, Ts)>> {
    let mut all = Vec::new();
    for snapshot in list.as_array().context("no list")? {
        let id = snapshot["id"].as_str().context("no id")?.to_owned();
        if let Some((t, i)) = proof::position(&snapshot["at"]) {
            all.push((id, Ts::new(u32::try_from(t)?, u32::try_from(i)?)));
        }
    }
    all.sort();
    Ok(all)
}

/// What is restored at an instant equals a model replayed from the source's oplog by a server.
async fn equals_the_source(bed: &Bed, from: &Headwater, source: &ReplicaSet, instant: &str, at: Ts) -> Result<()> {
    let target = restored(bed, from, VERSION, instant).await?;
    let model = replay::to(bed, source, at).await?;
    compare(model.client(), target.client(), instant).await
}

#[tokio::test(flavor = "multi_thread")]
async fn three_daemons_are_lost_with_all_their_disks_and_everything_goes_on_from_the_store() -> Result<()> {
    let bed = Bed::new().await?;
    let source = bed.replica_set(ReplicaSetSpec::single(VERSION)).await?;
    let workload = Workload::start(&source, WorkloadSpec::seeded(61).rate(50)).await?;
    let mut trio = Trio::start(bed.headwater()?, 3).await?;
    trio.commands()
        .json(&["deployment", "add", "default", "--uri", &source.uri()])
        .await?;
    trio.start_agent(0)?;
    trio.until_complete().await?;
    trio.until_snapshot_taken().await?;
    let instant = source.mark("before the loss").await?;
    trio.until_applied(instant).await?;
    let taken = snapshots(&trio.commands().json(&["snapshot", "list", "default"]).await?)?;
    let history = incarnation(&trio.commands().json(&["status"]).await?)?;
    let store = folder_of(&trio.commands().shared_store())?;
    for (id, _) in &taken {
        until_catalogued(&store, id).await?;
    }
    trio.lose_everything()?;
    let meanwhile = source.mark("while nothing runs").await?;

    let told = trio.recover().await?;
    ensure!(
        told["done"] == true && told["losses"] == serde_json::json!([]),
        "{told}"
    );
    for number in 0..trio.daemons() {
        trio.start_daemon(number).await?;
    }
    trio.until_whole().await?;
    // Without any agent yet.
    let listed = snapshots(&trio.commands().json(&["snapshot", "list", "default"]).await?)?;
    ensure!(
        taken.iter().all(|had| listed.contains(had)),
        "{taken:?} became {listed:?}"
    );
    let (id, at) = taken.last().context("no snapshot")?;
    equals_the_source(&bed, trio.commands(), &source, &format!("snapshot:{id}"), *at).await?;
    equals_the_source(&bed, trio.commands(), &source, &instant.to_string(), instant).await?;

    trio.start_agent(0)?;
    trio.until_applied(meanwhile).await?;
    let status = trio.commands().json(&["status"]).await?;
    ensure!(
        incarnation(&status)? == history,
        "it was copied anew: {status}\n{}",
        trio.logs()
    );
    workload.stop().await?;
    trio.comes_back(&bed, &source).await?;
    trio.require_running()
}

/// `headwater cluster recover` into the folder of `new`.
fn recover<'a>(folder: &'a str, store: &'a str) -> Vec<&'a str> {
    let mut arguments = vec!["cluster", "recover", "--dir", folder, "--store", store];
    arguments.extend(["--yes", "--output", "json"]);
    arguments
}

#[tokio::test(flavor = "multi_thread")]
async fn a_living_cluster_is_not_taken_over_and_a_daemon_that_wakes_up_afterwards_is_refused() -> Result<()> {
    let bed = Bed::new().await?;
    let source = bed
        .replica_set(ReplicaSetSpec::single(VERSION).not_replayable())
        .await?;
    let workload = Workload::start(&source, WorkloadSpec::seeded(62).rate(50)).await?;
    let folder = bed.new_folder("store")?;
    let store = format!("file:{}", folder.display());
    let mut old = bed.headwater()?.with_store(&store);
    old.start_daemon().await?;
    old.json(&["deployment", "add", "default", "--uri", &source.uri()])
        .await?;
    old.start_agent().await?;
    until_complete(&old).await?;
    let history = incarnation(&old.json(&["status"]).await?)?;
    until_catalogued(&folder, r#""phase":"complete""#).await?;

    let mut new = bed.headwater()?.with_store(&store);
    let fresh = new.node_folder().display().to_string();
    let mut look = recover(&fresh, &store);
    look.push("--dry-run");
    let looked = new.run(&look).await?;
    ensure!(looked.code == 0 && looked.stdout.contains("\"default/"), "{looked:?}");
    let living = new.run(recover(&fresh, &store)).await?;
    ensure!(living.code == 5 && living.stderr.contains("lives"), "{living:?}");
    let own = old.node_folder().display().to_string();
    let taken = new.run(recover(&own, &store)).await?;
    ensure!(taken.code == 5 && taken.stderr.contains("already"), "{taken:?}");

    old.daemon()?.freeze()?;
    old.agent()?.kill()?;
    let done = new.run(recover(&fresh, &store)).await?;
    ensure!(done.code == 0, "{done:?}");
    old.daemon()?.resume()?;
    let ended = until("the old daemon to end", || {
        let ended = old.daemon().and_then(|daemon| daemon.ended());
        async move { ended }
    })
    .await?;
    ensure!(ended.code() == Some(75), "{ended}\n{}", old.log_tail("daemon"));
    let refused = old.start_daemon().await;
    ensure!(
        refused.is_err_and(|e| format!("{e:#}").contains("another cluster")),
        "{}",
        old.log_tail("daemon")
    );

    new.start_daemon().await?;
    new.start_agent().await?;
    until_stored(&new, source.mark("after the recovery").await?).await?;
    ensure!(incarnation(&new.json(&["status"]).await?)? == history, "copied anew");

    // The same once more, and this time every catalog is torn: images and oplog are all the evidence.
    until_catalogued(&folder, "\"recoveries\":1").await?;
    workload.stop().await?;
    let instant = source.mark("before the second loss").await?;
    until_stored(&new, instant).await?;
    new.daemon()?.kill()?;
    new.agent()?.kill()?;
    for catalog in catalogs(&folder)? {
        let text = std::fs::read(&catalog)?;
        std::fs::write(&catalog, &text[..text.len() / 2])?;
    }
    let mut third = bed.headwater()?.with_store(&store);
    let fresh = third.node_folder().display().to_string();
    let done = third.run(recover(&fresh, &store)).await?;
    ensure!(done.code == 10, "{done:?}");
    let told: Value = serde_json::from_str(&done.stdout)?;
    ensure!(told["recoveries"] == 2 && told["done"] == true, "{told}");
    third.start_daemon().await?;
    let target = restored(&bed, &third, VERSION, &instant.to_string()).await?;
    compare(source.client(), target.client(), "the instant, without a catalog").await?;
    // The source is given again, and the tail goes on.
    third
        .json(&["deployment", "add", "default", "--uri", &source.uri()])
        .await?;
    third.start_agent().await?;
    proof::comes_back(&bed, &third, &source).await?;
    ensure!(
        incarnation(&third.json(&["status"]).await?)? == history,
        "copied anew without a catalog"
    );
    Ok(())
}
