//! Proving that an image is whole: every node above the leaves is read, every leaf known, every number agrees. Faults are
//! told, not raised, so that one does not hide the next.

use std::collections::BTreeSet;
use std::sync::Arc;

use headwater_model::BlockId;
use headwater_store::blocks::Blocks;
use headwater_store::objects::StoreError;

use crate::catalog;
use crate::error::HeadError;
use crate::image::{self, Image};
use crate::tree::{Entry, Node, Root};

/// A block that is not what an image needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockFault {
    /// The block.
    pub id: BlockId,
    /// What is wrong.
    pub detail: String,
}

/// What inspections of images of one replica set found together. A subtree that was whole in one is not entered again in
/// the next, so that the second image costs what differs.
#[derive(Debug, Default)]
pub struct Inspection {
    whole: BTreeSet<BlockId>,
    /// Read leaves too, all of them.
    pub read_leaves: bool,
    /// Nodes above the leaves that were read.
    pub nodes: u64,
    /// Leaves met.
    pub leaves: u64,
    /// Raw bytes read.
    pub bytes: u64,
    /// What is wrong, each block once.
    pub faults: Vec<BlockFault>,
}

impl Inspection {
    fn fault(&mut self, id: BlockId, detail: impl ToString) {
        if self.faults.iter().all(|known| known.id != id) {
            self.faults.push(BlockFault {
                id,
                detail: detail.to_string(),
            });
        }
    }

    /// Inspects an image. `Err` only for what says nothing about the image: a store that does not answer.
    pub async fn image(&mut self, blocks: &Arc<dyn Blocks>, image: &Image) -> Result<(), HeadError> {
        for root in [&image.catalog, &image.open_transactions].into_iter().flatten() {
            let before = self.faults.len();
            // The catalog is read whole in any case.
            let read_leaves = std::mem::replace(&mut self.read_leaves, true);
            let walked = self.tree(blocks, root).await;
            self.read_leaves = read_leaves;
            walked?;
            if self.faults.len() > before {
                return Ok(());
            }
        }
        let definitions = match catalog::read(blocks, image.catalog.as_ref()).await {
            Ok(definitions) => definitions,
            Err(error) => {
                let root = image.catalog.as_ref().map_or(BlockId([0; 32]), |root| root.id);
                return self.take(root, error);
            }
        };
        let totals = image::totals(&definitions);
        if totals != image.totals
            && let Some(root) = &image.catalog
        {
            let detail = format!("the catalog counts {totals:?} where the image says {:?}", image.totals);
            self.fault(root.id, detail);
        }
        for definition in definitions {
            for layer in &definition.layers {
                self.tree(blocks, &layer.root).await?;
            }
        }
        Ok(())
    }

    /// An error that is about this block becomes a fault.
    fn take(&mut self, id: BlockId, error: HeadError) -> Result<(), HeadError> {
        match error {
            HeadError::Store(StoreError::NotFound(_)) => self.fault(id, "it is in no pack"),
            HeadError::Store(StoreError::Damaged { key, detail }) => self.fault(id, format!("{key}: {detail}")),
            HeadError::Store(other) => return Err(HeadError::Store(other)),
            other => self.fault(id, other),
        }
        Ok(())
    }

    async fn tree(&mut self, blocks: &Arc<dyn Blocks>, root: &Root) -> Result<(), HeadError> {
        // A node stands here twice: to be opened, and below its children, to be found whole once all of them were.
        enum Visit {
            Open(u8, Entry),
            Close(BlockId, usize),
        }
        let mut left = vec![Visit::Open(root.level, root.entry())];
        while let Some(visit) = left.pop() {
            let (level, entry) = match visit {
                Visit::Open(level, entry) => (level, entry),
                Visit::Close(id, faults) => {
                    if self.faults.len() == faults {
                        self.whole.insert(id);
                    }
                    continue;
                }
            };
            if level == 0 {
                self.leaf(blocks, &entry).await?;
                continue;
            }
            if self.whole.contains(&entry.id) {
                continue;
            }
            let read = match blocks.get(entry.id).await {
                Ok(raw) => {
                    self.bytes += raw.len() as u64;
                    Node::decode(raw, level).map_err(|fault| HeadError::Node { id: entry.id, fault })
                }
                Err(error) => Err(error.into()),
            };
            let children = match read {
                Ok(Node::Interior(node)) => node.children,
                Ok(Node::Leaf(_)) => Vec::new(),
                Err(error) => {
                    self.take(entry.id, error)?;
                    continue;
                }
            };
            self.nodes += 1;
            let (records, bytes) = children
                .iter()
                .fold((0, 0), |sum, child| (sum.0 + child.records, sum.1 + child.bytes));
            if (records, bytes) != (entry.records, entry.bytes) {
                let (counted, size) = (entry.records, entry.bytes);
                let detail =
                    format!("it leads to {records} records of {bytes} bytes where {counted} of {size} are counted");
                self.fault(entry.id, detail);
            }
            left.push(Visit::Close(entry.id, self.faults.len()));
            left.extend(children.into_iter().map(|child| Visit::Open(level - 1, child)));
        }
        Ok(())
    }

    async fn leaf(&mut self, blocks: &Arc<dyn Blocks>, entry: &Entry) -> Result<(), HeadError> {
        self.leaves += 1;
        if !self.read_leaves {
            if !blocks.contains(entry.id) {
                self.fault(entry.id, "it is in no pack that is whole");
            }
            return Ok(());
        }
        let read = match blocks.get(entry.id).await {
            Ok(raw) => {
                self.bytes += raw.len() as u64;
                Node::decode(raw, 0).map_err(|fault| HeadError::Node { id: entry.id, fault })
            }
            Err(error) => Err(error.into()),
        };
        match read {
            Ok(Node::Leaf(leaf)) if leaf.len() as u64 == entry.records => {}
            Ok(Node::Leaf(leaf)) => {
                let detail = format!("it holds {} records where {} are counted", leaf.len(), entry.records);
                self.fault(entry.id, detail);
            }
            Ok(Node::Interior(_)) => self.fault(entry.id, "it is no leaf"),
            Err(error) => self.take(entry.id, error)?,
        }
        Ok(())
    }
}

/// Whether an image needs one of these blocks, as far as its nodes can be read: where one cannot, it counts as needed.
pub async fn needs(blocks: &Arc<dyn Blocks>, image: &Image, lost: &BTreeSet<BlockId>) -> Result<bool, HeadError> {
    let mut entered = BTreeSet::new();
    for root in [&image.catalog, &image.open_transactions].into_iter().flatten() {
        if tree_needs(blocks, root, lost, &mut entered).await? {
            return Ok(true);
        }
    }
    let definitions = match catalog::read(blocks, image.catalog.as_ref()).await {
        Ok(definitions) => definitions,
        Err(HeadError::Store(
            error @ (StoreError::Unavailable { .. } | StoreError::Full(_) | StoreError::Fenced { .. }),
        )) => return Err(error.into()),
        Err(_) => return Ok(true),
    };
    for definition in definitions {
        for layer in &definition.layers {
            if tree_needs(blocks, &layer.root, lost, &mut entered).await? {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

async fn tree_needs(
    blocks: &Arc<dyn Blocks>,
    root: &Root,
    lost: &BTreeSet<BlockId>,
    entered: &mut BTreeSet<BlockId>,
) -> Result<bool, HeadError> {
    let mut left = vec![(root.level, root.id)];
    while let Some((level, id)) = left.pop() {
        if lost.contains(&id) {
            return Ok(true);
        }
        if level == 0 || !entered.insert(id) {
            continue;
        }
        let raw = match blocks.get(id).await {
            Ok(raw) => raw,
            Err(StoreError::NotFound(_) | StoreError::Damaged { .. }) => return Ok(true),
            Err(other) => return Err(other.into()),
        };
        match Node::decode(raw, level) {
            Ok(Node::Interior(node)) => left.extend(node.children.into_iter().map(|child| (level - 1, child.id))),
            _ => return Ok(true),
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests;
