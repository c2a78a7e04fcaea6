//! A small durable key-value disk: ordered keys, atomic batches, an explicit barrier.

use std::ops::Range;

use futures::future::BoxFuture;
use headwater_model::limits;

/// A key and its value.
pub type Pair = (Vec<u8>, Vec<u8>);

/// One step of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Sets a key.
    Put {
        /// At most [`limits::KV_KEY_MAX_BYTES`].
        key: Vec<u8>,
        /// At most [`limits::KV_VALUE_MAX_BYTES`].
        value: Vec<u8>,
    },
    /// Removes a key; harmless when it is absent.
    Delete {
        /// Which.
        key: Vec<u8>,
    },
}

impl Op {
    /// Sets a key.
    pub fn put(key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Op {
        Op::Put {
            key: key.into(),
            value: value.into(),
        }
    }

    /// Removes a key.
    pub fn delete(key: impl Into<Vec<u8>>) -> Op {
        Op::Delete { key: key.into() }
    }
}

/// What a disk refuses or fails at.
#[derive(Debug, thiserror::Error)]
pub enum KvError {
    /// Nothing was written. Cut the value into pieces.
    #[error("a {what} of {bytes} bytes does not fit: at most {max} are taken; nothing was written")]
    TooLarge {
        /// `key` or `value`.
        what: &'static str,
        /// Its size.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// The disk could not be opened.
    #[error("cannot open {path}: {reason}; see that the folder is writable and no other process uses it")]
    Open {
        /// Where.
        path: String,
        /// What the system said.
        reason: String,
    },
    /// What was durable is not there any more, or not as it was.
    #[error(
        "the disk in {path} is damaged: {reason}; do not go on with it: move the folder away and join anew with an empty one"
    )]
    Damaged {
        /// Where.
        path: String,
        /// What is missing.
        reason: String,
    },
    /// The disk failed. What of the unflushed batches is durable is unknown: end the process and open again.
    #[error("the disk failed at {during}: {reason}; what was written since the last flush is in doubt")]
    Failed {
        /// `read`, `write` or `flush`.
        during: &'static str,
        /// What the system said.
        reason: String,
    },
}

/// A durable ordered map of byte strings.
///
/// - `write` is atomic, and visible to every read that begins after it returned; it is *not* durable.
/// - `flush` is a barrier: once it returned `Ok`, every batch whose `write` had returned before `flush` was called
///   survives the loss of the process and of power.
/// - After a crash the surviving batches are an exact prefix of the written ones.
/// - Bits that rot are never silent: a disk that does not hold what was durable is not opened, or a read fails.
/// - After `Failed` from `write` or `flush` nothing may be concluded, least of all that trying again helps.
///
/// Reads and writes work on memory and may block for a moment; `flush` waits off the async thread.
pub trait Kv: Send + Sync {
    /// The value of a key.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, KvError>;

    /// The first `limit` pairs with `range.start <= key < range.end`, in order of keys.
    fn range(&self, range: Range<&[u8]>, limit: usize) -> Result<Vec<Pair>, KvError>;

    /// The last pair with `range.start <= key < range.end`.
    fn last(&self, range: Range<&[u8]>) -> Result<Option<Pair>, KvError>;

    /// Does all steps, in order, or none.
    fn write(&self, batch: Vec<Op>) -> Result<(), KvError>;

    /// Makes everything written so far durable.
    fn flush(&self) -> BoxFuture<'static, Result<(), KvError>>;
}

/// Refuses a batch with a key or value beyond the limits. For implementations.
pub fn check(batch: &[Op]) -> Result<(), KvError> {
    let fits = |what, bytes, max| {
        if bytes <= max {
            Ok(())
        } else {
            Err(KvError::TooLarge { what, bytes, max })
        }
    };
    batch.iter().try_for_each(|op| match op {
        Op::Put { key, value } => {
            fits("key", key.len(), limits::KV_KEY_MAX_BYTES)?;
            fits("value", value.len(), limits::KV_VALUE_MAX_BYTES)
        }
        Op::Delete { key } => fits("key", key.len(), limits::KV_KEY_MAX_BYTES),
    })
}
