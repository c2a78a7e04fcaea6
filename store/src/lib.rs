//! Bytes at rest: blockstore, oplog store, sync store, image manifests and their backends.

pub mod blocks;
pub mod memory_blocks;
pub mod objects;
