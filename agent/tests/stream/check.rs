//! What must be true of what the service was given, by comparison with the source.

use std::collections::{BTreeMap, BTreeSet};

use bson::{Document, RawDocument, RawDocumentBuf, Timestamp, doc};
use futures::TryStreamExt;
use headwater_model::{CollectionUuid, Ts};
use mongodb::Client;

use crate::mongod::until;
use crate::receiver::Receiver;

/// The newest majority-committed position of the source.
pub async fn newest(client: &Client) -> Ts {
    // A write of its own makes sure that there is a newest entry that nothing has seen yet.
    let note = doc! { "appendOplogNote": 1, "data": { "check": 1 }, "writeConcern": { "w": "majority" } };
    for _ in 0..300 {
        match client.database("admin").run_command(note.clone()).await {
            Ok(reply) => return reply.get_timestamp("operationTime").unwrap().into(),
            Err(error) => eprintln!("no primary just now: {error}"),
        }
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    panic!("there is no primary");
}

/// Waits until the first copy is complete and the tail has passed everything there is now.
pub async fn caught_up(receiver: &Receiver, client: &Client) {
    let now = newest(client).await;
    until("the sync has ended and the tail has caught up", || async {
        let kept = receiver.kept();
        kept.ended.is_some() && kept.tip.as_ref().is_some_and(|tip| tip.after.ts >= now)
    })
    .await;
}

/// The chain holds exactly the entries of the source's oplog after its beginning, byte for byte.
pub async fn the_chain_is_the_oplog(receiver: &Receiver, client: &Client) {
    let (from, entries) = {
        let kept = receiver.kept();
        assert_eq!(kept.complaints, Vec::<String>::new());
        (kept.begun.as_ref().unwrap().0.tail_after.ts, kept.entries.clone())
    };
    let oplog = client.database("local").collection::<RawDocumentBuf>("oplog.rs");
    let filter = doc! { "ts": { "$gt": Timestamp::from(from) } };
    let mut truth = oplog.find(filter).await.unwrap();
    let mut count = 0;
    while let Some(entry) = truth.try_next().await.unwrap() {
        let Some(kept) = entries.get(count) else { break };
        assert_eq!(kept.as_slice(), entry.as_bytes(), "entry {count}");
        count += 1;
    }
    assert_eq!(count, entries.len());
}

fn id_of(document: &RawDocument) -> String {
    format!("{:?}", document.get("_id").unwrap().unwrap())
}

/// Every document of the source was either scanned or is named by an entry of the chain; one that no entry names was
/// scanned exactly as it is.
pub async fn every_document_is_there(receiver: &Receiver, client: &Client) {
    let mut scanned: BTreeMap<(CollectionUuid, String), Vec<u8>> = BTreeMap::new();
    let mut touched: BTreeSet<(CollectionUuid, String)> = BTreeSet::new();
    {
        let kept = receiver.kept();
        for ((uuid, _), arrived) in &kept.parts {
            for document in &arrived.documents {
                let raw = RawDocument::from_bytes(document).unwrap();
                scanned.insert((*uuid, id_of(raw)), document.clone());
            }
        }
        for entry in &kept.entries {
            let entry = RawDocument::from_bytes(entry).unwrap();
            let Ok(uuid) = entry.get_binary("ui") else { continue };
            let part = if matches!(entry.get_str("op"), Ok("u")) {
                "o2"
            } else {
                "o"
            };
            if let Ok(document) = entry.get_document(part)
                && matches!(document.get("_id"), Ok(Some(_)))
            {
                touched.insert((CollectionUuid::from_slice(uuid.bytes).unwrap(), id_of(document)));
            }
        }
    }
    let mut compared = 0;
    for db in client.list_database_names().await.unwrap() {
        if matches!(db.as_str(), "local" | "config" | "admin") {
            continue;
        }
        let db = client.database(&db);
        let mut listed = db.run_cursor_command(doc! { "listCollections": 1 }).await.unwrap();
        while let Some(item) = listed.try_next().await.unwrap() {
            let item: Document = item;
            let Ok(info) = item.get_document("info") else { continue };
            let Some(bson::Bson::Binary(uuid)) = info.get("uuid") else {
                continue;
            };
            let uuid = CollectionUuid::from_slice(&uuid.bytes).unwrap();
            let collection = db.collection::<RawDocumentBuf>(item.get_str("name").unwrap());
            let mut documents = collection.find(doc! {}).await.unwrap();
            while let Some(document) = documents.try_next().await.unwrap() {
                let key = (uuid, id_of(&document));
                compared += 1;
                if !touched.contains(&key) {
                    let found = scanned.get(&key).map(Vec::as_slice);
                    assert_eq!(found, Some(document.as_bytes()), "{} {}", collection.name(), key.1);
                }
            }
        }
    }
    assert!(compared > 0);
}
