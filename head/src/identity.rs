//! From a document key back to an `_id` that the source takes for equal.

use bytes::Bytes;
use headwater_oplog::key::DocumentKey;

/// TODO
pub(crate) fn of_key(_key: &DocumentKey) -> Option<Bytes> {
    None
}
