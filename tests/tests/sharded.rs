//! Sharded clusters, with config servers and shards of real mongods and without mongos.

use anyhow::{Context, Result, ensure};
use bson::{Document, Timestamp, doc};
use futures::TryStreamExt;
use headwater_tests::bank::observe::{self, until_complete, until_stored};
use headwater_tests::bank::restored::instant;
use headwater_tests::bank::{Bank, Business, NS, Truth, add};
use headwater_tests::sharded::CONFIG;
use headwater_tests::{Bed, Cluster, Headwater, ReplicaSet, ReplicaSetSpec, Router, Shared, Transaction, until};
use serde_json::Value;
use tokio::time::Instant;

const VERSION: &str = "6.0.5";

/// Two shards; accounts from 0 on `sh0`, from `each` on `sh1`.
async fn accounts(router: &mut Router, each: i64) -> Result<Bank> {
    let bank = Bank { shards: 2, each };
    bank.open(router).await?;
    Ok(bank)
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
    transfer.run(&mut router, NS, 4, &add(4, -30)).await?;
    transfer.run(&mut router, NS, 5, &add(5, 30)).await?;
    ensure!(transfer.participants() == ["sh0", "sh1"]);
    transfer.commit(&mut router).await?;
    // Another router does not know of this move, and finds out.
    let mut other = cluster.router().await?;
    ensure!(balances(&mut other).await?.len() == 10);
    router.split(NS, 8).await?;
    router.move_chunk(NS, 9, "sh0").await?;
    other.versioned(NS, 9, &add(9, 1)).await?;
    let balances = balances(&mut other).await?;
    ensure!(balances.len() == 10, "{balances:?}");
    ensure!(balances.contains(&(4, 70)) && balances.contains(&(5, 130)) && balances.contains(&(9, 101)));
    Ok(())
}

/// The replica sets of the deployment `shop`.
async fn sets(headwater: &Headwater) -> Result<Vec<Value>> {
    let shown = headwater.json(&["deployment", "show", "shop"]).await?;
    Ok(shown["replica_sets"].as_array().cloned().unwrap_or_default())
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

/// Restores each shard at an instant into a server and compares it, document by document.
async fn is_restored(truth: &Truth, headwater: &Headwater, target: &ReplicaSet, at: &str, name: &str) -> Result<()> {
    for (shard, wanted) in truth.accounts.iter().flatten() {
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

/// What the servers say, which must be sound by itself.
async fn sound(router: &mut Router, bank: Bank, at: Timestamp) -> Result<Truth> {
    let truth = Truth::of(router, at).await?;
    truth.is_sound(bank, truth.accounts.as_ref().unwrap_or(&Default::default()))?;
    Ok(truth)
}

/// A cluster is checked and proved as a whole, or one member of it.
async fn members_are_checked_by_hand(headwater: &Headwater) -> Result<()> {
    let checked = headwater.json(&["check", "shop", "--data"]).await?;
    let all = checked.as_array().context("one check for each member")?;
    ensure!(
        all.len() == 3 && all.iter().all(|check| check["state"] == "sound"),
        "{checked}"
    );
    let checked = headwater.json(&["check", "shop/sh1"]).await?;
    ensure!(
        checked["replica_set"] == "shop/sh1" && checked["state"] == "sound",
        "{checked}"
    );
    let proved = headwater.json(&["proof", "run", "shop/sh0", "--at", "latest"]).await?;
    ensure!(
        proved["replica_set"] == "shop/sh0" && proved["proof"]["agree"] == true,
        "{proved}"
    );
    let status = headwater.json(&["check", "status", "shop"]).await?;
    ensure!(status.as_array().map(Vec::len) == Some(3), "{status}");
    let unknown = headwater.run(["check", "shop/sh9"]).await?;
    ensure!(unknown.code == 4, "{unknown:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn checkpoints_and_any_cluster_time_are_exact_while_money_and_chunks_move() -> Result<()> {
    let bed = Bed::new().await?;
    let cluster = Cluster::start(&bed, VERSION, 2).await?;
    let target = bed
        .replica_set(ReplicaSetSpec::single(VERSION).not_replayable())
        .await?;
    let bank = accounts(&mut cluster.router().await?, 12).await?;
    let mut headwater = bed.headwater()?;
    headwater.start_daemon().await?;
    headwater.start_agent().await?;
    headwater
        .json(&["deployment", "add", "shop", "--uri", &cluster.uri()])
        .await?;
    until_complete(&headwater, 3).await?;

    let (business, cluster) = (Business::default(), Shared::new(cluster));
    let observe = async {
        let mut checkpoints = Vec::new();
        let mut instants = Vec::new();
        let mut router = cluster.router().await?;
        for _ in 0..4 {
            let before = business.transfers();
            until("some transfers", || async {
                Ok((business.transfers() > before + 20).then_some(()))
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
            let at = observe::position(&taken["at"]).context("a snapshot without its time")?;
            let id = taken["id"].as_str().unwrap_or_default().to_owned();
            checkpoints.push((id, sound(&mut router, bank, at).await?));
            for _ in 0..3 {
                let at = router.level().await?;
                instants.push(sound(&mut router, bank, at).await?);
            }
        }
        business.close();
        anyhow::Ok((checkpoints, instants))
    };
    let workers = futures::future::try_join_all((0..4).map(|seed| business.transfer(&cluster, bank, seed)));
    let moving = business.move_chunks(&cluster, bank, 5);
    let ((checkpoints, instants), _, ()) = futures::future::try_join3(observe, workers, moving).await?;
    eprintln!("{} transfers, {} moves", business.transfers(), business.moves());

    until_stored(&headwater, cluster.router().await?.level().await?).await?;
    for (number, (id, truth)) in checkpoints.iter().enumerate() {
        is_restored(
            truth,
            &headwater,
            &target,
            &format!("snapshot:{id}"),
            &format!("s{number}"),
        )
        .await?;
    }
    for (number, truth) in instants.iter().enumerate() {
        is_restored(truth, &headwater, &target, &instant(truth.at), &format!("i{number}")).await?;
    }
    members_are_checked_by_hand(&headwater).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_prepared_before_the_cut_is_waited_for_also_by_a_daemon_that_is_killed_meanwhile() -> Result<()> {
    let bed = Bed::new().await?;
    let cluster = Cluster::start(&bed, VERSION, 2).await?;
    let target = bed
        .replica_set(ReplicaSetSpec::single(VERSION).not_replayable())
        .await?;
    let mut router = cluster.router().await?;
    let bank = accounts(&mut router, 3).await?;
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
    transfer.run(&mut router, NS, 2, &add(2, -30)).await?;
    transfer.run(&mut router, NS, 3, &add(3, 30)).await?;
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
    let at = observe::position(&at).context("a snapshot without its time")?;
    let truth = sound(&mut router, bank, at).await?;
    let accounts = truth.accounts.clone().unwrap_or_default();
    let moved = |shard: &str, id: i64| {
        let mut all = accounts[shard].iter();
        let account = all.find(|account| account.get_i64("_id").is_ok_and(|found| found == id));
        account.and_then(|account| account.get_i64("balance").ok())
    };
    ensure!((moved("sh0", 2), moved("sh1", 3)) == (Some(70), Some(130)), "{truth:?}");
    is_restored(&truth, &headwater, &target, &format!("snapshot:{id}"), "s").await?;
    // The same from an older image and the oplog.
    until_stored(&headwater, router.level().await?).await?;
    is_restored(&truth, &headwater, &target, &instant(at), "p").await
}
