//! The backing store: outlives every process, takes its time, and fails in the ways stores fail.
//!
//! A call has its effect somewhere in the middle of its time: a process that dies while it waits does not know whether.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt;
use headwater_store::backend::memory::MemoryObjects;
use headwater_store::objects::{ObjectMeta, Objects, Put, StoreError};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::Instant;

use crate::planted::{self, Bug};
use crate::process::Life;
use crate::trace;

/// How slow and how bad a store is.
#[derive(Clone, Copy, Debug)]
pub struct StoreDraw {
    /// The longest a call usually takes, in milliseconds.
    pub latency_ms: u64,
    /// Of a thousand calls, so many take twenty times as long.
    pub slow: u32,
    /// Of a thousand calls, so many fail without effect.
    pub before: u32,
    /// Of a thousand calls, so many have their effect and fail.
    pub after: u32,
    /// Of a thousand writes, so many fail and have their effect later, when whoever asked has gone on.
    pub late: u32,
}

/// A write on its way.
struct Late {
    due: Instant,
    key: String,
    bytes: Bytes,
    /// Only where nothing is.
    is_new: bool,
    process: u64,
}

/// The longest that a write is on its way.
const LATE_MS: u64 = 20_000;

struct Troubles {
    rng: StdRng,
    draw: StoreDraw,
    outage_until: Option<Instant>,
    full: bool,
    late: Vec<Late>,
    /// Checksums of what was ever written, for the promise oracle.
    written: BTreeMap<[u8; 32], String>,
    /// The newest oplog slice.
    last_slice: Option<Bytes>,
    /// Which process wrote packs under an epoch.
    writers: BTreeMap<String, u64>,
    /// An epoch that two wrote under.
    shared_epoch: Option<String>,
    /// Objects of which a bit flipped, as they were.
    rotten: Vec<Bytes>,
}

/// The store. Clones are the same one.
#[derive(Clone)]
pub struct Store {
    objects: MemoryObjects,
    troubles: Arc<Mutex<Troubles>>,
}

/// The store as one process sees it.
pub struct StoreDoor {
    store: Store,
    life: Life,
    process: u64,
}

enum Fate {
    Done,
    Before(&'static str),
    After,
    Late,
    Full,
}

impl Store {
    /// An empty store.
    pub fn new(seed: u64, draw: StoreDraw) -> Store {
        Store {
            objects: MemoryObjects::new(),
            troubles: Arc::new(Mutex::new(Troubles {
                rng: StdRng::seed_from_u64(seed),
                draw,
                outage_until: None,
                full: false,
                late: Vec::new(),
                written: BTreeMap::new(),
                last_slice: None,
                writers: BTreeMap::new(),
                shared_epoch: None,
                rotten: Vec::new(),
            })),
        }
    }

    /// The store for a process.
    pub fn door(&self, life: Life, process: u64) -> Arc<StoreDoor> {
        Arc::new(StoreDoor {
            store: self.clone(),
            life,
            process,
        })
    }

    /// The objects themselves, for oracles: nothing fails here and nothing takes time.
    pub fn bare(&self) -> MemoryObjects {
        self.objects.clone()
    }

    /// Nothing answers for a while.
    pub fn outage(&self, span: Duration) {
        trace::mark("store: outage");
        trace::line(&format!("store: outage of {} ms", span.as_millis()));
        self.lock().outage_until = Some(Instant::now() + span);
    }

    /// Takes nothing more, or again.
    pub fn set_full(&self, full: bool) {
        if full {
            trace::mark("store: full");
        }
        trace::line(if full { "store: full" } else { "store: has room" });
        self.lock().full = full;
    }

    /// From now on nothing fails.
    pub fn heal(&self) {
        let mut troubles = self.lock();
        troubles.outage_until = None;
        troubles.full = false;
        (troubles.draw.before, troubles.draw.after, troubles.draw.slow) = (0, 0, 0);
        troubles.draw.late = 0;
    }

    /// A bit of this object flips now: that it was stored is still true.
    pub fn note_rotten(&self, was: Bytes) {
        self.lock().rotten.push(was);
    }

    /// Whether exactly these bytes lie in the store, or did before they rotted.
    pub fn holds(&self, bytes: &[u8]) -> bool {
        if self.lock().rotten.iter().any(|was| was == bytes) {
            return true;
        }
        let key = self.lock().written.get(blake3::hash(bytes).as_bytes()).cloned();
        let found = key.and_then(|key| self.objects.get(&key).now_or_never());
        if found.is_some_and(|found| found.is_ok_and(|found| found == bytes)) {
            return true;
        }
        // It may have been merged with others since it was written.
        let segments = self
            .objects
            .contents()
            .into_iter()
            .filter(|(key, _)| key.contains("/oplog/"));
        segments.into_iter().any(|(_, whole)| lies_within(&whole, bytes))
    }

    /// An epoch under which two processes wrote blocks, if there is one.
    pub fn shared_epoch(&self) -> Option<String> {
        self.lock().shared_epoch.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Troubles> {
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fate(&self, writes: bool) -> (u64, u64, Fate) {
        let mut troubles = self.lock();
        let draw = troubles.draw;
        let slow = if troubles.rng.gen_range(0..1000) < draw.slow {
            20
        } else {
            1
        };
        let first = troubles.rng.gen_range(0..=draw.latency_ms) * slow;
        let second = troubles.rng.gen_range(0..=draw.latency_ms);
        let out = troubles.outage_until.is_some_and(|until| Instant::now() < until);
        let luck = troubles.rng.gen_range(0..1000);
        let fate = if out {
            Fate::Before("it is out of order")
        } else if writes && troubles.full {
            Fate::Full
        } else if luck < draw.before {
            Fate::Before("it is busy")
        } else if luck < draw.before + draw.after {
            Fate::After
        } else if writes && luck < draw.before + draw.after + draw.late {
            Fate::Late
        } else {
            Fate::Done
        };
        (first, second, fate)
    }
}

impl Store {
    fn put_off(&self, key: &str, bytes: &Bytes, is_new: bool, process: u64) {
        trace::mark("store: took effect late");
        let mut troubles = self.lock();
        let after = troubles.rng.gen_range(1..=LATE_MS);
        troubles.late.push(Late {
            due: Instant::now() + Duration::from_millis(after),
            key: key.to_owned(),
            bytes: bytes.clone(),
            is_new,
            process,
        });
    }

    /// What is due takes its effect.
    async fn settle(&self) -> Result<(), StoreError> {
        let due = {
            let mut troubles = self.lock();
            let late = std::mem::take(&mut troubles.late).into_iter();
            let (due, late): (Vec<_>, Vec<_>) = late.partition(|late| late.due <= Instant::now());
            troubles.late = late;
            due
        };
        for Late {
            key,
            bytes,
            is_new,
            process,
            ..
        } in due
        {
            trace::fine(&format!("store writes {key} late"));
            let put = match is_new && !planted::is(Bug::StoreOverwrites) {
                true => self.objects.put_new(&key, bytes.clone()).await?,
                false => self.objects.put(&key, bytes.clone()).await.map(|()| Put::Created)?,
            };
            if put == Put::Created {
                self.note(&key, &bytes, process);
            }
        }
        Ok(())
    }

    fn note(&self, key: &str, bytes: &Bytes, process: u64) {
        let sum = *blake3::hash(bytes).as_bytes();
        let mut troubles = self.lock();
        troubles.written.insert(sum, key.to_owned());
        if planted::is_slice(key) {
            troubles.last_slice = Some(bytes.clone());
        }
        // Packs are named by epoch and number.
        if let Some((epoch, _)) = key.rsplit_once('-').filter(|(_, number)| number.ends_with(".pack")) {
            let writer = *troubles.writers.entry(epoch.to_owned()).or_insert(process);
            if writer != process {
                troubles.shared_epoch = Some(epoch.to_owned());
            }
        }
    }
}

/// What is asked of a store.
enum Call<'a> {
    Read,
    Delete,
    /// Only where nothing is?
    Put(&'a Bytes, bool),
}

impl StoreDoor {
    async fn call<T, F>(&self, key: &str, call: Call<'_>, effect: F) -> Result<T, StoreError>
    where
        T: Send,
        F: Future<Output = Result<T, StoreError>> + Send,
    {
        let writes = !matches!(call, Call::Read);
        let (first, second, fate) = self.store.fate(writes);
        wait(first).await;
        self.store.settle().await?;
        trace::fine(&format!("store {}{key}", if writes { "writes " } else { "" }));
        if !self.life.is_alive() {
            return std::future::pending().await;
        }
        let answer = match fate {
            Fate::Before(why) => {
                trace::mark("store: failed without effect");
                Err(StoreError::unavailable(key, why))
            }
            Fate::Late => {
                if let Call::Put(bytes, is_new) = call {
                    self.store.put_off(key, bytes, is_new, self.process);
                }
                Err(StoreError::unavailable(key, "it takes too long"))
            }
            Fate::Full => {
                trace::mark("store: refused, full");
                Err(StoreError::Full(key.to_owned()))
            }
            Fate::After => effect.await.and_then(|_| {
                trace::mark("store: failed after its effect");
                Err(StoreError::unavailable(key, "the answer was lost"))
            }),
            Fate::Done => effect.await,
        };
        wait(second).await;
        answer
    }
}

async fn wait(ms: u64) {
    if ms > 0 {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
}

#[async_trait]
impl Objects for StoreDoor {
    async fn put_new(&self, key: &str, bytes: Bytes) -> Result<Put, StoreError> {
        let effect = async {
            if planted::lost_write(key) {
                return Ok(Put::Created);
            }
            if planted::is(Bug::StoreOverwrites) {
                self.store.objects.put(key, bytes.clone()).await?;
                self.store.note(key, &bytes, self.process);
                return Ok(Put::Created);
            }
            let misdirected = match planted::misdirected(key) {
                true => self.store.lock().last_slice.clone(),
                false => None,
            };
            let put = self
                .store
                .objects
                .put_new(key, misdirected.unwrap_or_else(|| bytes.clone()))
                .await?;
            if put == Put::Created {
                self.store.note(key, &bytes, self.process);
            }
            Ok(put)
        };
        self.call(key, Call::Put(&bytes, true), effect).await
    }

    async fn put(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
        let effect = async {
            if planted::lost_write(key) {
                return Ok(());
            }
            self.store.objects.put(key, bytes.clone()).await?;
            self.store.note(key, &bytes, self.process);
            Ok(())
        };
        self.call(key, Call::Put(&bytes, false), effect).await
    }

    async fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        self.call(key, Call::Read, self.store.objects.get(key)).await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.call(key, Call::Read, self.store.objects.get_range(key, range))
            .await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectMeta>, StoreError> {
        let effect = async {
            let mut listed = self.store.objects.list(prefix).await?;
            if planted::is(Bug::ListForgetsLast) {
                listed.pop();
            }
            Ok(listed)
        };
        self.call(prefix, Call::Read, effect).await
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.call(key, Call::Delete, self.store.objects.delete(key)).await
    }
}

/// Whether `part` lies within `whole`.
fn lies_within(whole: &[u8], part: &[u8]) -> bool {
    whole.windows(part.len().max(1)).any(|window| window == part)
}
