//! The edge to the backing store: named, immutable-by-convention byte strings.

use async_trait::async_trait;
use bytes::Bytes;
use std::ops::Range;

/// What went wrong at the backing store.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// No such object.
    #[error("object {0} does not exist in the store")]
    NotFound(String),
    /// The store has no room. Nothing was acknowledged; retry after space was made.
    #[error("the store is full while writing {0}: free space or enlarge it; nothing acknowledged is lost")]
    Full(String),
    /// Trouble that may pass: retry later.
    #[error("the store did not answer for {key}: {detail}")]
    Unavailable {
        /// The object.
        key: String,
        /// The backend's words.
        detail: String,
    },
    /// Bytes at rest are damaged; retrying does not help.
    #[error("object {key} is damaged: {detail}; run `headwater check`")]
    Damaged {
        /// The object.
        key: String,
        /// What does not fit.
        detail: String,
    },
    /// A higher epoch owns this replica set: the caller must stop writing.
    #[error("write refused: epoch {ours} is over, epoch {current} owns {key}")]
    Fenced {
        /// The object.
        key: String,
        /// The caller's epoch.
        ours: u64,
        /// The epoch that owns it now.
        current: u64,
    },
}

/// Whether `put_new` wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// The object is new and durable.
    Created,
    /// An object of that name was there already; nothing was written.
    Exists,
}

/// One listed object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectMeta {
    /// Its key.
    pub key: String,
    /// Its length in bytes.
    pub size: u64,
}

/// A backing store. Keys are `/`-separated, each part of `[A-Za-z0-9._-]`, none beginning with a dot.
///
/// Promises: a method that answered `Ok` has made its effect durable; a reader sees an object whole or not at all;
/// of several concurrent `put_new` of one key exactly one is `Created`; `list` is complete and sorted by key.
#[async_trait]
pub trait Objects: Send + Sync + 'static {
    /// Writes an object that must not exist yet.
    async fn put_new(&self, key: &str, bytes: Bytes) -> Result<Put, StoreError>;
    /// Writes an object, replacing what was there, atomically.
    async fn put(&self, key: &str, bytes: Bytes) -> Result<(), StoreError>;
    /// Reads a whole object.
    async fn get(&self, key: &str) -> Result<Bytes, StoreError>;
    /// Reads part of an object; the range must lie within it.
    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError>;
    /// All objects whose key begins with `prefix`, sorted by key.
    async fn list(&self, prefix: &str) -> Result<Vec<ObjectMeta>, StoreError>;
    /// Removes an object; removing what is not there is no error.
    async fn delete(&self, key: &str) -> Result<(), StoreError>;
}
