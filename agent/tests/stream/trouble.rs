//! What happens to sources: elections, crashes, truncation.

use std::time::Duration;

use bson::{Document, doc};
use headwater_host::Host;
use headwater_model::Incarnation;
use mongodb::Client;

use crate::agent::{Agent, protect};
use crate::check;
use crate::mongod::{ReplicaSet, until};
use crate::receiver::Receiver;

async fn write_on(client: Client, rounds: i32) {
    let collection = client.database("shop").collection::<Document>("c");
    for round in 0..rounds {
        let _ = collection.insert_one(doc! { "_id": round, "text": "x".repeat(1000) }).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_goes_on_through_elections_and_a_crashed_member() {
    let host = Host::real().unwrap();
    let mut set = ReplicaSet::start(3, &[]).await;
    let client = set.client().await;
    let receiver = Receiver::start(&host).await;
    protect(&receiver, &set.uri());
    let agent = Agent::start(&host, &receiver);
    let writer = host.spawn(write_on(client.clone(), 1500));
    until("the tail runs", || async { receiver.kept().slices > 3 }).await;
    for _ in 0..2 {
        let step_down = doc! { "replSetStepDown": 5, "secondaryCatchUpPeriodSecs": 5, "force": true };
        let _ = client.database("admin").run_command(step_down).await;
        tokio::time::sleep(Duration::from_secs(4)).await;
    }
    set.members[1].crash().await;
    writer.await.unwrap();
    check::caught_up(&receiver, &client).await;
    check::the_chain_is_the_oplog(&receiver, &client).await;
    check::every_document_is_there(&receiver, &client).await;
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncated_oplog_is_reported_as_lost_history_and_a_new_incarnation_starts_over() {
    let host = Host::real().unwrap();
    let set = ReplicaSet::start(1, &["--oplogSize", "1", "--syncdelay", "1"]).await;
    let client = set.client().await;
    let receiver = Receiver::start(&host).await;
    protect(&receiver, &set.uri());
    let agent = Agent::start(&host, &receiver);
    check::caught_up(&receiver, &client).await;
    agent.stop().await;
    let tip = receiver.kept().tip.clone().unwrap().after;
    let oplog = client.database("local").collection::<Document>("oplog.rs");
    let collection = client.database("shop").collection::<Document>("c");
    until("the oplog is truncated beyond the tip", || async {
        let documents = (0..20).map(|_| doc! { "text": "x".repeat(100 << 10) });
        collection.insert_many(documents).await.unwrap();
        let oldest = oplog.find_one(doc! {}).sort(doc! { "$natural": 1 }).await.unwrap().unwrap();
        headwater_model::Ts::from(oldest.get_timestamp("ts").unwrap()) > tip.ts
    })
    .await;
    let agent = Agent::start(&host, &receiver);
    until("the fault is reported", || async {
        receiver.kept().faults.iter().any(|fault| fault.contains("HistoryLost"))
    })
    .await;
    {
        let mut kept = receiver.kept();
        kept.incarnation = Incarnation(1);
        (kept.begun, kept.ended, kept.tip) = (None, None, None);
        kept.parts.clear();
        kept.entries.clear();
    }
    check::caught_up(&receiver, &client).await;
    check::every_document_is_there(&receiver, &client).await;
    agent.stop().await;
}
