//! The main job as a story, with three daemons against a real three-member replica set: `cargo xtask demo` runs this.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use bson::{Document, doc};
use headwater_model::Ts;
use headwater_tests::{Bed, ReplicaSetSpec, Scope, Trio, contents};
use serde_json::Value;

const VERSION: &str = "6.0.5";
const ORDERS: i64 = 50_000;

#[tokio::main]
async fn main() -> Result<()> {
    #[expect(clippy::disallowed_methods, reason = "a demo tells people how long it really took")]
    let began = Instant::now();
    let bed = Bed::new().await?;

    tell("A replica set of three real mongods starts.");
    let source = bed.replica_set(ReplicaSetSpec::three(VERSION).not_replayable()).await?;
    let shop = source.client().database("shop");
    let orders = shop.collection::<Document>("orders");
    for batch in (0..ORDERS).collect::<Vec<_>>().chunks(5000) {
        orders.insert_many(batch.iter().map(order)).await?;
    }
    tell(&format!("It holds {ORDERS} orders."));

    tell("Three daemons become one cluster, with one store; an agent stands by the replica set.");
    println!("    headwater daemon --init …\n    headwater daemon --join …\n    headwater daemon --join …");
    let mut trio = Trio::start(bed.headwater()?, 3).await?;
    trio.commands()
        .json(&["deployment", "add", "shop", "--uri", &source.uri()])
        .await?;
    trio.start_agent(0)?;
    trio.until("the first restorable point", &["status"], complete).await?;
    tell(&format!(
        "The first restorable point is there, {} s after the beginning of this story.",
        began.elapsed().as_secs()
    ));

    tell("Business goes on: new orders, changed orders, a transaction.");
    orders.insert_many((ORDERS..ORDERS + 1000).map(|n| order(&n))).await?;
    orders
        .update_many(
            doc! { "n": { "$lt": 2000 } },
            doc! { "$set": { "paid": true }, "$push": { "log": "paid" } },
        )
        .await?;
    let snapshot = trio.commands().json(&["snapshot", "take", "shop", "--wait"]).await?;
    tell(&format!(
        "A snapshot: {} bytes newly stored for {} bytes of data.",
        figure(&snapshot, "stored_bytes"),
        figure(&snapshot, "logical_bytes")
    ));
    let status = trio.commands().run(["cluster", "status"]).await?;
    println!("{}", indented(&status.stdout));
    let owner = trio.owner().await?;
    tell(&format!(
        "Node {} keeps the living copy. It is killed, as by a power cut, while orders go on changing.",
        trio.node_at(owner).await?
    ));
    trio.daemon(owner)?.kill()?;
    #[expect(clippy::disallowed_methods, reason = "a demo tells people how long it really took")]
    let killed = Instant::now();
    orders
        .update_many(doc! { "n": { "$lt": 500 } }, doc! { "$set": { "sent": true } })
        .await?;
    let sent = source.mark("after the kill").await?;
    let caught_up = |status: &Value| (position(status.pointer("/replica_sets/0/applied")?)? >= sent).then_some(());
    trio.until("another head to have caught up", &["status"], caught_up)
        .await?;
    let now = trio.owner().await?;
    tell(&format!(
        "{:.1} s later node {} has the copy, up to the last change.",
        killed.elapsed().as_secs_f64(),
        trio.node_at(now).await?
    ));
    orders.delete_many(doc! { "n": { "$gte": 50_500 } }).await?;
    let before = source.mark("just before the mistake").await?;
    let wanted = contents::read(source.client(), Scope::Users).await?;

    tell("Then somebody makes a mistake: db.orders.deleteMany({}) and a dropped collection.");
    orders.delete_many(doc! {}).await?;
    shop.collection::<Document>("orders").drop().await?;
    let after = source.mark("after the mistake").await?;

    tell(&format!("The entry before it is {before}. A dry run first:"));
    until_stored(&trio, after).await?;
    let target = bed
        .replica_set(ReplicaSetSpec::single(VERSION).not_replayable())
        .await?;
    let (instant, uri) = (before.to_string(), target.uri());
    let plan = trio
        .commands()
        .run(["restore", "shop", "--at", &instant, "--to-uri", &uri, "--dry-run"])
        .await?;
    println!("{}", indented(&plan.stdout));
    tell(&format!("headwater restore shop --at {instant} --to-uri {uri}"));
    let done = trio
        .commands()
        .run(["restore", "shop", "--at", &instant, "--to-uri", &uri, "--yes"])
        .await?;
    ensure!(done.code == 0, "the restore failed:\n{}\n{}", done.stdout, done.stderr);
    println!("{}", indented(&done.stdout));

    let found = contents::read(target.client(), Scope::Users).await?;
    wanted.require_equal(&found).context("the restored data differs")?;
    tell(&format!(
        "Proven equal: every document, byte for byte, with options and indexes: {} documents in {} collections. {} s in all.",
        found.documents(),
        found.collections.len(),
        began.elapsed().as_secs()
    ));
    Ok(())
}

fn order(n: &i64) -> Document {
    doc! { "_id": format!("order-{n:06}"), "n": n, "item": "a small thing", "price": n % 97, "log": ["made"] }
}

fn tell(text: &str) {
    println!("\n» {text}");
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}\n")).collect()
}

fn figure(value: &Value, name: &str) -> u64 {
    value.get(name).and_then(Value::as_u64).unwrap_or_default()
}

fn complete(status: &Value) -> Option<()> {
    let set = status.pointer("/replica_sets/0")?;
    (set.get("phase")?.as_str()? == "complete" && !set.get("restorable")?.is_null()).then_some(())
}

fn position(position: &Value) -> Option<Ts> {
    Some(Ts::new(
        u32::try_from(position.get("t")?.as_u64()?).ok()?,
        u32::try_from(position.get("i")?.as_u64()?).ok()?,
    ))
}

async fn until_stored(trio: &Trio, ts: Ts) -> Result<()> {
    let reached = |status: &Value| (position(status.pointer("/replica_sets/0/restorable/to")?)? >= ts).then_some(());
    trio.until("the source's last entry in the oplog store", &["status"], reached)
        .await
}
