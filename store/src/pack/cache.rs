//! Raw blocks kept in memory, the least recently used going first.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use headwater_model::BlockId;

/// What one kept block costs besides its bytes.
const OVERHEAD: usize = 160;

/// A cache bounded by bytes.
pub struct BlockCache {
    limit: usize,
    bytes: usize,
    clock: u64,
    blocks: HashMap<BlockId, (Bytes, u64)>,
    by_use: BTreeMap<u64, BlockId>,
}

impl BlockCache {
    /// An empty cache that never holds more than `limit` bytes.
    pub fn new(limit: usize) -> Self {
        BlockCache {
            limit,
            bytes: 0,
            clock: 0,
            blocks: HashMap::new(),
            by_use: BTreeMap::new(),
        }
    }

    /// A block, if it is here; it counts as used.
    pub fn get(&mut self, id: &BlockId) -> Option<Bytes> {
        let (bytes, used) = self.blocks.get_mut(id)?;
        self.by_use.remove(used);
        self.clock += 1;
        *used = self.clock;
        self.by_use.insert(self.clock, *id);
        Some(bytes.clone())
    }

    /// Keeps a block, unless it alone would push out an eighth of the cache.
    pub fn insert(&mut self, id: BlockId, bytes: Bytes) {
        let cost = bytes.len() + OVERHEAD;
        if cost > self.limit / 8 || self.blocks.contains_key(&id) {
            return;
        }
        self.clock += 1;
        self.bytes += cost;
        self.blocks.insert(id, (bytes, self.clock));
        self.by_use.insert(self.clock, id);
        while self.bytes > self.limit {
            let Some((_, oldest)) = self.by_use.pop_first() else {
                return;
            };
            if let Some((bytes, _)) = self.blocks.remove(&oldest) {
                self.bytes -= bytes.len() + OVERHEAD;
            }
        }
    }

    /// Bytes held, overhead included.
    #[cfg(test)]
    fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u8) -> BlockId {
        BlockId([n; 32])
    }

    #[test]
    fn the_block_used_longest_ago_goes_first_and_the_bound_holds() {
        let mut cache = BlockCache::new(8 * 1000);
        for n in 0..8 {
            cache.insert(id(n), vec![n; 1000 - OVERHEAD].into());
        }
        assert!(cache.get(&id(0)).is_some());
        cache.insert(id(8), vec![8; 1000 - OVERHEAD].into());
        assert!(cache.get(&id(0)).is_some());
        assert!(cache.get(&id(1)).is_none());
        assert_eq!(cache.bytes(), 8000);
    }

    #[test]
    fn one_large_block_does_not_push_out_the_others() {
        let mut cache = BlockCache::new(8 * 1000);
        cache.insert(id(1), vec![1; 10].into());
        cache.insert(id(2), vec![2; 1001].into());
        assert!(cache.get(&id(1)).is_some());
        assert!(cache.get(&id(2)).is_none());
    }
}
