//! The first copy: slices of a collection, in the order of its scan, become its bottom layer.
//!
//! Consecutive slices of one part are sorted in memory and become a *run*, a tree of its own: that needs nothing but
//! those slices, so runs are built while the transfer goes on, several at once. At the end the runs are merged, at most
//! [`limits::MERGE_FAN_IN`] at once: memory stays bounded for any collection, by the slices of the runs being built or by
//! one node per level of each run merged. Where runs do not overlap, as when documents were scanned in the order of
//! their `_id`s, whole subtrees are taken over. What is merged otherwise leaves blocks behind that nothing refers to.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use headwater_model::{CollectionUuid, limits};
use headwater_oplog::key::DocumentKey;
use headwater_protocol::agent::CollectionMeta;
use headwater_protocol::slices;
use headwater_store::blocks::Blocks;
use headwater_store::objects::StoreError;

use crate::collection::{Layer, is_capped};
use crate::error::HeadError;
use crate::merge::{Merge, Run, Step, Value};
use crate::pace::Pace;
use crate::sort_key::SortKey;
use crate::stack;
use crate::tree::{Cursor, Root, TreeWriter};

/// Where consecutive slices of one part come from.
#[async_trait]
pub trait SliceSource: Send {
    /// The next slice; `None` after the last.
    async fn next(&mut self) -> Result<Option<SlicePayload>, StoreError>;
}

/// One sync slice.
#[derive(Clone, Debug)]
pub struct SlicePayload {
    /// Which slice of the part.
    pub number: u32,
    /// Documents, raw BSON back to back, in the order in which the scan met them.
    pub payload: Bytes,
}

/// A collection's bottom layer; for [`crate::Head::add_collection`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Built {
    /// The layer; `None` when there are no documents.
    pub layer: Option<Layer>,
    /// In a capped collection, the place of the next new document.
    pub next_place: u64,
}

/// Some consecutive slices of one part of a collection, sorted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SortedRun {
    root: Option<Root>,
    next_place: u64,
}

/// Builds bottom layers.
#[derive(Clone)]
pub struct Builder {
    blocks: Arc<dyn Blocks>,
}

impl Builder {
    /// Blocks go to `blocks`.
    pub fn new(blocks: Arc<dyn Blocks>) -> Self {
        Builder { blocks }
    }

    /// Makes a run of these slices of one part; all of them are held in memory. A document that comes twice counts as it
    /// came last.
    pub async fn run(&self, meta: &CollectionMeta, slices: &mut dyn SliceSource) -> Result<SortedRun, HeadError> {
        let mut gathered = Gathered {
            collection: meta.uuid,
            capped: is_capped(meta.options.as_bytes()),
            next_place: 0,
            documents: Vec::new(),
        };
        while let Some(slice) = slices.next().await? {
            gathered.next_place = first_place(slice.number);
            gathered.take(&slice.payload)?;
        }
        let next_place = gathered.next_place;
        let root = gathered.write(&self.blocks).await?;
        Ok(SortedRun { root, next_place })
    }

    /// Makes the bottom layer of all runs of a collection, ordered by part, then by number. A document that is in two of
    /// them counts as it is in the later one.
    pub async fn merge(&self, runs: Vec<SortedRun>) -> Result<Built, HeadError> {
        let next_place = runs.iter().map(|run| run.next_place).max().unwrap_or_default();
        let mut roots: Vec<Root> = runs.into_iter().filter_map(|run| run.root).collect();
        while roots.len() > 1 {
            let mut merged = Vec::new();
            for adjacent in roots.chunks(limits::MERGE_FAN_IN) {
                merged.extend(self.merged(adjacent).await?);
            }
            roots = merged;
        }
        Ok(Built {
            layer: roots.pop().map(|root| Layer { root, plain: true }),
            next_place,
        })
    }

    async fn merged(&self, runs: &[Root]) -> Result<Option<Root>, HeadError> {
        if let [only] = runs {
            return Ok(Some(only.clone()));
        }
        let cursor = |root| Run::<()>::Tree(Cursor::new(self.blocks.clone(), Some(root), None));
        let mut merge = Merge::new(runs.iter().map(cursor).collect());
        let mut writer = TreeWriter::new(self.blocks.clone());
        let mut pace = Pace::default();
        loop {
            match merge.next(|_, level, entry| writer.could_reuse(level, entry)).await? {
                None => return writer.finish().await,
                Some(Step::Subtree { level, entry, .. }) => {
                    writer.reuse(level, &entry).await?;
                }
                Some(Step::Record { key, oldest, mut newer }) => {
                    if let Value::Stored(value) = newer.pop().unwrap_or(oldest).1 {
                        writer.add(key, &value).await?;
                    }
                }
            }
            pace.step().await;
        }
    }
}

/// The place of a slice's first document: places ascend in the order of the scan, with gaps.
fn first_place(number: u32) -> u64 {
    u64::from(number) << 32
}

/// Documents gathered in memory.
struct Gathered {
    collection: CollectionUuid,
    capped: bool,
    next_place: u64,
    documents: Vec<(SortKey, Bytes, u64)>,
}

impl Gathered {
    /// Takes the documents of one slice. They stay slices of the payload: a payload is nothing but documents.
    fn take(&mut self, payload: &Bytes) -> Result<(), HeadError> {
        let collection = self.collection;
        let unusable = |detail: String| HeadError::Document { collection, detail };
        for document in slices::documents(payload) {
            let document = document.map_err(|fault| unusable(fault.to_string()))?;
            let key = DocumentKey::of_document(document).map_err(|fault| unusable(fault.to_string()))?;
            self.documents
                .push((SortKey::new(key.0), payload.slice_ref(document), self.next_place));
            self.next_place += 1;
        }
        Ok(())
    }

    /// Writes what was gathered as a tree.
    async fn write(mut self, blocks: &Arc<dyn Blocks>) -> Result<Option<Root>, HeadError> {
        // Stable: of equal keys the last to come stays last.
        self.documents.sort_by(|a, b| a.0.cmp(&b.0));
        let mut writer = TreeWriter::new(blocks.clone());
        let mut pace = Pace::default();
        let mut value = Vec::new();
        let mut documents = self.documents.into_iter().peekable();
        while let Some((key, doc, place)) = documents.next() {
            if documents.peek().is_some_and(|(next, ..)| *next == key) {
                continue;
            }
            value.clear();
            stack::bottom(doc, place, self.capped).encode(&mut value);
            writer.add(key.bytes().clone(), &value).await?;
            pace.step().await;
        }
        writer.finish().await
    }
}

#[cfg(test)]
mod tests;
