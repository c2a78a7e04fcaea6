//! Sharded clusters, with config servers and shards of real mongods and without mongos.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use bson::{Document, Timestamp, doc};
use futures::TryStreamExt;
use headwater_tests::sharded::CONFIG;
use headwater_tests::wire::first_batch;
use headwater_tests::{Bed, Cluster, Headwater, ReplicaSet, ReplicaSetSpec, Router, Transaction, until};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;
use tokio::time::Instant;

const VERSION: &str = "6.0.5";
const NS: &str = "bank.accounts";

/// Accounts: keys below 0 on `sh0`, from 0 on `sh1`.
async fn accounts(router: &mut Router, each: i64) -> Result<()> {
    router.create_database("bank", "sh0").await?;
    router.shard_collection(NS, "k").await?;
    router.split(NS, 0).await?;
    router.move_chunk(NS, 0, "sh1").await?;
    for k in -each..each {
        router
            .insert(NS, k, doc! { "_id": k, "k": k, "balance": 100_i64 })
            .await?;
    }
    Ok(())
}

fn add(k: i64, amount: i64) -> bson::Document {
    doc! { "update": "accounts", "updates": [{ "q": { "_id": k, "k": k }, "u": { "$inc": { "balance": amount } } }] }
}

async fn balances(router: &mut Router) -> Result<Vec<(i64, i64)>> {
    let at = router.level().await?;
    let documents = router.read_at(NS, at).await?;
    let pair = |d: &bson::Document| Ok::<_, anyhow::Error>((d.get_i64("_id")?, d.get_i64("balance")?));
    let mut pairs = documents.iter().map(pair).collect::<Result<Vec<_>>>()?;
    pairs.sort();
    Ok(pairs)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bed_makes_a_sharded_cluster_with_transactions_over_shards() -> Result<()> {
    let bed = Bed::new().await?;
    let cluster = Cluster::start(&bed, VERSION, 2).await?;
    let mut router = cluster.router().await?;
    accounts(&mut router, 5).await?;
    let mut transfer = Transaction::default();
    transfer.run(&mut router, NS, -1, &add(-1, -30)).await?;
    transfer.run(&mut router, NS, 1, &add(1, 30)).await?;
    ensure!(transfer.participants() == ["sh0", "sh1"]);
    transfer.commit(&mut router).await?;
    // Another router does not know of this move, and finds out.
    let mut other = cluster.router().await?;
    ensure!(balances(&mut other).await?.len() == 10);
    router.split(NS, 3).await?;
    router.move_chunk(NS, 4, "sh0").await?;
    other.versioned(NS, 4, &add(4, 1)).await?;
    let balances = balances(&mut other).await?;
    ensure!(balances.len() == 10, "{balances:?}");
    ensure!(balances.contains(&(-1, 70)) && balances.contains(&(1, 130)) && balances.contains(&(4, 101)));
    Ok(())
}

/// The replica sets of the deployment `shop`.
async fn sets(headwater: &Headwater) -> Result<Vec<Value>> {
    let shown = headwater.json(&["deployment", "show", "shop"]).await?;
    Ok(shown["replica_sets"].as_array().cloned().unwrap_or_default())
}

/// Waits until so many replica sets of `shop` are in routine operation.
async fn until_complete(headwater: &Headwater, number: usize) -> Result<Vec<Value>> {
    until("every member to be complete", || async {
        let sets = sets(headwater).await?;
        let complete = sets.iter().filter(|set| set["phase"] == "complete").count();
        Ok((complete == number).then_some(sets))
    })
    .await
}

fn role_of<'a>(sets: &'a [Value], name: &str) -> &'a str {
    let set = sets.iter().find(|set| set["name"] == name);
    set.and_then(|set| set["role"].as_str()).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn config_servers_lead_to_every_shard_also_to_one_that_comes_later_or_leaves() -> Result<()> {
    let bed = Bed::new().await?;
    let mut cluster = Cluster::start(&bed, VERSION, 2).await?;
    let mut router = cluster.router().await?;
    accounts(&mut router, 5).await?;
    let mut headwater = bed.headwater()?;
    headwater.start_daemon().await?;
    headwater.start_agent().await?;
    headwater
        .json(&["deployment", "add", "shop", "--uri", &cluster.uri()])
        .await?;
    let members = until_complete(&headwater, 3).await?;
    ensure!(role_of(&members, "shop/cfg") == "config servers", "{members:?}");
    ensure!(role_of(&members, "shop/sh0") == "shard sh0" && role_of(&members, "shop/sh1") == "shard sh1");
    let shown = headwater.json(&["deployment", "show", "shop"]).await?;
    ensure!(shown["kind"] == "sharded cluster");
    ensure!(
        shown["snapshot_interval_seconds"] == 900,
        "a cluster has a checkpoint every 15 minutes"
    );

    cluster.add_shard(&bed).await?;
    let members = until_complete(&headwater, 4).await?;
    ensure!(role_of(&members, "shop/sh2") == "shard sh2");
    let lengths = |timeline: &Value| ["ranges", "whole_cluster"].map(|what| timeline[what].as_array().map(Vec::len));
    headwater
        .until(
            "all of the cluster to be restorable",
            &["timeline", "shop"],
            |timeline| (lengths(timeline) == [Some(4), Some(1)]).then_some(()),
        )
        .await?;

    until("the shard to leave", || async {
        let mut router = cluster.router().await?;
        let reply = router
            .on(
                CONFIG,
                "admin",
                doc! { "_configsvrRemoveShard": "sh2", "writeConcern": { "w": "majority" } },
            )
            .await?;
        Ok((reply.get_str("state")? == "completed").then_some(()))
    })
    .await?;
    until("the shard to be told of as gone", || async {
        let members = sets(&headwater).await?;
        Ok(role_of(&members, "shop/sh2").contains("no longer").then_some(()))
    })
    .await?;

    // A shard by itself is a replica set like any other, with a word of warning.
    headwater
        .json(&["deployment", "add", "alone", "--uri", &cluster.shard(0).uri()])
        .await?;
    until("the shard by itself", || async {
        let shown = headwater.json(&["deployment", "show", "alone"]).await?;
        let role = shown["replica_sets"][0]["role"].as_str().unwrap_or_default().to_owned();
        Ok((shown["kind"] == "replica set" && role.contains("by itself")).then_some(()))
    })
    .await
}

/// Transfers between accounts, within shards and across, until told to stop; counts those that went through.
async fn transfer_for_ever(cluster: &Cluster, seed: u64, each: i64, stop: &AtomicBool, done: &AtomicU64) -> Result<()> {
    let mut router = cluster.router().await?;
    let mut rng = StdRng::seed_from_u64(seed);
    while !stop.load(Ordering::Relaxed) {
        let (from, to) = (rng.gen_range(-each..each), rng.gen_range(-each..each));
        let amount = rng.gen_range(1..20_i64);
        let mut transfer = Transaction::default();
        let taken = transfer.run(&mut router, NS, from, &add(from, -amount)).await;
        let given = match taken {
            Ok(_) => transfer.run(&mut router, NS, to, &add(to, amount)).await,
            refused => refused,
        };
        match given {
            Ok(_) => match transfer.commit(&mut router).await {
                Ok(()) => _ = done.fetch_add(1, Ordering::Relaxed),
                // Whether it was committed is for the servers to know; the sum holds either way.
                Err(_) => router = cluster.router().await?,
            },
            Err(_) => transfer.abort(&mut router).await,
        }
    }
    Ok(())
}

/// Moves the upper half of the accounts of each shard to and fro.
async fn move_for_ever(cluster: &Cluster, stop: &AtomicBool) -> Result<u64> {
    let mut router = cluster.router().await?;
    let mut moves = 0;
    for turn in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let to = ["sh0", "sh1"][turn % 2];
        // Refused now and then because a transaction or another migration is in the way.
        moves += u64::from(router.move_chunk(NS, 0, to).await.is_ok());
        tokio::time::sleep(Duration::from_millis(700)).await;
    }
    Ok(moves)
}

/// What the servers themselves say of one cluster time: the accounts on each shard, orphans included, and the chunks.
#[derive(Debug)]
struct Truth {
    at: Timestamp,
    shards: BTreeMap<String, Vec<Document>>,
    chunks: Vec<Document>,
}

impl Truth {
    async fn of(cluster: &Cluster, at: Timestamp) -> Result<Truth> {
        let mut router = cluster.router().await?;
        let concern = doc! { "level": "snapshot", "atClusterTime": at };
        let mut shards = BTreeMap::new();
        for shard in router.shards() {
            let find = doc! {
                "find": "accounts", "sort": { "_id": 1 }, "batchSize": 100_000, "singleBatch": true, "readConcern": concern.clone(),
            };
            let reply = router.on(&shard, "bank", find).await?;
            shards.insert(shard, first_batch(&reply)?);
        }
        let find = doc! { "find": "chunks", "batchSize": 100_000, "singleBatch": true, "readConcern": concern };
        let chunks = first_batch(&router.on(CONFIG, "config", find).await?)?;
        Ok(Truth { at, shards, chunks })
    }

    /// Whether a document of a shard counts, by the chunks of that time.
    fn owns(&self, shard: &str, k: i64) -> bool {
        let bound = |chunk: &Document, name: &str| match chunk.get_document(name).ok().and_then(|at| at.get("k")) {
            Some(bson::Bson::MinKey) => i128::MIN,
            Some(bson::Bson::MaxKey) => i128::MAX,
            Some(bson::Bson::Int64(value)) => i128::from(*value),
            Some(bson::Bson::Int32(value)) => i128::from(*value),
            _ => 0,
        };
        self.chunks.iter().any(|chunk| {
            chunk.get_str("shard").is_ok_and(|name| name == shard)
                && (bound(chunk, "min")..bound(chunk, "max")).contains(&i128::from(k))
        })
    }

    /// Every account exactly once, and no money made or lost.
    fn is_sound(&self, each: i64) -> Result<()> {
        let (mut ids, mut sum) = (BTreeSet::new(), 0);
        for (shard, documents) in &self.shards {
            for document in documents {
                let id = document.get_i64("_id")?;
                if self.owns(shard, id) {
                    ensure!(ids.insert(id), "{id} is there twice at {:?}", self.at);
                    sum += document.get_i64("balance")?;
                }
            }
        }
        ensure!(
            ids.len() as i64 == 2 * each && sum == 200 * each,
            "{} accounts hold {sum} at {:?}",
            ids.len(),
            self.at
        );
        Ok(())
    }

    /// Restores each shard at an instant and compares it, document by document.
    async fn is_restored(&self, headwater: &Headwater, target: &ReplicaSet, at: &str, name: &str) -> Result<()> {
        for (shard, wanted) in &self.shards {
            let db = format!("{name}_{shard}");
            let (rename, source) = (format!("{NS}={db}.accounts"), format!("shop/{shard}"));
            headwater
                .json(&[
                    "restore",
                    &source,
                    "--at",
                    at,
                    "--to-uri",
                    &target.uri(),
                    "--ns-include",
                    NS,
                    "--ns-rename",
                    &rename,
                    "--yes",
                ])
                .await?;
            let found = target.client().database(&db).collection::<Document>("accounts");
            let found: Vec<Document> = found.find(doc! {}).sort(doc! { "_id": 1 }).await?.try_collect().await?;
            ensure!(
                found == *wanted,
                "{source} at {at} is not what the shard had then:\n{found:?}\nwanted\n{wanted:?}"
            );
        }
        Ok(())
    }
}

/// Waits until what is stored of every member reaches beyond a cluster time.
async fn until_stored(headwater: &Headwater, at: Timestamp) -> Result<()> {
    until("every oplog to be stored", || async {
        let past = |set: &Value| {
            let tip = (set["tip"]["t"].as_u64(), set["tip"]["i"].as_u64());
            tip > (Some(u64::from(at.time)), Some(u64::from(at.increment)))
        };
        Ok(sets(headwater).await?.iter().all(past).then_some(()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn checkpoints_and_any_cluster_time_are_exact_while_money_and_chunks_move() -> Result<()> {
    const EACH: i64 = 12;
    let bed = Bed::new().await?;
    let cluster = Cluster::start(&bed, VERSION, 2).await?;
    let target = bed
        .replica_set(ReplicaSetSpec::single(VERSION).not_replayable())
        .await?;
    accounts(&mut cluster.router().await?, EACH).await?;
    let mut headwater = bed.headwater()?;
    headwater.start_daemon().await?;
    headwater.start_agent().await?;
    headwater
        .json(&["deployment", "add", "shop", "--uri", &cluster.uri()])
        .await?;
    until_complete(&headwater, 3).await?;

    let (stop, done) = (AtomicBool::new(false), AtomicU64::new(0));
    let observe = async {
        let mut checkpoints = Vec::new();
        let mut instants = Vec::new();
        let mut router = cluster.router().await?;
        for _ in 0..4 {
            let before = done.load(Ordering::Relaxed);
            until("some transfers", || async {
                Ok((done.load(Ordering::Relaxed) > before + 20).then_some(()))
            })
            .await?;
            // One by the timetable may be on its way.
            let taken = until("a snapshot of the cluster", || async {
                let asked = Instant::now();
                let taken = headwater
                    .run(["snapshot", "take", "shop", "--wait", "--output", "json"])
                    .await?;
                eprintln!("asked for and answered with {} after {:?}", taken.code, asked.elapsed());
                Ok((taken.code == 0).then_some(taken.stdout))
            })
            .await?;
            let taken: Value = serde_json::from_str(&taken)?;
            ensure!(taken["members"].as_array().map(Vec::len) == Some(3), "{taken}");
            let at = Timestamp {
                time: taken["at"]["t"].as_u64().unwrap_or_default() as u32,
                increment: taken["at"]["i"].as_u64().unwrap_or_default() as u32,
            };
            let id = taken["id"].as_str().unwrap_or_default().to_owned();
            checkpoints.push((id, Truth::of(&cluster, at).await?));
            for _ in 0..3 {
                instants.push(Truth::of(&cluster, router.level().await?).await?);
            }
        }
        stop.store(true, Ordering::Relaxed);
        anyhow::Ok((checkpoints, instants))
    };
    let workers = futures::future::join_all((0..4).map(|seed| transfer_for_ever(&cluster, seed, EACH, &stop, &done)));
    let (observed, worked, moves) = tokio::join!(observe, workers, move_for_ever(&cluster, &stop));
    worked.into_iter().collect::<Result<Vec<()>>>()?;
    let (checkpoints, instants) = observed?;
    eprintln!("{} transfers, {} moves", done.load(Ordering::Relaxed), moves?);

    until_stored(&headwater, cluster.router().await?.level().await?).await?;
    for (id, truth) in &checkpoints {
        truth.is_sound(EACH)?;
        truth
            .is_restored(
                &headwater,
                &target,
                &format!("snapshot:{id}"),
                &format!("s{}_{}", truth.at.time, truth.at.increment),
            )
            .await?;
    }
    for (number, truth) in instants.iter().enumerate() {
        truth.is_sound(EACH)?;
        let at = format!("{},{}", truth.at.time, truth.at.increment);
        truth
            .is_restored(&headwater, &target, &at, &format!("i{number}"))
            .await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_prepared_before_the_cut_is_waited_for_also_by_a_daemon_that_is_killed_meanwhile() -> Result<()> {
    let bed = Bed::new().await?;
    let cluster = Cluster::start(&bed, VERSION, 2).await?;
    let target = bed
        .replica_set(ReplicaSetSpec::single(VERSION).not_replayable())
        .await?;
    let mut router = cluster.router().await?;
    accounts(&mut router, 3).await?;
    let mut headwater = bed.headwater()?;
    headwater.start_daemon().await?;
    headwater.start_agent().await?;
    headwater
        .json(&["deployment", "add", "shop", "--uri", &cluster.uri()])
        .await?;
    until_complete(&headwater, 3).await?;
    let list = ["snapshot", "list", "shop"];
    let of_cluster = |view: &&Value| view["members"].as_array().is_some_and(|members| members.len() == 3);
    let first =
        |views: &Value| Some(views.as_array()?.iter().find(of_cluster)?["complete"] == true).filter(|done| *done);
    headwater.until("the first checkpoint, by itself", &list, first).await?;

    let mut transfer = Transaction::default();
    transfer.run(&mut router, NS, -1, &add(-1, -30)).await?;
    transfer.run(&mut router, NS, 1, &add(1, 30)).await?;
    let commit = transfer.prepare(&mut router).await?;
    let taken = headwater.json(&["snapshot", "take", "shop"]).await?;
    let id = taken["id"].as_str().unwrap_or_default().to_owned();
    let show = ["snapshot", "show", "shop", &id];
    headwater
        .until("the cut to be known", &show, |view| view["at"]["t"].as_u64())
        .await?;
    headwater.daemon()?.kill()?;
    headwater.start_daemon().await?;
    ensure!(
        headwater.json(&show).await?["complete"] == false,
        "an undecided transaction was passed over"
    );
    // Its commits come to lie after the cut.
    for shard in ["sh0", "sh1"] {
        transfer.commit_prepared(&mut router, shard, commit).await?;
    }
    let at = headwater
        .until("the checkpoint", &show, |view| {
            (view["complete"] == true).then(|| view["at"].clone())
        })
        .await?;
    let at = Timestamp {
        time: at["t"].as_u64().unwrap_or_default() as u32,
        increment: at["i"].as_u64().unwrap_or_default() as u32,
    };
    let truth = Truth::of(&cluster, at).await?;
    truth.is_sound(3)?;
    let moved = |shard: &str, id: i64| {
        let account = truth.shards[shard]
            .iter()
            .find(|account| account.get_i64("_id").is_ok_and(|found| found == id));
        account.and_then(|account| account.get_i64("balance").ok())
    };
    ensure!(
        (moved("sh0", -1), moved("sh1", 1)) == (Some(70), Some(130)),
        "{truth:?}"
    );
    truth
        .is_restored(&headwater, &target, &format!("snapshot:{id}"), "s")
        .await?;
    // The same from an older image and the oplog.
    until_stored(&headwater, router.level().await?).await?;
    truth
        .is_restored(&headwater, &target, &format!("{},{}", at.time, at.increment), "p")
        .await
}
