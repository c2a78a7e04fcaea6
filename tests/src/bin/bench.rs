//! Measures the main path against a real server: `cargo xtask bench [SCALE]` runs this in release.
//!
//! Figures of one run are compared with one another, never with those of another machine or day.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bson::{Document, RawDocumentBuf, doc};
use futures::TryStreamExt;
use headwater_model::Ts;
use headwater_tests::corpus::{self, CorpusSpec};
use headwater_tests::{Bed, Headwater, ReplicaSet, ReplicaSetSpec, Scope, contents};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;

const VERSION: &str = "6.0.5";

#[tokio::main]
async fn main() -> Result<()> {
    let scale: f64 = std::env::args()
        .nth(1)
        .map_or(Ok(1.0), |text| text.parse())
        .context("a scale, such as 0.1")?;
    let bed = Bed::new().await?;
    let source = bed
        .replica_set(ReplicaSetSpec::single(VERSION).not_replayable().oplog_mib(4096))
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
    let began = now();
    headwater.start_quickstart(&source.uri(), "bench").await?;
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
    memory(&mut headwater, "memory of daemon and agent together, peak of the sync")?;

    let mut random = StdRng::seed_from_u64(7);
    for percent in [0, 1, 10] {
        let changed = change(&source, percent, &mut random).await?;
        until_stored(&headwater, source.mark("changed").await?).await?;
        let began = now();
        let snapshot = headwater.json(&["snapshot", "take", "bench", "--wait"]).await?;
        let stored = snapshot.get("stored_bytes").and_then(Value::as_u64).unwrap_or_default();
        let times = if changed == 0 {
            String::new()
        } else {
            format!(
                ", {:.2} × the bytes of the changed documents",
                stored as f64 / changed as f64
            )
        };
        row(
            &format!("snapshot after {percent} % of documents changed at random"),
            format!(
                "{:.1} s, {:.1} MB stored{times}",
                began.elapsed().as_secs_f64(),
                stored as f64 / 1e6
            ),
        );
    }
    lag(&source, &headwater).await?;
    restore(&bed, &source, &headwater, made.bytes).await?;
    memory(&mut headwater, "memory of daemon and agent together, peak of the run")
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

/// Changes a share of the documents of the largest collection; answers the bytes of the changed documents.
async fn change(source: &ReplicaSet, percent: u32, random: &mut StdRng) -> Result<u64> {
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
    let (_, collection) = largest.context("an empty corpus")?;
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

async fn restore(bed: &Bed, source: &ReplicaSet, headwater: &Headwater, bytes: u64) -> Result<()> {
    let end = source.mark("end").await?;
    until_stored(headwater, end).await?;
    let target = bed
        .replica_set(ReplicaSetSpec::single(VERSION).not_replayable())
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

fn memory(headwater: &mut Headwater, what: &str) -> Result<()> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", headwater.daemon()?.id()))?;
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap_or("unknown")
        .trim()
        .to_owned();
    row(what, peak);
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
    let to = status.pointer("/replica_sets/0/restorable/to")?;
    Some(Ts::new(
        u32::try_from(to.get("t")?.as_u64()?).ok()?,
        u32::try_from(to.get("i")?.as_u64()?).ok()?,
    ))
}

async fn until_stored(headwater: &Headwater, ts: Ts) -> Result<()> {
    headwater
        .until("the last entry in the oplog store", &["status"], |s| {
            (stored(s)? >= ts).then_some(())
        })
        .await
}
