//! What an agent is told that opens a stream, by what was durable when a former owner ended.

use std::sync::Arc;

use bson::rawdoc;
use headwater_cluster::{Control, NodeId, Settings};
use headwater_host::Host;
use headwater_host::memory::MemoryDisk;
use headwater_model::{CollectionUuid, ReplicaSetId, Ts};
use headwater_protocol::agent::CollectionMeta;
use headwater_protocol::frame;
use headwater_store::backend::memory::MemoryObjects;

use super::*;
use crate::set::{Ground, Tuning};

const COLLECTION: CollectionUuid = CollectionUuid([7; 16]);

fn at(n: u32) -> Optime {
    Optime::new(Ts::new(n, 1), 1)
}

/// A replica set that was registered just now, on a node in memory.
async fn registered() -> Arc<Set> {
    let (host, node) = (Host::real().unwrap(), NodeId(1));
    let kv = Arc::new(MemoryDisk::new().open());
    let control = Control::start(&host, kv, node, Settings::single(node)).await.unwrap();
    let id: ReplicaSetId = "shop/rs0".parse().unwrap();
    let add = Command::AddDeployment {
        name: id.deployment().clone(),
        uri: "mongodb://h".into(),
        snapshot_interval_s: 3600,
        created_ms: 0,
        key: None,
    };
    let register = Command::RegisterReplicaSet {
        set: id.clone(),
        node,
        source_version: "6.0.5".into(),
    };
    for command in [add, register] {
        submit(&control, command).await.unwrap();
    }
    let epoch = control.state().replica_sets[&id].epoch;
    let ground = Ground {
        host,
        control,
        objects: Arc::new(MemoryObjects::new()),
        node,
        tuning: Tuning::default(),
    };
    Set::open(ground, id, epoch).await.unwrap()
}

async fn opened(set: &Set) -> OpenReply {
    let request = OpenRequest {
        agent: "agent-1".into(),
        server_version: "6.0.5".into(),
        fcv: "6.0".into(),
        oplog_first: at(1),
        oplog_last: at(9),
        members: Vec::new(),
        shard: None,
    };
    set.open_stream(request).await.unwrap()
}

fn phase(set: &Set) -> Phase {
    set.record().unwrap().1.phase
}

fn begin(set: &Set) -> Frame {
    let header = SyncBeginHeader {
        replica_set: set.id.clone(),
        incarnation: set.record().unwrap().1.incarnation,
        server_version: "6.0.5".into(),
        fcv: "6.0".into(),
        tail_after: at(5),
        begin_applying: at(5),
    };
    let meta = CollectionMeta {
        db: "shop".into(),
        name: "c".into(),
        uuid: COLLECTION,
        options: rawdoc! {},
        indexes: vec![rawdoc! { "v": 2, "key": { "_id": 1 }, "name": "_id_" }],
    };
    let payload = bson::serialize_to_vec(&meta).unwrap();
    let bytes = frame::seal(FrameKind::SyncBegin, &header, &payload).unwrap();
    Frame::open(FrameKind::SyncBegin, bytes).unwrap()
}

fn slice(set: &Set) -> Bytes {
    let header = SyncSliceHeader {
        replica_set: set.id.clone(),
        incarnation: set.record().unwrap().1.incarnation,
        collection: COLLECTION,
        part: 0,
        plan: "natural".into(),
        number: 0,
        count: 1,
        resume: bson::doc! { "documents": 1_i64 },
        last: true,
    };
    frame::seal(FrameKind::SyncSlice, &header, rawdoc! { "_id": 1 }.as_bytes()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_copy_whose_beginning_is_durable_goes_on_though_its_phase_was_never_known() {
    let set = registered().await;
    let nothing = opened(&set).await;
    assert!(nothing.sync.is_some_and(|order| order.begun.is_none()));
    assert_eq!((nothing.tail, phase(&set)), (None, Phase::Starting));

    // As far as an owner comes that ends in the middle of `sync_begin`: first the oplog's beginning…
    let stores = set.stores(nothing.incarnation).await.unwrap();
    stores.oplog.begin(at(5)).await.unwrap();
    let half = opened(&set).await;
    assert!(half.sync.is_some_and(|order| order.begun.is_none()));
    assert_eq!((half.tail, phase(&set)), (None, Phase::Starting));

    // … then that of the scan. No agent sends either again.
    stores.sync.begin(begin(&set)).await.unwrap();
    assert_eq!(phase(&set), Phase::Starting);
    for _ in 0..2 {
        let whole = opened(&set).await;
        let begun = whole.sync.and_then(|order| order.begun).unwrap();
        assert_eq!((begun.collections, begun.ended), (vec![COLLECTION], false));
        assert_eq!(whole.tail.map(|tail| tail.after), Some(at(5)));
        assert_eq!(phase(&set), Phase::Transferring);
    }
    set.sync_slice(slice(&set)).await.unwrap();
    assert!(opened(&set).await.sync.unwrap().begun.unwrap().parts[0].done);
}

/// What an agent lost that slept while another streamed is not what the backup lost.
#[tokio::test(flavor = "multi_thread")]
async fn only_the_agent_that_streams_can_say_that_a_history_is_lost() {
    let set = registered().await;
    let begun = opened(&set).await.incarnation;
    let report = |agent: &str| PollRequest {
        agent: agent.to_owned(),
        incarnation: begun,
        source_last: None,
        scan: None,
        fault: Some(StreamFault::HistoryLost {
            detail: "it is not there".to_owned(),
        }),
        noted: None,
        balancer: None,
    };
    let lease = Command::GrantLease {
        deployment: set.id.deployment().clone(),
        agent: "agent-2".to_owned(),
        expected: 0,
    };
    submit(&set.ground.control, lease).await.unwrap();
    assert!(set.poll(report("agent-1")).await.unwrap().reopen);
    assert_eq!(set.record().unwrap().1.incarnation, begun);
    assert!(set.poll(report("agent-2")).await.unwrap().reopen);
    assert_eq!(set.record().unwrap().1.incarnation, Incarnation(begun.0 + 1));
}
