//! The first copy: slices of a collection, in the order of its scan, become its bottom layer.
//!
//! Adjacent slices are gathered into groups that are sorted in memory; each group becomes a *run*, a tree of its own.
//! Runs are merged at most [`limits::MERGE_FAN_IN`] at once, so memory stays bounded for any collection: one group, or
//! one node per level of each run merged. Where runs do not overlap, as when documents were inserted in the order of
//! their `_id`s, whole subtrees are taken over.

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

/// Where the slices of one collection come from: ordered by part, then by number.
#[async_trait]
pub trait SliceSource: Send {
    /// The next slice; `None` after the last.
    async fn next(&mut self) -> Result<Option<SlicePayload>, StoreError>;
}

/// One sync slice.
#[derive(Clone, Debug)]
pub struct SlicePayload {
    /// Which part of the collection's scan.
    pub part: u32,
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

/// Builds bottom layers.
#[derive(Clone)]
pub struct Builder {
    blocks: Arc<dyn Blocks>,
    scratch: Arc<dyn Blocks>,
    group_bytes: usize,
}

impl Builder {
    /// Layers go to `blocks`, runs that are only merged to `scratch`. Both may be the same: then subtrees are taken over
    /// unread, and blocks of runs that were merged otherwise stay behind as garbage.
    pub fn new(blocks: Arc<dyn Blocks>, scratch: Arc<dyn Blocks>) -> Self {
        Builder {
            blocks,
            scratch,
            group_bytes: limits::BUILD_GROUP_BYTES,
        }
    }

    /// The same with groups of another size: a budget of memory, in bytes.
    pub fn with_group_bytes(self, group_bytes: usize) -> Self {
        Builder { group_bytes, ..self }
    }

    /// Builds one collection. A document that comes twice counts as it came last.
    pub async fn build(&self, meta: &CollectionMeta, slices: &mut dyn SliceSource) -> Result<Built, HeadError> {
        let capped = is_capped(meta.options.as_bytes());
        let mut group = Group {
            collection: meta.uuid,
            capped,
            next_place: 0,
            bytes: 0,
            documents: Vec::new(),
        };
        // Runs by how often they were merged; within a level, and from the last level to the first, older before newer.
        let mut levels: Vec<Vec<Root>> = vec![Vec::new()];
        while let Some(slice) = slices.next().await? {
            group.gather(&slice.payload)?;
            if group.bytes >= self.group_bytes {
                levels[0].extend(group.write(&self.scratch).await?);
                self.merge_full_levels(&mut levels).await?;
            }
        }
        let root = if levels.iter().all(Vec::is_empty) {
            group.write(&self.blocks).await?
        } else {
            levels[0].extend(group.write(&self.scratch).await?);
            while levels.iter().map(Vec::len).sum::<usize>() > limits::MERGE_FAN_IN {
                let least = levels.iter().position(|level| !level.is_empty()).unwrap_or_default();
                self.merge_level(&mut levels, least).await?;
            }
            let runs: Vec<Root> = levels.into_iter().rev().flatten().collect();
            self.merged(&runs, &self.blocks).await?
        };
        Ok(Built {
            layer: root.map(|root| Layer { root, plain: true }),
            next_place: group.next_place,
        })
    }

    async fn merge_full_levels(&self, levels: &mut Vec<Vec<Root>>) -> Result<(), HeadError> {
        let mut level = 0;
        while levels.get(level).is_some_and(|runs| runs.len() >= limits::MERGE_FAN_IN) {
            self.merge_level(levels, level).await?;
            level += 1;
        }
        Ok(())
    }

    /// Makes one run, a level higher, of all runs of a level.
    async fn merge_level(&self, levels: &mut Vec<Vec<Root>>, level: usize) -> Result<(), HeadError> {
        let merged = self.merged(&std::mem::take(&mut levels[level]), &self.scratch).await?;
        if levels.len() == level + 1 {
            levels.push(Vec::new());
        }
        levels[level + 1].extend(merged);
        Ok(())
    }

    async fn merged(&self, runs: &[Root], to: &Arc<dyn Blocks>) -> Result<Option<Root>, HeadError> {
        let shared = std::ptr::addr_eq(Arc::as_ptr(to), Arc::as_ptr(&self.scratch));
        let cursor = |root| Run::<()>::Tree(Cursor::new(self.scratch.clone(), Some(root), None));
        let mut merge = Merge::new(runs.iter().map(cursor).collect());
        let mut writer = TreeWriter::new(to.clone());
        let mut pace = Pace::default();
        loop {
            match merge
                .next(|_, level, entry| shared && writer.could_reuse(level, entry))
                .await?
            {
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

/// Documents gathered in memory.
struct Group {
    collection: CollectionUuid,
    capped: bool,
    next_place: u64,
    bytes: usize,
    documents: Vec<(SortKey, Bytes, u64)>,
}

impl Group {
    /// Takes the documents of one slice. They stay slices of the payload: a payload is nothing but documents.
    fn gather(&mut self, payload: &Bytes) -> Result<(), HeadError> {
        let collection = self.collection;
        let unusable = |detail: String| HeadError::Document { collection, detail };
        for document in slices::documents(payload) {
            let document = document.map_err(|fault| unusable(fault.to_string()))?;
            let key = DocumentKey::of_document(document).map_err(|fault| unusable(fault.to_string()))?;
            self.bytes += document.len() + key.0.len() + size_of::<(SortKey, Bytes, u64)>();
            self.documents
                .push((SortKey::new(key.0), payload.slice_ref(document), self.next_place));
            self.next_place += 1;
        }
        Ok(())
    }

    /// Writes what was gathered as a tree, and forgets it.
    async fn write(&mut self, blocks: &Arc<dyn Blocks>) -> Result<Option<Root>, HeadError> {
        self.bytes = 0;
        let mut documents = std::mem::take(&mut self.documents);
        // Stable: of equal keys the last to come stays last.
        documents.sort_by(|a, b| a.0.cmp(&b.0));
        let mut writer = TreeWriter::new(blocks.clone());
        let mut pace = Pace::default();
        let mut value = Vec::new();
        let mut documents = documents.into_iter().peekable();
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
