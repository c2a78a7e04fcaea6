//! What a head sees of a blockstore.

use async_trait::async_trait;
use bytes::Bytes;
use headwater_model::BlockId;

use crate::objects::StoreError;

/// Content-addressed blocks. A block's id follows from its raw bytes ([`crate::naming`]).
#[async_trait]
pub trait Blocks: Send + Sync + 'static {
    /// Stores a block unless it is there already. Durable only after [`Blocks::flush`].
    async fn put(&self, raw: Bytes) -> Result<BlockId, StoreError>;
    /// Reads and verifies a block.
    async fn get(&self, id: BlockId) -> Result<Bytes, StoreError>;
    /// Whether the block is there (or is waiting for a flush).
    fn contains(&self, id: BlockId) -> bool;
    /// Makes every block put so far durable.
    async fn flush(&self) -> Result<(), StoreError>;
}
