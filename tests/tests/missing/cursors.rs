//! Collections that are renamed, moved and dropped while the cursor is open that reads them, and agents that are killed
//! there.

use anyhow::{Result, ensure};
use bson::{Document, doc};
use futures::TryStreamExt;
use headwater_tests::proof::{comes_back, compare, restored, until_complete};
use headwater_tests::{Bed, ReplicaSet, ReplicaSetSpec, replay, until};
use mongodb::Client;

use super::proxy::Gates;
use super::{VERSION, begin_with};

/// More than what is under way between a cursor and the service, so that the cursor stays open while slices wait.
const DOCUMENTS: i32 = 3000;
const BYTES: usize = 32 << 10;

async fn fill(client: &Client, name: &str) -> Result<()> {
    let all: Vec<i32> = (0..DOCUMENTS).collect();
    for ids in all.chunks(200) {
        let documents = ids
            .iter()
            .map(|id| doc! { "_id": id, "text": "text ".repeat(BYTES / 5) });
        client
            .database("cursors")
            .collection(name)
            .insert_many(documents)
            .await?;
    }
    Ok(())
}

async fn rename(client: &Client, from: &str, to: &str) -> Result<()> {
    let command = doc! { "renameCollection": from, "to": to };
    client.database("admin").run_command(command).await?;
    Ok(())
}

/// Waits until the scan has an idle cursor on each of these.
async fn until_open(source: &ReplicaSet, names: &[&str]) -> Result<()> {
    until("cursors of the scan", || async {
        let pipeline = [
            doc! { "$currentOp": { "allUsers": true, "idleCursors": true } },
            doc! { "$match": { "type": "idleCursor" } },
        ];
        let listed = source.client().database("admin").aggregate(pipeline).await?;
        let cursors: Vec<Document> = listed.try_collect().await?;
        let open = |name: &&str| {
            cursors
                .iter()
                .any(|cursor| cursor.get_str("ns").is_ok_and(|ns| ns == *name))
        };
        Ok(names.iter().all(open).then_some(()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn collections_that_go_elsewhere_under_the_cursor_that_reads_them_come_back() -> Result<()> {
    let bed = Bed::new().await?;
    let source = bed.replica_set(ReplicaSetSpec::single(VERSION)).await?;
    let client = source.client();
    for name in ["renamed", "dropped", "moved"] {
        fill(client, name).await?;
    }
    let mut headwater = bed.headwater()?;
    let gates = Gates {
        first_slices_only: true,
        ..Gates::default()
    };
    let (proxy, mut watch) = begin_with(&mut headwater, &source, gates).await?;
    until_open(&source, &["cursors.renamed", "cursors.dropped", "cursors.moved"]).await?;
    let database = client.database("cursors");
    let insert = async |name: &str, id: i32| {
        let document = doc! { "_id": id, "text": "later" };
        database.collection::<Document>(name).insert_one(document).await
    };
    rename(client, "cursors.renamed", "cursors.renamed once").await?;
    insert("renamed once", -1).await?;
    rename(client, "cursors.moved", "elsewhere.moved").await?;
    database.collection::<Document>("dropped").drop().await?;
    insert("dropped", -1).await?;
    // A part goes on at the position that is stored with its first slice; its collection has another name by now.
    headwater.agent()?.kill()?;
    rename(client, "cursors.renamed once", "cursors.renamed twice").await?;
    headwater.start_agent_at(proxy.address()).await?;
    until_open(&source, &["cursors.renamed twice"]).await?;
    rename(client, "cursors.renamed twice", "cursors.renamed").await?;
    insert("renamed", -2).await?;
    ensure!(
        !watch.seen()?.contains("first copy: building"),
        "the scan ended before all that"
    );
    proxy.open(|gates| (gates.first_slices_only, gates.scan_may_end) = (false, true));
    until_complete(&headwater).await?;
    let middle = source.mark("middle").await?;
    insert("renamed", -3).await?;
    database
        .collection::<Document>("renamed")
        .delete_many(doc! { "_id": { "$lt": 1000 } })
        .await?;
    comes_back(&bed, &headwater, &source).await?;
    let target = restored(&bed, &headwater, VERSION, &middle.to_string()).await?;
    let model = replay::to(&bed, &source, middle).await?;
    compare(model.client(), target.client(), "the end of the first copy").await
}
