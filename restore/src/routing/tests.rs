use bson::oid::ObjectId;
use bson::spec::BinarySubtype;
use bson::{Binary, doc};
use futures::executor::block_on;
use headwater_model::CollectionUuid;

use super::*;
use crate::source::{CollectionAtT, Held};

fn raw(document: &Document) -> Bytes {
    bson::serialize_to_vec(document).unwrap().into()
}

fn held(held: Held, namespace: &str, uuid: u8, documents: &[Document]) -> Held {
    let collection = CollectionAtT {
        namespace: Namespace::parse(namespace).unwrap(),
        uuid: CollectionUuid([uuid; 16]),
        options: doc! {},
        indexes: vec![doc! { "name": "_id_" }],
        documents: 0,
        bytes: 0,
    };
    held.with(collection, documents.iter().map(raw).collect())
}

fn uuid(n: u8) -> Bson {
    Bson::Binary(Binary {
        subtype: BinarySubtype::Uuid,
        bytes: vec![n; 16],
    })
}

/// `d` lives on sh0; `d.c` is sharded by `k` at 0: below on sh0, above on sh1.
fn config() -> Held {
    let chunk =
        |min: Bson, shard: &str| doc! { "_id": ObjectId::new(), "uuid": uuid(7), "min": { "k": min }, "shard": shard };
    let mut config = Held::default();
    for (namespace, number, documents) in [
        (
            "config.shards",
            1,
            vec![
                doc! { "_id": "sh0", "host": "a/a:1" },
                doc! { "_id": "sh1", "host": "b/b:1" },
            ],
        ),
        ("config.databases", 2, vec![doc! { "_id": "d", "primary": "sh0" }]),
        (
            "config.collections",
            3,
            vec![
                doc! { "_id": "d.c", "uuid": uuid(7), "key": { "k": 1 } },
                doc! { "_id": "d.old", "dropped": true },
            ],
        ),
        (
            "config.chunks",
            4,
            vec![chunk(Bson::MinKey, "sh0"), chunk(Bson::Int32(0), "sh1")],
        ),
        ("admin.system.users", 5, vec![doc! { "_id": "u" }]),
        ("config.changelog", 6, vec![doc! { "_id": 1 }]),
    ] {
        config = held(config, namespace, number, &documents);
    }
    config
}

fn document(id: i32, k: i32) -> Document {
    doc! { "_id": id, "k": k }
}

fn shard(name: &str, routing: &Arc<Routing>) -> Owned {
    let source = match name {
        "sh0" => [
            ("d.c", 7, vec![document(1, -1), document(2, 5)]),
            ("d.plain", 8, vec![document(1, 1)]),
            ("direct.c", 9, vec![document(1, 1)]),
            ("admin.system.users", 10, vec![doc! { "_id": "local" }]),
            ("config.cache.chunks.d.c", 11, vec![]),
        ],
        _ => [
            ("d.c", 7, vec![document(2, 5), document(3, 0), document(4, -7)]),
            ("d.plain", 12, vec![document(9, 9)]),
            ("direct.c", 13, vec![]),
            ("admin.system.users", 14, vec![]),
            ("config.rangeDeletions", 15, vec![document(1, 1)]),
        ],
    };
    let source = source
        .iter()
        .fold(Held::default(), |all, (namespace, number, documents)| {
            held(all, namespace, *number, documents)
        });
    Owned::new(name, Arc::new(source), routing.clone())
}

fn ids(source: &dyn Source, namespace: &str) -> Vec<i32> {
    let found = source
        .collections()
        .into_iter()
        .find(|c| c.namespace.to_string() == namespace);
    let mut ids = Vec::new();
    let mut rows = block_on(source.rows(found.unwrap().uuid, None)).unwrap();
    loop {
        let batch = block_on(rows.next_batch()).unwrap();
        if batch.is_empty() {
            return ids;
        }
        let id = |row: &crate::source::Row| bson::RawDocument::from_bytes(&row.doc).unwrap().get_i32("_id").unwrap();
        ids.extend(batch.iter().map(id));
    }
}

fn names(source: &dyn Source) -> Vec<String> {
    let mut names: Vec<_> = source.collections().iter().map(|c| c.namespace.to_string()).collect();
    names.sort();
    names
}

#[test]
fn a_shard_owns_what_the_chunks_say_and_what_is_on_the_primary_shard() {
    let routing = Arc::new(block_on(Routing::read(&config())).unwrap());
    let (first, second) = (shard("sh0", &routing), shard("sh1", &routing));
    assert_eq!(names(&first), ["admin.system.users", "d.c", "d.plain"]);
    assert_eq!(names(&second), ["admin.system.users", "d.c"]);
    assert_eq!((ids(&first, "d.c"), ids(&second, "d.c")), (vec![1], vec![2, 3]));
    assert_eq!(ids(&first, "d.plain"), [1]);
    assert_eq!(routing.place(&Namespace::new("direct", "c")), Place::Unknown);
    assert_eq!(routing.shards()["sh1"], "b/b:1");
}

#[test]
fn a_merged_cluster_has_every_document_once_and_goes_on_after_any_of_them() {
    let routing = Arc::new(block_on(Routing::read(&config())).unwrap());
    let shards = vec![shard("sh0", &routing), shard("sh1", &routing)];
    let merged = Merged::new(Arc::new(config()), shards);
    assert_eq!(names(&merged), ["admin.system.users", "d.c", "d.plain"]);
    assert_eq!(ids(&merged, "d.c"), [1, 2, 3]);
    assert_eq!(ids(&merged, "d.plain"), [1]);
    let of_cluster = CollectionUuid([7; 16]);
    let mut keys = vec![None];
    for left in (0..3).rev() {
        let mut rows = block_on(merged.rows(of_cluster, keys.last().unwrap().clone())).unwrap();
        let (mut count, mut first) = (0, None);
        loop {
            let batch = block_on(rows.next_batch()).unwrap();
            if batch.is_empty() {
                break;
            }
            first = first.or(batch.first().map(|row| row.key.clone()));
            count += batch.len();
        }
        assert_eq!(count, left + 1);
        keys.push(first);
    }
}

#[test]
fn tables_that_are_not_understood_are_refused() {
    for (namespace, wrong) in [
        ("config.shards", doc! { "_id": "sh0" }),
        ("config.databases", doc! { "_id": "d" }),
        ("config.collections", doc! { "_id": "d.c", "key": { "k": -1 } }),
        ("config.chunks", doc! { "uuid": uuid(7), "shard": "sh0" }),
    ] {
        let config = held(Held::default(), namespace, 1, &[wrong]);
        let fault = block_on(Routing::read(&config)).unwrap_err();
        assert!(fault.to_string().contains(namespace), "{fault}");
    }
}
