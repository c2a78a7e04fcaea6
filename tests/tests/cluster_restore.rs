//! A sharded cluster given back as a whole: merged into one replica set, and as a new cluster on other hosts.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use bson::{Bson, Document, doc};
use futures::TryStreamExt;
use headwater_tests::{Bed, Cluster, Headwater, ReplicaSet, ReplicaSetSpec, Router, Transaction, until};
use serde_json::Value;

const VERSION: &str = "6.0.5";
const ACCOUNTS: &str = "bank.accounts";
const BUCKETS: &str = "bank.system.buckets.readings";
const EACH: i64 = 12;

/// A database on each shard, with collections of every kind, and what no router shows: orphans.
async fn fill(cluster: &Cluster) -> Result<()> {
    let mut router = cluster.router().await?;
    router.create_database("bank", "sh0").await?;
    router.create_database("other", "sh1").await?;
    router.shard_collection(ACCOUNTS, "k").await?;
    router.split(ACCOUNTS, 0).await?;
    router.move_chunk(ACCOUNTS, 0, "sh1").await?;
    for k in -EACH..EACH {
        let account = doc! { "_id": k, "k": k, "balance": 100_i64 };
        router.insert(ACCOUNTS, k, account).await?;
    }
    let plain = (0..50).map(|n| doc! { "_id": n, "text": format!("text {n}"), "n": n % 7 });
    let create = doc! { "insert": "plain", "documents": plain.collect::<Vec<_>>() };
    router.versioned("bank.plain", 0, &create).await?;
    let index = doc! { "createIndexes": "plain", "indexes": [{ "key": { "n": 1 }, "name": "by_n" }] };
    router.versioned("bank.plain", 0, &index).await?;
    let view = doc! { "create": "few", "viewOn": "plain", "pipeline": [{ "$match": { "n": 3 } }] };
    router.on("sh0", "bank", view).await?;
    let capped = doc! { "create": "log", "capped": true, "size": 100_000 };
    router.on("sh1", "other", capped).await?;
    for n in [5, 3, 4] {
        router
            .on("sh1", "other", doc! { "insert": "log", "documents": [{ "_id": n }] })
            .await?;
    }
    hashed(&mut router).await?;
    time_series(&mut router).await?;
    let index = doc! { "createIndexes": "accounts", "indexes": [{ "key": { "balance": -1 }, "name": "by_balance" }] };
    for shard in ["sh0", "sh1"] {
        router.on_shard(ACCOUNTS, shard, &index).await?;
    }
    // Left behind by a migration, and by a movePrimary: shards hold more than they own.
    for (shard, collection) in [("sh0", "accounts"), ("sh1", "plain")] {
        let orphan = doc! { "_id": 7_i64, "k": 7_i64, "balance": 999_i64 };
        router
            .on(shard, "bank", doc! { "insert": collection, "documents": [orphan] })
            .await?;
    }
    Ok(())
}

/// A collection with a hashed key in four chunks, all of whose documents are on both shards: the servers know which of them
/// count.
async fn hashed(router: &mut Router) -> Result<()> {
    let how = doc! { "shardKey": { "_id": "hashed" }, "unique": false, "numInitialChunks": 4 };
    router.shard_collection_by("bank.hashed", how).await?;
    let documents: Vec<_> = (0..50).map(|n| doc! { "_id": n, "text": "hashed" }).collect();
    for shard in ["sh0", "sh1"] {
        let insert = doc! { "insert": "hashed", "documents": documents.clone(), "writeConcern": { "w": "majority" } };
        router.on(shard, "bank", insert).await?;
    }
    Ok(())
}

/// A time-series collection, whose buckets are sharded by what its measurements are about.
async fn time_series(router: &mut Router) -> Result<()> {
    let how = doc! { "shardKey": { "m": 1 }, "unique": false, "timeseries": { "timeField": "t", "metaField": "m" } };
    router.shard_collection_by("bank.readings", how).await?;
    router.split(BUCKETS, 0).await?;
    router.move_chunk(BUCKETS, 0, "sh1").await?;
    // The last of them is an orphan.
    for (shard, m) in [("sh0", -5), ("sh1", 5), ("sh0", 6)] {
        let reading =
            |n: i64| doc! { "_id": n, "t": bson::DateTime::from_millis(1_795_343_591_000 + n), "m": m, "v": n };
        let readings: Vec<Document> = (0..10).map(reading).collect();
        router
            .on(shard, "bank", doc! { "insert": "readings", "documents": readings })
            .await?;
    }
    Ok(())
}

/// Every document that routers show, by collection; capped ones in their order.
async fn shown(router: &mut Router) -> Result<BTreeMap<&'static str, Vec<Document>>> {
    let at = router.level().await?;
    let mut all = BTreeMap::new();
    for ns in [ACCOUNTS, "bank.hashed", BUCKETS] {
        let mut documents = router.read_at(ns, at).await?;
        documents.sort_by_key(order);
        all.insert(ns, documents);
    }
    for (ns, collection) in [("bank.plain", "plain"), ("bank.few", "few"), ("other.log", "log")] {
        let find = doc! { "find": collection, "batchSize": 1000 };
        let reply = router.versioned(ns, 0, &find).await?;
        all.insert(ns, headwater_tests::wire::first_batch(&reply)?);
    }
    Ok(all)
}

fn order(document: &Document) -> (i64, String) {
    let id = document.get("_id").map(Bson::to_string).unwrap_or_default();
    (number(document, "_id"), id)
}

fn number(document: &Document, field: &str) -> i64 {
    match document.get(field) {
        Some(Bson::Int32(n)) => i64::from(*n),
        Some(Bson::Int64(n)) => *n,
        _ => i64::MIN,
    }
}

/// What a plain replica set holds of the same collections.
async fn held(set: &ReplicaSet) -> Result<BTreeMap<&'static str, Vec<Document>>> {
    let mut all = BTreeMap::new();
    for ns in [ACCOUNTS, "bank.hashed", BUCKETS, "bank.plain", "bank.few", "other.log"] {
        let (db, collection) = ns.split_once('.').context("a namespace")?;
        let found = set.client().database(db).collection::<Document>(collection);
        let mut documents: Vec<Document> = found.find(doc! {}).await?.try_collect().await?;
        if ns != "other.log" {
            documents.sort_by_key(order);
        }
        all.insert(ns, documents);
    }
    Ok(all)
}

async fn protected(bed: &Bed, cluster: &Cluster) -> Result<Headwater> {
    let mut headwater = bed.headwater()?;
    headwater.start_daemon().await?;
    headwater.start_agent().await?;
    headwater
        .json(&["deployment", "add", "shop", "--uri", &cluster.uri()])
        .await?;
    until("every member to be complete", || async {
        let shown = headwater.json(&["deployment", "show", "shop"]).await?;
        let sets = shown["replica_sets"].as_array().cloned().unwrap_or_default();
        let complete = sets.iter().filter(|set| set["phase"] == "complete").count();
        Ok((complete == 3).then_some(()))
    })
    .await?;
    Ok(headwater)
}

/// Takes a snapshot of the cluster; one by the timetable may be on its way.
async fn snapshot(headwater: &Headwater) -> Result<String> {
    let taken = until("a snapshot of the cluster", || async {
        let taken = headwater
            .run(["snapshot", "take", "shop", "--wait", "--output", "json"])
            .await?;
        Ok((taken.code == 0).then_some(taken.stdout))
    })
    .await?;
    let taken: Value = serde_json::from_str(&taken)?;
    Ok(taken["id"].as_str().context("an id")?.to_owned())
}

/// `--to-cluster` for every member.
fn targets(cluster: &Cluster) -> Vec<String> {
    let sets = [cluster.config()].into_iter().chain(cluster.shards());
    sets.flat_map(|set| ["--to-cluster".to_owned(), format!("{}={}", set.name(), set.uri())])
        .collect()
}

/// Everything that users do: read, write, in transactions over shards, move chunks, shard more.
async fn is_usable(cluster: &Cluster, turn: i64) -> Result<()> {
    let mut router = cluster.router().await?;
    let before = router.level().await?;
    let accounts = router.read_at(ACCOUNTS, before).await?.len();
    let mut transfer = Transaction::default();
    for (k, amount) in [(-1, -30), (1, 30)] {
        let update = doc! { "q": { "_id": k, "k": k }, "u": { "$inc": { "balance": amount } } };
        let command = doc! { "update": "accounts", "updates": [update] };
        let done = transfer.run(&mut router, ACCOUNTS, k, &command).await?;
        ensure!(number(&done, "nModified") == 1, "{done}");
    }
    ensure!(transfer.participants().len() == 2, "both shards take part");
    transfer.commit(&mut router).await?;
    for k in [-1000 - turn, 1000 + turn] {
        router
            .insert(ACCOUNTS, k, doc! { "_id": k, "k": k, "balance": 0_i64 })
            .await?;
    }
    let after = router.level().await?;
    ensure!(router.read_at(ACCOUNTS, after).await?.len() == accounts + 2);
    let new = format!("bank.new{turn}");
    router.shard_collection(&new, "q").await?;
    router.insert(&new, 1, doc! { "_id": 1, "q": 1_i64 }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_comes_back_on_other_hosts_and_merged_as_its_routers_showed_it() -> Result<()> {
    let bed = Bed::new().await?;
    let cluster = Cluster::start(&bed, VERSION, 2).await?;
    fill(&cluster).await?;
    let mut headwater = protected(&bed, &cluster).await?;
    let mut router = cluster.router().await?;
    let truth = shown(&mut router).await?;
    ensure!(
        truth[ACCOUNTS].len() == 2 * EACH as usize && truth["bank.hashed"].len() == 50,
        "{truth:?}"
    );
    ensure!(truth[BUCKETS].len() == 2, "{truth:?}");
    let id = snapshot(&headwater).await?;
    is_usable(&cluster, 0).await?;
    let later = shown(&mut router).await?;
    let then = router.level().await?;
    // The mistake.
    for shard in ["sh0", "sh1"] {
        let all = doc! { "delete": "accounts", "deletes": [{ "q": {}, "limit": 0 }] };
        router.on_shard(ACCOUNTS, shard, &all).await?;
    }
    let at = format!("snapshot:{id}");

    // Merged, everything and under other names.
    let target = bed
        .replica_set(ReplicaSetSpec::single(VERSION).not_replayable())
        .await?;
    let to = target.uri();
    headwater
        .json(&["restore", "shop", "--at", &at, "--to-uri", &to, "--yes"])
        .await?;
    ensure!(
        held(&target).await? == truth,
        "merged: {:?}\nwanted {truth:?}",
        held(&target).await?
    );
    // Any cluster time.
    until("the oplog of every member to be stored", || async {
        let timeline = headwater.json(&["timeline", "shop"]).await?;
        let ranges = timeline["whole_cluster"].as_array().cloned().unwrap_or_default();
        let last = ranges
            .last()
            .map(|range| (range["to"]["t"].as_u64(), range["to"]["i"].as_u64()));
        let wanted = (Some(u64::from(then.time)), Some(u64::from(then.increment)));
        Ok(last.is_some_and(|last| last >= wanted).then_some(()))
    })
    .await?;
    let then = format!("{},{}", then.time, then.increment);
    headwater
        .json(&["restore", "shop", "--at", &then, "--to-uri", &to, "--drop", "--yes"])
        .await?;
    ensure!(
        held(&target).await? == later,
        "at {then}: {:?}\nwanted {later:?}",
        held(&target).await?
    );
    let latest = headwater
        .json(&["restore", "shop", "--at", "latest", "--to-uri", &to, "--dry-run"])
        .await?;
    ensure!(
        latest["members"] == serde_json::json!(["shop/cfg", "shop/sh0", "shop/sh1"]),
        "{latest}"
    );
    let second = headwater
        .json(&["restore", "shop", "--at", "-1s", "--to-uri", &to, "--dry-run"])
        .await?;
    ensure!(
        second["at"]["i"].as_u64().is_some_and(|i| i < 1000),
        "the last entry of the second: {second}"
    );

    let names = target
        .client()
        .database("bank")
        .collection::<Document>("accounts")
        .list_index_names()
        .await?;
    ensure!(names.contains(&"by_balance".to_owned()), "{names:?}");
    let dump = bed.new_folder("dump")?;
    let folder = dump.to_string_lossy().into_owned();
    headwater
        .json(&[
            "restore",
            "shop",
            "--at",
            &at,
            "--to-dir",
            &folder,
            "--ns-include",
            ACCOUNTS,
        ])
        .await?;
    let dumped = std::fs::metadata(dump.join("bank").join("accounts.bson"))?.len();
    let bytes: usize = truth[ACCOUNTS]
        .iter()
        .map(|document| bson::serialize_to_vec(document).map_or(0, |b| b.len()))
        .sum();
    ensure!(
        dumped == bytes as u64,
        "{dumped} bytes, not {bytes}: orphans are in the dump"
    );

    // Refused before anything is written.
    let mut new = Cluster::apart(&bed, VERSION, 2).await?;
    let restore = async |headwater: &Headwater, targets: Vec<String>| {
        let mut arguments: Vec<String> = ["restore", "shop", "--at", &at, "--yes", "--output", "json"]
            .map(str::to_owned)
            .to_vec();
        arguments.extend(targets);
        headwater.run(arguments).await
    };
    let mut one_missing = targets(&new);
    one_missing.truncate(4);
    let mut not_fresh = one_missing.clone();
    not_fresh.extend(["--to-cluster".to_owned(), format!("sh1={}", cluster.shard(1).uri())]);
    let mut twice = one_missing.clone();
    twice.extend(["--to-cluster".to_owned(), format!("sh1={}", new.shard(0).uri())]);
    let mut wrong_role = targets(&new);
    wrong_role[1] = format!("cfg={}", target.uri());
    for (targets, words) in [
        (one_missing, "no target is named for sh1"),
        (not_fresh, "shard sh1 of a cluster already"),
        (twice, "cannot be one replica set"),
        (wrong_role, "not started with --configsvr"),
    ] {
        let refused = restore(&headwater, targets).await?;
        ensure!(
            refused.code != 0 && refused.stderr.contains(words),
            "{words}: {refused:?}"
        );
    }

    // Made anew; a daemon that dies on the way goes on where it was.
    let mut arguments: Vec<String> = ["restore", "shop", "--at", &at, "--yes", "--output", "json"]
        .map(str::to_owned)
        .to_vec();
    arguments.extend(targets(&new));
    let command = headwater.command(arguments);
    let interrupt = async {
        let running = |list: &Value| {
            let restores = list.as_array()?.iter();
            restores
                .filter(|restore| restore["state"] == "running")
                .map(|_| ())
                .next()
        };
        headwater
            .until("the restore to begin", &["restores", "list"], running)
            .await?;
        headwater.daemon()?.kill()?;
        headwater.start_daemon().await
    };
    let (made, interrupted) = tokio::join!(Headwater::end(command), interrupt);
    interrupted?;
    let made = made?;
    ensure!(made.code == 0, "{made:?}");
    let mut restored = new.router().await?;
    let found = shown(&mut restored).await?;
    ensure!(found == truth, "new cluster: {found:?}\nwanted {truth:?}");
    is_usable(&new, 1).await?;
    restored.split(ACCOUNTS, 6).await?;
    restored.move_chunk(ACCOUNTS, 7, "sh0").await?;
    new.restart().await?;
    is_usable(&new, 2).await
}
