//! A daemon's own disk as its process sees it: [`MemoryDisk`] with time and trouble in front.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use headwater_host::memory::{MemoryDisk, MemoryKv};
use headwater_host::{Kv, KvError, Op, Pair};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::oracle::raft::{self, Promises};
use crate::planted::{self, Bug};
use crate::process::Life;
use crate::trace;

/// How slow and how bad a disk is.
#[derive(Clone, Copy, Debug)]
pub struct DiskDraw {
    /// The longest a flush usually takes, in milliseconds.
    pub flush_ms: u64,
    /// Of a thousand flushes, so many take a hundred times as long.
    pub slow: u32,
    /// Of ten thousand flushes, so many fail.
    pub eio: u32,
}

/// Whether disks still fail; shared by all of a world.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<AtomicBool>);

impl Health {
    /// From now on nothing fails.
    pub fn heal(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_restored(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The disk of one process, until it dies.
pub struct SimKv {
    kv: MemoryKv,
    life: Life,
    draw: DiskDraw,
    health: Health,
    rng: Arc<Mutex<StdRng>>,
    promises: Promises,
}

impl SimKv {
    /// Opens `disk` for a process.
    pub fn open(disk: &MemoryDisk, life: Life, draw: DiskDraw, health: Health, promises: Promises, seed: u64) -> SimKv {
        SimKv {
            kv: disk.open(),
            life,
            draw,
            health,
            promises,
            rng: Arc::new(Mutex::new(StdRng::seed_from_u64(seed))),
        }
    }

    fn alive(&self, during: &'static str) -> Result<(), KvError> {
        if self.life.is_alive() {
            return Ok(());
        }
        Err(KvError::Failed {
            during,
            reason: "the process is dead".to_owned(),
        })
    }
}

impl Kv for SimKv {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        self.alive("read")?;
        self.kv.get(key)
    }

    fn range(&self, range: Range<&[u8]>, limit: usize) -> Result<Vec<Pair>, KvError> {
        self.alive("read")?;
        self.kv.range(range, limit)
    }

    fn last(&self, range: Range<&[u8]>) -> Result<Option<Pair>, KvError> {
        self.alive("read")?;
        self.kv.last(range)
    }

    fn write(&self, batch: Vec<Op>) -> Result<(), KvError> {
        self.alive("write")?;
        self.promises.written(&batch);
        let mut batch = batch;
        if planted::is(Bug::VoteForgotten) {
            batch.retain(|op| !matches!(op, Op::Put { key, .. } if key == raft::VOTE));
        }
        self.kv.write(batch)
    }

    fn flush(&self) -> BoxFuture<'static, Result<(), KvError>> {
        let (delay_ms, fails) = {
            let mut rng = self.rng.lock().unwrap_or_else(PoisonError::into_inner);
            let usual = rng.gen_range(0..=self.draw.flush_ms);
            let slow = rng.gen_range(0..1000) < self.draw.slow;
            let fails = rng.gen_range(0..10_000) < self.draw.eio;
            match self.health.is_restored() {
                true => (usual, false),
                false => (usual * if slow { 100 } else { 1 }, fails),
            }
        };
        let (kv, life, promises) = (self.kv.clone(), self.life.clone(), self.promises.clone());
        async move {
            if delay_ms > 0 {
                tokio::time::sleep(Duration::from_millis(delay_ms)).await;
            }
            if fails {
                trace::mark("disk: flush failed");
                trace::line("disk: a flush fails");
                return Err(KvError::Failed {
                    during: "flush",
                    reason: "simulated".to_owned(),
                });
            }
            if !life.is_alive() {
                return Ok(());
            }
            if !planted::is(Bug::DiskForgetsFlush) {
                kv.flush().await?;
            }
            promises.flushed();
            Ok(())
        }
        .boxed()
    }
}
