//! Reading a collection: its stack merged and settled, in the order of keys.

use std::sync::Arc;

use bytes::Bytes;
use headwater_model::{CollectionUuid, limits};
use headwater_oplog::key::DocumentKey;
use headwater_oplog::record::{Record, Settled};
use headwater_store::blocks::Blocks;

use crate::collection::Collection;
use crate::error::HeadError;
use crate::merge::{Merge, Run, Step};
use crate::pace::Pace;
use crate::stack;
use crate::tree::{self, Cursor};

/// The documents of a collection as they were when the scan began, whatever is applied meanwhile.
///
/// Holds some leaves of each layer in memory, and references to what was in memory when it began: spill before a scan
/// that is to last.
pub struct Scan {
    collection: CollectionUuid,
    merge: Merge<Record>,
    pace: Pace,
}

/// A document met by a scan: its key, its BSON, and its place (0 when the collection is not capped).
pub type Scanned = (DocumentKey, Bytes, u64);

/// What validation compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest {
    /// How many documents.
    pub documents: u64,
    /// Their bytes of BSON.
    pub bytes: u64,
    /// BLAKE3 over the documents, back to back, in the order of keys.
    pub hash: [u8; 32],
}

impl Scan {
    pub(crate) fn new(blocks: &Arc<dyn Blocks>, collection: &Collection, from: Option<DocumentKey>) -> Scan {
        let from = from.map(|key| key.0);
        let layers = collection.layers.iter();
        let tables = collection.frozen.iter().map(Arc::as_ref).chain([&collection.active]);
        let runs = layers
            .map(|layer| Run::Tree(Cursor::new(blocks.clone(), Some(&layer.root), from.clone())))
            .chain(tables.map(|table| {
                Run::memory(
                    table
                        .from(from.as_ref())
                        .map(|(key, record)| (key.clone(), record.clone()))
                        .collect(),
                )
            }))
            .collect();
        Scan {
            collection: collection.uuid(),
            merge: Merge::new(runs),
            pace: Pace::default(),
        }
    }

    /// About a mebibyte of documents; empty at the end.
    pub async fn next_batch(&mut self) -> Result<Vec<Scanned>, HeadError> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        while bytes < limits::SCAN_BATCH_BYTES
            && let Some(Step::Record { key, oldest, newer }) = self.merge.next(|_, _, _| false).await?
        {
            let record = stack::composed(self.collection, &key, oldest.1, newer)?;
            if let Settled::Document { doc, place } = stack::settled(self.collection, &key, record)? {
                bytes += doc.len();
                batch.push((DocumentKey(key), doc, place));
            }
            self.pace.step().await;
        }
        Ok(batch)
    }

    /// Reads to the end.
    pub async fn digest(mut self) -> Result<Digest, HeadError> {
        let (mut documents, mut bytes, mut hasher) = (0, 0, blake3::Hasher::new());
        loop {
            let batch = self.next_batch().await?;
            if batch.is_empty() {
                return Ok(Digest {
                    documents,
                    bytes,
                    hash: *hasher.finalize().as_bytes(),
                });
            }
            for (_, doc, _) in batch {
                documents += 1;
                bytes += doc.len() as u64;
                hasher.update(&doc);
            }
        }
    }
}

/// All that the stack knows of one document; `None` if nothing. Reads no further down than it must.
pub(crate) async fn known(
    blocks: &Arc<dyn Blocks>,
    collection: &Collection,
    key: &DocumentKey,
) -> Result<Option<Record>, HeadError> {
    let uuid = collection.uuid();
    let tables = [&collection.active]
        .into_iter()
        .chain(collection.frozen.iter().rev().map(Arc::as_ref));
    let in_memory: Vec<Record> = tables.filter_map(|table| table.get(&key.0).cloned()).collect();
    let mut known: Option<Record> = None;
    let mut in_memory = in_memory.into_iter();
    let mut layers = collection.layers.iter().rev();
    while !matches!(known, Some(Record::Document { .. } | Record::Deleted)) {
        let older = match in_memory.next() {
            Some(record) => record,
            None => match layers.next() {
                None => break,
                Some(layer) => match tree::find(blocks.clone(), Some(&layer.root), &key.0).await? {
                    Some(value) => stack::decoded(uuid, &value)?,
                    None => continue,
                },
            },
        };
        known = Some(match known.take() {
            None => older,
            Some(newer) => stack::compose(uuid, &key.0, older, newer)?,
        });
    }
    Ok(known)
}
