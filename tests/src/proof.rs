//! What every end-to-end test must show: the backup comes to its end, and what is restored equals what was.

use anyhow::{Context, Result, ensure};
use bson::doc;
use headwater_model::Ts;
use mongodb::Client;
use rand::Rng;
use rand::rngs::StdRng;
use serde_json::Value;

use crate::bed::Bed;
use crate::contents::{self, Contents, Scope};
use crate::headwater::Headwater;
use crate::replay;
use crate::replica_set::{ReplicaSet, ReplicaSetSpec};

/// The only replica set in `headwater status --output json`.
pub fn set_of(status: &Value) -> Option<&Value> {
    status.pointer("/replica_sets/0")
}

/// A position of JSON as `(t, i)`.
pub fn position(value: &Value) -> Option<(u64, u64)> {
    Some((value.pointer("/t")?.as_u64()?, value.pointer("/i")?.as_u64()?))
}

/// Waits until the first copy is complete and something can be restored.
pub async fn until_complete(headwater: &Headwater) -> Result<()> {
    let complete = |status: &Value| {
        let set = set_of(status)?;
        (set.get("phase")?.as_str()? == "complete" && !set.get("restorable")?.is_null()).then_some(())
    };
    headwater.until("a first restorable point", &["status"], complete).await
}

/// Waits until everything up to `ts` can be restored.
pub async fn until_stored(headwater: &Headwater, ts: Ts) -> Result<()> {
    let wanted = (u64::from(ts.seconds()), u64::from(ts.ordinal()));
    let stored = |status: &Value| {
        let reached = position(set_of(status)?.pointer("/restorable/to")?)? >= wanted;
        reached.then_some(())
    };
    headwater
        .until("the source's last entry in the oplog store", &["status"], stored)
        .await
}

/// Restores everything, users included, as of `instant` into a new replica set of one member.
pub async fn restored(bed: &Bed, headwater: &Headwater, version: &str, instant: &str) -> Result<ReplicaSet> {
    let target = bed
        .replica_set(ReplicaSetSpec::single(version).not_replayable())
        .await?;
    let uri = target.uri();
    restore_into(headwater, &uri, instant).await?;
    Ok(target)
}

/// The same into a server that runs already.
pub async fn restore_into(headwater: &Headwater, uri: &str, instant: &str) -> Result<()> {
    let arguments = [
        "restore",
        "default",
        "--at",
        instant,
        "--to-uri",
        uri,
        "--with-users",
        "--yes",
    ];
    let ended = headwater.run(arguments).await?;
    ensure!(
        ended.code == 0,
        "restore to {instant} ended with {}:\n{}\n{}",
        ended.code,
        ended.stdout,
        ended.stderr
    );
    Ok(())
}

/// Two servers hold the same in all users' databases, byte for byte.
pub async fn compare(wanted: &Client, found: &Client, what: &str) -> Result<()> {
    let wanted = contents::read(wanted, Scope::Users).await?;
    let found = contents::read(found, Scope::Users).await?;
    require_equal(&wanted, &found, what)
}

fn require_equal(wanted: &Contents, found: &Contents, what: &str) -> Result<()> {
    wanted.require_equal(found).with_context(|| format!("at {what}"))?;
    eprintln!(
        "{what}: {} collections, {} documents, equal",
        wanted.collections.len(),
        wanted.documents()
    );
    Ok(())
}

/// Everything the source has now is stored, restored into a new server, and equal there.
pub async fn comes_back(bed: &Bed, headwater: &Headwater, source: &ReplicaSet) -> Result<Ts> {
    let end = source.mark("end").await?;
    until_stored(headwater, end).await?;
    let target = restored(bed, headwater, source.version(), &end.to_string()).await?;
    compare(source.client(), target.client(), &format!("the end, {end}")).await?;
    Ok(end)
}

/// So many random instants, restored each into a new server, equal a model that a real mongod replayed from the same oplog.
/// The source must be replayable, and have all of its oplog since the first instant that can be restored.
pub async fn instants_come_back(
    bed: &Bed,
    headwater: &Headwater,
    source: &ReplicaSet,
    random: &mut StdRng,
    count: usize,
) -> Result<()> {
    let instants = instants(headwater, source, random, count, 200).await?;
    all_come_back(bed, headwater, source, &instants).await
}

/// These instants, restored each into a new server, equal a model that a real mongod replayed from the same oplog.
pub async fn all_come_back(bed: &Bed, headwater: &Headwater, source: &ReplicaSet, instants: &[Ts]) -> Result<()> {
    for instant in instants {
        let target = restored(bed, headwater, source.version(), &instant.to_string()).await?;
        let model = replay::to(bed, source, *instant).await?;
        let wanted = contents::read(model.client(), Scope::Users).await?;
        let mut found = contents::read(target.client(), Scope::Users).await?;
        found.forget_series_without_a_view_in(&wanted);
        require_equal(&wanted, &found, &instant.to_string())?;
    }
    Ok(())
}

/// Random entries of the source's oplog within what can be restored, drawn from more than so many.
pub async fn instants(
    headwater: &Headwater,
    source: &ReplicaSet,
    random: &mut StdRng,
    count: usize,
    more_than: usize,
) -> Result<Vec<Ts>> {
    let status = headwater.json(&["status"]).await?;
    let set = set_of(&status).context("no replica set in status")?;
    let edge = |name: &str| -> Result<Ts> {
        let (t, i) = set
            .pointer(&format!("/restorable/{name}"))
            .and_then(position)
            .context("nothing restorable")?;
        Ok(Ts::new(u32::try_from(t)?, u32::try_from(i)?))
    };
    let oplog = source
        .client()
        .database("local")
        .collection::<bson::Document>("oplog.rs");
    let within =
        doc! { "ts": { "$gte": bson::Timestamp::from(edge("from")?), "$lte": bson::Timestamp::from(edge("to")?) } };
    let mut entries = oplog.find(within).projection(doc! { "ts": 1 }).await?;
    let mut all = Vec::new();
    while entries.advance().await? {
        all.push(Ts::from(entries.deserialize_current()?.get_timestamp("ts")?));
    }
    ensure!(all.len() > more_than, "only {} entries to choose from", all.len());
    let mut chosen: Vec<_> = (0..count).map(|_| all[random.gen_range(0..all.len())]).collect();
    chosen.sort();
    Ok(chosen)
}
