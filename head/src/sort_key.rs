//! A key with its first bytes at hand: most comparisons end there, without a look elsewhere in memory.

use bytes::Bytes;

/// Orders as its bytes do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SortKey {
    /// The first 16 bytes, zeros behind a shorter key. Where two of these differ, the keys differ the same way.
    head: u128,
    bytes: Bytes,
}

impl SortKey {
    pub(crate) fn new(bytes: Bytes) -> Self {
        let mut head = [0; 16];
        let len = bytes.len().min(16);
        head[..len].copy_from_slice(&bytes[..len]);
        SortKey {
            head: u128::from_be_bytes(head),
            bytes,
        }
    }

    pub(crate) fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}
