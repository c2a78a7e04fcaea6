//! Single stories: transactions across images, missing documents, first copies, faults, the cost of folds.

use std::sync::Arc;

use bson::{Document, doc};
use bytes::Bytes;
use headwater_model::{Incarnation, Optime, Ts, limits};
use headwater_store::blocks::Blocks;
use headwater_store::memory_blocks::MemoryBlocks;

use crate::error::{HeadError, HeadFault};
use crate::fold::Missing;
use crate::head::{Begin, Head};
use crate::image::Image;
use crate::test_support::{at, block_on, bson_uuid, entry, key_of, raw, uuid};

struct Fixture {
    blocks: Arc<MemoryBlocks>,
    head: Head,
    clock: u64,
}

impl Fixture {
    fn starting(begin: Begin) -> Fixture {
        let blocks = Arc::new(MemoryBlocks::new());
        let head = Head::new(blocks.clone(), "6.0.5", begin).unwrap();
        Fixture {
            blocks,
            head,
            clock: begin.tail_after.ts.0,
        }
    }

    /// With collection 1 in it.
    fn new() -> Fixture {
        let mut fixture = Fixture::starting(Begin {
            tail_after: at(1),
            begin_applying: at(1),
        });
        fixture.apply("c", Some(1), doc! { "create": "c" }, doc! {});
        fixture
    }

    fn blocks(&self) -> Arc<dyn Blocks> {
        self.blocks.clone()
    }

    fn apply(&mut self, op: &str, collection: Option<u8>, o: Document, more: Document) {
        self.clock += 1;
        self.head
            .apply(entry(self.clock, op, collection.map(uuid), o, more))
            .unwrap();
    }

    fn insert(&mut self, id: i32, value: &str) {
        self.apply("i", Some(1), doc! { "_id": id, "v": value }, doc! {});
    }

    fn update(&mut self, id: i32, field: &str, value: &str) {
        let o = doc! { "$v": 2, "diff": { "u": { field: value } } };
        self.apply("u", Some(1), o, doc! { "o2": { "_id": id } });
    }

    fn get(&self, id: i32) -> Option<Bytes> {
        block_on(self.head.get(uuid(1), &key_of(id))).unwrap()
    }

    fn spill(&mut self) {
        if let Some(job) = self.head.begin_spill() {
            let done = block_on(job.run(self.blocks())).unwrap();
            self.head.finish_spill(done);
        }
    }

    fn force_folds(&mut self) -> Vec<Missing> {
        self.spill();
        let mut missing = Vec::new();
        for job in self.head.force_folds() {
            missing.extend(self.head.finish_fold(block_on(job.run(self.blocks())).unwrap()));
        }
        missing
    }

    fn plan_folds(&mut self) {
        for job in self.head.plan_fold() {
            let done = block_on(job.run(self.blocks())).unwrap();
            self.head.finish_fold(done);
        }
    }

    fn layers(&self) -> usize {
        self.head.collection(uuid(1)).unwrap().layers().len()
    }

    fn image(&mut self) -> Image {
        block_on(self.head.image(&"shop/rs0".parse().unwrap(), Incarnation(1))).unwrap()
    }

    fn reopen(&mut self) {
        let image = Image::decode(&self.image().encode().unwrap()).unwrap();
        self.head = block_on(Head::open(self.blocks(), image)).unwrap();
    }
}

fn transaction(of: i64, previous: u64) -> Document {
    let ts = bson::Timestamp {
        time: 0,
        increment: previous as u32,
    };
    let term = if previous == 0 { -1i64 } else { 1 };
    doc! { "lsid": { "id": of }, "txnNumber": of, "prevOpTime": { "ts": ts, "t": term } }
}

fn inner_insert(id: i32) -> Document {
    doc! { "op": "i", "ns": "db.c", "ui": bson_uuid(uuid(1)), "o": { "_id": id } }
}

#[test]
fn an_image_cut_inside_transactions_goes_on_with_them() {
    let mut fixture = Fixture::new();
    fixture.apply(
        "c",
        None,
        doc! { "applyOps": [inner_insert(1)], "partialTxn": true },
        transaction(1, 0),
    );
    let first = fixture.clock;
    fixture.apply(
        "c",
        None,
        doc! { "applyOps": [inner_insert(2)], "prepare": true },
        transaction(2, 0),
    );
    let prepared = fixture.clock;
    fixture.insert(10, "plain");
    let image = fixture.image();
    assert_eq!((image.applied, image.replay_from), (at(fixture.clock), at(first)));
    assert_eq!(image.totals.collections, 1);
    fixture.reopen();
    assert_eq!((fixture.get(1), fixture.get(2)), (None, None));
    fixture.apply(
        "c",
        None,
        doc! { "applyOps": [inner_insert(3)], "count": 2i64 },
        transaction(1, first),
    );
    assert!(fixture.get(1).is_some() && fixture.get(3).is_some() && fixture.get(2).is_none());
    fixture.reopen();
    let commit =
        doc! { "commitTransaction": 1, "commitTimestamp": bson::Timestamp { time: 0, increment: prepared as u32 } };
    fixture.apply("c", None, commit, transaction(2, prepared));
    assert!(fixture.get(2).is_some() && fixture.get(10).is_some());
    let image = fixture.image();
    assert_eq!((image.replay_from, image.open_transactions), (at(fixture.clock), None));
}

#[test]
fn a_transaction_belongs_to_the_cluster_time_at_which_it_commits_wherever_its_commit_lies() {
    let mut fixture = Fixture::new();
    let prepare = |fixture: &mut Fixture, id: i32| {
        let parts = doc! { "applyOps": [inner_insert(id)], "prepare": true };
        fixture.apply("c", None, parts, transaction(i64::from(id), 0));
        fixture.clock
    };
    let (within, beyond, gone) = (
        prepare(&mut fixture, 1),
        prepare(&mut fixture, 2),
        prepare(&mut fixture, 3),
    );
    let cut = at(fixture.clock + 2).ts;
    let commit =
        |at: u32| doc! { "commitTransaction": 1, "commitTimestamp": bson::Timestamp { time: 0, increment: at } };
    let time = cut.ordinal();
    let later = [
        entry(fixture.clock + 5, "c", None, commit(time), transaction(1, within)),
        entry(fixture.clock + 6, "c", None, commit(time + 1), transaction(2, beyond)),
        entry(
            fixture.clock + 7,
            "c",
            None,
            doc! { "abortTransaction": 1 },
            transaction(3, gone),
        ),
    ];
    let mut outlook = fixture.head.outlook(cut);
    assert_eq!(outlook.undecided_from(), Some(at(within).ts));
    for (entry, (left, from)) in later.iter().zip([(2, Some(beyond)), (1, Some(gone)), (0, None)]) {
        outlook.see(entry).unwrap();
        assert_eq!(
            (outlook.undecided(), outlook.undecided_from()),
            (left, from.map(|n| at(n).ts))
        );
    }
    fixture.head.commit_early(&outlook.into_commits()).unwrap();
    let exact = |fixture: &Fixture| [1, 2, 3].map(|id| fixture.get(id).is_some());
    assert_eq!(exact(&fixture), [true, false, false]);
    // It survives an image, and the commit does nothing when its turn comes.
    fixture.reopen();
    assert!(fixture.head.is_ahead());
    assert_eq!(exact(&fixture), [true, false, false]);
    for entry in later {
        fixture.head.apply(entry).unwrap();
    }
    assert_eq!(exact(&fixture), [true, true, false]);
    assert!(!fixture.head.is_ahead());
    assert_eq!(fixture.image().open_transactions, None);
}

#[test]
fn entries_the_scan_has_read_only_count_as_the_beginning_of_transactions() {
    let mut fixture = Fixture::starting(Begin {
        tail_after: at(1),
        begin_applying: at(3),
    });
    fixture.apply(
        "c",
        None,
        doc! { "applyOps": [inner_insert(2)], "prepare": true },
        transaction(2, 0),
    );
    fixture.apply("c", Some(1), doc! { "create": "c" }, doc! {});
    assert_eq!(fixture.head.collections().count(), 0, "position 3 is not applied");
    fixture.apply("c", Some(1), doc! { "create": "c" }, doc! {});
    fixture.reopen();
    let commit = doc! { "commitTransaction": 1, "commitTimestamp": bson::Timestamp { time: 0, increment: 2 } };
    fixture.apply("c", None, commit, transaction(2, 2));
    assert!(fixture.get(2).is_some());
}

#[test]
fn an_image_shows_its_own_instant_though_entries_are_applied_while_it_is_written() {
    let mut fixture = Fixture::new();
    fixture.insert(1, "before");
    fixture.spill();
    fixture.update(1, "v", "at the image");
    let instant = fixture.clock;
    let job = fixture
        .head
        .begin_image(&"shop/rs0".parse().unwrap(), Incarnation(4))
        .unwrap();
    fixture.update(1, "v", "after");
    fixture.insert(2, "after");
    fixture.apply("c", Some(9), doc! { "create": "later" }, doc! {});
    let (image, spilled) = block_on(job.run(fixture.blocks())).unwrap();
    fixture.head.finish_spill(spilled);
    assert_eq!(fixture.get(1), Some(raw(&doc! { "_id": 1, "v": "after" })));
    assert_eq!((image.applied, image.incarnation), (at(instant), Incarnation(4)));
    let opened = block_on(Head::open(fixture.blocks(), image)).unwrap();
    assert_eq!(opened.collections().count(), 1);
    let get = |id: i32| block_on(opened.get(uuid(1), &key_of(id))).unwrap();
    assert_eq!(get(1), Some(raw(&doc! { "_id": 1, "v": "at the image" })));
    assert_eq!(get(2), None);
}

#[test]
fn a_stream_may_begin_early_but_not_in_another_history() {
    let mut fixture = Fixture::new();
    fixture.insert(1, "a");
    let again = entry(
        fixture.clock,
        "i",
        Some(uuid(1)),
        doc! { "_id": 1, "v": "again" },
        doc! {},
    );
    assert_eq!(fixture.head.apply(again).unwrap(), at(fixture.clock));
    assert_eq!(fixture.get(1), Some(raw(&doc! { "_id": 1, "v": "a" })), "passed over");
    let other = entry(fixture.clock, "i", Some(uuid(1)), doc! { "_id": 2 }, doc! { "t": 2i64 });
    let fault = fixture.head.apply(other).unwrap_err();
    assert!(matches!(fault, HeadFault::History { found, .. } if found == Optime::new(Ts(fixture.clock), 2)));
}

#[test]
fn an_entry_that_cannot_be_followed_leaves_the_head_as_it_was() {
    let mut fixture = Fixture::new();
    fixture.insert(1, "a");
    let before = fixture.head.applied();
    let unknown = entry(fixture.clock + 1, "c", None, doc! { "inventedCommand": 1 }, doc! {});
    assert!(matches!(fixture.head.apply(unknown), Err(HeadFault::Entry(_))));
    assert!(matches!(
        fixture.head.apply(Bytes::from_static(b"junk")),
        Err(HeadFault::Unreadable(_))
    ));
    assert_eq!(fixture.head.applied(), before);
    fixture.update(1, "v", "b");
    assert_eq!(fixture.get(1), Some(raw(&doc! { "_id": 1, "v": "b" })));
}

#[test]
fn definitions_follow_the_oplog_and_survive_an_image() {
    let mut fixture = Fixture::new();
    let index = doc! { "v": 2, "key": { "a": 1 }, "name": "a_1" };
    let mut create = doc! { "createIndexes": "c" };
    create.extend(index.clone());
    fixture.apply("c", Some(1), create, doc! {});
    let validator = doc! { "a": { "$exists": true } };
    fixture.apply(
        "c",
        Some(1),
        doc! { "collMod": "c", "validator": validator.clone() },
        doc! {},
    );
    let rename = doc! { "renameCollection": "db.c", "to": "other.d.e", "stayTemp": false };
    fixture.apply("c", Some(1), rename, doc! {});
    fixture.reopen();
    let collection = fixture.head.collection(uuid(1)).unwrap();
    assert_eq!(collection.namespace().to_string(), "other.d.e");
    assert_eq!(collection.indexes().len(), 2);
    assert_eq!(collection.indexes()[1], raw(&index));
    let options: Document = bson::deserialize_from_slice(collection.options()).unwrap();
    assert_eq!(options.get_document("validator").unwrap(), &validator);
    fixture.apply("c", Some(1), doc! { "dropIndexes": "c", "index": "a_1" }, doc! {});
    assert_eq!(fixture.head.collection(uuid(1)).unwrap().indexes().len(), 1);
}

#[test]
fn a_missing_document_is_reported_by_the_fold_and_taken_in_beneath_what_came_since() {
    let mut fixture = Fixture::new();
    for id in [1, 2, 3, 4] {
        fixture.update(id, "u", "lost with the fold");
    }
    let missing = fixture.force_folds();
    let ids: Vec<_> = missing.iter().map(|missing| missing.id.clone().unwrap()).collect();
    // A number comes back as one of equal value.
    assert_eq!(ids, [1.0, 2.0, 3.0, 4.0].map(|id| raw(&doc! { "_id": id })));
    assert!(missing.iter().all(|missing| missing.collection == uuid(1)));

    fixture.update(2, "u", "newer");
    fixture.insert(3, "newer");
    fixture.apply("d", Some(1), doc! { "_id": 4 }, doc! {});
    fixture.spill();
    fixture.update(2, "w", "newest");
    for (id, put) in [(1, true), (2, true), (3, false), (4, false)] {
        let fetched = raw(&doc! { "_id": id, "u": "fetched", "f": 1 });
        assert_eq!(
            block_on(fixture.head.put_document(uuid(1), fetched)).unwrap(),
            put,
            "{id}"
        );
    }
    assert_eq!(fixture.get(1), Some(raw(&doc! { "_id": 1, "u": "fetched", "f": 1 })));
    assert_eq!(
        fixture.get(2),
        Some(raw(&doc! { "_id": 2, "u": "newer", "f": 1, "w": "newest" }))
    );
    assert_eq!(fixture.get(3), Some(raw(&doc! { "_id": 3, "v": "newer" })));
    assert_eq!(fixture.get(4), None);
    assert!(fixture.force_folds().is_empty());
    assert!(
        !block_on(fixture.head.put_document(uuid(8), raw(&doc! { "_id": 1 }))).unwrap(),
        "a collection that is gone"
    );
}

#[test]
fn what_was_read_before_a_lost_block_is_an_error_and_the_head_goes_on() {
    let mut fixture = Fixture::new();
    fixture.insert(1, "a");
    fixture.spill();
    fixture.update(1, "v", "b");
    fixture.spill();
    let lost = fixture.head.collection(uuid(1)).unwrap().layers()[0].root.id;
    fixture.blocks.lose(lost);
    let job = fixture.head.force_folds().remove(0);
    assert!(matches!(block_on(job.run(fixture.blocks())), Err(HeadError::Store(_))));
    assert!(block_on(fixture.head.get(uuid(1), &key_of(1))).is_err());
    assert!(block_on(fixture.head.digest(uuid(1))).is_err());
    fixture.insert(1, "new");
    assert_eq!(
        fixture.get(1),
        Some(raw(&doc! { "_id": 1, "v": "new" })),
        "what is known above needs no block"
    );
}

#[test]
fn memory_is_accounted_for_and_given_back() {
    let mut fixture = Fixture::new();
    assert_eq!(fixture.head.memtable_bytes(), 0);
    (0..100).for_each(|id| fixture.insert(id, &"x".repeat(1000)));
    let full = fixture.head.memtable_bytes();
    assert!((100_000..140_000).contains(&full), "{full}");
    let job = fixture.head.begin_spill().unwrap();
    assert_eq!(
        (job.bytes(), fixture.head.memtable_bytes()),
        (full, full),
        "frozen tables are memory still"
    );
    drop(job);
    fixture.spill();
    assert_eq!(fixture.head.memtable_bytes(), 0);
    fixture.insert(1, "x");
    fixture.apply("c", Some(1), doc! { "drop": "c" }, doc! {});
    assert_eq!(fixture.head.memtable_bytes(), 0);
}

#[test]
fn pending_changes_of_one_document_are_split_before_they_outgrow_a_block() {
    let mut fixture = Fixture::new();
    fixture.insert(1, "a");
    fixture.spill();
    let large = "x".repeat(limits::MIB);
    for n in 0..40 {
        fixture.update(1, &format!("f{}", n % 3), &large);
    }
    fixture.spill();
    assert!(fixture.layers() > 4);
    assert!(fixture.force_folds().is_empty());
    assert_eq!(fixture.layers(), 1);
    assert!(fixture.get(1).unwrap().len() > 3 * limits::MIB);
}

/// A base of about 12 MB in 20 000 documents.
fn large_base() -> Fixture {
    let mut fixture = Fixture::new();
    (0..20_000).for_each(|id| fixture.insert(id * 2, &"x".repeat(600)));
    fixture.force_folds();
    assert_eq!(fixture.layers(), 1);
    fixture
}

#[test]
fn appended_documents_are_folded_at_once_and_cost_no_more_than_themselves() {
    let mut fixture = large_base();
    (0..2000).for_each(|n| fixture.insert(50_000 + n, &"x".repeat(600)));
    fixture.spill();
    let before = fixture.blocks.traffic();
    fixture.plan_folds();
    let spent = fixture.blocks.traffic();
    assert_eq!(fixture.layers(), 1);
    assert_eq!(fixture.head.collection(uuid(1)).unwrap().documents(), 22_000);
    assert!(
        spent.new_bytes - before.new_bytes < 800_000,
        "{}",
        spent.new_bytes - before.new_bytes
    );
}

#[test]
fn few_scattered_changes_stay_layers_until_there_are_too_many_of_them() {
    let mut fixture = large_base();
    let mut most = 0;
    for round in 0..30 {
        (0..50).for_each(|n| fixture.update((n * 797 + round) % 20_000 * 2, "u", &format!("round {round}")));
        fixture.spill();
        let before = fixture.blocks.traffic();
        fixture.plan_folds();
        let written = fixture.blocks.traffic().new_bytes - before.new_bytes;
        assert!(written < 200_000, "round {round}: {written}");
        assert!(fixture.head.plan_fold().is_empty(), "a survey is not made twice");
        most = most.max(fixture.layers());
    }
    assert_eq!(most, limits::STACK_MAX_LAYERS);
    assert_eq!(
        fixture.get(2 * 29),
        Some(raw(&doc! { "_id": 58, "v": "x".repeat(600), "u": "round 29" }))
    );
    fixture.force_folds();
    assert_eq!(
        (fixture.layers(), fixture.head.collection(uuid(1)).unwrap().documents()),
        (1, 20_000)
    );
}

#[test]
fn an_image_after_a_change_of_one_per_cent_costs_at_most_thrice_the_change() {
    let mut fixture = large_base();
    fixture.image();
    let before = fixture.blocks.traffic();
    (0..200).for_each(|n| fixture.insert(n * 97 % 20_000 * 2, &"y".repeat(600)));
    fixture.image();
    let written = fixture.blocks.traffic().new_bytes - before.new_bytes;
    assert!(written < 3 * 200 * 600, "{written}");
}

#[test]
fn every_job_and_every_reading_may_move_between_threads() {
    fn may_move<T: Send>(_: T) {}
    let mut fixture = Fixture::new();
    fixture.insert(1, "a");
    fixture.spill();
    fixture.update(1, "v", "b");
    let blocks = fixture.blocks();
    may_move(fixture.head.begin_spill().unwrap().run(blocks.clone()));
    may_move(
        fixture
            .head
            .begin_image(&"shop/rs0".parse().unwrap(), Incarnation(1))
            .unwrap()
            .run(blocks.clone()),
    );
    fixture.spill();
    may_move(fixture.head.plan_fold().remove(0).run(blocks.clone()));
    may_move(fixture.head.get(uuid(1), &key_of(1)));
    may_move(fixture.head.digest(uuid(1)));
    may_move(fixture.head.scan(uuid(1), None).unwrap().next_batch());
    may_move(fixture.head.put_document(uuid(1), raw(&doc! { "_id": 1 })));
    let image = fixture.image();
    may_move(Head::open(blocks, image));
}

#[test]
fn what_falls_out_of_a_capped_collection_unlogged_falls_out_of_the_copy_too() {
    let mut fixture = Fixture::new();
    fixture.head = Head::new(
        fixture.blocks(),
        "4.4.2",
        Begin {
            tail_after: at(1),
            begin_applying: at(1),
        },
    )
    .unwrap();
    fixture.clock = 1;
    fixture.apply(
        "c",
        Some(1),
        doc! { "create": "c", "capped": true, "size": 4096, "max": 3 },
        doc! {},
    );
    for id in [1, 2, 3, 4] {
        fixture.insert(id, "a");
    }
    // It fell out without a word, and comes again as the newest.
    fixture.insert(1, "b");
    block_on(fixture.head.trim_capped(1000)).unwrap();
    fixture.spill();
    assert!(fixture.get(2).is_some(), "within the slack nothing is done");
    block_on(fixture.head.trim_capped(0)).unwrap();
    let left = [1, 2, 3, 4].map(|id| fixture.get(id).is_some());
    assert_eq!(left, [true, false, true, true]);
    fixture.insert(5, "c");
    block_on(fixture.head.trim_capped(0)).unwrap();
    assert_eq!(
        [1, 3, 4, 5].map(|id| fixture.get(id).is_some()),
        [true, false, true, true]
    );
    let mut scan = fixture.head.scan(uuid(1), None).unwrap();
    let mut in_order: Vec<_> = block_on(scan.next_batch())
        .unwrap()
        .into_iter()
        .map(|(key, _, place)| (place, key))
        .collect();
    in_order.sort();
    let keys: Vec<_> = in_order.into_iter().map(|(_, key)| key).collect();
    assert_eq!(keys, [key_of(4), key_of(1), key_of(5)]);
}
