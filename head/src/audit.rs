//! Proving that a collection's blocks are there and say what its catalog says, without reading all of them.

use std::ops::AddAssign;
use std::sync::Arc;

use headwater_store::blocks::Blocks;
use headwater_store::objects::StoreError;

use crate::collection::Layer;
use crate::error::HeadError;
use crate::tree::{Entry, Node};

/// What an audit of trees found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Audited {
    /// Records in all leaves, by the nodes that were read.
    pub records: u64,
    /// Leaves, each of them known to the blockstore.
    pub leaves: u64,
    /// Leaves that were read and verified.
    pub leaves_read: u64,
}

impl AddAssign for Audited {
    fn add_assign(&mut self, other: Audited) {
        self.records += other.records;
        self.leaves += other.leaves;
        self.leaves_read += other.leaves_read;
    }
}

/// Walks every interior node of a layer, requires every leaf to be known to the blockstore, and reads every
/// `one_in`-th leaf (1: all). Numbers that parents and children disagree about are an error.
pub(crate) async fn layer(blocks: &Arc<dyn Blocks>, layer: &Layer, one_in: u64) -> Result<Audited, HeadError> {
    let mut audited = Audited::default();
    // The nodes still to visit; never more than a node's children per level.
    let mut left = vec![(layer.root.level, layer.root.entry())];
    while let Some((level, entry)) = left.pop() {
        if level == 0 {
            leaf(blocks, &entry, one_in, &mut audited).await?;
            continue;
        }
        let fault = |fault| HeadError::Node { id: entry.id, fault };
        if let Node::Interior(node) = Node::decode(blocks.get(entry.id).await?, level).map_err(fault)? {
            let below: u64 = node.children.iter().map(|child| child.records).sum();
            agree(&entry, below)?;
            left.extend(node.children.into_iter().map(|child| (level - 1, child)));
        }
    }
    agree(&layer.root.entry(), audited.records)?;
    Ok(audited)
}

async fn leaf(blocks: &Arc<dyn Blocks>, entry: &Entry, one_in: u64, audited: &mut Audited) -> Result<(), HeadError> {
    if !blocks.contains(entry.id) {
        return Err(StoreError::NotFound(format!("block {}", entry.id)).into());
    }
    if audited.leaves.is_multiple_of(one_in.max(1)) {
        let fault = |fault| HeadError::Node { id: entry.id, fault };
        if let Node::Leaf(leaf) = Node::decode(blocks.get(entry.id).await?, 0).map_err(fault)? {
            agree(entry, leaf.len() as u64)?;
        }
        audited.leaves_read += 1;
    }
    audited.leaves += 1;
    audited.records += entry.records;
    Ok(())
}

fn agree(entry: &Entry, records: u64) -> Result<(), HeadError> {
    if entry.records == records {
        return Ok(());
    }
    Err(HeadError::Count {
        id: entry.id,
        expected: entry.records,
        found: records,
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use headwater_store::memory_blocks::MemoryBlocks;

    use super::*;
    use crate::test_support::block_on;
    use crate::tree::TreeWriter;

    async fn tree(blocks: &Arc<MemoryBlocks>, records: u32) -> Layer {
        let mut writer = TreeWriter::new(blocks.clone());
        for n in 0..records {
            let value = vec![n as u8; 300];
            writer
                .add(Bytes::copy_from_slice(&n.to_be_bytes()), &value)
                .await
                .unwrap();
        }
        let root = writer.finish().await.unwrap().unwrap();
        Layer { root, plain: true }
    }

    #[test]
    fn an_audit_counts_all_and_reads_its_share() {
        block_on(async {
            let memory = Arc::new(MemoryBlocks::new());
            let blocks: Arc<dyn Blocks> = memory.clone();
            let tree = tree(&memory, 10_000).await;
            let all = layer(&blocks, &tree, 1).await.unwrap();
            assert_eq!((all.records, all.leaves_read), (10_000, all.leaves));
            let some = layer(&blocks, &tree, 4).await.unwrap();
            assert_eq!((some.records, some.leaves), (all.records, all.leaves));
            assert_eq!(some.leaves_read, all.leaves.div_ceil(4));
        });
    }

    #[test]
    fn a_leaf_that_is_not_there_is_found_even_when_it_would_not_be_read() {
        block_on(async {
            let (memory, elsewhere) = (Arc::new(MemoryBlocks::new()), Arc::new(MemoryBlocks::new()));
            let tree = tree(&memory, 10_000).await;
            // Only the nodes above the leaves.
            let mut above = vec![(tree.root.level, tree.root.id)];
            while let Some((level, id)) = above.pop() {
                let raw = memory.get(id).await.unwrap();
                if let Node::Interior(node) = Node::decode(raw.clone(), level).unwrap() {
                    elsewhere.put(raw).await.unwrap();
                    above.extend(node.children.iter().map(|child| (level - 1, child.id)));
                }
            }
            let blocks: Arc<dyn Blocks> = elsewhere;
            assert!(matches!(
                layer(&blocks, &tree, u64::MAX).await,
                Err(HeadError::Store(StoreError::NotFound(_)))
            ));
        });
    }

    #[test]
    fn a_root_that_counts_otherwise_is_refused() {
        block_on(async {
            let memory = Arc::new(MemoryBlocks::new());
            let blocks: Arc<dyn Blocks> = memory.clone();
            let mut tree = tree(&memory, 1000).await;
            tree.root.records += 1;
            assert!(matches!(layer(&blocks, &tree, 1).await, Err(HeadError::Count { .. })));
        });
    }
}
