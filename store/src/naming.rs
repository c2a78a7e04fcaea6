//! How blocks get their ids.

use std::fmt;
use std::sync::Arc;

use headwater_model::BlockId;

use crate::sealed::Secret;

/// Makes ids of raw bytes: BLAKE3, keyed where the store is encrypted, so that an id tells nothing to whoever guesses
/// what a block may hold. Cheap to clone.
#[derive(Clone, Default)]
pub struct BlockNaming(Option<Arc<Secret>>);

impl BlockNaming {
    /// With a key.
    pub(crate) fn keyed(key: Arc<Secret>) -> BlockNaming {
        BlockNaming(Some(key))
    }

    /// The id of a block with these bytes.
    pub fn id(&self, raw: &[u8]) -> BlockId {
        let hash = match &self.0 {
            None => blake3::hash(raw),
            Some(key) => blake3::keyed_hash(key.bytes(), raw),
        };
        BlockId(*hash.as_bytes())
    }

    /// Whether a block of this id may have these bytes.
    pub fn fits(&self, id: &BlockId, raw: &[u8]) -> bool {
        self.id(raw) == *id
    }
}

impl fmt::Debug for BlockNaming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "keyed" } else { "plain" })
    }
}
