//! The edge to the backing store: named, immutable-by-convention byte strings.

use async_trait::async_trait;
use bytes::Bytes;
use std::ops::Range;

use crate::naming::BlockNaming;

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
    /// The call itself cannot be carried out; retrying does not help.
    #[error("the store refuses {key:?}: {detail}")]
    Refused {
        /// The object, or what was taken for its key.
        key: String,
        /// What does not fit.
        detail: String,
    },
    /// The data key of a deployment cannot be opened: give the daemon its master key.
    #[error("deployment {deployment} is encrypted and cannot be opened: {detail}")]
    Locked {
        /// Which.
        deployment: String,
        /// What is missing, and the cure.
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

impl StoreError {
    /// [`StoreError::Damaged`] in short.
    pub fn damaged(key: &str, detail: impl ToString) -> Self {
        StoreError::Damaged {
            key: key.to_owned(),
            detail: detail.to_string(),
        }
    }

    /// [`StoreError::Unavailable`] in short.
    pub fn unavailable(key: &str, detail: impl ToString) -> Self {
        StoreError::Unavailable {
            key: key.to_owned(),
            detail: detail.to_string(),
        }
    }

    /// [`StoreError::Refused`] in short.
    pub fn refused(key: &str, detail: impl ToString) -> Self {
        StoreError::Refused {
            key: key.to_owned(),
            detail: detail.to_string(),
        }
    }
}

/// The longest key in bytes: fits every file system and object store we know, with room for a root before it.
pub const KEY_MAX_BYTES: usize = 512;
/// The longest part of a key in bytes; file systems take 255, and a temporary file needs a few more than its target.
pub const KEY_PART_MAX_BYTES: usize = 128;

fn is_part(part: &str) -> bool {
    (1..=KEY_PART_MAX_BYTES).contains(&part.len())
        && !part.starts_with('.')
        && part
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// Refuses a key that not every backend could hold, or that could climb out of a folder.
pub fn check_key(key: &str) -> Result<(), StoreError> {
    if key.len() <= KEY_MAX_BYTES && key.split('/').all(is_part) {
        Ok(())
    } else {
        Err(StoreError::refused(
            key,
            "a key is parts of A-Z a-z 0-9 . _ - joined by /, none beginning with a dot",
        ))
    }
}

/// Refuses a prefix that no key can begin with. Empty is every key; otherwise whole parts with a `/` after each, and
/// then possibly the beginning of a part.
pub fn check_prefix(prefix: &str) -> Result<(), StoreError> {
    match prefix.strip_suffix('/').unwrap_or(prefix) {
        "" if prefix.is_empty() => Ok(()),
        parts => check_key(parts),
    }
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

/// A backing store. Keys are `/`-separated, each part of `[A-Za-z0-9._-]`, none beginning with a dot; no key is also
/// a folder of another (`a` and `a/b` never exist together). Other keys are [`StoreError::Refused`].
///
/// Promises: a method that answered `Ok` has made its effect durable; a reader sees an object whole or not at all;
/// of several concurrent `put_new` of one key exactly one is `Created`; `list` is complete and sorted by key.
/// A method that answered with an error may have had its effect all the same, but never half of it; calling it again
/// is always allowed. `conformance` holds every backend to this.
#[async_trait]
pub trait Objects: Send + Sync + 'static {
    /// Writes an object that must not exist yet.
    async fn put_new(&self, key: &str, bytes: Bytes) -> Result<Put, StoreError>;
    /// Writes an object, replacing what was there: readers see the old or the new bytes, whole.
    async fn put(&self, key: &str, bytes: Bytes) -> Result<(), StoreError>;
    /// Reads a whole object.
    async fn get(&self, key: &str) -> Result<Bytes, StoreError>;
    /// Reads part of an object. A range that does not lie within it is [`StoreError::Damaged`]: callers know lengths
    /// from a listing or from an index, so that an object shorter than that was cut.
    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError>;
    /// All objects whose key begins with `prefix`, sorted by key.
    async fn list(&self, prefix: &str) -> Result<Vec<ObjectMeta>, StoreError>;
    /// Removes an object; removing what is not there is no error.
    async fn delete(&self, key: &str) -> Result<(), StoreError>;
    /// How blocks in this store get their ids. A store around another passes its answer on.
    fn naming(&self) -> BlockNaming {
        BlockNaming::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_could_climb_out_of_a_folder_are_refused() {
        let long = "x".repeat(KEY_PART_MAX_BYTES + 1);
        for wrong in [
            "", "/", "a/", "/a", "a//b", ".", "..", "a/../b", "a/.b", "a b", "ü", "a\\b", &long,
        ] {
            assert!(check_key(wrong).is_err(), "{wrong:?}");
        }
        for right in ["a", "a/b", "rs/shop/rs0/blocks/0-1.pack", "a..b"] {
            assert!(check_key(right).is_ok(), "{right:?}");
        }
        for right in ["", "a", "a/", "a/b"] {
            assert!(check_prefix(right).is_ok(), "{right:?}");
        }
        for wrong in ["/", "a//", "../", ".x"] {
            assert!(check_prefix(wrong).is_err(), "{wrong:?}");
        }
    }
}
