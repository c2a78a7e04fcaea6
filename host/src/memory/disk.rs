//! A disk in memory that keeps the promises of [`Kv`] and not one more: a crash loses an arbitrary, seeded number of
//! the last unflushed batches.

use std::collections::{BTreeMap, VecDeque};
use std::ops::{Bound, Range};
use std::sync::Arc;
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures::future::{BoxFuture, FutureExt, ready};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::kv::{self, Pair};
use crate::{Kv, KvError, Op};

#[derive(Default)]
struct Platter {
    /// What survives anything.
    durable: BTreeMap<Vec<u8>, Vec<u8>>,
    /// What a process sees.
    visible: BTreeMap<Vec<u8>, Vec<u8>>,
    /// What it wrote since the last flush.
    unflushed: VecDeque<Vec<Op>>,
    /// Counts crashes; a process of before a crash can do nothing any more.
    boots: u64,
    /// Flushes that will fail.
    failing_flushes: u32,
}

/// What outlives a process. Clones are the same disk.
#[derive(Clone, Default)]
pub struct MemoryDisk(Arc<Mutex<Platter>>);

/// A [`MemoryDisk`] as one process sees it, until the next crash.
#[derive(Clone)]
pub struct MemoryKv {
    disk: MemoryDisk,
    boot: u64,
}

impl MemoryDisk {
    /// An empty disk.
    pub fn new() -> Self {
        MemoryDisk::default()
    }

    /// The disk for a process that starts now.
    pub fn open(&self) -> MemoryKv {
        MemoryKv {
            boot: self.platter().boots,
            disk: self.clone(),
        }
    }

    /// Cuts the power: of the unflushed batches a prefix survives, whose length `seed` decides; every [`MemoryKv`]
    /// opened before is dead.
    pub fn crash(&self, seed: u64) {
        let mut platter = self.platter();
        let survivors = StdRng::seed_from_u64(seed).gen_range(0..=platter.unflushed.len());
        self.settle(&mut platter, survivors);
        platter.unflushed.clear();
        platter.visible = platter.durable.clone();
        platter.boots += 1;
    }

    /// Makes the next `count` flushes fail.
    pub fn fail_flushes(&self, count: u32) {
        self.platter().failing_flushes = count;
    }

    /// What a crash with the worst of luck would leave; for oracles.
    pub fn durable(&self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        self.platter().durable.clone()
    }

    /// Changes the value of a key behind everyone's back, as bits do that rot. For a disk that no process has open.
    pub fn rot(&self, key: &[u8], value: &[u8]) {
        let mut platter = self.platter();
        platter.durable.insert(key.to_vec(), value.to_vec());
        platter.visible.insert(key.to_vec(), value.to_vec());
    }

    fn settle(&self, platter: &mut Platter, batches: usize) {
        for batch in platter.unflushed.drain(..batches) {
            carry_out(&mut platter.durable, batch);
        }
    }

    fn platter(&self) -> MutexGuard<'_, Platter> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MemoryKv {
    fn platter(&self, during: &'static str) -> Result<MutexGuard<'_, Platter>, KvError> {
        let platter = self.disk.platter();
        if platter.boots == self.boot {
            Ok(platter)
        } else {
            Err(KvError::Failed {
                during,
                reason: "the process lost its disk in a crash".to_owned(),
            })
        }
    }

    fn flush_now(&self) -> Result<(), KvError> {
        let mut platter = self.platter("flush")?;
        if platter.failing_flushes > 0 {
            platter.failing_flushes -= 1;
            return Err(KvError::Failed {
                during: "flush",
                reason: "injected".to_owned(),
            });
        }
        let all = platter.unflushed.len();
        self.disk.settle(&mut platter, all);
        Ok(())
    }
}

impl Kv for MemoryKv {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        Ok(self.platter("read")?.visible.get(key).cloned())
    }

    fn range(&self, range: Range<&[u8]>, limit: usize) -> Result<Vec<Pair>, KvError> {
        let platter = self.platter("read")?;
        if range.start >= range.end {
            return Ok(Vec::new());
        }
        let pairs = platter.visible.range::<[u8], _>(bounds(range)).take(limit);
        Ok(pairs.map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    fn last(&self, range: Range<&[u8]>) -> Result<Option<Pair>, KvError> {
        let platter = self.platter("read")?;
        if range.start >= range.end {
            return Ok(None);
        }
        let last = platter.visible.range::<[u8], _>(bounds(range)).next_back();
        Ok(last.map(|(key, value)| (key.clone(), value.clone())))
    }

    fn write(&self, batch: Vec<Op>) -> Result<(), KvError> {
        kv::check(&batch)?;
        let mut platter = self.platter("write")?;
        carry_out(&mut platter.visible, batch.clone());
        platter.unflushed.push_back(batch);
        Ok(())
    }

    fn flush(&self) -> BoxFuture<'static, Result<(), KvError>> {
        // Done now, not when polled: a process that dies in between may have flushed, which is the harder case.
        ready(self.flush_now()).boxed()
    }
}

fn bounds(range: Range<&[u8]>) -> (Bound<&[u8]>, Bound<&[u8]>) {
    (Bound::Included(range.start), Bound::Excluded(range.end))
}

fn carry_out(map: &mut BTreeMap<Vec<u8>, Vec<u8>>, batch: Vec<Op>) {
    for op in batch {
        match op {
            Op::Put { key, value } => {
                map.insert(key, value);
            }
            Op::Delete { key } => {
                map.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn survivors(seed: u64) -> usize {
        let disk = MemoryDisk::new();
        let kv = disk.open();
        for n in 0..10u8 {
            kv.write(vec![Op::put([n], [n])]).unwrap();
            if n == 3 {
                kv.flush_now().unwrap();
            }
        }
        disk.crash(seed);
        assert!(kv.get(b"x").is_err(), "the dead process must not read");
        assert!(kv.write(vec![Op::put(*b"x", *b"y")]).is_err(), "nor write");
        let left = disk.open().range(&[0]..&[255], 100).unwrap();
        let expected: Vec<Pair> = (0..left.len() as u8).map(|n| (vec![n], vec![n])).collect();
        assert_eq!(left, expected, "the survivors are a prefix");
        left.len()
    }

    #[test]
    fn a_crash_keeps_what_was_flushed_and_a_seeded_prefix_of_the_rest() {
        let counts: Vec<usize> = (0..50).map(survivors).collect();
        assert!(counts.iter().all(|count| (4..=10).contains(count)));
        assert!(counts.contains(&4) && counts.contains(&10), "both extremes happen");
        assert_eq!(
            counts,
            (0..50).map(survivors).collect::<Vec<_>>(),
            "the same seed, the same loss"
        );
    }

    #[tokio::test]
    async fn a_flush_that_fails_makes_nothing_durable() {
        let disk = MemoryDisk::new();
        let kv = disk.open();
        kv.write(vec![Op::put(*b"a", *b"b")]).unwrap();
        disk.fail_flushes(1);
        assert!(kv.flush().await.is_err());
        assert!(disk.durable().is_empty());
        kv.flush().await.unwrap();
        assert_eq!(disk.durable().len(), 1);
    }
}
