//! Loads into a real mongod 6.0.5 and compares what is there with what was given.

// Helpers of tests are tests too; clippy's own exception covers only functions marked as such.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod meanwhile;
mod mongod;

use std::sync::Mutex;

use async_trait::async_trait;
use bson::{Bson, DateTime, Document, Timestamp, doc};
use headwater_model::{CollectionUuid, Namespace};
use headwater_protocol::admin::Rename;
use headwater_restore::load::{Cursor, LoadFault, Loaded, Observer, Settings, Step, Target, load};
use headwater_restore::naming::{Chosen, Selection, choose};
use headwater_restore::source::{self, CollectionAtT, Held, Source};

use mongod::{Mongod, held};

/// Keeps cursors, and stops after so many of them.
#[derive(Default)]
struct Kept {
    cursors: Mutex<Vec<Cursor>>,
    stop_after: Option<usize>,
    steps: Mutex<Vec<Step>>,
}

#[async_trait]
impl Observer for Kept {
    async fn keep(&self, cursor: &Cursor) -> Result<(), String> {
        let mut cursors = self.cursors.lock().unwrap();
        if self.stop_after.is_some_and(|n| cursors.len() >= n) {
            return Err("stopped by the test".to_owned());
        }
        cursors.push(cursor.clone());
        Ok(())
    }

    fn progress(&self, step: Step, _documents: u64, _bytes: u64) {
        let mut steps = self.steps.lock().unwrap();
        if steps.last() != Some(&step) {
            steps.push(step);
        }
    }
}

async fn chosen(source: &Held, renames: &[(&str, &str)], with_users: bool) -> Chosen {
    let renames: Vec<_> = renames
        .iter()
        .map(|(f, t)| Rename {
            from: f.to_string(),
            to: t.to_string(),
        })
        .collect();
    let selection = Selection::new(&[], &renames, with_users).unwrap();
    choose(source.collections(), source::views(source).await.unwrap(), &selection).unwrap()
}

async fn loaded(mongod: &Mongod, source: &Held, chosen: &Chosen, settings: &Settings) -> Result<Loaded, LoadFault> {
    let target = Target::new(&mongod.uri, 8).await?;
    load(source, chosen, &target, settings, Cursor::default(), &Kept::default()).await
}

fn settings() -> Settings {
    Settings::new("6.0.5")
}

async fn fill_with_every_kind(mongod: &Mongod) {
    let run = async |command: Document| mongod.run("src", command).await;
    let insert = async |collection: &str, documents: Vec<Document>| {
        let command = doc! { "insert": collection, "documents": documents, "bypassDocumentValidation": true };
        mongod.run("src", command).await
    };
    let empty = Timestamp { time: 0, increment: 0 };

    insert(
        "plain",
        (0..3000)
            .map(|n| doc! { "_id": n, "a": n % 7, "b": ["x", n], "text": "some words" })
            .collect(),
    )
    .await;
    insert(
        "plain",
        vec![
            doc! { "_id": "dots", "a.b": 1, "$c": 2 },
            doc! { "_id": { "x": 1 }, "t": 1 },
        ],
    )
    .await;
    let keep_empty = doc! { "_id": "empty", "t": empty, "z": 1, "p.q": empty };
    insert("plain", vec![keep_empty.clone()]).await;
    let replace = doc! { "q": { "_id": "empty" }, "u": [{ "$replaceWith": { "$literal": keep_empty } }] };
    run(doc! { "update": "plain", "updates": [replace] }).await;
    run(doc! { "createIndexes": "plain", "indexes": [
        { "key": { "a": 1, "b": -1 }, "name": "a_b" },
        { "key": { "text": "text" }, "name": "words", "weights": { "text": 3 } },
        { "key": { "a": 1 }, "name": "hidden", "hidden": true, "sparse": true },
        { "key": { "a": "hashed" }, "name": "hashed" },
        { "key": { "x.$**": 1 }, "name": "wild" },
        { "key": { "b": 1 }, "name": "partial", "partialFilterExpression": { "a": { "$gt": 3 } } },
        { "key": { "d": 1 }, "name": "ttl", "expireAfterSeconds": 60 },
        { "key": { "u": 1 }, "name": "unique", "unique": true, "partialFilterExpression": { "u": { "$gt": 0 } } },
        { "key": { "loc": "2dsphere" }, "name": "place", "collation": { "locale": "simple" } },
        { "key": { "text": 1 }, "name": "german", "collation": { "locale": "de", "strength": 1 } },
    ] })
    .await;

    run(doc! { "create": "capped", "capped": true, "size": 100_000, "max": 500 }).await;
    insert(
        "capped",
        (0..800)
            .map(|n| doc! { "_id": (n * 7919) % 1000, "n": n, "t": empty })
            .collect(),
    )
    .await;
    run(doc! { "create": "collated", "collation": { "locale": "en", "strength": 2 } }).await;
    insert(
        "collated",
        vec![
            doc! { "_id": "a" },
            doc! { "_id": "B" },
            doc! { "_id": "c", "t": empty },
        ],
    )
    .await;
    let validator = doc! { "$jsonSchema": { "required": ["a"] } };
    run(doc! { "create": "validated", "validator": validator, "validationAction": "error", "validationLevel": "moderate" }).await;
    insert("validated", vec![doc! { "_id": 1 }, doc! { "_id": 2, "a": 1 }]).await;
    let clustered = doc! { "key": { "_id": 1 }, "unique": true, "name": "cl" };
    run(doc! { "create": "clustered", "clusteredIndex": clustered, "expireAfterSeconds": 3600_i64 }).await;
    insert(
        "clustered",
        (0..50)
            .map(|n| doc! { "_id": DateTime::from_millis(n), "t": empty })
            .collect(),
    )
    .await;
    run(doc! { "createIndexes": "clustered", "indexes": [{ "key": { "a": 1 }, "name": "a_1" }] }).await;
    run(doc! { "create": "old", "idIndex": { "v": 1, "key": { "_id": 1 }, "name": "_id_" } }).await;
    let engine = doc! { "wiredTiger": { "configString": "block_compressor=zlib" } };
    run(doc! { "create": "engine", "storageEngine": engine, "changeStreamPreAndPostImages": { "enabled": true } })
        .await;
    run(doc! { "create": "empty" }).await;
    insert(
        "system.js",
        vec![doc! { "_id": "f", "value": Bson::JavaScriptCode("function() {}".into()) }],
    )
    .await;

    let timeseries = doc! { "timeField": "t", "metaField": "m", "granularity": "minutes" };
    run(doc! { "create": "weather", "timeseries": timeseries, "expireAfterSeconds": 3600_i64 }).await;
    let measured =
        |n: i64| doc! { "t": DateTime::from_millis(n * 60_000), "m": { "s": n % 5 }, "c": n as f64 / 3.0, "g": [1, 2] };
    insert("weather", (0..2000).map(measured).collect()).await;
    run(doc! { "createIndexes": "weather", "indexes": [
        { "key": { "m.s": 1, "t": -1 }, "name": "m_t" },
        { "key": { "c": 1 }, "name": "c" },
        { "key": { "g": "2dsphere" }, "name": "g" },
        { "key": { "t": 1 }, "name": "partial", "partialFilterExpression": { "c": { "$gt": 4 } } },
    ] })
    .await;
    let joined = doc! { "$lookup": { "from": "collated", "localField": "a", "foreignField": "_id", "as": "c" } };
    run(doc! { "create": "view", "viewOn": "plain", "pipeline": [{ "$match": { "a": 1 } }, joined], "collation": { "locale": "fr" } }).await;
    run(doc! { "create": "above", "viewOn": "view", "pipeline": [], "collation": { "locale": "fr" } }).await;
}

fn without_db(mut document: Document) -> Document {
    if let Ok(id) = document.get_str("_id").map(|id| id.replacen("src.", "dst.", 1)) {
        document.insert("_id", id);
    }
    document
}

#[tokio::test]
async fn every_kind_of_collection_comes_back_as_it_was() {
    let mongod = Mongod::start().await;
    fill_with_every_kind(&mongod).await;
    let before = mongod.database("src").await;
    let source = held(before.clone());
    let chosen = chosen(&source, &[("src.*", "dst.*")], false).await;
    let done = loaded(&mongod, &source, &chosen, &settings()).await.unwrap();
    assert_eq!(done.notes, Vec::<String>::new());
    let after = mongod.database("dst").await;

    let names = |database: &[(CollectionAtT, _)]| {
        database
            .iter()
            .map(|(c, _)| c.namespace.coll.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(names(&before), names(&after));
    for ((was, documents), (is, arrived)) in before.iter().zip(&after) {
        let name = &was.namespace.coll;
        assert_eq!(was.options, is.options, "options of {name}");
        assert_ne!(was.uuid, is.uuid);
        let by_name = |c: &CollectionAtT| {
            let mut indexes = c.indexes.clone();
            indexes.sort_by_key(|i| i.get_str("name").unwrap().to_owned());
            indexes
        };
        assert_eq!(by_name(was), by_name(is), "indexes of {name}");
        if name == "system.views" {
            let decoded = |d: &[bytes::Bytes]| -> Vec<Document> {
                d.iter()
                    .map(|d| without_db(bson::deserialize_from_slice(d).unwrap()))
                    .collect()
            };
            assert_eq!(decoded(documents), decoded(arrived));
        } else {
            assert!(documents == arrived, "documents of {name}");
        }
    }
    let seen = mongod.documents(&Namespace::new("dst", "weather"), true).await;
    assert_eq!(
        seen.len(),
        2000,
        "measurements are seen through the time-series collection"
    );
    let counted = done.collections.iter().find(|c| c.to.coll == "plain").unwrap();
    assert_eq!((counted.documents, counted.indexes), (3003, 10));
}

fn collection(name: &str) -> CollectionAtT {
    let uuid = CollectionUuid([name.len() as u8; 16]);
    let indexes = vec![
        doc! { "v": 2, "key": { "_id": 1 }, "name": "_id_" },
        doc! { "v": 2, "key": { "n": 1 }, "name": "n_1" },
    ];
    CollectionAtT {
        namespace: Namespace::parse(name).unwrap(),
        uuid,
        options: doc! {},
        indexes,
        documents: 0,
        bytes: 0,
    }
}

fn numbered(count: i64) -> Vec<bytes::Bytes> {
    let document = |n| doc! { "_id": n, "n": n, "filling": "x".repeat(1000) };
    (0..count)
        .map(|n| bson::serialize_to_vec(&document(n)).unwrap().into())
        .collect()
}

#[tokio::test]
async fn a_load_that_was_interrupted_goes_on_at_its_cursor() {
    let mongod = Mongod::start().await;
    let mut capped = collection("shop.caps");
    capped.options = doc! { "capped": true, "size": 10_000_000 };
    let source = Held::default()
        .with(collection("shop.orders"), numbered(12_000))
        .with(capped, numbered(100));
    let chosen = chosen(&source, &[], false).await;
    let target = Target::new(&mongod.uri, 8).await.unwrap();
    let mut cursor = Cursor::default();
    let mut interruptions = 0;
    for stop_after in [1, 1, 2, 2, 3, 100] {
        let kept = Kept {
            stop_after: Some(stop_after),
            ..Kept::default()
        };
        let result = load(&source, &chosen, &target, &settings(), cursor.clone(), &kept).await;
        cursor = kept.cursors.into_inner().unwrap().pop().unwrap();
        match result {
            Err(LoadFault::Keep(_)) => interruptions += 1,
            other => assert_eq!(other.unwrap().collections.len(), 2),
        }
    }
    assert!(interruptions >= 3, "{interruptions}");
    let orders = Namespace::new("shop", "orders");
    assert!(mongod.documents(&orders, false).await == numbered(12_000));
    assert!(mongod.documents(&Namespace::new("shop", "caps"), true).await == numbered(100));

    // In the middle of the documents: up to 4999 is safe, up to 8999 arrived beyond that.
    mongod
        .run(
            "shop",
            doc! { "delete": "orders", "deletes": [{ "q": { "_id": { "$gte": 9000 } }, "limit": 0 }] },
        )
        .await;
    let mut json = serde_json::to_value(&cursor).unwrap();
    let bytes: usize = numbered(5000).iter().map(|d| d.len()).sum();
    json["stages"]["shop.orders"] = serde_json::json!({ "documents": { "after": hex::encode(4999_u64.to_be_bytes()), "documents": 5000, "bytes": bytes } });
    let cursor: Cursor = serde_json::from_value(json).unwrap();
    let kept = Kept::default();
    let done = load(&source, &chosen, &target, &settings(), cursor, &kept)
        .await
        .unwrap();
    assert!(mongod.documents(&orders, false).await == numbered(12_000));
    let all: usize = numbered(12_000).iter().map(|d| d.len()).sum();
    let orders = done.collections.iter().find(|c| c.to == orders).unwrap();
    assert_eq!((orders.documents, orders.bytes), (12_000, all as u64));
    assert_eq!(
        *kept.steps.lock().unwrap(),
        [Step::Preparing, Step::Documents, Step::Indexes, Step::Verifying]
    );
}

#[tokio::test]
async fn what_is_at_the_target_is_refused_before_anything_is_written_or_dropped_when_asked() {
    let mongod = Mongod::start().await;
    mongod
        .run("shop", doc! { "insert": "orders", "documents": [{ "_id": "mine" }] })
        .await;
    let source = Held::default()
        .with(collection("shop.orders"), numbered(10))
        .with(collection("shop.other"), numbered(10));
    let chosen = chosen(&source, &[], false).await;

    let fault = loaded(&mongod, &source, &chosen, &settings()).await.unwrap_err();
    assert!(
        matches!(&fault, LoadFault::Exists { names } if names.len() == 1),
        "{fault}"
    );
    assert_eq!(mongod.database("shop").await.len(), 1, "nothing was written");

    let itself = Settings {
        source_hosts: vec![mongod.host.clone()],
        drop: true,
        ..settings()
    };
    let fault = loaded(&mongod, &source, &chosen, &itself).await.unwrap_err();
    assert!(fault.to_string().contains("belongs to the source"), "{fault}");
    let newer = Settings {
        source_version: "7.0.2".to_owned(),
        drop: true,
        ..settings()
    };
    let fault = loaded(&mongod, &source, &chosen, &newer).await.unwrap_err();
    assert!(fault.to_string().contains("needs 7.0 or newer"), "{fault}");
    assert_eq!(
        mongod.documents(&Namespace::new("shop", "orders"), false).await.len(),
        1,
        "nothing was dropped"
    );

    let drop = Settings {
        drop: true,
        ..settings()
    };
    loaded(&mongod, &source, &chosen, &drop).await.unwrap();
    assert!(mongod.documents(&Namespace::new("shop", "orders"), false).await == numbered(10));
}

#[tokio::test]
async fn users_roles_and_settings_come_back_and_those_of_the_target_stay() {
    let mongod = Mongod::start().await;
    mongod
        .run("shop", doc! { "createUser": "ann", "pwd": "old", "roles": ["read"] })
        .await;
    mongod
        .run("shop", doc! { "createUser": "bob", "pwd": "old", "roles": ["read"] })
        .await;
    mongod
        .run(
            "shop",
            doc! { "createRole": "clerk", "privileges": [], "roles": ["read"] },
        )
        .await;
    mongod
        .run(
            "config",
            doc! { "insert": "settings", "documents": [{ "_id": "mine", "a": 1 }] },
        )
        .await;
    let mut system = mongod.database("admin").await;
    system.extend(
        mongod
            .database("config")
            .await
            .into_iter()
            .filter(|(c, _)| c.namespace.coll == "settings"),
    );
    let source = held(system);
    mongod.run("shop", doc! { "dropUser": "ann" }).await;
    mongod.run("shop", doc! { "dropRole": "clerk" }).await;
    mongod
        .run(
            "config",
            doc! { "update": "settings", "updates": [{ "q": { "_id": "mine" }, "u": { "a": 2 } }] },
        )
        .await;

    let chosen = chosen(&source, &[], true).await;
    let done = loaded(&mongod, &source, &chosen, &settings()).await.unwrap();
    assert_eq!(
        done.notes,
        ["1 documents of admin.system.users were at the target already and stay as they are"]
    );
    let users = mongod.run("shop", doc! { "usersInfo": 1 }).await;
    assert_eq!(users.get_array("users").unwrap().len(), 2);
    let roles = mongod.run("shop", doc! { "rolesInfo": 1 }).await;
    assert_eq!(roles.get_array("roles").unwrap().len(), 1);
    let setting = mongod.documents(&Namespace::new("config", "settings"), false).await;
    assert!(setting.contains(&bson::serialize_to_vec(&doc! { "_id": "mine", "a": 1 }).unwrap().into()));
}

#[test]
fn a_load_may_run_on_any_thread() {
    fn is_send<T: Send>(_: T) {}
    let start = |source: &'static Held,
                 chosen: &'static Chosen,
                 target: &'static Target,
                 settings: &'static Settings,
                 kept: &'static Kept| {
        is_send(load(source, chosen, target, settings, Cursor::default(), kept));
    };
    let _ = start;
}

/// `restore/src/routing/hash.rs`: the server tells the key of a hashed index with `returnKey`.
#[tokio::test]
async fn hashed_shard_keys_are_those_of_the_server() {
    use bson::spec::BinarySubtype;
    use bson::{Binary, Decimal128, JavaScriptCodeWithScope, Regex};
    use headwater_restore::routing::ShardKey;

    let mongod = Mongod::start().await;
    let decimal = |text: &str| Bson::Decimal128(text.parse::<Decimal128>().unwrap());
    let binary = |subtype, bytes: &[u8]| {
        Bson::Binary(Binary {
            subtype,
            bytes: bytes.to_vec(),
        })
    };
    let mut values = vec![
        Bson::Null,
        Bson::Undefined,
        Bson::MinKey,
        Bson::MaxKey,
        Bson::Boolean(true),
        Bson::Boolean(false),
        Bson::String(String::new()),
        Bson::String("täxt".to_owned()),
        Bson::Symbol("täxt".to_owned()),
        Bson::ObjectId(bson::oid::ObjectId::from_bytes([7; 12])),
        Bson::DateTime(DateTime::from_millis(-5)),
        Bson::Timestamp(Timestamp { time: 5, increment: 6 }),
        binary(BinarySubtype::Generic, b"abc"),
        binary(BinarySubtype::Uuid, &[3; 16]),
        Bson::RegularExpression(Regex {
            pattern: "a.b".try_into().unwrap(),
            options: "i".try_into().unwrap(),
        }),
        Bson::JavaScriptCode("x()".to_owned()),
        Bson::JavaScriptCodeWithScope(JavaScriptCodeWithScope {
            code: "y".to_owned(),
            scope: doc! { "a": 1 },
        }),
        Bson::Document(doc! {}),
        Bson::Document(doc! { "a": 1, "b": { "c": [1, "two", {}] }, "d": 1.5 }),
    ];
    values.extend([0, 1, -1, i32::MAX].map(Bson::Int32));
    values.extend([i64::MIN, i64::MAX, 1 << 53, 7].map(Bson::Int64));
    values.extend(
        [
            0.0,
            -0.0,
            7.9,
            -7.9,
            1e300,
            -1e300,
            f64::NAN,
            f64::INFINITY,
            f64::NEG_INFINITY,
            9_223_372_036_854_775_808.0,
        ]
        .map(Bson::Double),
    );
    values.extend(
        [
            "7.5",
            "-7.5",
            "8.5",
            "1E+40",
            "-1E+40",
            "NaN",
            "Infinity",
            "0E-10",
            "9223372036854775807.9",
        ]
        .map(decimal),
    );
    let create = doc! { "createIndexes": "h", "indexes": [{ "key": { "k": "hashed" }, "name": "k_hashed" }] };
    mongod.run("src", create).await;
    let key = ShardKey::read(&doc! { "k": "hashed" }).unwrap();
    for (number, value) in values.into_iter().enumerate() {
        let number = number as i32;
        let document = doc! { "_id": number, "k": value };
        mongod
            .run("src", doc! { "insert": "h", "documents": [document.clone()] })
            .await;
        let find = doc! { "find": "h", "filter": { "_id": number }, "hint": "k_hashed", "returnKey": true };
        let reply = mongod.run("src", find).await;
        let found = reply.get_document("cursor").unwrap().get_array("firstBatch").unwrap()[0]
            .as_document()
            .unwrap();
        let wanted = key.of_bound(&bson::serialize_to_vec(found).unwrap()).unwrap();
        let ours = key.of_document(&bson::serialize_to_vec(&document).unwrap()).unwrap();
        assert_eq!(ours, wanted, "{document}: {found}");
    }
}
