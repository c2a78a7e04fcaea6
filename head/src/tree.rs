//! Trees of blocks: sorted records, cut by content, indexed from below.
//!
//! A tree maps key bytes to value bytes; it knows nothing of documents. Leaves hold records, interior nodes hold one
//! [`Entry`] per child. Where a node ends is decided by what is in it alone ([`cut`]), so the same records give the
//! same blocks whoever wrote them, in whatever steps; and a change moves no boundary but its own.
//!
//! A subtree that a change does not reach is taken over by [`TreeWriter::reuse`] without being read. That needs two
//! things: the writer stands at a boundary of that level, and the subtree is *sealed*: every node at its right edge
//! ended by its own content, not because the records ended or because something large came next.

mod cursor;
mod cut;
mod node;
mod writer;

pub use cursor::{Cursor, Position, find};
pub use node::{Entry, Interior, Leaf, Node, NodeFault};
pub use writer::TreeWriter;

use bytes::Bytes;
use headwater_model::BlockId;

/// A whole tree that has at least one record. An empty tree has no root: `Option<Root>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    /// The topmost block.
    pub id: BlockId,
    /// Its level; 0 for a leaf.
    pub level: u8,
    /// How many records there are.
    pub records: u64,
    /// The bytes of all values.
    pub bytes: u64,
    /// The last key.
    pub last: Bytes,
}

impl Root {
    /// The root as a child of nothing. It is never sealed: what would follow it is not known.
    pub(crate) fn entry(&self) -> Entry {
        Entry {
            last: self.last.clone(),
            id: self.id,
            records: self.records,
            bytes: self.bytes,
            sealed: false,
        }
    }
}

#[cfg(test)]
mod tests;
