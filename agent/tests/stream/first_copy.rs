//! First copies under load.

use std::time::Duration;

use bson::{DateTime, Document, RawDocument, RawDocumentBuf, doc, rawdoc};
use futures::TryStreamExt;
use headwater_host::Host;
use headwater_protocol::agent::FetchRequest;
use mongodb::Client;

use crate::agent::{Agent, protect};
use crate::check;
use crate::mongod::{ReplicaSet, until};
use crate::receiver::Receiver;

/// One collection of every kind, a large one among them.
async fn fill(client: &Client) {
    let db = client.database("shop");
    db.run_command(doc! { "create": "capped", "capped": true, "size": 1 << 20 }).await.unwrap();
    db.run_command(doc! { "create": "clustered", "clusteredIndex": { "key": { "_id": 1 }, "unique": true } }).await.unwrap();
    db.run_command(doc! { "create": "collated", "collation": { "locale": "en", "strength": 2 } }).await.unwrap();
    db.run_command(doc! { "create": "series", "timeseries": { "timeField": "t", "metaField": "m" } }).await.unwrap();
    db.run_command(doc! { "create": "view", "viewOn": "plain", "pipeline": [{ "$match": { "n": 1 } }] }).await.unwrap();
    db.run_command(doc! { "create": "empty" }).await.unwrap();
    for name in ["plain", "capped", "clustered", "collated"] {
        let documents = (0..2000).map(|n| doc! { "_id": n, "n": n, "text": "x".repeat(100) });
        db.collection::<Document>(name).insert_many(documents).await.unwrap();
    }
    let points = (0..500).map(|n| doc! { "t": DateTime::from_millis(n * 60_000), "m": n % 5, "v": n });
    db.collection::<Document>("series").insert_many(points).await.unwrap();
    let index = doc! { "createIndexes": "plain", "indexes": [{ "key": { "n": 1 }, "name": "n_1" }] };
    db.run_command(index).await.unwrap();
    let large = db.collection::<Document>("large");
    for batch in 0..16 {
        let documents = (0..64).map(|n| doc! { "_id": format!("k{:05}", batch * 64 + n), "text": "y".repeat(32 << 10) });
        large.insert_many(documents).await.unwrap();
    }
}

/// Writes for a while: inserts, updates, deletes, a rename, a drop, a transaction.
async fn write(client: Client, rounds: i32) {
    let db = client.database("shop");
    let plain = db.collection::<Document>("plain");
    for round in 0..rounds {
        let new = (0..20).map(|n| doc! { "_id": 100_000 + round * 20 + n, "round": round });
        // Elections may come in between; whatever was written is in the oplog, and that is what is compared.
        let _ = plain.insert_many(new).await;
        let _ = plain.update_one(doc! { "_id": round }, doc! { "$set": { "touched": round } }).await;
        let _ = plain.delete_one(doc! { "_id": 1000 + round }).await;
        let _ = db.collection::<Document>("capped").insert_one(doc! { "_id": 100_000 + round }).await;
        let _ = db.collection::<Document>("large").update_one(
            doc! { "_id": format!("k{:05}", round * 7 % 1024) }, doc! { "$set": { "round": round } },
        ).await;
        if round % 10 == 3 {
            let (from, to) = (format!("shop.moving{}", round / 10), format!("shop.moving{}", round / 10 + 1));
            let _ = client.database("shop").collection::<Document>(&from[5..]).insert_one(doc! { "_id": round }).await;
            let rename = doc! { "renameCollection": from, "to": to };
            let _ = client.database("admin").run_command(rename).await;
        }
        if round == 15 {
            let _ = db.collection::<Document>("clustered").drop().await;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn views_are_as_the_server_has_them(receiver: &Receiver, client: &Client) {
    let views = client.database("shop").collection::<RawDocumentBuf>("system.views");
    let mut truth: Vec<RawDocumentBuf> = views.find(doc! {}).await.unwrap().try_collect().await.unwrap();
    truth.sort_by_key(|view| view.as_bytes().to_vec());
    let kept = receiver.kept();
    let uuid = kept.begun.as_ref().unwrap().1.iter().find(|meta| meta.name == "system.views").unwrap().uuid;
    let mut rebuilt: Vec<Vec<u8>> = kept.parts[&(uuid, 0)].documents.clone();
    rebuilt.sort();
    assert_eq!(rebuilt, truth.into_iter().map(RawDocumentBuf::into_bytes).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_copy_under_writes_brings_every_document_and_a_gap_free_chain() {
    let host = Host::real().unwrap();
    let set = ReplicaSet::start(1, &[]).await;
    let client = set.client().await;
    fill(&client).await;
    let receiver = Receiver::start(&host).await;
    protect(&receiver, &set.uri());
    let agent = Agent::start(&host, &receiver);
    let writer = host.spawn(write(client.clone(), 60));
    writer.await.unwrap();
    check::caught_up(&receiver, &client).await;
    check::the_chain_is_the_oplog(&receiver, &client).await;
    check::every_document_is_there(&receiver, &client).await;
    views_are_as_the_server_has_them(&receiver, &client).await;
    {
        let kept = receiver.kept();
        let metas = &kept.begun.as_ref().unwrap().1;
        let large = metas.iter().find(|meta| meta.name == "large").unwrap();
        assert!(kept.parts.keys().filter(|(uuid, _)| *uuid == large.uuid).count() > 1, "it was split into parts");
        let plain = metas.iter().find(|meta| meta.name == "plain").unwrap();
        assert_eq!(plain.indexes.len(), 2);
        assert!(metas.iter().all(|meta| meta.db != "local" && meta.name != "system.sessions"));
        let scan = kept.last_poll.as_ref().and_then(|poll| poll.scan).unwrap();
        assert!(scan.documents >= 10_000 / 2 && scan.bytes_estimated > 30 << 20, "{scan:?}");
    }
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_killed_at_any_moment_loses_nothing() {
    let host = Host::real().unwrap();
    let set = ReplicaSet::start(1, &[]).await;
    let client = set.client().await;
    fill(&client).await;
    let receiver = Receiver::start(&host).await;
    receiver.kept().mistreat_every = 5;
    protect(&receiver, &set.uri());
    let writer = host.spawn(write(client.clone(), 150));
    for round in 0..10_u64 {
        let agent = Agent::start(&host, &receiver);
        let lives = 150 + host.entropy.number() % 700 + round * 20;
        tokio::time::sleep(Duration::from_millis(lives)).await;
        agent.kill();
    }
    let agent = Agent::start(&host, &receiver);
    writer.await.unwrap();
    check::caught_up(&receiver, &client).await;
    check::the_chain_is_the_oplog(&receiver, &client).await;
    check::every_document_is_there(&receiver, &client).await;
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_asked_for_are_read_by_id_whatever_their_type_and_collation() {
    let host = Host::real().unwrap();
    let set = ReplicaSet::start(1, &[]).await;
    let client = set.client().await;
    let db = client.database("shop");
    db.run_command(doc! { "create": "c", "collation": { "locale": "en", "strength": 2 } }).await.unwrap();
    let given = [rawdoc! { "_id": "a" }, rawdoc! { "_id": "B" }, rawdoc! { "_id": 5_i64 }, rawdoc! { "_id": { "k": 1 } }];
    db.collection::<RawDocumentBuf>("c").insert_many(given.clone()).await.unwrap();
    let receiver = Receiver::start(&host).await;
    protect(&receiver, &set.uri());
    let agent = Agent::start(&host, &receiver);
    check::caught_up(&receiver, &client).await;
    let before = check::newest(&client).await;
    {
        let mut kept = receiver.kept();
        let collection = kept.begun.as_ref().unwrap().1.iter().find(|meta| meta.name == "c").unwrap().uuid;
        let hex = |id: RawDocumentBuf| id.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let ids = [rawdoc! { "_id": "a" }, rawdoc! { "_id": "b" }, rawdoc! { "_id": 5.0 }, rawdoc! { "_id": { "k": 1 } }];
        let gone = headwater_model::CollectionUuid([9; 16]);
        kept.fetch = vec![
            FetchRequest { request: 7, collection, ids: ids.into_iter().map(hex).collect() },
            FetchRequest { request: 8, collection: gone, ids: vec![hex(rawdoc! { "_id": 1 })] },
        ];
    }
    until("the requests are answered", || async { receiver.kept().answers.len() == 2 }).await;
    let kept = receiver.kept();
    let (header, found) = &kept.answers[&7];
    assert!(header.observed.ts >= before, "{} {before}", header.observed);
    let found: Vec<&RawDocument> = found.iter().map(|bytes| RawDocument::from_bytes(bytes).unwrap()).collect();
    assert_eq!(found.len(), 3, "\"b\" is not \"B\"");
    assert!(given.iter().filter(|given| found.contains(&given.as_ref())).count() == 3);
    assert_eq!(kept.answers[&8].0.count, 0);
    drop(kept);
    agent.stop().await;
}
