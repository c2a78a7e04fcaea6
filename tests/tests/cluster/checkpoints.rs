//! Checkpoints of a sharded cluster whose leader dies on the way.

use anyhow::{Context, Result, ensure};
use headwater_tests::bank::observe::{ask, outcome, position, until_complete};
use headwater_tests::bank::restored::Restored;
use headwater_tests::bank::{Bank, NS, Truth, add};
use headwater_tests::{Bed, Cluster, Transaction, Trio};
use serde_json::Value;

/// Kills the leader and waits for another; answers where it was.
async fn lose_the_leader(trio: &mut Trio) -> Result<usize> {
    let leader = trio.leader().await?;
    let old = trio.node_at(leader).await?;
    trio.daemon(leader)?.kill()?;
    let another = |view: &Value| (view.get("leader")?.as_u64()? != old).then_some(());
    trio.until("another leader", &["cluster", "status"], another).await?;
    Ok(leader)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_dies_between_asked_and_sealed_changes_nothing() -> Result<()> {
    let bed = Bed::new().await?;
    let cluster = Cluster::start(&bed, "6.0.5", 2).await?;
    let mut router = cluster.router().await?;
    let bank = Bank { shards: 2, each: 3 };
    bank.open(&mut router).await?;
    let mut trio = Trio::start(bed.headwater()?, 3).await?;
    let uri = cluster.uri();
    trio.commands()
        .json(&["deployment", "add", "shop", "--uri", &uri])
        .await?;
    for agent in 0..2 {
        trio.start_agent(agent)?;
    }
    until_complete(trio.commands(), 3).await.with_context(|| trio.logs())?;
    // Else that of the timetable may come when nothing can be sealed, and stand in the way.
    // (Each member also takes a snapshot of its own, as soon as its first copy is complete.)
    let is_whole =
        |one: &Value| one["complete"] == true && one["members"].as_array().is_some_and(|all| !all.is_empty());
    let first = |list: &Value| list.as_array()?.iter().any(is_whole).then_some(());
    let list = ["snapshot", "list", "shop"];
    trio.until("the first checkpoint of the timetable", &list, first)
        .await?;

    // Right after it was asked for, whatever it has come to.
    let (id, _) = ask(trio.commands()).await?;
    let lost = lose_the_leader(&mut trio).await?;
    if let Err(why) = outcome(trio.commands(), &id).await.with_context(|| trio.logs())? {
        eprintln!("{why}");
    }
    trio.start_daemon(lost).await?;
    trio.until_whole().await?;

    // While its cut is known, and waits for a transaction.
    let (from, to) = (0, 3);
    let mut transfer = Transaction::default();
    transfer.run(&mut router, NS, from, &add(from, -30)).await?;
    transfer.run(&mut router, NS, to, &add(to, 30)).await?;
    let commit = transfer.prepare(&mut router).await?;
    let (id, _) = ask(trio.commands()).await?;
    let show = ["snapshot", "show", "shop", &id];
    let cut = trio
        .until("the cut to be known", &show, |view| position(&view["at"]))
        .await?;
    let lost = lose_the_leader(&mut trio).await?;
    let view = trio
        .until("what the others say of it", &show, |view| Some(view.clone()))
        .await?;
    ensure!(
        view["complete"] == false && position(&view["at"]) == Some(cut),
        "{view}\n{}",
        trio.logs()
    );
    for shard in ["sh0", "sh1"] {
        transfer.commit_prepared(&mut router, shard, commit).await?;
    }
    let sealed = outcome(trio.commands(), &id).await.with_context(|| trio.logs())?;
    ensure!(sealed == Ok(cut), "{sealed:?}\n{}", trio.logs());
    is_exact(&bed, &trio, &Truth::of(&mut router, cut).await?, bank, &id).await?;
    trio.start_daemon(lost).await?;
    trio.until_whole().await?;

    let (id, _) = ask(trio.commands()).await?;
    let next = outcome(trio.commands(), &id).await?;
    let next = next.map_err(anyhow::Error::msg).with_context(|| trio.logs())?;
    router.level().await?;
    is_exact(&bed, &trio, &Truth::of(&mut router, next).await?, bank, &id).await?;
    Ok(())
}

async fn is_exact(bed: &Bed, trio: &Trio, truth: &Truth, bank: Bank, id: &str) -> Result<()> {
    let shards = ["sh0", "sh1"].map(str::to_owned);
    let folder = bed.new_folder("restored")?;
    let restored = Restored::of(trio.commands(), &shards, &format!("snapshot:{id}"), &folder).await?;
    truth.is(bank, &restored.accounts(&shards)?)
}
