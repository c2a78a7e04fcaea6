//! The durable key-value disk on sled: one tree, one batch per write, and a barrier of our own.
//!
//! Four facts of sled 0.34 shape this file (`reference/simulation.md` §6 has the measurements):
//! - its `flush` writes and asks the kernel to begin writing back, but never calls fsync; so the barrier is its flush
//!   *and then* `fdatasync` on the file `db` through our own handle;
//! - a page larger than a quarter of a segment moves to a file of its own in `blobs/`, which is never made durable;
//!   a page holds up to 17 values, so the segment is chosen such that 17 of the largest values stay well below that;
//! - a batch is atomic within one tree only; so there is one tree, and users of it keep apart by key prefixes;
//! - what it finds damaged on opening it leaves out without an error; so everything is counted and summed ([`tally`]), and
//!   a database that does not hold exactly what was written is not opened.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use headwater_model::limits;

use super::tally::{self, Flushed, Tally};
use crate::kv::{self, Pair};
use crate::{Blocking, Kv, KvError, Op, blocking};

const SEGMENT_BYTES: usize = 8 << 20;
const PAGE_MAX_ITEMS: usize = 17;
const CACHE_BYTES: u64 = 16 << 20;
const RELEASE_PATIENCE: Duration = Duration::from_secs(5);
const RELEASE_PAUSE: Duration = Duration::from_millis(20);

const _: () = assert!(
    (PAGE_MAX_ITEMS + 8) * (limits::KV_VALUE_MAX_BYTES + limits::KV_KEY_MAX_BYTES) < SEGMENT_BYTES / 4,
    "a full page must stay in the file that we make durable"
);

/// A sled database in a folder of its own. Clones are the same one; the folder is locked while any is alive.
#[derive(Clone)]
pub struct SledKv {
    tree: sled::Tree,
    // Keeps the database, and with it the lock, until the last clone is dropped.
    _db: sled::Db,
    file: Arc<File>,
    written: Arc<Mutex<Tally>>,
    flushed: Arc<Mutex<Flushed>>,
    blocking: Arc<dyn Blocking>,
}

impl SledKv {
    /// Opens or makes the database in the folder `path`, and reads all of it. Blocks; flushes will wait on `blocking`.
    pub fn open(path: &Path, blocking: Arc<dyn Blocking>) -> Result<SledKv, KvError> {
        // Some damage makes sled panic.
        catch_unwind(AssertUnwindSafe(|| open(path, blocking))).unwrap_or_else(|panic| {
            let words = panic.downcast_ref::<String>().map(String::as_str);
            let words = words.or_else(|| panic.downcast_ref::<&str>().copied());
            Err(damaged(path, words.unwrap_or("it cannot be read")))
        })
    }
}

fn open(path: &Path, blocking: Arc<dyn Blocking>) -> Result<SledKv, KvError> {
    let failed = |reason: String| KvError::Open {
        path: path.display().to_string(),
        reason,
    };
    let opened = |error: sled::Error| match error {
        sled::Error::Corruption { .. } => damaged(path, "a checksum does not match"),
        other => failed(other.to_string()),
    };
    let config = sled::Config::new()
        .path(path)
        .segment_size(SEGMENT_BYTES)
        .cache_capacity(CACHE_BYTES)
        // Durability is asked for, never hoped for; the flusher would only hide a missing barrier.
        .flush_every_ms(None);
    let db = open_once_released(&config).map_err(opened)?;
    let is_new = !path.join(tally::FILE).exists();
    let file = OpenOptions::new().read(true).write(true).open(path.join("db"));
    let file = file.map_err(|error| failed(error.to_string()))?;
    let tree = db.open_tree(b"headwater").map_err(opened)?;
    let written = count(&tree).map_err(opened)?;
    if is_new && written != Some(Tally::default()) {
        return Err(damaged(path, "it has no note of what was made durable"));
    }
    let flushed = Flushed::open(path).map_err(|error| failed(error.to_string()))?;
    let flushed = flushed.ok_or_else(|| damaged(path, "its note of what was made durable cannot be read"))?;
    let written = written.ok_or_else(|| damaged(path, "it does not hold exactly what was written"))?;
    if written.batches < flushed.batches() {
        let (durable, lost) = (flushed.batches(), flushed.batches() - written.batches);
        let reason = format!("of {durable} batches that were durable the last {lost} are gone");
        return Err(damaged(path, &reason));
    }
    sync_folders(path).map_err(|error| failed(error.to_string()))?;
    Ok(SledKv {
        tree,
        _db: db,
        file: Arc::new(file),
        written: Arc::new(Mutex::new(written)),
        flushed: Arc::new(Mutex::new(flushed)),
        blocking,
    })
}

/// Counts and sums what is there; `None` when it is not what was written.
fn count(tree: &sled::Tree) -> sled::Result<Option<Tally>> {
    let mut found = Tally::default();
    let mut told = Some(Tally::default());
    for pair in tree.iter() {
        let (key, value) = pair?;
        match &key[..] == tally::KEY {
            true => told = Tally::read(&value),
            false => found.add(&key, &value),
        }
    }
    Ok(told.filter(|told| told.sum == found.sum))
}

fn damaged(path: &Path, reason: &str) -> KvError {
    KvError::Damaged {
        path: path.display().to_string(),
        reason: reason.to_owned(),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whoever had the database open before lets go of its lock only when the last of its threads has let go of it, which may
/// be a moment after its end.
#[allow(
    clippy::disallowed_methods,
    reason = "opening blocks, and waits for another process or thread"
)]
fn open_once_released(config: &sled::Config) -> sled::Result<sled::Db> {
    let mut waited = Duration::ZERO;
    loop {
        match config.open() {
            Err(sled::Error::Io(error)) if waited < RELEASE_PATIENCE && is_locked(&error) => {}
            opened => return opened,
        }
        std::thread::sleep(RELEASE_PAUSE);
        waited += RELEASE_PAUSE;
    }
}

/// sled wraps the refusal of the lock in words.
fn is_locked(error: &io::Error) -> bool {
    error.to_string().contains("could not acquire lock")
}

/// Makes the names of the files durable: without this a crash right after the first flush could lose the whole folder.
fn sync_folders(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()?;
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => File::open(".")?.sync_all(),
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

impl Kv for SledKv {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        let value = self.tree.get(key).map_err(|error| failed("read", error))?;
        Ok(value.map(|value| value.to_vec()))
    }

    fn range(&self, range: Range<&[u8]>, limit: usize) -> Result<Vec<Pair>, KvError> {
        if range.start >= range.end {
            return Ok(Vec::new());
        }
        let pairs = self.tree.range(range).filter(is_users).take(limit);
        pairs
            .map(|pair| pair.map(owned).map_err(|error| failed("read", error)))
            .collect()
    }

    fn last(&self, range: Range<&[u8]>) -> Result<Option<Pair>, KvError> {
        if range.start >= range.end {
            return Ok(None);
        }
        let last = self.tree.range(range).rfind(is_users);
        last.map(|pair| pair.map(owned).map_err(|error| failed("read", error)))
            .transpose()
    }

    fn write(&self, batch: Vec<Op>) -> Result<(), KvError> {
        kv::check(&batch)?;
        let mut written = lock(&self.written);
        let mut next = *written;
        next.batches += 1;
        let mut values: BTreeMap<Vec<u8>, Option<Vec<u8>>> = BTreeMap::new();
        for op in batch {
            let (key, value) = match op {
                Op::Put { key, value } => (key, Some(value)),
                Op::Delete { key } => (key, None),
            };
            values.insert(key, value);
        }
        let mut steps = sled::Batch::default();
        for (key, value) in values {
            if let Some(before) = self.tree.get(&key).map_err(|error| failed("write", error))? {
                next.take(&key, &before);
            }
            match value {
                Some(value) => {
                    next.add(&key, &value);
                    steps.insert(key, value);
                }
                None => steps.remove(key),
            }
        }
        steps.insert(tally::KEY, next.bytes());
        self.tree.apply_batch(steps).map_err(|error| failed("write", error))?;
        *written = next;
        Ok(())
    }

    fn flush(&self) -> BoxFuture<'static, Result<(), KvError>> {
        let kv = self.clone();
        let blocking = self.blocking.clone();
        let wanted = lock(&self.written).batches;
        async move { blocking::run(blocking.as_ref(), move || kv.flush_up_to(wanted)).await }.boxed()
    }
}

impl SledKv {
    fn flush_up_to(&self, wanted: u64) -> Result<(), KvError> {
        // One at a time, so that the note never goes back; whoever waited here has often been served by the one before.
        let mut flushed = lock(&self.flushed);
        if flushed.batches() >= wanted {
            return Ok(());
        }
        let batches = lock(&self.written).batches;
        self.tree.flush().map_err(|error| failed("flush", error))?;
        self.file.sync_data().map_err(|error| failed("flush", error))?;
        flushed.note(batches).map_err(|error| failed("flush", error))
    }
}

/// Whether a pair is one of the users'.
fn is_users(pair: &sled::Result<(sled::IVec, sled::IVec)>) -> bool {
    pair.as_ref().map_or(true, |(key, _)| &key[..] != tally::KEY)
}

fn owned((key, value): (sled::IVec, sled::IVec)) -> Pair {
    (key.to_vec(), value.to_vec())
}

fn failed(during: &'static str, error: impl std::fmt::Display) -> KvError {
    KvError::Failed {
        during,
        reason: error.to_string(),
    }
}
