//! The main path and a failover on the stores that are not a folder: what comes back is what the source had.

use anyhow::{Result, ensure};
use headwater_tests::{Bed, ReplicaSetSpec, S3, Trio, Workload, WorkloadSpec};

/// Three daemons on one store: first copy under load, a snapshot, the owner killed, a restore at the end of everything.
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
