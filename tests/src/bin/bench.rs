//! Measures the main path against a real server: `cargo xtask bench [SCALE]` runs this in release.
//!
//! Figures of one run are compared with one another, never with those of another machine or day.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bson::{Document, RawDocumentBuf, doc};
use futures::{StreamExt, TryStreamExt};
use headwater_model::Ts;
use headwater_tests::corpus::{self, CorpusSpec};
use headwater_tests::{Bed, Headwater, ReplicaSet, ReplicaSetSpec, Scope, contents};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;

const VERSION: &str = "6.0.5";
/// As much as a server has that is not made for tests only.
const CACHE_MIB: u32 = 2048;

#[tokio::main]
async fn main() -> Result<()> {
    let scale: f64 = std::env::args()
        .nth(1)
        .map_or(Ok(1.0), |text| text.parse())
        .context("a scale, such as 0.1")?;
    let bed = Bed::new().await?;
    let source = bed
        .replica_set(
            ReplicaSetSpec::single(VERSION)
                .not_replayable()
                .oplog_mib(4096)
                .cache_mib(CACHE_MIB),
        )
        .await?;
    let made = corpus::fill(&source.uri(), CorpusSpec { seed: 1, scale }).await?;
    println!("| what | figure |\n|---|---|");
    row(
        "corpus",
        format!("{} documents, {:.2} GB of BSON", made.documents, gb(made.bytes)),
    );

    let scan = bare_scan(&source).await?;
    row("bare scan of the source", format!("{:.1} s", scan.as_secs_f64()));
    let mut headwater = bed.headwater()?;
    headwater.start_daemon().await?;
    headwater.start_agent().await?;
    let began = now();
    headwater
        .json(&["deployment", "add", "bench", "--uri", &source.uri()])
        .await?;
    let transferred = headwater
        .until("the transfer", &["status"], |status| phase_past(status, "transferring"))
        .await;
    let transfer = began.elapsed();
    transferred?;
    headwater
        .until("the first restorable point", &["status"], complete)
        .await?;
    let whole = began.elapsed();
    row("initial sync, transfer", ratio(transfer, scan));
    row("initial sync, until the first restorable point", ratio(whole, scan));
    memory(&mut headwater, "peak of the sync")?;

    let mut random = StdRng::seed_from_u64(7);
    for percent in [0, 1, 10] {
        let changed = change(&source, percent, &mut random).await?;
        until_stored(&headwater, source.mark("changed").await?).await?;
        snapshot(
            &headwater,
            &format!("{percent} % of documents changed at random"),
            changed,
        )
        .await?;
    }
    for percent in [1, 10] {
        let added = append(&source, percent, &mut random).await?;
        until_stored(&headwater, source.mark("appended").await?).await?;
        snapshot(&headwater, &format!("{percent} % of documents appended"), added).await?;
    }
    lag(&source, &headwater).await?;
    catch_up(&source, &mut headwater, scale).await?;
    plain_copy(&bed, &source).await?;
    restore(&bed, &source, &headwater).await?;
    memory(&mut headwater, "peak of the run")
}

/// Takes a snapshot; `changed` are the bytes of the documents that changed since the last.
async fn snapshot(headwater: &Headwater, after: &str, changed: u64) -> Result<()> {
    let began = now();
    let snapshot = headwater.json(&["snapshot", "take", "bench", "--wait"]).await?;
    let took = began.elapsed().as_secs_f64();
    let stored = snapshot.get("stored_bytes").and_then(Value::as_u64).unwrap_or_default();
    let mut figure = format!("{took:.1} s, {:.1} MB stored", stored as f64 / 1e6);
    if changed > 0 {
        let times = stored as f64 / changed as f64;
        figure += &format!(", {times:.2} × the {:.1} MB of these documents", changed as f64 / 1e6);
    }
    row(&format!("snapshot after {after}"), figure);
    Ok(())
}

/// Adds copies of documents of the largest collection under new `_id`s; answers their bytes.
async fn append(source: &ReplicaSet, percent: u64, random: &mut StdRng) -> Result<u64> {
    let collection = largest(source).await?;
    let into = collection.clone_with_type::<RawDocumentBuf>();
    let count = collection.estimated_document_count().await? * percent / 100;
    let mut found = collection.find(doc! {}).limit(i64::try_from(count)?).await?;
    let (mut bytes, mut batch) = (0, Vec::new());
    while let Some(mut document) = found.try_next().await? {
        document.insert("_id", bson::oid::ObjectId::new());
        document.insert("appended", random.r#gen::<i32>());
        let document = RawDocumentBuf::try_from(&document)?;
        bytes += document.as_bytes().len() as u64;
        batch.push(document);
        if batch.len() == 1000 {
            into.insert_many(batch.drain(..)).await?;
        }
    }
    if !batch.is_empty() {
        into.insert_many(batch).await?;
    }
    Ok(bytes)
}

/// The daemon is away while small documents are inserted; then the agent ships and the daemon applies what it missed.
async fn catch_up(source: &ReplicaSet, headwater: &mut Headwater, scale: f64) -> Result<()> {
    headwater.daemon()?.kill()?;
    let collection = source.client().database("bench").collection("small");
    let entries = (2_000_000.0 * scale) as u64;
    for first in (0..entries).step_by(10_000) {
        let documents: Vec<_> = (first..(first + 10_000).min(entries))
            .map(|n| doc! { "_id": n as i64, "text": "some small document", "n": n as i64 })
            .collect();
        collection.insert_many(documents).await?;
    }
    let end = source.mark("end of the outage").await?;
    let began = now();
    headwater.start_daemon().await?;
    until_stored(headwater, end).await?;
    let stored = began.elapsed().as_secs_f64();
    headwater
        .until("the last entry in the head", &["status"], |s| {
            (ts(s.pointer("/replica_sets/0/applied")?)? >= end).then_some(())
        })
        .await?;
    let applied = began.elapsed().as_secs_f64();
    row(
        "catching up after an outage of the daemon, its start included",
        format!(
            "{entries} entries, shipped after {stored:.1} s, applied after {applied:.1} s: {:.0} entries/s",
            entries as f64 / applied
        ),
    );
    Ok(())
}

/// What a restore is compared with: the driver reads the source and inserts, four collections at once, then indexes.
async fn plain_copy(bed: &Bed, source: &ReplicaSet) -> Result<()> {
    let target = bed
        .replica_set(ReplicaSetSpec::single(VERSION).not_replayable().cache_mib(CACHE_MIB))
        .await?;
    let began = now();
    let database = source.client().database(corpus::DATABASE);
    let copies = database.list_collection_names().await?.into_iter().map(|name| {
        let from = database.collection::<RawDocumentBuf>(&name);
        let into = target
            .client()
            .database(corpus::DATABASE)
            .collection::<RawDocumentBuf>(&name);
        async move {
            let mut found = from.find(doc! {}).batch_size(1000).await?;
            let mut batch = Vec::new();
            while let Some(document) = found.try_next().await? {
                batch.push(document);
                if batch.len() == 1000 {
                    into.insert_many(batch.drain(..)).await?;
                }
            }
            if !batch.is_empty() {
                into.insert_many(batch).await?;
            }
            let indexes: Vec<_> = from.list_indexes().await?.try_collect().await?;
            into.create_indexes(indexes).await?;
            anyhow::Ok(())
        }
    });
    futures::stream::iter(copies)
        .buffer_unordered(4)
        .try_collect::<Vec<()>>()
        .await?;
    let took = began.elapsed().as_secs_f64();
    let bytes = data_bytes(&target).await?;
    row(
        "plain copy by the driver, four collections at once, indexes at the end",
        format!("{took:.1} s, {:.0} MB/s", bytes as f64 / 1e6 / took),
    );
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "this program measures real time")]
fn now() -> Instant {
    Instant::now()
}

fn row(what: &str, figure: String) {
    println!("| {what} | {figure} |");
}

fn gb(bytes: u64) -> f64 {
    bytes as f64 / 1e9
}

fn ratio(took: Duration, scan: Duration) -> String {
    format!(
        "{:.1} s = {:.2} × the bare scan",
        took.as_secs_f64(),
        took.as_secs_f64() / scan.as_secs_f64()
    )
}

/// Reads every document of every user collection with the driver and throws it away.
async fn bare_scan(source: &ReplicaSet) -> Result<Duration> {
    let began = now();
    for database in user_databases(source).await? {
        let database = source.client().database(&database);
        for name in database.list_collection_names().await? {
            let mut cursor = database.collection::<RawDocumentBuf>(&name).find(doc! {}).await?;
            while cursor.advance().await? {}
        }
    }
    Ok(began.elapsed())
}

async fn user_databases(source: &ReplicaSet) -> Result<Vec<String>> {
    let names = source.client().list_database_names().await?;
    Ok(names
        .into_iter()
        .filter(|name| !["admin", "config", "local"].contains(&name.as_str()))
        .collect())
}

/// Bytes of BSON of all user databases.
async fn data_bytes(set: &ReplicaSet) -> Result<u64> {
    let mut bytes = 0.0;
    for database in user_databases(set).await? {
        let stats = set
            .client()
            .database(&database)
            .run_command(doc! { "dbStats": 1 })
            .await?;
        bytes += stats.get_f64("dataSize").unwrap_or_default();
    }
    Ok(bytes as u64)
}

/// The collection with the most documents.
async fn largest(source: &ReplicaSet) -> Result<mongodb::Collection<Document>> {
    let mut largest: Option<(u64, mongodb::Collection<Document>)> = None;
    for database in user_databases(source).await? {
        let database = source.client().database(&database);
        for name in database.list_collection_names().await? {
            let collection = database.collection::<Document>(&name);
            let documents = collection.estimated_document_count().await?;
            if !name.starts_with("system.") && largest.as_ref().is_none_or(|(most, _)| documents > *most) {
                largest = Some((documents, collection));
            }
        }
    }
    Ok(largest.context("an empty corpus")?.1)
}

/// Changes a share of the documents of the largest collection; answers the bytes of the changed documents.
async fn change(source: &ReplicaSet, percent: u32, random: &mut StdRng) -> Result<u64> {
    let collection = largest(source).await?;
    if percent == 0 {
        return Ok(0);
    }
    let ids: Vec<Document> = collection
        .find(doc! {})
        .projection(doc! { "_id": 1 })
        .await?
        .try_collect()
        .await?;
    let mut bytes = 0;
    let chosen: Vec<_> = ids.into_iter().filter(|_| random.gen_range(0..100) < percent).collect();
    for some in chosen.chunks(1000) {
        let ids: Vec<_> = some.iter().filter_map(|d| d.get("_id").cloned()).collect();
        let filter = doc! { "_id": { "$in": ids } };
        collection
            .update_many(filter.clone(), doc! { "$set": { "changed": random.r#gen::<i32>() } })
            .await?;
        let changed: Vec<RawDocumentBuf> = collection.clone_with_type().find(filter).await?.try_collect().await?;
        bytes += changed.iter().map(|d| d.as_bytes().len() as u64).sum::<u64>();
    }
    Ok(bytes)
}

/// From the answer of a majority write to its entry being restorable, seen through the command line.
async fn lag(source: &ReplicaSet, headwater: &Headwater) -> Result<()> {
    let mut waits = Vec::new();
    for _ in 0..40 {
        let ts = source.mark("lag").await?;
        let began = now();
        loop {
            let status = headwater.json(&["status"]).await?;
            if stored(&status).is_some_and(|to| to >= ts) {
                break;
            }
        }
        waits.push(began.elapsed());
        tokio::time::sleep(Duration::from_millis(70)).await;
    }
    waits.sort();
    let ms = |share: usize| waits[(waits.len() - 1) * share / 100].as_millis();
    row(
        "majority write → durable in the oplog store, seen through the command line",
        format!("p50 {} ms, p99 {} ms", ms(50), ms(99)),
    );
    Ok(())
}

async fn restore(bed: &Bed, source: &ReplicaSet, headwater: &Headwater) -> Result<()> {
    let end = source.mark("end").await?;
    until_stored(headwater, end).await?;
    let target = bed
        .replica_set(ReplicaSetSpec::single(VERSION).not_replayable().cache_mib(CACHE_MIB))
        .await?;
    let began = now();
    let done = headwater
        .run([
            "restore",
            "bench",
            "--at",
            &end.to_string(),
            "--to-uri",
            &target.uri(),
            "--yes",
        ])
        .await?;
    ensure!(done.code == 0, "the restore failed:\n{}\n{}", done.stdout, done.stderr);
    let took = began.elapsed();
    let bytes = data_bytes(&target).await?;
    row(
        "restore to a server, indexes included",
        format!(
            "{:.1} s, {:.0} MB/s",
            took.as_secs_f64(),
            bytes as f64 / 1e6 / took.as_secs_f64()
        ),
    );
    let equal = contents::hashes(source.client(), Scope::Users).await?
        == contents::hashes(target.client(), Scope::Users).await?;
    ensure!(equal, "dbHash of source and target differ");
    row("dbHash of source and target", "equal".to_owned());
    Ok(())
}

fn memory(headwater: &mut Headwater, of: &str) -> Result<()> {
    for (role, id) in [("daemon", headwater.daemon()?.id()), ("agent", headwater.agent()?.id())] {
        let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        row(
            &format!("memory of the {role}, {of}"),
            peak.unwrap_or("unknown").trim().to_owned(),
        );
    }
    Ok(())
}

fn phase_past(status: &Value, phase: &str) -> Option<()> {
    let now = status.pointer("/replica_sets/0/phase")?.as_str()?;
    (now != "starting" && now != phase).then_some(())
}

fn complete(status: &Value) -> Option<()> {
    let set = status.pointer("/replica_sets/0")?;
    (set.get("phase")?.as_str()? == "complete" && !set.get("restorable")?.is_null()).then_some(())
}

fn stored(status: &Value) -> Option<Ts> {
    ts(status.pointer("/replica_sets/0/restorable/to")?)
}

fn ts(value: &Value) -> Option<Ts> {
    Some(Ts::new(
        u32::try_from(value.get("t")?.as_u64()?).ok()?,
        u32::try_from(value.get("i")?.as_u64()?).ok()?,
    ))
}

async fn until_stored(headwater: &Headwater, ts: Ts) -> Result<()> {
    headwater
        .until("the last entry in the oplog store", &["status"], |s| {
            (stored(s)? >= ts).then_some(())
        })
        .await
}
