//! Honest worlds in memory, deterministic from a seed: a disk that forgets what was not flushed, and a network of
//! processes in one place.

mod disk;
mod network;

pub use disk::{MemoryDisk, MemoryKv};
pub use network::{MemoryNetwork, MemoryTransport};
