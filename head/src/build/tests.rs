use std::collections::{BTreeMap, VecDeque};

use bson::{Document, doc};
use headwater_store::memory_blocks::MemoryBlocks;
use proptest::prelude::*;

use super::*;
use crate::head::{Begin, Head};
use crate::test_support::{at, block_on, key_of, raw, uuid};

/// Slices that are at hand.
struct Slices(VecDeque<SlicePayload>);

#[async_trait]
impl SliceSource for Slices {
    async fn next(&mut self) -> Result<Option<SlicePayload>, StoreError> {
        Ok(self.0.pop_front())
    }
}

fn slices(documents: &[Document], per_slice: usize) -> Slices {
    let payload = |chunk: &[Document]| chunk.iter().map(raw).collect::<Vec<_>>().concat().into();
    let chunks = (0..).zip(documents.chunks(per_slice.max(1)));
    Slices(
        chunks
            .map(|(number, chunk)| SlicePayload {
                number,
                payload: payload(chunk),
            })
            .collect(),
    )
}

fn meta(options: Document) -> CollectionMeta {
    CollectionMeta {
        db: "shop".into(),
        name: "orders".into(),
        uuid: uuid(7),
        options: bson::RawDocumentBuf::try_from(&options).unwrap(),
        indexes: vec![bson::RawDocumentBuf::try_from(&doc! { "v": 2, "key": { "_id": 1 }, "name": "_id_" }).unwrap()],
    }
}

fn memory() -> Arc<MemoryBlocks> {
    Arc::new(MemoryBlocks::new())
}

/// The collection of these slices, so many of them in a run.
async fn built(blocks: &Arc<MemoryBlocks>, meta: &CollectionMeta, slices: Slices, per_run: usize) -> Built {
    let builder = Builder::new(blocks.clone());
    let mut runs = Vec::new();
    let slices: Vec<_> = slices.0.into();
    for some in slices.chunks(per_run) {
        runs.push(builder.run(meta, &mut Slices(some.to_vec().into())).await.unwrap());
    }
    builder.merge(runs).await.unwrap()
}

/// The layer written at once from what the documents come to.
async fn at_once(documents: &[Document], capped: bool, per_slice: usize) -> Option<Root> {
    let mut last = BTreeMap::new();
    for (n, document) in documents.iter().enumerate() {
        let place = (n / per_slice) as u64 * (1 << 32) + (n % per_slice) as u64;
        last.insert(key_of(document.get("_id").unwrap().clone()), (raw(document), place));
    }
    let mut writer = TreeWriter::new(memory());
    for (key, (doc, place)) in last {
        let mut value = Vec::new();
        stack::bottom(doc, place, capped).encode(&mut value);
        writer.add(key.0, &value).await.unwrap();
    }
    writer.finish().await.unwrap()
}

fn document(id: i32, n: usize) -> Document {
    doc! { "_id": id, "n": n as i64, "f": "x".repeat(50 + (n * 31) % 400) }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn a_build_gives_the_same_layer_however_runs_fall(
        ids in proptest::collection::vec(0i32..3000, 0..2500),
        per_slice in 1usize..200,
        per_run in 1usize..10,
        sorted in any::<bool>(),
        capped in any::<bool>(),
    ) {
        let mut ids = ids;
        if sorted {
            ids.sort();
        }
        let documents: Vec<_> = ids.iter().zip(0..).map(|(id, n)| document(*id, n)).collect();
        block_on(async {
            let options = if capped { doc! { "capped": true, "size": 1 << 20 } } else { doc! {} };
            let built = built(&memory(), &meta(options), slices(&documents, per_slice), per_run).await;
            let last = documents.len().checked_sub(1);
            let next_place = last.map_or(0, |last| (last / per_slice) as u64 * (1 << 32) + (last % per_slice) as u64 + 1);
            prop_assert_eq!(built.next_place, next_place);
            prop_assert_eq!(built.layer.map(|layer| layer.root), at_once(&documents, capped, per_slice).await);
            Ok(())
        })?;
    }
}

#[test]
fn more_runs_than_may_be_merged_at_once_are_merged_in_steps() {
    let documents: Vec<_> = (0..4000).map(|n| document((n * 1997) % 4000, n as usize)).collect();
    block_on(async {
        let built = built(&memory(), &meta(doc! {}), slices(&documents, 5), 1).await;
        let root = built.layer.unwrap().root;
        assert_eq!(Some(&root), at_once(&documents, false, 5).await.as_ref());
        assert_eq!(root.records, 4000);
    });
}

#[test]
fn documents_in_the_order_of_their_ids_are_not_written_twice() {
    let documents: Vec<_> = (0..20_000).map(|n| document(n, n as usize)).collect();
    block_on(async {
        let blocks = memory();
        let built = built(&blocks, &meta(doc! {}), slices(&documents, 500), 4).await;
        let root = built.layer.unwrap().root;
        assert_eq!(root.records, 20_000);
        let traffic = blocks.traffic();
        assert!(
            traffic.new_bytes < root.bytes * 3 / 2,
            "{} of {}",
            traffic.new_bytes,
            root.bytes
        );
    });
}

#[test]
fn a_built_collection_is_read_through_the_head() {
    let documents: Vec<_> = (0..100).map(|n| document(n * 7 % 100, n as usize)).collect();
    block_on(async {
        let blocks = memory();
        let meta = meta(doc! { "capped": true, "size": 4096 });
        let built = built(&blocks, &meta, slices(&documents, 10), 3).await;
        let begin = Begin {
            tail_after: at(1),
            begin_applying: at(1),
        };
        let mut head = Head::new(blocks, "6.0.5", begin).unwrap();
        head.add_collection(&meta, built);
        let collection = head.collection(meta.uuid).unwrap();
        assert_eq!(collection.namespace().to_string(), "shop.orders");
        assert!(collection.is_settled() && collection.is_capped());
        assert_eq!(collection.documents(), 100);
        let mut scanned = head.scan(meta.uuid, None).unwrap().next_batch().await.unwrap();
        scanned.sort_by_key(|(_, _, place)| *place);
        assert_eq!(
            scanned.into_iter().map(|(_, doc, _)| doc).collect::<Vec<_>>(),
            documents.iter().map(raw).collect::<Vec<_>>()
        );
    });
}

#[test]
fn a_payload_that_is_no_documents_or_a_document_without_id_is_refused() {
    let refused = |payload: Bytes| {
        let mut slices = Slices([SlicePayload { number: 0, payload }].into());
        let result = block_on(Builder::new(memory()).run(&meta(doc! {}), &mut slices));
        assert!(
            matches!(result, Err(HeadError::Document { collection, .. }) if collection == uuid(7)),
            "{result:?}"
        );
    };
    refused(Bytes::from_static(b"\x05\0\0"));
    refused(raw(&doc! { "a": 1 }));
}
