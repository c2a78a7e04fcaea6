//! Writing a tree from its records in order.

use std::sync::Arc;

use bytes::Bytes;
use headwater_model::limits;
use headwater_store::blocks::Blocks;

use super::node::{Entry, NodeBuffer, record_len};
use super::{Root, cut};
use crate::error::HeadError;

/// Takes records, or whole subtrees of another tree, in ascending order of their keys and gives back a root.
///
/// Holds one unfinished node per level; finished nodes are put at once.
pub struct TreeWriter {
    blocks: Arc<dyn Blocks>,
    /// The unfinished node of each level, leaf first.
    levels: Vec<Unfinished>,
    last: Option<Bytes>,
}

struct Unfinished {
    node: NodeBuffer,
    records: u64,
    bytes: u64,
    last: Bytes,
    /// Whether the newest child is sealed. Of no meaning in a leaf.
    last_sealed: bool,
}

impl Unfinished {
    fn new(level: usize) -> Self {
        Unfinished {
            node: NodeBuffer::new(level as u8),
            records: 0,
            bytes: 0,
            last: Bytes::new(),
            last_sealed: true,
        }
    }
}

impl TreeWriter {
    /// An empty tree.
    pub fn new(blocks: Arc<dyn Blocks>) -> Self {
        TreeWriter {
            blocks,
            levels: vec![Unfinished::new(0)],
            last: None,
        }
    }

    /// Adds a record; its key must be above all before.
    pub async fn add(&mut self, key: Bytes, value: &[u8]) -> Result<(), HeadError> {
        let len = record_len(&key, value);
        if len > limits::BLOCK_MAX_BYTES {
            return Err(HeadError::TooLarge(len));
        }
        self.ascend(&key)?;
        if cut::stands_alone(len) && !self.levels[0].node.is_empty() {
            self.finish_node(0, false).await?;
        }
        let leaf = &mut self.levels[0];
        leaf.node.record(&key, value);
        leaf.records += 1;
        leaf.bytes += value.len() as u64;
        let ends = cut::stands_alone(len) || cut::leaf_ends(leaf.node.size(), &key, len);
        leaf.last = key;
        if ends { self.finish_node(0, true).await } else { Ok(()) }
    }

    /// Takes over a subtree of this level as it is. `false` when that would give other blocks than writing its records:
    /// then the caller must open it.
    pub async fn reuse(&mut self, level: u8, entry: &Entry) -> Result<bool, HeadError> {
        if !self.could_reuse(level, entry) {
            return Ok(false);
        }
        self.ascend(&entry.last)?;
        if self.push_child(level as usize, entry.clone()) {
            self.finish_node(level as usize + 1, true).await?;
        }
        Ok(true)
    }

    /// Whether [`TreeWriter::reuse`] would take this subtree now.
    pub fn could_reuse(&self, level: u8, entry: &Entry) -> bool {
        entry.sealed && self.levels.iter().take(level as usize + 1).all(|l| l.node.is_empty())
    }

    /// Ends the tree. `None` if it has no records.
    pub async fn finish(mut self) -> Result<Option<Root>, HeadError> {
        let mut level = 0;
        loop {
            let top = level + 1 == self.levels.len();
            let unfinished = &self.levels[level];
            if top && level > 0 && unfinished.node.count() <= 1 {
                break;
            }
            if !unfinished.node.is_empty() {
                self.finish_node(level, false).await?;
            } else if top {
                return Ok(None);
            }
            level += 1;
        }
        // The topmost level has exactly one child: the root. Its id is known from its only item.
        let top = &mut self.levels[level];
        let (records, bytes, last) = (top.records, top.bytes, top.last.clone());
        let only = match super::Node::decode(top.node.finish(), level as u8) {
            Ok(super::Node::Interior(node)) => node.children.into_iter().next(),
            _ => None,
        };
        let id = only.ok_or(HeadError::Order)?.id;
        Ok(Some(Root {
            id,
            level: level as u8 - 1,
            records,
            bytes,
            last,
        }))
    }

    fn ascend(&mut self, key: &Bytes) -> Result<(), HeadError> {
        if self.last.as_ref().is_some_and(|last| last >= key) {
            return Err(HeadError::Order);
        }
        self.last = Some(key.clone());
        Ok(())
    }

    /// Puts the unfinished node of a level, makes it a child of the level above, and so on while nodes end by that.
    async fn finish_node(&mut self, mut level: usize, ended_itself: bool) -> Result<(), HeadError> {
        let mut sealed = ended_itself;
        loop {
            let mut done = std::mem::replace(&mut self.levels[level], Unfinished::new(level));
            sealed &= done.last_sealed;
            let id = self.blocks.put(done.node.finish()).await?;
            let entry = Entry {
                last: done.last,
                id,
                records: done.records,
                bytes: done.bytes,
                sealed,
            };
            if !self.push_child(level, entry) {
                return Ok(());
            }
            (level, sealed) = (level + 1, true);
        }
    }

    /// Puts a child of this level into the node above it; whether that node ends now.
    fn push_child(&mut self, level: usize, entry: Entry) -> bool {
        let above = level + 1;
        while self.levels.len() <= above {
            self.levels.push(Unfinished::new(self.levels.len()));
        }
        let parent = &mut self.levels[above];
        parent.node.child(&entry);
        parent.records += entry.records;
        parent.bytes += entry.bytes;
        parent.last_sealed = entry.sealed;
        parent.last = entry.last;
        cut::node_ends(above as u8, parent.node.count(), parent.node.size(), &parent.last)
    }
}
