//! The main path and a failover on the stores that are not a folder: what comes back is what the source had.

use anyhow::{Result, ensure};
use headwater_tests::proof::{comes_back, until_complete, until_stored};
use headwater_tests::{Bed, Headwater, ReplicaSetSpec, S3, Trio, Workload, WorkloadSpec, until};

/// Three daemons on one store: first copy under load, a snapshot, the owner killed, a restore at the end; then all of them lost
/// with their disks, and everything again from the store alone.
/// `shake` is what the store goes through meanwhile.
async fn a_backup_survives_its_owner(bed: &Bed, store: &str, shake: impl AsyncFn() -> Result<()>) -> Result<Trio> {
    let source = bed
        .replica_set(ReplicaSetSpec::single("6.0.5").not_replayable())
        .await?;
    let workload = Workload::start(&source, WorkloadSpec::seeded(5).rate(60)).await?;
    workload.reach(200).await?;
    let mut trio = Trio::start(bed.headwater()?.with_store(store), 3).await?;
    let add = ["deployment", "add", "default", "--uri", &source.uri()];
    trio.commands().json(&add).await?;
    trio.start_agent(0)?;
    trio.until_complete().await?;
    trio.until_snapshot_taken().await?;
    shake().await?;
    let owner = trio.owner().await?;
    trio.daemon(owner)?.kill()?;
    let mark = source.mark("after the kill").await?;
    trio.until_applied(mark).await?;
    ensure!(trio.owner().await? != owner);
    trio.start_daemon(owner).await?;
    workload.stop().await?;
    trio.comes_back(bed, &source).await?;
    trio.lose_everything()?;
    let told = trio.recover().await?;
    ensure!(told["done"] == true, "{told}");
    for number in 0..trio.daemons() {
        trio.start_daemon(number).await?;
    }
    trio.until_whole().await?;
    trio.start_agent(0)?;
    trio.until_applied(source.mark("after the recovery").await?).await?;
    trio.comes_back(bed, &source).await?;
    Ok(trio)
}

#[tokio::test(flavor = "multi_thread")]
async fn on_s3() -> Result<()> {
    let bed = Bed::new().await?;
    let service = S3::start().await?;
    let trio = a_backup_survives_its_owner(&bed, &service.uri("cluster"), async || Ok(())).await?;
    ensure!(!trio.logs().contains("secret"), "a secret of the store is in a log");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_mongodb_set_that_elects_and_cannot_be_its_own_source() -> Result<()> {
    let bed = Bed::new().await?;
    let backing = ReplicaSetSpec::three("6.0.5").not_replayable();
    let backing = bed
        .replica_set(ReplicaSetSpec {
            name: "backing".to_owned(),
            ..backing
        })
        .await?;
    let step_down = async || backing.step_down().await.map(drop);
    let trio = a_backup_survives_its_owner(&bed, &backing.store_uri("headwater"), step_down).await?;
    let itself = trio
        .commands()
        .run(&["deployment", "add", "itself", "--uri", &backing.uri()])
        .await?;
    ensure!(
        itself.code != 0 && itself.stderr.contains("holds the store of this cluster"),
        "{}",
        itself.stderr
    );
    Ok(())
}

/// The daemon ends by itself, and is not to be had again with its old store.
async fn was_shut_out(headwater: &mut Headwater, why: &str) -> Result<()> {
    let ended = until("the daemon to end", || {
        let ended = headwater.daemon().and_then(|daemon| daemon.ended());
        async move { ended }
    })
    .await?;
    ensure!(ended.code() == Some(75), "{ended}\n{}", headwater.log_tail("daemon"));
    let refused = headwater.start_daemon().await;
    ensure!(
        refused.is_err_and(|e| format!("{e:#}").contains(why)),
        "{}",
        headwater.log_tail("daemon")
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn stores_are_moved_under_load_and_nobody_works_in_the_old_ones_again() -> Result<()> {
    let bed = Bed::new().await?;
    let source = bed
        .replica_set(ReplicaSetSpec::single("6.0.5").not_replayable())
        .await?;
    let workload = Workload::start(&source, WorkloadSpec::seeded(8).rate(60)).await?;
    workload.reach(200).await?;
    let folder = |name: &str| Ok::<_, anyhow::Error>(format!("file:{}", bed.new_folder(name)?.display()));
    let (first, oplog) = (folder("first")?, folder("oplog")?);
    let mut headwater = bed.headwater()?.with_store(&first);
    headwater.start_daemon().await?;
    let add = ["deployment", "add", "default", "--uri", &source.uri()];
    headwater.json(&add).await?;
    headwater.start_agent().await?;
    until_complete(&headwater).await?;
    headwater.json(&["snapshot", "take", "default", "--wait"]).await?;

    // The oplog alone; then everything together to another kind of store.
    let to_oplog = ["store", "move", "--store", &first, "--to-oplog", &oplog];
    let planned = headwater.json(&[&to_oplog[..], &["--dry-run"]].concat()).await?;
    ensure!(
        planned["done"] == false && planned["bytes"].as_u64() > Some(0),
        "{planned}"
    );
    let told = headwater.json(&[&to_oplog[..], &["--yes"]].concat()).await?;
    ensure!(
        told["done"] == true && told["left_behind"] == serde_json::json!([]),
        "{told}"
    );
    was_shut_out(&mut headwater, "the oplog slices do not rest in").await?;
    headwater = headwater.with_env("HEADWATER_STORE_OPLOG_URI", &oplog);
    headwater.start_daemon().await?;
    until_stored(&headwater, source.mark("in two stores").await?).await?;

    let service = S3::start().await?;
    let s3 = service.uri("moved");
    let told = headwater
        .json(&["store", "move", "--store", &first, "--to", &s3, "--yes"])
        .await?;
    ensure!(
        told["left_behind"].as_array().is_some_and(|left| left.len() == 2),
        "{told}"
    );
    was_shut_out(&mut headwater, "it is not in use").await?;
    headwater = headwater.with_env("HEADWATER_STORE_OPLOG_URI", "").with_store(&s3);
    headwater.start_daemon().await?;
    until_stored(&headwater, source.mark("in the third store").await?).await?;
    let again = headwater
        .run(["store", "move", "--store", &first, "--to", &s3, "--yes"])
        .await?;
    ensure!(again.code != 0 && again.stderr.contains("do not rest"), "{again:?}");
    workload.stop().await?;
    comes_back(&bed, &headwater, &source).await?;
    let check = headwater.run(["check", "default", "--data"]).await?;
    ensure!(check.code == 0, "{}{}", check.stdout, check.stderr);
    Ok(())
}
