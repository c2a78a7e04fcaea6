//! Blocks in memory: a whole implementation of [`Blocks`] for simulation, tests and scratch space. It keeps the
//! promises of the trait but one: nothing in it outlives the process.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use headwater_model::BlockId;

use crate::blocks::Blocks;
use crate::objects::StoreError;

/// See the module.
#[derive(Default)]
pub struct MemoryBlocks {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    blocks: BTreeMap<BlockId, Bytes>,
    traffic: Traffic,
}

/// What went in and out since the blocks were made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Blocks that were new when they were put.
    pub new_blocks: u64,
    /// Their raw bytes.
    pub new_bytes: u64,
    /// Blocks that were there already when they were put.
    pub known_blocks: u64,
    /// Blocks read.
    pub reads: u64,
}

impl MemoryBlocks {
    /// No blocks yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// What went in and out so far.
    pub fn traffic(&self) -> Traffic {
        self.state().traffic
    }

    /// How many blocks there are.
    pub fn len(&self) -> usize {
        self.state().blocks.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes a block away, as a damaged disk would.
    pub fn lose(&self, id: BlockId) {
        self.state().blocks.remove(&id);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every critical section leaves the map whole, so a panic elsewhere while it was held does no harm.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Blocks for MemoryBlocks {
    async fn put(&self, raw: Bytes) -> Result<BlockId, StoreError> {
        let id = BlockId(*blake3::hash(&raw).as_bytes());
        let mut state = self.state();
        if state.blocks.contains_key(&id) {
            state.traffic.known_blocks += 1;
        } else {
            state.traffic.new_blocks += 1;
            state.traffic.new_bytes += raw.len() as u64;
            state.blocks.insert(id, raw);
        }
        Ok(id)
    }

    async fn get(&self, id: BlockId) -> Result<Bytes, StoreError> {
        let mut state = self.state();
        state.traffic.reads += 1;
        state
            .blocks
            .get(&id)
            .cloned()
            .ok_or_else(|| StoreError::NotFound(format!("block {id}")))
    }

    fn contains(&self, id: BlockId) -> bool {
        self.state().blocks.contains_key(&id)
    }

    async fn flush(&self) -> Result<(), StoreError> {
        Ok(())
    }
}
