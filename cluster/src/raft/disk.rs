//! Where Raft's records lie on the key-value disk, and what happens when the disk fails.
//!
//! | key | value |
//! |---|---|
//! | `raft/identity` | whose disk this is |
//! | `raft/vote` | the promise given in elections |
//! | `raft/committed` | how far the log was known to be committed |
//! | `raft/purged` | the last entry that was removed from the front of the log |
//! | `raft/log/` + index, 8 bytes, big-endian | one entry |
//! | `raft/image` | what the control image is of, and where its pieces are |
//! | `raft/piece/` + generation + piece, 8 bytes each | a piece of it |
//!
//! Every value is framed with version and checksum. All keys are in one tree, so that batches across them are atomic.

use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use headwater_host::{ExitReason, Host, Kv, KvError, Op, Pair};
use openraft::{AnyError, ErrorSubject, ErrorVerb, StorageIOError};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::StorageError;
use super::records::EntryRecord;
use crate::codec::{self, CodecError};
use crate::state::NodeId;

pub(crate) const IDENTITY: &[u8] = b"raft/identity";
pub(crate) const VOTE: &[u8] = b"raft/vote";
pub(crate) const COMMITTED: &[u8] = b"raft/committed";
pub(crate) const PURGED: &[u8] = b"raft/purged";
pub(crate) const IMAGE: &[u8] = b"raft/image";
const LOG: &[u8] = b"raft/log/";
const LOG_END: &[u8] = b"raft/log0";
const PIECE: &[u8] = b"raft/piece/";
/// Entries read from the disk at once.
const READ_ENTRIES: usize = 64;

/// A disk that does not hold what it should, or does not answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DiskError {
    #[error(transparent)]
    Kv(#[from] KvError),
    #[error(transparent)]
    Codec(#[from] CodecError),
    #[error("{0}; this node must not go on with this disk: let it join anew with an empty one")]
    Wrong(String),
}

#[derive(Serialize, Deserialize)]
struct Identity {
    node: u64,
}

/// Raft's part of the disk. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Disk {
    kv: Arc<dyn Kv>,
    host: Host,
}

impl Disk {
    pub(crate) fn new(host: &Host, kv: Arc<dyn Kv>) -> Self {
        Disk { kv, host: host.clone() }
    }

    /// Makes sure that the disk is `node`'s: writes so on an empty one. Tells whether it was empty.
    pub(crate) async fn identify(&self, node: NodeId) -> Result<bool, DiskError> {
        match self.get::<Identity>("identity", IDENTITY)? {
            Some(found) if found.node == node.0 => Ok(false),
            Some(found) => Err(DiskError::Wrong(format!(
                "the disk is node {}'s, not node {node}'s",
                found.node
            ))),
            None if self.kv.last(b"raft/"..b"raft0")?.is_some() => {
                Err(DiskError::Wrong("the disk holds a log of nobody known".to_owned()))
            }
            None => {
                self.write(vec![put("identity", IDENTITY, &Identity { node: node.0 })?])?;
                self.flush().await?;
                Ok(true)
            }
        }
    }

    pub(crate) fn get<T: DeserializeOwned>(&self, what: &'static str, key: &[u8]) -> Result<Option<T>, DiskError> {
        let Some(framed) = self.kv.get(key)? else {
            return Ok(None);
        };
        Ok(Some(codec::decode(what, codec::unframe(what, key, &framed)?)?))
    }

    pub(crate) fn get_bytes(&self, what: &'static str, key: &[u8]) -> Result<Option<Vec<u8>>, DiskError> {
        let Some(framed) = self.kv.get(key)? else {
            return Ok(None);
        };
        Ok(Some(codec::unframe(what, key, &framed)?.to_vec()))
    }

    pub(crate) fn write(&self, batch: Vec<Op>) -> Result<(), DiskError> {
        Ok(self.kv.write(batch)?)
    }

    pub(crate) async fn flush(&self) -> Result<(), DiskError> {
        Ok(self.kv.flush().await?)
    }

    /// The entries of `range` that exist, which follow one another without a gap.
    pub(crate) fn entries(&self, range: impl RangeBounds<u64>) -> Result<Vec<EntryRecord>, DiskError> {
        let mut entries: Vec<EntryRecord> = Vec::new();
        self.walk(range, |entry| entries.push(entry))?;
        Ok(entries)
    }

    /// Gives every entry of `range` that exists to `visit`, and fails at the first gap.
    pub(crate) fn walk(
        &self,
        range: impl RangeBounds<u64>,
        mut visit: impl FnMut(EntryRecord),
    ) -> Result<(), DiskError> {
        let (mut from, to) = (start(&range), end(&range));
        let mut expected = None;
        loop {
            let pairs = self.kv.range(&from[..]..&to[..], READ_ENTRIES)?;
            let Some((last, _)) = pairs.last() else { return Ok(()) };
            from = [&last[..], &[0]].concat();
            for (key, framed) in pairs {
                let entry = entry((key, framed))?;
                let index = entry.id.index;
                if expected.is_some_and(|expected| expected != index) {
                    return Err(DiskError::Wrong(format!("log entries are missing before {index}")));
                }
                expected = Some(index + 1);
                visit(entry);
            }
        }
    }

    pub(crate) fn last_entry(&self) -> Result<Option<EntryRecord>, DiskError> {
        self.kv.last(LOG..LOG_END)?.map(entry).transpose()
    }

    /// The keys of the entries of `range` that exist.
    pub(crate) fn entry_keys(&self, range: impl RangeBounds<u64>) -> Result<Vec<Vec<u8>>, DiskError> {
        self.keys(start(&range), end(&range))
    }

    /// The keys of all pieces of images.
    pub(crate) fn piece_keys(&self) -> Result<Vec<Vec<u8>>, DiskError> {
        self.keys(PIECE.to_vec(), b"raft/piece0".to_vec())
    }

    fn keys(&self, mut from: Vec<u8>, to: Vec<u8>) -> Result<Vec<Vec<u8>>, DiskError> {
        let mut keys = Vec::new();
        loop {
            let pairs = self.kv.range(&from[..]..&to[..], READ_ENTRIES)?;
            let Some((last, _)) = pairs.last() else { return Ok(keys) };
            from = [&last[..], &[0]].concat();
            keys.extend(pairs.into_iter().map(|(key, _)| key));
        }
    }

    /// Ends the process if `result` leaves the disk in doubt; and tells openraft, for the worlds in which it goes on.
    pub(crate) fn or_stop<T>(
        &self,
        subject: ErrorSubject<u64>,
        verb: ErrorVerb,
        result: Result<T, DiskError>,
    ) -> Result<T, StorageError> {
        result.map_err(|error| {
            self.host.exit.exit(ExitReason::Storage(format!(
                "the cluster's log cannot be trusted: {error}"
            )));
            StorageIOError::new(subject, verb, AnyError::new(&error)).into()
        })
    }
}

pub(crate) fn put<T: Serialize>(what: &'static str, key: &[u8], value: &T) -> Result<Op, DiskError> {
    Ok(put_bytes(key, &codec::encode(what, value)?))
}

pub(crate) fn put_bytes(key: &[u8], payload: &[u8]) -> Op {
    Op::put(key, codec::frame(key, payload))
}

pub(crate) fn log_key(index: u64) -> Vec<u8> {
    [LOG, &index.to_be_bytes()].concat()
}

pub(crate) fn piece_key(generation: u64, piece: u64) -> Vec<u8> {
    [PIECE, &generation.to_be_bytes(), &piece.to_be_bytes()].concat()
}

fn entry((key, framed): Pair) -> Result<EntryRecord, DiskError> {
    let record: EntryRecord = codec::decode("log entry", codec::unframe("log entry", &key, &framed)?)?;
    match log_key(record.id.index) == key {
        true => Ok(record),
        false => Err(DiskError::Wrong(format!(
            "log entry {} lies under another index",
            record.id.index
        ))),
    }
}

fn start(range: &impl RangeBounds<u64>) -> Vec<u8> {
    match range.start_bound() {
        Bound::Included(index) => log_key(*index),
        Bound::Excluded(index) => index.checked_add(1).map_or(LOG_END.to_vec(), log_key),
        Bound::Unbounded => LOG.to_vec(),
    }
}

fn end(range: &impl RangeBounds<u64>) -> Vec<u8> {
    match range.end_bound() {
        Bound::Included(index) => index.checked_add(1).map_or(LOG_END.to_vec(), log_key),
        Bound::Excluded(index) => log_key(*index),
        Bound::Unbounded => LOG_END.to_vec(),
    }
}
