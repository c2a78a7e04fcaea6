//! What the tests of this room share.

use std::future::Future;

use bson::{Binary, Document, doc, spec::BinarySubtype};
use bytes::Bytes;
use headwater_model::{CollectionUuid, Optime, Ts};
use headwater_oplog::key::DocumentKey;

/// Runs a future on a runtime of one thread.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(future)
}

/// BSON bytes of a document.
pub(crate) fn raw(document: &Document) -> Bytes {
    bson::serialize_to_vec(document).unwrap().into()
}

/// The key of `{_id: id}`.
pub(crate) fn key_of(id: impl Into<bson::Bson>) -> DocumentKey {
    DocumentKey::of_document(&raw(&doc! { "_id": id.into() })).unwrap()
}

/// A UUID that is easy to read in a failure.
pub(crate) fn uuid(n: u8) -> CollectionUuid {
    CollectionUuid([n; 16])
}

pub(crate) fn bson_uuid(uuid: CollectionUuid) -> Binary {
    Binary {
        subtype: BinarySubtype::Uuid,
        bytes: uuid.0.to_vec(),
    }
}

/// Term 1 in all tests.
pub(crate) fn at(n: u64) -> Optime {
    Optime::new(Ts(n), 1)
}

/// An entry at position `n`, with the given fields on top.
pub(crate) fn entry(n: u64, op: &str, collection: Option<CollectionUuid>, o: Document, more: Document) -> Bytes {
    let ts = bson::Timestamp {
        time: (n >> 32) as u32,
        increment: n as u32,
    };
    let ns = if op == "c" { "db.$cmd" } else { "db.c" };
    let mut entry = doc! { "op": op, "ns": ns, "o": o, "ts": ts, "t": 1i64, "v": 2i64 };
    if let Some(collection) = collection {
        entry.insert("ui", bson_uuid(collection));
    }
    entry.extend(more);
    raw(&entry)
}
