//! Raw `insert` and `update` commands, built without decoding a document. Pure.

use bson::raw::cstr;
use bson::{RawDocument, RawDocumentBuf};
use bytes::Bytes;
use headwater_model::limits;

use super::target::MAJORITY_WITHIN;
use crate::source::Row;

/// A batch is sent once it holds this many bytes: large enough that a round trip does not matter, small enough that
/// a dozen under way do not either.
const TARGET_BYTES: usize = 4 * limits::MIB;
/// The most documents of one insert command that a server takes.
const MAX_DOCUMENTS: usize = 100_000;

/// Documents on their way, in order.
#[derive(Clone, Debug)]
pub(super) struct Batch {
    pub number: u64,
    pub last_key: Bytes,
    pub bytes: u64,
    pub documents: Vec<Bytes>,
}

/// Gathers rows to batches.
#[derive(Debug, Default)]
pub(super) struct Batcher {
    number: u64,
    documents: Vec<Bytes>,
    bytes: usize,
    last_key: Bytes,
}

impl Batcher {
    /// Whether the next document must not be added before [`Batcher::take`].
    pub fn is_full(&self, next: usize) -> bool {
        !self.documents.is_empty() && (self.bytes + next > TARGET_BYTES || self.documents.len() >= MAX_DOCUMENTS)
    }

    pub fn add(&mut self, row: Row) {
        self.bytes += row.doc.len();
        self.last_key = row.key;
        self.documents.push(row.doc);
    }

    /// What was gathered; `None` if there is nothing.
    pub fn take(&mut self) -> Option<Batch> {
        if self.documents.is_empty() {
            return None;
        }
        let batch = Batch {
            number: self.number,
            last_key: self.last_key.clone(),
            bytes: std::mem::take(&mut self.bytes) as u64,
            documents: std::mem::take(&mut self.documents),
        };
        self.number += 1;
        Some(batch)
    }
}

/// Writes BSON front to back; lengths are filled in when a document or array is closed.
struct Writer {
    out: Vec<u8>,
    open: Vec<usize>,
}

impl Writer {
    fn new(capacity: usize) -> Self {
        let mut writer = Writer {
            out: Vec::with_capacity(capacity),
            open: Vec::new(),
        };
        writer.begin();
        writer
    }

    fn begin(&mut self) {
        self.open.push(self.out.len());
        self.out.extend_from_slice(&[0; 4]);
    }

    fn name(&mut self, kind: u8, name: &str) {
        self.out.push(kind);
        self.out.extend_from_slice(name.as_bytes());
        self.out.push(0);
    }

    fn text(&mut self, name: &str, value: &str) {
        self.name(0x02, name);
        self.out.extend_from_slice(&(value.len() as u32 + 1).to_le_bytes());
        self.out.extend_from_slice(value.as_bytes());
        self.out.push(0);
    }

    fn boolean(&mut self, name: &str, value: bool) {
        self.name(0x08, name);
        self.out.push(u8::from(value));
    }

    fn document(&mut self, name: &str, raw: &[u8]) {
        self.name(0x03, name);
        self.out.extend_from_slice(raw);
    }

    fn end(&mut self) {
        self.out.push(0);
        if let Some(start) = self.open.pop() {
            let len = (self.out.len() - start) as u32;
            self.out[start..start + 4].copy_from_slice(&len.to_le_bytes());
        }
    }

    fn majority(&mut self) {
        self.name(0x03, "writeConcern");
        self.begin();
        self.text("w", "majority");
        self.name(0x10, "wtimeout");
        self.out
            .extend_from_slice(&(MAJORITY_WITHIN.as_millis() as i32).to_le_bytes());
        self.end();
    }

    fn finish(mut self) -> bson::error::Result<RawDocumentBuf> {
        self.end();
        RawDocumentBuf::from_bytes(self.out)
    }
}

/// The command that inserts documents as they are, past validators, until a majority has them.
pub(crate) fn insert(collection: &str, documents: &[Bytes]) -> bson::error::Result<RawDocumentBuf> {
    let bytes: usize = documents.iter().map(|d| d.len() + 8).sum();
    let mut writer = Writer::new(bytes + 256);
    writer.text("insert", collection);
    // One document that fails does not keep the others back; the server still takes them in this order.
    writer.boolean("ordered", false);
    writer.boolean("bypassDocumentValidation", true);
    writer.majority();
    writer.name(0x04, "documents");
    writer.begin();
    for (n, document) in documents.iter().enumerate() {
        writer.document(&n.to_string(), document);
    }
    writer.end();
    writer.finish()
}

/// Whether a server would put its own time in place of an empty timestamp in this document when it is inserted.
pub(super) fn has_empty_timestamp(document: &[u8]) -> bool {
    RawDocument::from_bytes(document).is_ok_and(|d| {
        d.iter_elements().flatten().any(|e| {
            e.element_type() == bson::spec::ElementType::Timestamp
                && e.key().as_str() != "_id"
                && e.value()
                    .is_ok_and(|v| v.as_timestamp() == Some(bson::Timestamp { time: 0, increment: 0 }))
        })
    })
}

/// The command that puts one document, empty timestamps included, in place of the one with the same `_id`: an update by
/// pipeline keeps them, and a literal keeps field names of any kind. With `upsert` it need not be there. `None` if the document has no `_id`.
pub(super) fn replace(collection: &str, document: &[u8], upsert: bool) -> bson::error::Result<Option<RawDocumentBuf>> {
    let raw = RawDocument::from_bytes(document)?;
    let Some(id) = raw.iter_elements().flatten().find(|e| e.key().as_str() == "_id") else {
        return Ok(None);
    };
    let mut writer = Writer::new(document.len() + 512);
    writer.text("update", collection);
    writer.boolean("bypassDocumentValidation", true);
    writer.majority();
    writer.name(0x04, "updates");
    writer.begin();
    writer.name(0x03, "0");
    writer.begin();
    writer.name(0x03, "q");
    writer.begin();
    let mut equals = RawDocumentBuf::new();
    equals.append(cstr!("$eq"), id.value()?);
    writer.document("_id", equals.as_bytes());
    writer.end();
    writer.name(0x04, "u");
    writer.begin();
    writer.name(0x03, "0");
    writer.begin();
    writer.name(0x03, "$replaceWith");
    writer.begin();
    writer.document("$literal", document);
    for _ in 0..3 {
        writer.end();
    }
    writer.boolean("upsert", upsert);
    for _ in 0..2 {
        writer.end();
    }
    writer.finish().map(Some)
}

#[cfg(test)]
mod tests {
    use super::super::target::majority;
    use super::*;
    use bson::{Document, Timestamp, doc};

    fn raw(document: Document) -> Bytes {
        bson::serialize_to_vec(&document).unwrap().into()
    }

    fn decoded(command: &RawDocumentBuf) -> Document {
        bson::deserialize_from_slice(command.as_bytes()).unwrap()
    }

    #[test]
    fn an_insert_carries_its_documents_unchanged() {
        let documents: Vec<_> = (0..12).map(|n| doc! { "_id": n, "a.$b": "x" }).collect();
        let raws: Vec<_> = documents.iter().cloned().map(raw).collect();
        assert_eq!(
            decoded(&insert("c", &raws).unwrap()),
            doc! {
                "insert": "c", "ordered": false, "bypassDocumentValidation": true,
                "writeConcern": majority(), "documents": documents,
            }
        );
    }

    #[test]
    fn a_replacement_names_the_id_and_the_whole_document() {
        let document = doc! { "_id": { "a": 1 }, "t": Timestamp { time: 0, increment: 0 } };
        assert_eq!(
            decoded(&replace("c", &raw(document.clone()), true).unwrap().unwrap()),
            doc! {
                "update": "c", "bypassDocumentValidation": true, "writeConcern": majority(),
                "updates": [{ "q": { "_id": { "$eq": { "a": 1 } } }, "u": [{ "$replaceWith": { "$literal": document } }], "upsert": true }],
            }
        );
        assert_eq!(replace("c", &raw(doc! { "a": 1 }), false).unwrap(), None);
    }

    #[test]
    fn empty_timestamps_matter_at_the_top_only_and_not_in_the_id() {
        let empty = Timestamp { time: 0, increment: 0 };
        for (document, matters) in [
            (doc! { "_id": 1, "t": empty }, true),
            (doc! { "_id": empty, "t": 1 }, false),
            (doc! { "_id": 1, "t": { "t": empty }, "a": [empty] }, false),
            (doc! { "_id": 1, "t": Timestamp { time: 0, increment: 1 } }, false),
        ] {
            assert_eq!(has_empty_timestamp(&raw(document.clone())), matters, "{document}");
        }
    }

    #[test]
    fn batches_close_by_bytes_and_a_large_document_goes_alone() {
        let row = |n: u8, len: usize| Row {
            key: Bytes::from(vec![n]),
            doc: Bytes::from(vec![0; len]),
        };
        let mut batcher = Batcher::default();
        assert!(!batcher.is_full(20 << 20));
        batcher.add(row(1, 3 << 20));
        assert!(batcher.is_full(2 << 20));
        assert!(!batcher.is_full(1 << 20));
        batcher.add(row(2, 1 << 20));
        assert!(batcher.is_full(1));
        let batch = batcher.take().unwrap();
        assert_eq!(
            (batch.number, batch.documents.len(), batch.bytes, &batch.last_key[..]),
            (0, 2, 4 << 20, &[2][..])
        );
        assert!(batcher.take().is_none());
        batcher.add(row(3, 1));
        assert_eq!(batcher.take().unwrap().number, 1);
    }
}
