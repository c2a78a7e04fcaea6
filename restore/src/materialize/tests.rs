//! A head in memory, an oplog in memory, and instants between them.

use bson::{Binary, doc, spec::BinarySubtype};
use headwater_head::Begin;
use headwater_model::{DeploymentName, Incarnation, ReplicaSetId};
use headwater_protocol::frame::{self, Frame, FrameKind};
use headwater_protocol::slices::OplogSliceHeader;
use headwater_store::backend::memory::MemoryObjects;
use headwater_store::memory_blocks::MemoryBlocks;

use super::*;

fn at(n: u32) -> Optime {
    Optime::new(Ts::new(n, 1), 1)
}

fn raw(document: &Document) -> Bytes {
    bson::serialize_to_vec(document).unwrap().into()
}

const UUID: CollectionUuid = CollectionUuid([7; 16]);

fn entry(n: u32, op: &str, o: Document) -> Bytes {
    let uuid = Binary {
        subtype: BinarySubtype::Uuid,
        bytes: UUID.0.to_vec(),
    };
    let ns = if op == "c" { "shop.$cmd" } else { "shop.c" };
    let ts = bson::Timestamp::from(at(n).ts);
    raw(&doc! { "op": op, "ns": ns, "ui": uuid, "o": o, "ts": ts, "t": 1_i64, "v": 2_i64 })
}

fn set() -> ReplicaSetId {
    ReplicaSetId::new(DeploymentName::new("shop").unwrap(), "rs0").unwrap()
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

struct Backup {
    blocks: Arc<dyn Blocks>,
    image: Image,
    oplog: Arc<OplogStore>,
}

/// Appends a slice of entries, each with its second.
async fn append(oplog: &OplogStore, slice: &[(u32, Bytes)]) {
    let tail = oplog.tip().await.unwrap().unwrap();
    let header = OplogSliceHeader {
        replica_set: set(),
        incarnation: Incarnation(1),
        previous: tail.after,
        previous_slice: tail.previous_slice,
        first: at(slice[0].0),
        last: at(slice[slice.len() - 1].0),
        count: slice.len() as u32,
    };
    let payload: Vec<u8> = slice.iter().flat_map(|(_, raw)| raw.to_vec()).collect();
    let sealed = frame::seal(FrameKind::OplogSlice, &header, &payload).unwrap();
    let frame = Frame::open(FrameKind::OplogSlice, sealed).unwrap();
    oplog.append(frame).await.unwrap();
}

/// An image at second 5, entries at seconds 1 to 20 in slices of four; each inserts a document of its second's number.
async fn backup(options: Document) -> Backup {
    let oplog = OplogStore::open(Arc::new(MemoryObjects::new()), "rs/", &set(), Incarnation(1))
        .await
        .unwrap();
    oplog.begin(at(0)).await.unwrap();
    let mut create = doc! { "create": "c" };
    create.extend(options);
    let mut entries = vec![(1, entry(1, "c", create))];
    // From the largest key to the smallest: the order of insertion is not that of keys.
    entries.extend((2..=20).map(|n| (n, entry(n, "i", doc! { "_id": -i64::from(n), "n": i64::from(n) }))));
    for slice in entries.chunks(4) {
        append(&oplog, slice).await;
    }

    let blocks: Arc<dyn Blocks> = Arc::new(MemoryBlocks::new());
    let begin = Begin {
        tail_after: at(0),
        begin_applying: at(0),
    };
    let mut head = Head::new(blocks.clone(), "6.0.5", begin).unwrap();
    for (_, raw) in entries.iter().take_while(|(n, _)| *n <= 5) {
        head.apply(raw.clone()).unwrap();
    }
    head.set_consistent_from(at(5));
    let image = head.image(&set(), Incarnation(1)).await.unwrap();
    let oplog = Arc::new(oplog);
    Backup { blocks, image, oplog }
}

impl Backup {
    async fn at(&self, until: Ts) -> Result<AtT, MaterializeFault> {
        self.made(until, Prepared::AtEntry).await
    }

    async fn made(&self, until: Ts, prepared: Prepared) -> Result<AtT, MaterializeFault> {
        let scratch: Arc<dyn Blocks> = Arc::new(MemoryBlocks::new());
        materialize(
            self.blocks.clone(),
            scratch,
            self.image.clone(),
            Some(&self.oplog),
            until,
            prepared,
            |_| (),
        )
        .await
    }
}

async fn numbers(source: &AtT, after: Option<Bytes>) -> Vec<i64> {
    let mut rows = source.rows(UUID, after).await.unwrap();
    let mut numbers = Vec::new();
    loop {
        let batch = rows.next_batch().await.unwrap();
        if batch.is_empty() {
            return numbers;
        }
        numbers.extend(
            batch
                .iter()
                .map(|r| bson::RawDocument::from_bytes(&r.doc).unwrap().get_i64("n").unwrap()),
        );
    }
}

#[test]
fn an_instant_shows_everything_up_to_and_including_its_entry() {
    run(async {
        let backup = backup(doc! {}).await;
        for (until, last) in [
            (Ts::new(5, 1), 5),
            (Ts::new(6, 0), 5),
            (Ts::new(6, 1), 6),
            (Ts::new(8, 1), 8),
            (Ts::new(9, 1), 9),
            (Ts::new(13, u32::MAX), 13),
            (Ts::new(20, 1), 20),
        ] {
            let source = backup.at(until).await.unwrap();
            assert_eq!(source.at(), at(last), "{until}");
            let expected: Vec<_> = (2..=i64::from(last)).rev().collect();
            assert_eq!(numbers(&source, None).await, expected, "{until}");
        }
    });
}

#[test]
fn what_the_stores_cannot_give_is_refused() {
    run(async {
        let backup = backup(doc! {}).await;
        assert!(matches!(
            backup.at(Ts::new(20, 2)).await,
            Err(MaterializeFault::OplogEnds { .. })
        ));
        assert!(matches!(
            backup.at(Ts::new(5, 0)).await,
            Err(MaterializeFault::ImageTooNew { .. })
        ));
        let image = Image {
            consistent_from: Some(at(6)),
            ..backup.image.clone()
        };
        let torn = Backup { image, ..backup };
        assert!(matches!(
            torn.at(Ts::new(9, 1)).await,
            Err(MaterializeFault::Inconsistent(_))
        ));
    });
}

#[test]
fn what_is_prepared_is_undecided_from_its_entry_on_until_its_commit_is_stored() {
    run(async {
        let backup = backup(doc! {}).await;
        let of_transaction = |n: u32, previous: u32, o: Document| {
            let before = match previous {
                0 => doc! { "ts": bson::Timestamp { time: 0, increment: 0 }, "t": -1_i64 },
                _ => doc! { "ts": bson::Timestamp::from(at(previous).ts), "t": 1_i64 },
            };
            let mut all: Document = bson::deserialize_from_slice(&entry(n, "c", o)).unwrap();
            all.extend(doc! { "lsid": { "id": 1 }, "txnNumber": 1_i64, "prevOpTime": before });
            (n, raw(&all))
        };
        let uuid = Binary {
            subtype: BinarySubtype::Uuid,
            bytes: UUID.0.to_vec(),
        };
        let insert = doc! { "op": "i", "ns": "shop.c", "ui": uuid, "o": { "_id": 22, "n": 22_i64 } };
        let prepare = of_transaction(22, 0, doc! { "applyOps": [insert], "prepare": true });
        let later = (25, entry(25, "i", doc! { "_id": 25, "n": 25_i64 }));
        append(&backup.oplog, &[prepare, later]).await;
        let undecided = async |until: Ts| {
            let made = backup.made(until, Prepared::AtCommitTime).await.unwrap();
            made.undecided()
        };
        let open = Some(Undecided {
            count: 1,
            from: Ts::new(22, 1),
        });
        for (until, want) in [
            (Ts::new(20, 1), None),
            (Ts::new(22, 0), None),
            (Ts::new(22, 1), open),
            (Ts::new(25, 1), open),
        ] {
            assert_eq!(undecided(until).await, want, "{until}");
        }
        let made = backup.made(Ts::new(25, 1), Prepared::AtEntry).await.unwrap();
        assert_eq!(made.undecided(), None);
        let time = bson::Timestamp::from(Ts::new(24, 1));
        let commit = doc! { "commitTransaction": 1, "commitTimestamp": time };
        append(&backup.oplog, &[of_transaction(30, 22, commit)]).await;
        assert_eq!(undecided(Ts::new(25, 1)).await, None);
    });
}

#[test]
fn nothing_is_written_into_the_repository() {
    run(async {
        let repository = Arc::new(MemoryBlocks::new());
        let backup = backup(doc! {}).await;
        let before = repository.len();
        let scratch = Arc::new(MemoryBlocks::new());
        let overlay = Overlay {
            repository: repository.clone(),
            scratch: scratch.clone(),
        };
        let id = overlay.put(Bytes::from_static(b"x")).await.unwrap();
        assert_eq!((repository.len(), scratch.len()), (before, 1));
        assert_eq!(&overlay.get(id).await.unwrap()[..], b"x");
        drop(backup);
    });
}

#[test]
fn rows_go_on_after_a_key() {
    run(async {
        for (options, expected) in [
            (doc! {}, (2..=17).rev().collect::<Vec<i64>>()),
            (doc! { "capped": true, "size": 65536 }, (5..=20).collect()),
        ] {
            let source = backup(options).await.at(Ts::new(20, 1)).await.unwrap();
            let first = source.rows(UUID, None).await.unwrap().next_batch().await.unwrap();
            assert_eq!(numbers(&source, Some(first[2].key.clone())).await, expected);
        }
    });
}

#[test]
fn a_capped_collection_comes_in_the_order_of_insertion_however_little_memory_there_is() {
    run(async {
        let source = backup(doc! { "capped": true, "size": 65536 })
            .await
            .at(Ts::new(20, 1))
            .await
            .unwrap();
        let expected: Vec<i64> = (2..=20).collect();
        assert_eq!(numbers(&source, None).await, expected);
        for budget in [1, 100, 1000] {
            let mut rows = CappedRows::new(&source.head, UUID, None).with_budget(budget);
            let mut got = Vec::new();
            loop {
                let batch = rows.next_batch().await.unwrap();
                if batch.is_empty() {
                    break;
                }
                got.extend(
                    batch
                        .iter()
                        .map(|r| bson::RawDocument::from_bytes(&r.doc).unwrap().get_i64("n").unwrap()),
                );
            }
            assert_eq!(got, expected, "budget {budget}");
        }
    });
}

#[test]
fn the_clustered_index_is_told_from_others_as_list_indexes_does() {
    let mut clustered = doc! { "v": 2, "key": { "_id": 1 }, "name": "by key", "unique": true };
    super::mark_clustered(&mut clustered);
    assert!(clustered.get_bool("clustered").unwrap());
    let mut other = doc! { "v": 2, "key": { "_id": 1, "a": 1 }, "name": "other" };
    super::mark_clustered(&mut other);
    assert!(!other.contains_key("clustered"));
}
