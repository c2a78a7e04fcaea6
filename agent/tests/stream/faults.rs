//! Sources that refuse, and how the user learns of it.

use std::os::unix::fs::PermissionsExt;

use bson::{Document, doc};
use headwater_host::Host;
use headwater_protocol::agent::StreamFault;

use crate::agent::{Agent, protect};
use crate::check;
use crate::mongod::{Mongod, ReplicaSet, client, until};
use crate::receiver::Receiver;

async fn order_fault(receiver: &Receiver) -> StreamFault {
    until("a fault is reported with the request for orders", || async { !receiver.kept().order_faults.is_empty() }).await;
    receiver.kept().order_faults[0].fault.clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standalone_is_refused_with_the_cure() {
    let host = Host::real().unwrap();
    let server = Mongod::start(&[]).await;
    let receiver = Receiver::start(&host).await;
    protect(&receiver, &format!("mongodb://{}/", server.address()));
    let agent = Agent::start(&host, &receiver);
    let fault = order_fault(&receiver).await;
    assert!(matches!(&fault, StreamFault::Refused { cure, .. } if cure.contains("rs.initiate()")), "{fault:?}");
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_cannot_be_reached_is_reported_without_its_password() {
    let host = Host::real().unwrap();
    let receiver = Receiver::start(&host).await;
    protect(&receiver, "mongodb://ann:s3cret@127.0.0.1:9/?authSource=admin");
    let agent = Agent::start(&host, &receiver);
    let fault = format!("{:?}", order_fault(&receiver).await);
    assert!(fault.contains("Unreachable") && !fault.contains("s3cret"), "{fault}");
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_roles_backup_and_cluster_monitor_suffice_and_their_lack_is_told_with_the_grant() {
    let host = Host::real().unwrap();
    let folder = tempfile::TempDir::new().unwrap();
    let key = folder.path().join("key");
    std::fs::write(&key, "aGVhZHdhdGVyaGVhZHdhdGVy").unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    let set = ReplicaSet::start_guarded(key.to_str().unwrap()).await;
    let hosts = set.members[0].address();
    let root = client(&format!("mongodb://root:root@{hosts}/?authSource=admin&replicaSet=rs0")).await;
    let admin = root.database("admin");
    let db = root.database("shop");
    db.collection::<Document>("c").insert_many((0..100).map(|n| doc! { "_id": n })).await.unwrap();
    db.run_command(doc! { "create": "v", "viewOn": "c", "pipeline": [] }).await.unwrap();
    db.run_command(doc! { "create": "series", "timeseries": { "timeField": "t" } }).await.unwrap();
    admin.run_command(doc! { "createUser": "ann", "pwd": "p@ss", "roles": [] }).await.unwrap();

    let receiver = Receiver::start(&host).await;
    protect(&receiver, &format!("mongodb://ann:p%40ss@{hosts}/?authSource=admin"));
    let agent = Agent::start(&host, &receiver);
    let fault = order_fault(&receiver).await;
    let grant = r#"db.getSiblingDB("admin").grantRolesToUser("ann", [{ role: "backup", db: "admin" }, { role: "clusterMonitor", db: "admin" }])"#;
    assert!(matches!(&fault, StreamFault::Refused { cure, .. } if cure == grant), "{fault:?}");

    let roles = doc! { "grantRolesToUser": "ann", "roles": ["backup", "clusterMonitor"] };
    admin.run_command(roles).await.unwrap();
    check::caught_up(&receiver, &root).await;
    check::the_chain_is_the_oplog(&receiver, &root).await;
    assert_eq!(receiver.kept().order_faults, [], "the fault is taken back");
    assert!(receiver.kept().begun.as_ref().unwrap().1.iter().any(|meta| meta.name == "system.users"));
    agent.stop().await;
}
