//! Holes planted in the first copy: documents that the scan does not bring although the oplog changes them. They are
//! fetched from the source, and everything comes back equal. The same where collections go elsewhere under the scan.

mod cursors;
mod proxy;

use std::time::Duration;

use anyhow::{Result, ensure};
use bson::{Bson, Document, doc};
use headwater_tests::proof::{comes_back, compare, restored, until_complete, until_stored};
use headwater_tests::{Bed, Headwater, LogWatch, ReplicaSet, ReplicaSetSpec, replay};
use mongodb::{Client, Collection};
use proxy::{Gates, Proxy};

const VERSION: &str = "6.0.5";
const ASKING: &str = "asking the source for documents the scan missed";

/// Lets the first copy begin with holes, and gives the watch once the scan is under way; the scan's end waits at a gate.
async fn begin(headwater: &mut Headwater, source: &ReplicaSet) -> Result<(Proxy, LogWatch)> {
    begin_with(headwater, source, Gates::default()).await
}

async fn begin_with(headwater: &mut Headwater, source: &ReplicaSet, gates: Gates) -> Result<(Proxy, LogWatch)> {
    headwater.start_daemon().await?;
    let mut watch = LogWatch::from_now(&headwater.log("daemon"))?;
    let proxy = Proxy::start(&headwater.service()).await?;
    proxy.open(|which| *which = gates);
    headwater
        .json(&["deployment", "add", "default", "--uri", &source.uri()])
        .await?;
    headwater.start_agent_at(proxy.address()).await?;
    watch.until_logged("first copy: transferring").await?;
    Ok((proxy, watch))
}

fn odd_ids() -> Vec<Bson> {
    let decimal: bson::Decimal128 = "12.50".parse().unwrap_or(bson::Decimal128::from_bytes([0; 16]));
    vec![
        Bson::String("text".into()),
        Bson::String(String::new()),
        Bson::Int64(1 << 40),
        Bson::Double(2.5),
        Bson::Double(f64::NAN),
        Bson::Decimal128(decimal),
        Bson::Boolean(true),
        Bson::Null,
        Bson::MinKey,
        Bson::MaxKey,
        Bson::DateTime(bson::DateTime::from_millis(-5)),
        Bson::Timestamp(bson::Timestamp { time: 5, increment: 6 }),
        Bson::ObjectId(bson::oid::ObjectId::from_bytes([7; 12])),
        Bson::Document(doc! { "b": 1, "a": { "c": [1, 2.0] } }),
        Bson::Binary(bson::Binary {
            subtype: bson::spec::BinarySubtype::UserDefined(0x80),
            bytes: vec![0, 255],
        }),
    ]
}

/// A hundred holes with numbers for ids and one of each odd id, among as many documents that the scan brings.
async fn plant(collection: &Collection<Document>) -> Result<()> {
    let numbers = (0..100).map(Bson::Int32);
    for (n, id) in numbers.chain(odd_ids()).enumerate() {
        let kept = doc! { "_id": format!("kept {n}"), "n": 0 };
        let hole = doc! { "_id": id, "hole": true, "n": 0, "list": [1, 2, 3], "sub": { "a": 1 } };
        collection.insert_many([kept, hole]).await?;
    }
    Ok(())
}

/// What may happen to a document while the scan passes it by.
async fn fates(client: &Client, collection: &Collection<Document>) -> Result<()> {
    let id = |n: i32| doc! { "_id": n };
    for n in 0..100 {
        match n {
            0..30 => collection
                .update_one(id(n), doc! { "$set": { "sub.b": n } })
                .await
                .map(drop)?,
            30..40 => collection
                .update_one(id(n), doc! { "$push": { "list": n } })
                .await
                .map(drop)?,
            40..50 => {
                collection.update_one(id(n), doc! { "$inc": { "n": 1 } }).await?;
                collection.delete_one(id(n)).await?;
            }
            50..60 => collection
                .replace_one(id(n), doc! { "hole": true, "n": n })
                .await
                .map(drop)?,
            60..70 => {
                collection.update_one(id(n), doc! { "$unset": { "sub": 1 } }).await?;
                collection.delete_one(id(n)).await?;
                collection.insert_one(doc! { "_id": n, "hole": "again" }).await?;
            }
            _ => {
                let mut session = client.start_session().await?;
                session.start_transaction().await?;
                for n in [n, 170 - n] {
                    let change = doc! { "$set": { "in transaction": n } };
                    collection.update_one(id(n), change).session(&mut session).await?;
                }
                session.commit_transaction().await?;
            }
        }
    }
    for odd in odd_ids() {
        collection
            .update_one(doc! { "_id": odd }, doc! { "$set": { "n": 2 } })
            .await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_that_the_scan_missed_are_fetched_whatever_became_of_them() -> Result<()> {
    let bed = Bed::new().await?;
    let source = bed.replica_set(ReplicaSetSpec::single(VERSION)).await?;
    let database = source.client().database("holes");
    let collated = doc! { "create": "collated", "collation": { "locale": "en", "strength": 2 } };
    database.run_command(collated).await?;
    let collections = ["plain", "collated"].map(|name| database.collection::<Document>(name));
    for collection in &collections {
        plant(collection).await?;
    }
    let mut headwater = bed.headwater()?;
    let (proxy, mut watch) = begin(&mut headwater, &source).await?;
    for collection in &collections {
        fates(source.client(), collection).await?;
    }
    proxy.open(|gates| gates.scan_may_end = true);
    watch.until_logged(ASKING).await?;
    // The documents are read after this, so that the head must pass changes that they hold already.
    for n in 0..30 {
        for collection in &collections {
            let change = doc! { "$push": { "list": n }, "$inc": { "n": 1 } };
            collection.update_one(doc! { "_id": n }, change).await?;
        }
    }
    proxy.open(|gates| gates.documents_may_arrive = true);
    until_complete(&headwater).await?;
    let middle = source.mark("middle").await?;
    for collection in &collections {
        collection.update_many(doc! {}, doc! { "$inc": { "n": 1 } }).await?;
    }
    comes_back(&bed, &headwater, &source).await?;
    until_stored(&headwater, middle).await?;
    let target = restored(&bed, &headwater, VERSION, &middle.to_string()).await?;
    let model = replay::to(&bed, &source, middle).await?;
    compare(model.client(), target.client(), "the end of the first copy").await
}

/// More bytes than one frame takes; and a daemon that dies with them in memory must ask for them again.
#[tokio::test(flavor = "multi_thread")]
async fn many_large_missing_documents_are_fetched_and_fetched_again_after_kills() -> Result<()> {
    const HOLES: i32 = 24;
    let bed = Bed::new().await?;
    let source = bed
        .replica_set(ReplicaSetSpec::single(VERSION).not_replayable())
        .await?;
    let large: Collection<Document> = source.client().database("holes").collection("large");
    for n in 0..HOLES {
        large.insert_one(doc! { "_id": format!("kept {n}") }).await?;
        let text = format!("{n} is large ").repeat(300_000);
        large.insert_one(doc! { "_id": n, "hole": true, "text": text }).await?;
    }
    let mut headwater = bed.headwater()?;
    let (proxy, mut watch) = begin(&mut headwater, &source).await?;
    large
        .update_many(doc! { "hole": true }, doc! { "$set": { "seen": true } })
        .await?;
    proxy.open(|gates| gates.scan_may_end = true);
    watch.until_logged(ASKING).await?;
    headwater.daemon()?.kill()?;
    ensure!(watch.is_between(ASKING, "first copy: validating")?, "killed too late");
    let mut watch = LogWatch::from_now(&headwater.log("daemon"))?;
    headwater.start_daemon().await?;
    // What it fetched meanwhile waits at the gate, and is lost with it.
    headwater.agent()?.kill()?;
    headwater.start_agent_at(proxy.address()).await?;
    proxy.open(|gates| gates.documents_may_arrive = true);
    watch.until_logged(ASKING).await?;
    watch.until_logged("first copy: validating").await?;
    headwater.daemon()?.kill()?;
    ensure!(
        watch.is_between("first copy: validating", "first copy: complete")?,
        "killed too late"
    );
    let mut watch = LogWatch::from_now(&headwater.log("daemon"))?;
    headwater.start_daemon().await?;
    until_complete(&headwater).await?;
    ensure!(
        watch.seen()?.contains(ASKING),
        "validated without asking again for what was missing"
    );
    tokio::time::timeout(Duration::from_secs(120), comes_back(&bed, &headwater, &source)).await??;
    Ok(())
}
