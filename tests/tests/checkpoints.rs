//! What checkpoints of sharded clusters do about balancers and about what is under way at the source.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bson::{Document, doc};
use headwater_tests::bank::observe::{ask, outcome, until_complete};
use headwater_tests::bank::{self, Bank, NS, Plan, add};
use headwater_tests::sharded::CONFIG;
use headwater_tests::until::{PATIENCE, until};
use headwater_tests::{Bed, Cluster, Headwater, Router, Transaction};
use tokio::time::Instant;

const VERSION: &str = "6.0.5";

async fn protected(bed: &Bed, cluster: &Cluster, more: &[&str]) -> Result<Headwater> {
    let mut headwater = bed.headwater()?;
    headwater.start_daemon().await?;
    headwater.start_agent().await?;
    let uri = cluster.uri();
    let add = ["deployment", "add", "shop", "--uri", &uri];
    headwater.json(&[&add, more].concat()).await?;
    until_complete(&headwater, 3).await?;
    Ok(headwater)
}

/// The document that says what the balancer does.
async fn settings(router: &mut Router) -> Result<Document> {
    let find = doc! {
        "find": "settings", "filter": { "_id": "balancer" }, "singleBatch": true, "readConcern": { "level": "majority" },
    };
    let reply = router.on(CONFIG, "config", find).await?;
    let rows = reply.get_document("cursor")?.get_array("firstBatch")?;
    let row = rows.first().and_then(|row| row.as_document());
    row.cloned().context("the balancer was never touched")
}

async fn until_mode(router: &mut Router, mode: &str) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    while settings(router).await?.get_str("mode")? != mode {
        ensure!(
            Instant::now() < end,
            "the balancer never came to be {mode}: {}",
            settings(router).await?
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// A checkpoint that must be sealed, as `snapshot show` has it.
async fn sealed(headwater: &Headwater) -> Result<serde_json::Value> {
    let (id, _) = ask(headwater).await?;
    let ended = outcome(headwater, &id).await?;
    ended.map_err(anyhow::Error::msg)?;
    headwater.json(&["snapshot", "show", "shop", &id]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_balancer_that_is_stopped_for_a_checkpoint_comes_back_as_it_was_also_after_kills() -> Result<()> {
    let bed = Bed::new().await?;
    let cluster = Cluster::start(&bed, VERSION, 2).await?;
    let mut router = cluster.router().await?;
    Bank { shards: 2, each: 3 }.open(&mut router).await?;
    router
        .on(CONFIG, "admin", doc! { "_configsvrBalancerStart": 1 })
        .await?;
    ensure!(settings(&mut router).await?.get_str("mode")? == "full");
    let mut headwater = protected(&bed, &cluster, &["--stop-balancer"]).await?;
    let shown = headwater.json(&["deployment", "show", "shop"]).await?;
    ensure!(shown["stop_balancer"] == true, "{shown}");
    ensure!(sealed(&headwater).await?["possibly_inconsistent"].is_null());
    until_mode(&mut router, "full").await?;

    // A transaction keeps the next one open, while everybody dies.
    let mut transfer = Transaction::default();
    transfer.run(&mut router, NS, 2, &add(2, -30)).await?;
    transfer.run(&mut router, NS, 3, &add(3, 30)).await?;
    let commit = transfer.prepare(&mut router).await?;
    let (id, _) = ask(&headwater).await?;
    until_mode(&mut router, "off").await?;
    headwater.agent()?.kill()?;
    headwater.daemon()?.kill()?;
    ensure!(settings(&mut router).await?.get_str("mode")? == "off");
    for shard in ["sh0", "sh1"] {
        transfer.commit_prepared(&mut router, shard, commit).await?;
    }
    headwater.start_daemon().await?;
    headwater.start_agent().await?;
    let ended = until("the end of the checkpoint", || async {
        Ok(outcome(&headwater, &id).await.ok())
    });
    eprintln!("{:?}", ended.await?);
    until_mode(&mut router, "full").await?;

    // Another mode than the two that commands know, and one in which there is nothing to do.
    for mode in ["autoSplitOnly", "off"] {
        let set = doc! { "$set": { "mode": mode, "stopped": mode == "off" } };
        let update = doc! {
            "update": "settings", "updates": [{ "q": { "_id": "balancer" }, "u": set }], "writeConcern": { "w": "majority" },
        };
        router.on(CONFIG, "config", update).await?;
        ensure!(sealed(&headwater).await?["possibly_inconsistent"].is_null());
        until_mode(&mut router, mode).await?;
    }
    let changed = headwater
        .json(&["schedule", "set", "shop", "--stop-balancer", "no"])
        .await?;
    ensure!(changed["stop_balancer"] == false, "{changed}");
    router
        .on(CONFIG, "admin", doc! { "_configsvrBalancerStart": 1 })
        .await?;
    let before = settings(&mut router).await?;
    sealed(&headwater).await?;
    ensure!(settings(&mut router).await? == before);
    Ok(())
}

/// `cargo xtask bank` goes on for longer, with more shards.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_restored_of_a_busy_cluster_is_exact_while_daemons_agents_and_shards_are_killed() -> Result<()> {
    let plan = Plan {
        lasts: Duration::from_secs(30),
        shards: 2,
        kills: true,
        every: Duration::from_secs(10),
        instants: 6,
        seed: 11,
    };
    println!("{}", bank::run(plan).await?.text());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_waits_for_the_end_of_a_resharding() -> Result<()> {
    let bed = Bed::new().await?;
    let parameters = [("reshardingMinimumOperationDurationMillis", "20000")];
    let cluster = Cluster::start_with(&bed, VERSION, 2, &parameters).await?;
    let mut router = cluster.router().await?;
    router.create_database("d", "sh0").await?;
    router.shard_collection("d.h", "k").await?;
    for k in 0..40 {
        router.insert("d.h", k, doc! { "_id": k, "k": k, "q": 7 * k }).await?;
    }
    let headwater = protected(&bed, &cluster, &[]).await?;
    let mut other = cluster.router().await?;
    let resharding = other.reshard("d.h", "q");
    let checkpoint = async {
        until("the resharding to begin", || async {
            let mut router = cluster.router().await?;
            Ok((!router.reshardings().await?.is_empty()).then_some(()))
        })
        .await?;
        // The first one by the timetable may be under way; if it is past its cut, ours follows.
        let (id, what) = until("a checkpoint to wait", || async {
            headwater.run(["snapshot", "take", "shop"]).await?;
            let list = headwater.json(&["snapshot", "list", "shop"]).await?;
            let waiting = |view: &serde_json::Value| {
                let what = view["waits_for"].as_str()?;
                Some((view["id"].as_str()?.to_owned(), what.to_owned()))
            };
            Ok(list.as_array().and_then(|list| list.iter().find_map(waiting)))
        })
        .await?;
        ensure!(what.contains("resharding of d.h"), "{what}");
        outcome(&headwater, &id).await?.map_err(anyhow::Error::msg)?;
        headwater.json(&["snapshot", "show", "shop", &id]).await
    };
    let (resharded, view) = tokio::join!(resharding, checkpoint);
    resharded?;
    let view = view?;
    ensure!(view["possibly_inconsistent"].is_null(), "{view}");
    ensure!(
        router.reshardings().await?.is_empty(),
        "it was sealed while {:?} went on",
        router.reshardings().await?
    );
    Ok(())
}
