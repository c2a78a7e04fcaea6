//! Random histories, with spills, folds and images begun, finished, lost and overtaken at random points: the head must
//! show what the model shows, always.

use std::collections::BTreeMap;
use std::sync::Arc;

use bson::{Document, doc};
use bytes::Bytes;
use headwater_model::{CollectionUuid, Incarnation};
use headwater_oplog::key::DocumentKey;
use headwater_store::blocks::Blocks;
use headwater_store::memory_blocks::MemoryBlocks;
use proptest::prelude::*;

use crate::fold::FoldJob;
use crate::head::{Begin, Head};
use crate::image::Image;
use crate::scan::Digest;
use crate::spill::SpillJob;
use crate::test_support::{at, block_on, bson_uuid, entry, key_of, raw, uuid};

const COLLECTIONS: u8 = 3;
/// Updated without ever having been there: these documents are missing.
const NEVER_SEEN: i32 = 10_000;

#[derive(Clone, Debug)]
enum Step {
    Insert { c: u8, id: i32, len: usize },
    Update { c: u8, id: i32, value: i32 },
    Upsert { c: u8, id: i32, value: i32 },
    Replace { c: u8, id: i32, len: usize },
    Delete { c: u8, id: i32 },
    DeleteRun { c: u8, id: i32, count: i32 },
    InsertRun { c: u8, id: i32, count: i32 },
    UpdateNeverSeen { c: u8, id: i32 },
    Create { c: u8 },
    Drop { c: u8 },
    Rename { c: u8, over: Option<u8> },
    Clear { c: u8 },
    BeginSpill,
    FinishSpill,
    LoseSpill,
    PlanFolds,
    ForceFolds,
    FinishFolds,
    Reopen,
    Check { from: i32 },
}

fn steps() -> impl Strategy<Value = Step> {
    let c = || 0..COLLECTIONS;
    let id = || 0..300i32;
    let len = || prop_oneof![6 => 0usize..300, 3 => 300usize..6000, 1 => 6000usize..40_000];
    prop_oneof![
        12 => (c(), id(), len()).prop_map(|(c, id, len)| Step::Insert { c, id, len }),
        12 => (c(), id(), any::<i32>()).prop_map(|(c, id, value)| Step::Update { c, id, value }),
        6 => (c(), id(), any::<i32>()).prop_map(|(c, id, value)| Step::Upsert { c, id, value }),
        4 => (c(), id(), len()).prop_map(|(c, id, len)| Step::Replace { c, id, len }),
        10 => (c(), id()).prop_map(|(c, id)| Step::Delete { c, id }),
        2 => (c(), id(), 1..80).prop_map(|(c, id, count)| Step::DeleteRun { c, id, count }),
        6 => (c(), id(), 1..80).prop_map(|(c, id, count)| Step::InsertRun { c, id, count }),
        1 => (c(), id()).prop_map(|(c, id)| Step::UpdateNeverSeen { c, id }),
        3 => c().prop_map(|c| Step::Create { c }),
        1 => c().prop_map(|c| Step::Drop { c }),
        1 => (c(), proptest::option::of(c())).prop_map(|(c, over)| Step::Rename { c, over }),
        1 => c().prop_map(|c| Step::Clear { c }),
        6 => Just(Step::BeginSpill),
        6 => Just(Step::FinishSpill),
        1 => Just(Step::LoseSpill),
        4 => Just(Step::PlanFolds),
        2 => Just(Step::ForceFolds),
        6 => Just(Step::FinishFolds),
        2 => Just(Step::Reopen),
        3 => id().prop_map(|from| Step::Check { from }),
    ]
}

#[derive(Clone, Debug, Default)]
struct ModelCollection {
    name: String,
    capped: bool,
    next_place: u64,
    documents: BTreeMap<DocumentKey, (Document, u64)>,
}

impl ModelCollection {
    fn place(&mut self) -> u64 {
        self.next_place += u64::from(self.capped);
        self.next_place.saturating_sub(1)
    }

    fn put(&mut self, document: Document) {
        let place = self.place();
        let slot = self
            .documents
            .entry(key_of(document.get("_id").unwrap().clone()))
            .or_insert((Document::new(), place));
        slot.0 = document;
    }
}

/// Head and model side by side.
struct World {
    blocks: Arc<MemoryBlocks>,
    head: Head,
    model: BTreeMap<CollectionUuid, ModelCollection>,
    clock: u64,
    spill: Option<SpillJob>,
    folds: Vec<FoldJob>,
}

impl World {
    fn new() -> World {
        let blocks = Arc::new(MemoryBlocks::new());
        let begin = Begin {
            tail_after: at(1),
            begin_applying: at(1),
        };
        let head = Head::new(blocks.clone(), "6.0.5", begin).unwrap();
        let mut world = World {
            blocks,
            head,
            model: BTreeMap::new(),
            clock: 1,
            spill: None,
            folds: Vec::new(),
        };
        for c in 0..COLLECTIONS {
            world.create(c);
        }
        world
    }

    fn blocks(&self) -> Arc<dyn Blocks> {
        self.blocks.clone()
    }

    fn apply(&mut self, op: &str, collection: Option<CollectionUuid>, o: Document, more: Document) {
        self.clock += 1;
        assert_eq!(
            self.head.apply(entry(self.clock, op, collection, o, more)).unwrap(),
            at(self.clock)
        );
        assert_eq!(self.head.applied(), at(self.clock));
    }

    /// The last collection is capped.
    fn create(&mut self, c: u8) {
        let capped = c + 1 == COLLECTIONS;
        let mut o = doc! { "create": format!("c{c}"), "idIndex": { "v": 2, "key": { "_id": 1 }, "name": "_id_" } };
        if capped {
            o.extend(doc! { "capped": true, "size": 1 << 20 });
        }
        self.apply("c", Some(uuid(c)), o, doc! {});
        let name = format!("c{c}");
        self.model.entry(uuid(c)).or_insert(ModelCollection {
            name,
            capped,
            ..Default::default()
        });
    }

    fn insert(&mut self, c: u8, id: i32, len: usize) {
        let document = doc! { "_id": id, "f": "x".repeat(len), "n": self.clock as i64 };
        self.apply("i", Some(uuid(c)), document.clone(), doc! {});
        if let Some(collection) = self.model.get_mut(&uuid(c)) {
            collection.put(document);
        }
    }

    fn delete(&mut self, c: u8, id: i32) {
        self.apply("d", Some(uuid(c)), doc! { "_id": id }, doc! {});
        if let Some(collection) = self.model.get_mut(&uuid(c)) {
            collection.documents.remove(&key_of(id));
        }
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Insert { c, id, len } => self.insert(c, id, len),
            Step::Replace { c, id, len } => {
                // As the server logs it: a whole document, with the number of another type.
                if self
                    .model
                    .get(&uuid(c))
                    .is_some_and(|m| m.documents.contains_key(&key_of(id)))
                {
                    let document = doc! { "_id": f64::from(id), "r": "y".repeat(len) };
                    self.apply("u", Some(uuid(c)), document.clone(), doc! { "o2": { "_id": id } });
                    self.model.get_mut(&uuid(c)).unwrap().put(document);
                }
            }
            Step::Update { c, id, value } => {
                let slot = self
                    .model
                    .get_mut(&uuid(c))
                    .and_then(|m| m.documents.get_mut(&key_of(id)));
                if let Some((document, _)) = slot {
                    document.insert("u", value);
                    let o = doc! { "$v": 2, "diff": { "u": { "u": value } } };
                    self.apply("u", Some(uuid(c)), o, doc! { "o2": { "_id": id } });
                }
            }
            Step::Upsert { c, id, value } => {
                let inner = doc! {
                    "op": "u", "ns": "db.c", "ui": bson_uuid(uuid(c)), "o2": { "_id": id },
                    "o": { "$v": 2, "diff": { "u": { "w": value } } },
                };
                self.apply("c", None, doc! { "applyOps": [inner] }, doc! {});
                if let Some(collection) = self.model.get_mut(&uuid(c)) {
                    let place = collection.place();
                    let start = || (doc! { "_id": id }, place);
                    collection
                        .documents
                        .entry(key_of(id))
                        .or_insert_with(start)
                        .0
                        .insert("w", value);
                }
            }
            Step::Delete { c, id } => self.delete(c, id),
            Step::DeleteRun { c, id, count } => (id..id + count).for_each(|id| self.delete(c, id)),
            Step::InsertRun { c, id, count } => {
                (id..id + count).for_each(|id| self.insert(c, id, 100 + (id as usize * 37) % 900))
            }
            Step::UpdateNeverSeen { c, id } => {
                let o = doc! { "$v": 2, "diff": { "u": { "u": 1 } } };
                self.apply("u", Some(uuid(c)), o, doc! { "o2": { "_id": NEVER_SEEN + id } });
            }
            Step::Create { c } => self.create(c),
            Step::Drop { c } => {
                self.apply("c", Some(uuid(c)), doc! { "drop": "x" }, doc! {});
                self.model.remove(&uuid(c));
            }
            Step::Rename { c, over } => {
                let name = format!("r{}", self.clock);
                let mut o = doc! { "renameCollection": "db.x", "to": format!("db.{name}"), "stayTemp": false };
                if let Some(over) = over {
                    o.insert("dropTarget", bson_uuid(uuid(over)));
                }
                self.apply("c", Some(uuid(c)), o, doc! {});
                if let Some(over) = over.filter(|over| *over != c) {
                    self.model.remove(&uuid(over));
                }
                if let Some(collection) = self.model.get_mut(&uuid(c)) {
                    collection.name = name;
                }
            }
            Step::Clear { c } => {
                self.apply("c", Some(uuid(c)), doc! { "emptycapped": "x" }, doc! {});
                if let Some(collection) = self.model.get_mut(&uuid(c)) {
                    collection.documents.clear();
                }
            }
            Step::BeginSpill => self.spill = self.head.begin_spill(),
            Step::LoseSpill => self.spill = None,
            Step::FinishSpill => {
                if let Some(job) = self.spill.take() {
                    let done = job.run(self.blocks()).await.unwrap();
                    self.head.finish_spill(done);
                }
            }
            Step::PlanFolds => self.folds.extend(self.head.plan_fold()),
            Step::ForceFolds => self.folds.extend(self.head.force_folds()),
            Step::FinishFolds => {
                for job in std::mem::take(&mut self.folds) {
                    let done = job.run(self.blocks()).await.unwrap();
                    for missing in self.head.finish_fold(done) {
                        assert!(missing.key >= key_of(NEVER_SEEN), "{missing:?} is not missing");
                    }
                }
            }
            Step::Reopen => {
                let image = self
                    .head
                    .image(&"shop/rs0".parse().unwrap(), Incarnation(1))
                    .await
                    .unwrap();
                assert_eq!(self.head.memtable_bytes(), 0);
                let image = Image::decode(&image.encode().unwrap()).unwrap();
                (self.spill, self.folds) = (None, Vec::new());
                self.head = Head::open(self.blocks(), image).await.unwrap();
                assert_eq!(self.head.applied(), at(self.clock));
            }
            Step::Check { from } => self.check(from).await,
        }
    }

    async fn check(&self, from: i32) {
        let uuids: Vec<_> = self.head.collections().map(|c| c.uuid()).collect();
        assert_eq!(uuids, self.model.keys().copied().collect::<Vec<_>>());
        for (uuid, expected) in &self.model {
            let collection = self.head.collection(*uuid).unwrap();
            assert_eq!(collection.namespace().coll, expected.name);
            assert_eq!(collection.is_capped(), expected.capped);
            for from in [None, Some(key_of(from))] {
                let mut found = Vec::new();
                let mut scan = self.head.scan(*uuid, from.clone()).unwrap();
                loop {
                    let batch = scan.next_batch().await.unwrap();
                    if batch.is_empty() {
                        break;
                    }
                    found.extend(batch);
                }
                let wanted: Vec<_> = expected
                    .documents
                    .iter()
                    .filter(|(key, _)| from.as_ref().is_none_or(|from| *key >= from))
                    .map(|(key, (document, place))| {
                        (key.clone(), raw(document), if expected.capped { *place } else { 0 })
                    })
                    .collect();
                assert!(
                    found == wanted,
                    "collection {uuid} from {from:?}: {} / {}",
                    found.len(),
                    wanted.len()
                );
            }
            let get = self.head.get(*uuid, &key_of(from)).await.unwrap();
            assert_eq!(
                get,
                expected.documents.get(&key_of(from)).map(|(document, _)| raw(document))
            );
            let all: Vec<Bytes> = expected.documents.values().map(|(document, _)| raw(document)).collect();
            let digest = Digest {
                documents: all.len() as u64,
                bytes: all.iter().map(|document| document.len() as u64).sum(),
                hash: *blake3::hash(&all.concat()).as_bytes(),
            };
            assert_eq!(self.head.digest(*uuid).await.unwrap(), digest);
            if collection.is_settled() {
                assert_eq!(
                    (collection.documents(), collection.bytes()),
                    (digest.documents, digest.bytes)
                );
            }
        }
    }

    /// At the end everything is folded; the same documents then are the same blocks as if written at once.
    async fn settle(&mut self) {
        for step in [
            Step::BeginSpill,
            Step::FinishSpill,
            Step::FinishFolds,
            Step::ForceFolds,
            Step::FinishFolds,
        ] {
            self.step(step).await;
        }
        self.check(150).await;
        for collection in self.head.collections() {
            assert!(collection.is_settled());
            let mut writer = crate::tree::TreeWriter::new(Arc::new(MemoryBlocks::new()));
            for (key, (document, place)) in &self.model[&collection.uuid()].documents {
                let mut value = Vec::new();
                crate::stack::bottom(raw(document), *place, collection.is_capped()).encode(&mut value);
                writer.add(key.0.clone(), &value).await.unwrap();
            }
            let anew = writer.finish().await.unwrap();
            assert_eq!(collection.layers().first().map(|layer| &layer.root), anew.as_ref());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 2000, ..ProptestConfig::default() })]

    #[test]
    fn a_head_shows_what_a_plain_map_shows_whatever_jobs_run_beside_it(
        steps in proptest::collection::vec(steps(), 1..250),
    ) {
        block_on(async {
            let mut world = World::new();
            for step in steps {
                world.step(step).await;
            }
            world.check(77).await;
            world.settle().await;
        });
    }
}
