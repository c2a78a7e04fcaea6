//! What a user may ask of a restore, and of the snapshots it starts from.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bson::{Document, doc};
use headwater_tests::proof::{restore_into, until_complete, until_stored};
use headwater_tests::{Bed, Headwater, ReplicaSet, ReplicaSetSpec, ballast, until};
use serde_json::Value;

const VERSION: &str = "6.0.5";

async fn backed_up(bed: &Bed) -> Result<(ReplicaSet, Headwater)> {
    let source = bed
        .replica_set(ReplicaSetSpec::single(VERSION).not_replayable())
        .await?;
    let shop: mongodb::Collection<Document> = source.client().database("shop").collection("orders");
    shop.insert_many((0..10).map(|id| doc! { "_id": id })).await?;
    let mut headwater = bed.headwater()?.with_env("HEADWATER_SNAPSHOTS_INTERVAL", "1m");
    headwater.start_quickstart(&source.uri(), "default").await?;
    until_complete(&headwater).await?;
    until_stored(&headwater, source.mark("begun").await?).await?;
    Ok((source, headwater))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_moment_ago_can_be_restored_though_the_source_is_idle() -> Result<()> {
    let bed = Bed::new().await?;
    let (_source, headwater) = backed_up(&bed).await?;
    let folder = bed.new_folder("dump")?.join("out");
    let to = folder.to_str().context("a path that is no text")?;
    let ended = headwater
        .run(["restore", "default", "--at", "-1s", "--to-dir", to])
        .await?;
    ensure!(ended.code == 0, "{}", ended.stderr);
    ensure!(
        folder.join("shop").join("orders.bson").is_file(),
        "nothing was restored"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_that_cannot_be_restored_is_answered_in_times() -> Result<()> {
    let bed = Bed::new().await?;
    let (_source, headwater) = backed_up(&bed).await?;
    for time in ["2001-02-03T04:05:06Z", "2099-02-03T04:05:06Z"] {
        let ended = headwater
            .run(["restore", "default", "--at", time, "--to-dir", "nowhere"])
            .await?;
        ensure!(ended.code == 8, "{}", ended.stderr);
        ensure!(!ended.stderr.contains("4294967295"), "{}", ended.stderr);
        ensure!(ended.stderr.contains(time), "{}", ended.stderr);
        ensure!(ended.stderr.contains("restorable instant is 20"), "{}", ended.stderr);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_of_a_connection_string_is_shown_anywhere() -> Result<()> {
    let bed = Bed::new().await?;
    let (source, mut headwater) = backed_up(&bed).await?;
    let address = source.uri();
    let hosts = address
        .trim_start_matches("mongodb://")
        .split('/')
        .next()
        .unwrap_or_default();
    let secret = format!("mongodb://{hosts}/?replicaSet=rs0&authMechanismProperties=AWS_SESSION_TOKEN:verysecret");
    headwater
        .json(&["deployment", "add", "second", "--uri", &secret])
        .await?;
    let mut shown = Vec::new();
    for arguments in [
        &["deployment", "list"][..],
        &["deployment", "show", "second"],
        &["status"],
    ] {
        shown.push(headwater.json(arguments).await?.to_string());
    }
    let planned = headwater
        .run([
            "restore",
            "default",
            "--at",
            "latest",
            "--to-uri",
            &secret,
            "--dry-run",
            "--output",
            "json",
        ])
        .await?;
    ensure!(planned.code == 0, "{}", planned.stderr);
    shown.push(planned.stdout);
    let failed = headwater
        .run(["restore", "default", "--at", "latest", "--to-uri", &secret, "--yes"])
        .await?;
    shown.push(failed.stderr);
    headwater.daemon()?.stop().await?;
    shown.push(std::fs::read_to_string(headwater.log("daemon"))?);
    for text in shown {
        ensure!(!text.contains("verysecret"), "{text}");
    }
    Ok(())
}

/// The settings file's interval counts for a deployment that was added without one.
#[tokio::test(flavor = "multi_thread")]
async fn snapshots_are_taken_at_the_interval_of_the_settings() -> Result<()> {
    let bed = Bed::new().await?;
    let (source, headwater) = backed_up(&bed).await?;
    let shown = headwater.json(&["deployment", "show", "default"]).await?;
    ensure!(
        shown.pointer("/snapshot_interval_seconds").and_then(Value::as_u64) == Some(60),
        "{shown}"
    );
    if std::env::var_os("HEADWATER_LONG").is_none() {
        return Ok(());
    }
    source.mark("later").await?;
    let by_schedule = |snapshots: &Value| {
        let found = snapshots
            .as_array()?
            .iter()
            .any(|s| s["reason"] == "schedule" && s["complete"] == true);
        found.then_some(())
    };
    headwater
        .until("a snapshot by schedule", &["snapshot", "list", "default"], by_schedule)
        .await
}

/// By itself `createIndexes` waits for every member with data, however long it is away.
#[tokio::test(flavor = "multi_thread")]
async fn a_target_with_a_member_down_gets_its_indexes_too() -> Result<()> {
    let bed = Bed::new().await?;
    let (source, headwater) = backed_up(&bed).await?;
    let index = doc! { "key": { "n": 1 }, "name": "n_1" };
    source
        .client()
        .database("shop")
        .run_command(doc! { "createIndexes": "orders", "indexes": [index] })
        .await?;
    let indexed = source.mark("indexed").await?;
    until_stored(&headwater, indexed).await?;
    let mut target = bed.replica_set(ReplicaSetSpec::three(VERSION).not_replayable()).await?;
    let down = (target.primary().await? + 1) % 3;
    target.member_mut(down).stop().await?;
    let (uri, instant) = (target.uri(), indexed.to_string());
    let restored = restore_into(&headwater, &uri, &instant);
    tokio::time::timeout(Duration::from_secs(120), restored)
        .await
        .context("the restore waits for the member that is down")??;
    let shop: mongodb::Collection<Document> = target.client().database("shop").collection("orders");
    let indexes = shop.list_index_names().await?;
    ensure!(indexes.contains(&"n_1".to_owned()), "{indexes:?}");
    ensure!(shop.count_documents(doc! {}).await? == 10, "documents are missing");
    Ok(())
}

/// Whoever watches it is told why it does not go on; it stands in nobody's way; and whoever does not want it ends it.
#[tokio::test(flavor = "multi_thread")]
async fn a_restore_whose_target_is_gone_is_held_up_in_sight_lets_others_pass_and_can_be_ended() -> Result<()> {
    let bed = Bed::new().await?;
    let (source, headwater) = backed_up(&bed).await?;
    ballast::fill(source.client(), 12_000, 8192).await?;
    let filled = source.mark("filled").await?;
    until_stored(&headwater, filled).await?;
    let instant = filled.to_string();
    let single = || ReplicaSetSpec::single(VERSION).not_replayable();
    let (mut gone, other) = (bed.replica_set(single()).await?, bed.replica_set(single()).await?);
    let uri = gone.uri();
    let arguments = ["restore", "default", "--at", &instant, "--to-uri", &uri, "--yes"];
    let meanwhile = async {
        let loaded = gone.client().database(ballast::DATABASE).collection::<Document>("c0");
        let begun = || async { Ok((loaded.estimated_document_count().await? > 0).then_some(())) };
        until("documents at the target", begun).await?;
        gone.member_mut(0).kill()?;
        let held_up = |shown: &Value| {
            let why = shown["error"].as_str()?;
            (shown["state"] == "running" && why.contains("does not answer")).then(|| why.to_owned())
        };
        headwater
            .until("word of what holds it up", &["restores", "show", "1"], held_up)
            .await?;
        restore_into(&headwater, &other.uri(), &instant).await?;
        let cancelled = headwater.json(&["restores", "cancel", "1"]).await?;
        ensure!(cancelled["state"] == "cancelled", "{cancelled}");
        Ok(())
    };
    let (followed, ()) = tokio::try_join!(headwater.run(arguments), meanwhile)?;
    ensure!(followed.code == 1, "{}", followed.stderr);
    ensure!(followed.stderr.contains("held up: the target"), "{}", followed.stderr);
    ensure!(
        followed.stderr.contains("restore 1 was cancelled"),
        "{}",
        followed.stderr
    );
    let again = headwater.run(["restores", "cancel", "2"]).await?;
    ensure!(again.code != 0, "a restore that has ended cannot be cancelled");
    Ok(())
}
