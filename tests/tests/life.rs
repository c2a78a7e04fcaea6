//! The life of snapshots: how long they stay, and what becomes of their space.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use bson::{Document, doc};
use headwater_tests::proof::{compare, restored, until_complete, until_stored};
use headwater_tests::{Bed, Headwater, ReplicaSet, ReplicaSetSpec, Scope, contents};
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};
use serde_json::Value;

const VERSION: &str = "6.0.5";

/// A source with `count` documents of 2 KB that do not compress, backed up.
async fn backed_up(bed: &Bed, count: i32, random: &mut StdRng) -> Result<(ReplicaSet, Headwater)> {
    let source = bed
        .replica_set(ReplicaSetSpec::single(VERSION).not_replayable())
        .await?;
    rewrite(&source, 0, count, random).await?;
    let mut headwater = bed.headwater()?.with_env("HEADWATER_SNAPSHOTS_INTERVAL", "12h");
    headwater.start_quickstart(&source.uri(), "default").await?;
    until_complete(&headwater).await?;
    until_stored(&headwater, source.mark("begun").await?).await?;
    Ok((source, headwater))
}

/// Gives the documents from `from` to `to` new contents.
async fn rewrite(source: &ReplicaSet, from: i32, to: i32, random: &mut StdRng) -> Result<()> {
    let orders: mongodb::Collection<Document> = source.client().database("shop").collection("orders");
    orders.delete_many(doc! { "_id": { "$gte": from, "$lt": to } }).await?;
    let ids: Vec<i32> = (from..to).collect();
    for ids in ids.chunks(1000) {
        let documents = ids.iter().map(|id| {
            let mut bytes = vec![0; 2000];
            random.fill_bytes(&mut bytes);
            let bytes = bson::Binary {
                subtype: bson::spec::BinarySubtype::Generic,
                bytes,
            };
            doc! { "_id": id, "bytes": bytes }
        });
        orders.insert_many(documents).await?;
    }
    Ok(())
}

async fn snapshot(headwater: &Headwater, source: &ReplicaSet) -> Result<String> {
    until_stored(headwater, source.mark("snapshot").await?).await?;
    let taken = headwater.json(&["snapshot", "take", "default", "--wait"]).await?;
    let id = taken.get("id").and_then(Value::as_str).context("no id")?;
    Ok(id.to_owned())
}

fn figure(groom: &Value, name: &str) -> Result<u64> {
    let place = format!("/0/last/{name}");
    let found = groom.pointer(&place).and_then(Value::as_u64);
    found.with_context(|| format!("no {name} in {groom}"))
}

/// The bytes of all packs on the disk.
fn packs_on_disk(folder: &Path) -> Result<u64> {
    let mut sum = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sum += packs_on_disk(&entry.path())?;
        } else if entry.path().extension().is_some_and(|extension| extension == "pack") {
            sum += entry.metadata()?.len();
        }
    }
    Ok(sum)
}

/// Documents are changed at random, snapshots dropped, packs groomed: the space of what is dead is on the disk again, and
/// what is left restores as it was.
#[tokio::test(flavor = "multi_thread")]
async fn a_groom_returns_the_space_and_what_is_left_restores_as_it_was() -> Result<()> {
    let bed = Bed::new().await?;
    let mut random = StdRng::seed_from_u64(31);
    let count = 12_000;
    let (source, headwater) = backed_up(&bed, count, &mut random).await?;
    let mut taken = Vec::new();
    for _ in 0..5 {
        for _ in 0..8 {
            let from = random.gen_range(0..count - 600);
            rewrite(&source, from, from + 600, &mut random).await?;
        }
        let held = contents::read(source.client(), Scope::Users).await?;
        taken.push((snapshot(&headwater, &source).await?, held));
    }
    let all = headwater.json(&["snapshot", "list", "default"]).await?;
    let kept = [&taken[2].0, &taken[4].0];
    for snapshot in all.as_array().context("no list")? {
        let id = snapshot.get("id").and_then(Value::as_str).context("no id")?;
        if !kept.iter().any(|kept| *kept == id) {
            headwater.json(&["snapshot", "delete", "default", id, "--yes"]).await?;
        }
    }
    let looked = headwater.json(&["groom", "run", "default", "--dry-run"]).await?;
    let before = packs_on_disk(&headwater.node_folder())?;
    ensure!(figure(&looked, "packs_removed")? > 0, "{looked}");
    ensure!(figure(&looked, "dead_bytes")? > 5_000_000, "{looked}");
    let groomed = headwater.json(&["groom", "run", "default"]).await?;
    let after = packs_on_disk(&headwater.node_folder())?;
    let counted = headwater.json(&["groom", "run", "default", "--dry-run"]).await?;
    let living = figure(&counted, "living_bytes")?;
    eprintln!("{before} bytes before, {after} after, {living} living");
    ensure!(after < before, "nothing came back: {groomed}");
    ensure!(
        after * 100 <= living * 105,
        "{after} bytes are left for {living} living ones: {counted}"
    );
    for (id, held) in taken.iter().filter(|(id, _)| kept.contains(&id)) {
        let target = restored(&bed, &headwater, VERSION, &format!("snapshot:{id}")).await?;
        let found = contents::read(target.client(), Scope::Users).await?;
        held.require_equal(&found).with_context(|| format!("snapshot {id}"))?;
    }
    let end = source.mark("end").await?;
    until_stored(&headwater, end).await?;
    let target = restored(&bed, &headwater, VERSION, &end.to_string()).await?;
    compare(source.client(), target.client(), "the end").await
}

/// What the policy no longer keeps goes by itself; what a user keeps stays, and so does the last good one.
#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_goes_when_its_time_is_over_unless_it_is_kept() -> Result<()> {
    let bed = Bed::new().await?;
    let mut random = StdRng::seed_from_u64(5);
    let (source, headwater) = backed_up(&bed, 100, &mut random).await?;
    let set = [
        "schedule",
        "set",
        "default",
        "--base",
        "0",
        "--daily",
        "0",
        "--weekly",
        "0",
        "--monthly",
        "0",
        "--window",
        "0",
        "--interval",
        "90m",
        "--reference",
        "04:30",
        "--zone",
        "+01:00",
    ];
    let shown = headwater.json(&set).await?;
    ensure!(
        shown.get("reference").and_then(Value::as_str) == Some("04:30"),
        "{shown}"
    );
    let next = shown.get("next").and_then(Value::as_array).context("no times")?;
    ensure!(next.len() == 10, "{shown}");
    let first = snapshot(&headwater, &source).await?;
    headwater.json(&["snapshot", "keep", "default", &first]).await?;
    let second = snapshot(&headwater, &source).await?;
    rewrite(&source, 0, 10, &mut random).await?;
    let third = snapshot(&headwater, &source).await?;
    let ids = |shown: &Value| -> Option<Vec<String>> {
        let snapshots = shown.get("snapshots")?.as_array()?;
        snapshots
            .iter()
            .map(|s| Some(s.get("id")?.as_str()?.to_owned()))
            .collect()
    };
    let without_second = |shown: &Value| ids(shown).filter(|ids| !ids.contains(&second));
    let left = headwater
        .until(
            "the second snapshot to expire",
            &["schedule", "show", "default"],
            without_second,
        )
        .await?;
    ensure!(left.contains(&first) && left.contains(&third), "{left:?} are left");
    headwater
        .json(&["snapshot", "release", "default", &first, "--expires", "0s"])
        .await?;
    let only_third = |shown: &Value| {
        let ids = ids(shown)?;
        (!ids.contains(&first)).then_some(ids)
    };
    let left = headwater
        .until(
            "the released snapshot to go",
            &["schedule", "show", "default"],
            only_third,
        )
        .await?;
    ensure!(left.contains(&third), "the last good one went: {left:?}");
    let shown = headwater.run(["schedule", "show", "default"]).await?;
    ensure!(shown.stdout.contains("it is the last good one"), "{}", shown.stdout);
    let target = restored(&bed, &headwater, VERSION, &format!("snapshot:{third}")).await?;
    compare(source.client(), target.client(), "the last good one").await
}

/// A store that is not mounted yet looks like an empty one. The daemon that began the cluster must not begin again in it.
#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_does_not_begin_in_an_empty_place_once_it_had_a_store() -> Result<()> {
    let bed = Bed::new().await?;
    let (store, aside) = (bed.new_folder("store")?, bed.new_folder("unmounted")?.join("store"));
    let mut headwater = bed.headwater()?.with_store(&format!("file:{}", store.display()));
    for _ in 0..2 {
        headwater.start_daemon().await?;
        headwater.daemon()?.stop().await?;
    }
    std::fs::rename(&store, &aside)?;
    let refused = headwater.start_daemon().await;
    ensure!(
        refused.is_err_and(|e| format!("{e:#}").contains("it is not mounted")),
        "{}",
        headwater.log_tail("daemon")
    );
    ensure!(!store.join("cluster").exists(), "the empty place was claimed");
    std::fs::remove_dir_all(&store)?;
    std::fs::rename(&aside, &store)?;
    headwater.start_daemon().await?;
    headwater.json(&["cluster", "status"]).await?;
    Ok(())
}
