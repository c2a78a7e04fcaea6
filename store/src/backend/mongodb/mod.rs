//! Objects in a database of a MongoDB replica set.
//!
//! | collection | a document is | `_id` |
//! |---|---|---|
//! | `objects` | one object: `{size, data}`, or `{size, chunks}` when its bytes are apart | the key |
//! | `chunks` | [`CHUNK_BYTES`] of an object: `{d}` | 16 bytes of `chunks`, then the number of the chunk, big-endian |
//! | `pending` | bytes apart that no object names yet, or any more: `{dropped?}` | the 16 bytes of `chunks` |
//!
//! What the promises of [`Objects`] rest on: every write is acknowledged by a majority and journaled (`w: majority,
//! j: true`); the key is the unique index; bytes apart become an object, and stop being one, in a transaction that
//! takes their entry out of `pending`, or puts it there. Bytes whose entry stays are removed later (`leftovers`), and a
//! transaction that comes after that finds no entry and fails: no object ever names bytes that are gone.
//!
//! Reads see majority-committed data only. A new primary may for a moment not know how far the majority is; what says
//! that something is not there, and every listing, therefore waits until the primary's newest entry is committed.
//! A primary that was deposed and does not know it can answer a read with what was true before, never acknowledge a
//! write: whoever read so cannot do harm with it.

mod connect;
mod failure;
mod leftovers;
mod read;
#[cfg(test)]
mod scripted;
mod write;

use std::ops::Range;
use std::time::Duration;

use async_trait::async_trait;
use bson::RawDocumentBuf;
use bytes::Bytes;
use headwater_host::Host;
use mongodb::{Client, Collection, Database};

pub use connect::{BackingSet, connect};

use crate::objects::{ObjectMeta, Objects, Put, StoreError, check_key, check_prefix};

/// Bytes of one chunk. A block is read with one or two of them; a pack is written with dozens.
pub const CHUNK_BYTES: usize = 256 << 10;
/// Objects up to this many bytes rest in one document.
const INLINE_BYTES: usize = CHUNK_BYTES;
/// How long an operation may take in all, an election of the backing set included.
const PATIENCE: Duration = Duration::from_secs(40);

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct MongodbObjects {
    client: Client,
    database: Database,
    objects: Collection<RawDocumentBuf>,
    chunks: Collection<RawDocumentBuf>,
    pending: Collection<RawDocumentBuf>,
    host: Host,
}

/// The name of bytes apart: six bytes of milliseconds since 1970, so that new ones lie together in the index, and ten
/// random ones.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Apart([u8; 16]);

impl Apart {
    fn new(host: &Host) -> Apart {
        let mut name = [0; 16];
        host.entropy.fill(&mut name);
        name[..6].copy_from_slice(&host.clock.now_ms().to_be_bytes()[2..]);
        Apart(name)
    }

    fn made_ms(self) -> u64 {
        self.0[..6].iter().fold(0, |ms, byte| ms << 8 | u64::from(*byte))
    }

    fn chunk(self, number: u32) -> Vec<u8> {
        [&self.0[..], &number.to_be_bytes()].concat()
    }
}

/// Where an object's bytes are.
struct Found {
    size: u64,
    bytes: Where,
}

enum Where {
    Inline(Bytes),
    Apart(Apart),
}

impl MongodbObjects {
    /// An operation with an end: a server that went silent must not hold its callers for ever.
    async fn within<T>(
        &self,
        key: &str,
        operation: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let ended = tokio::time::timeout(PATIENCE, operation).await;
        ended.unwrap_or_else(|_| {
            let detail = format!("the backing set did not answer for {} s", PATIENCE.as_secs());
            Err(StoreError::unavailable(key, detail))
        })
    }
}

#[async_trait]
impl Objects for MongodbObjects {
    async fn put_new(&self, key: &str, bytes: Bytes) -> Result<Put, StoreError> {
        check_key(key)?;
        self.within(key, self.write_new(key, &bytes)).await
    }

    async fn put(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
        check_key(key)?;
        self.within(key, self.replace(key, &bytes)).await
    }

    async fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        check_key(key)?;
        self.within(key, self.read(key)).await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        check_key(key)?;
        self.within(key, self.read_range(key, range)).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectMeta>, StoreError> {
        check_prefix(prefix)?;
        self.within(prefix, self.list_prefix(prefix)).await
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        check_key(key)?;
        self.within(key, self.remove(key)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_bytes_apart_tells_when_it_was_made_and_orders_its_chunks() {
        let name = Apart([0, 0, 0, 0, 1, 2, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9]);
        assert_eq!(name.made_ms(), 258);
        assert!(name.chunk(255) < name.chunk(256));
        assert_eq!(name.chunk(1).len(), 20);
    }
}
