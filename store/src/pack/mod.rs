//! The blockstore over objects: blocks gathered into packs, found by an index in memory, verified on every read.
//!
//! Write order: block into the open pack → pack durable → index. A block is pending from `put` until its pack is
//! durable; pending blocks are read from memory and count for dedupe. A pack that could not be written stays pending
//! and is tried again at the next flush under the same key: had the failed write its effect after all, it is
//! recognised by its fingerprint. Nothing names a pack but the index in its own end, so a pack that nobody flushed is
//! garbage, never damage.
//!
//! A full pack is written by a task of its own, so that writing goes on beside compressing.

mod at_rest;
mod cache;
mod census;
pub mod format;
pub mod groom;
mod mend;
mod open;
mod state;
mod table;
mod write;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt;
use futures::stream::{FuturesUnordered, StreamExt};
use headwater_host::Host;
use headwater_host::spawn::Task;
use headwater_model::{BlockId, Epoch, limits};

use crate::blocks::Blocks;
use crate::fence::Fence;
use crate::naming::BlockNaming;
use crate::objects::{Objects, StoreError};
pub use at_rest::{AtRest, PackVerdict};
use cache::BlockCache;
pub use mend::MendPlan;
use state::State;

/// Bounds of one pack store.
#[derive(Clone, Copy, Debug)]
pub struct PackSettings {
    /// Raw blocks kept in memory, in bytes.
    pub cache_bytes: usize,
    /// A pack is closed at this many bytes.
    pub pack_bytes: usize,
    /// Packs on their way at once, at least 1; each is held in memory.
    pub packs_in_flight: usize,
    /// Packs that could not be written before `put` refuses more; each is held in memory.
    pub packs_failed: usize,
}

impl Default for PackSettings {
    fn default() -> Self {
        PackSettings {
            cache_bytes: limits::BLOCK_CACHE_BYTES,
            pack_bytes: limits::PACK_TARGET_BYTES,
            packs_in_flight: 3,
            packs_failed: 2,
        }
    }
}

/// Figures of a pack store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PackStats {
    /// Readable packs.
    pub packs: u64,
    /// Packs whose index is damaged: their blocks count as absent and are written again when they are put again.
    pub damaged_packs: u64,
    /// Durable blocks.
    pub blocks: u64,
    /// Their raw bytes.
    pub raw_bytes: u64,
    /// Their bytes at rest.
    pub stored_bytes: u64,
    /// Blocks made durable since the store was opened.
    pub blocks_written: u64,
    /// Their bytes at rest.
    pub stored_bytes_written: u64,
    /// Blocks put but not durable yet.
    pub pending_blocks: u64,
    /// Memory the index takes, in bytes.
    pub index_memory: u64,
}

struct Inner {
    objects: Arc<dyn Objects>,
    naming: BlockNaming,
    /// `…/blocks/`
    folder: String,
    /// `None`: opened to read.
    epoch: Option<Epoch>,
    /// Looked at before every pack is written.
    fence: Option<Arc<Fence>>,
    state: Mutex<State>,
    cache: Mutex<BlockCache>,
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cache(&self) -> MutexGuard<'_, BlockCache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The blocks of one replica set. One writer per epoch; any number of readers.
pub struct PackStore {
    inner: Arc<Inner>,
    host: Host,
    settings: PackSettings,
    /// Held while packs are collected or tried again; no pack is written by two at once.
    in_flight: tokio::sync::Mutex<FuturesUnordered<Task<()>>>,
}

impl PackStore {
    /// Opens the blocks under `prefix` (ends with `/`) for writing under `epoch`; reads the end of every pack.
    ///
    /// [`StoreError::Fenced`] when packs of a higher epoch are there: another daemon owns the replica set.
    pub async fn open(
        objects: Arc<dyn Objects>,
        host: &Host,
        prefix: &str,
        epoch: Epoch,
        settings: PackSettings,
    ) -> Result<Arc<PackStore>, StoreError> {
        let writer = (Some(epoch), None);
        Self::open_as(objects, host, prefix, writer, &BTreeSet::new(), settings).await
    }

    /// The same under the epoch of `fence`, for a repository that several daemons may come to own. What rests in `condemned`
    /// packs counts as absent: a former owner may delete them at any moment.
    pub async fn open_fenced(
        objects: Arc<dyn Objects>,
        host: &Host,
        prefix: &str,
        fence: Arc<Fence>,
        condemned: &BTreeSet<String>,
        settings: PackSettings,
    ) -> Result<Arc<PackStore>, StoreError> {
        let writer = (Some(fence.epoch()), Some(fence));
        Self::open_as(objects, host, prefix, writer, condemned, settings).await
    }

    /// Opens the blocks under `prefix` for reading only: `put` is refused.
    pub async fn open_to_read(
        objects: Arc<dyn Objects>,
        host: &Host,
        prefix: &str,
        settings: PackSettings,
    ) -> Result<Arc<PackStore>, StoreError> {
        Self::open_as(objects, host, prefix, (None, None), &BTreeSet::new(), settings).await
    }

    async fn open_as(
        objects: Arc<dyn Objects>,
        host: &Host,
        prefix: &str,
        (epoch, fence): (Option<Epoch>, Option<Arc<Fence>>),
        condemned: &BTreeSet<String>,
        settings: PackSettings,
    ) -> Result<Arc<PackStore>, StoreError> {
        let inner = Arc::new(Inner {
            naming: objects.naming(),
            objects,
            folder: format!("{prefix}blocks/"),
            epoch,
            fence,
            state: Mutex::new(State::without(condemned)),
            cache: Mutex::new(BlockCache::new(settings.cache_bytes)),
        });
        open::load(&inner).await?;
        Ok(Arc::new(PackStore {
            inner,
            host: host.clone(),
            settings,
            in_flight: tokio::sync::Mutex::default(),
        }))
    }

    /// A block was not where a reader's index says, or nowhere: packs were groomed or written since. Reads all indexes anew.
    async fn look_again(&self) -> Result<(), StoreError> {
        let fresh = Arc::new(Inner {
            objects: self.inner.objects.clone(),
            naming: self.inner.naming.clone(),
            folder: self.inner.folder.clone(),
            epoch: None,
            fence: None,
            state: Mutex::default(),
            cache: Mutex::new(BlockCache::new(0)),
        });
        open::load(&fresh).await?;
        let state = std::mem::take(&mut *fresh.state());
        *self.inner.state() = state;
        Ok(())
    }

    /// Figures as of now.
    pub fn stats(&self) -> PackStats {
        self.inner.state().stats()
    }

    /// Keys of packs whose index could not be read at opening.
    pub fn damaged_packs(&self) -> Vec<String> {
        self.inner.state().damaged.iter().cloned().collect()
    }

    /// Reads every pack whole and verifies every byte; answers the keys of damaged ones with what is wrong.
    pub async fn verify(&self) -> Result<Vec<(String, String)>, StoreError> {
        let mut faults = Vec::new();
        for pack in self.inner.objects.list(&self.inner.folder).await? {
            match self.inner.objects.get(&pack.key).await {
                Ok(bytes) => {
                    let fault = format::verify(&self.inner.naming, &bytes).err();
                    faults.extend(fault.map(|fault| (pack.key, fault.to_string())));
                }
                Err(StoreError::Damaged { key, detail }) => faults.push((key, detail)),
                Err(other) => return Err(other),
            }
        }
        Ok(faults)
    }

    /// Begins to write a closed pack, and waits while too many are on their way.
    async fn launch(&self, closed: u64) {
        let mut in_flight = self.in_flight.lock().await;
        let inner = self.inner.clone();
        let write = async move {
            if let Err(error) = write::write(&inner, closed).await {
                tracing::warn!(%error, "a pack could not be written; it stays pending until the next flush");
            }
        };
        in_flight.push(self.host.spawn(write));
        // How a task ended does not matter: a pack it has not written is still closed, and is written at the next flush.
        while let Some(Some(_)) = in_flight.next().now_or_never() {}
        while in_flight.len() >= self.settings.packs_in_flight.max(1) {
            in_flight.next().await;
        }
    }

    /// Waits for all packs on their way, then writes those that are still not durable.
    async fn settle(&self) -> Result<(), StoreError> {
        let mut in_flight = self.in_flight.lock().await;
        while in_flight.next().await.is_some() {}
        let closed = self.inner.state().closed_numbers();
        for number in closed {
            write::write(&self.inner, number).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl Blocks for PackStore {
    async fn put(&self, raw: Bytes) -> Result<BlockId, StoreError> {
        if self.inner.epoch.is_none() {
            return Err(StoreError::refused(
                &self.inner.folder,
                "opened to read; open it with an epoch to write",
            ));
        }
        if raw.len() > limits::BLOCK_MAX_BYTES {
            let detail = format!(
                "a block of {} bytes is over the limit of {}",
                raw.len(),
                limits::BLOCK_MAX_BYTES
            );
            return Err(StoreError::refused("a block", detail));
        }
        let id = self.inner.naming.id(&raw);
        let waiting = {
            let mut state = self.inner.state();
            state.give_up_lost(&id);
            if state.contains(&id) {
                return Ok(id);
            }
            state.closed_count()
        };
        if waiting > self.settings.packs_in_flight + self.settings.packs_failed {
            self.settle().await?;
        }
        let stored = format::pack_block(&raw);
        let closed = self.inner.state().add(id, stored, self.settings.pack_bytes);
        if let Some(closed) = closed {
            self.launch(closed).await;
        }
        Ok(id)
    }

    async fn get(&self, id: BlockId) -> Result<Bytes, StoreError> {
        if let Some(raw) = self.inner.cache().get(&id) {
            return Ok(raw);
        }
        let raw = match at_rest::read(&self.inner, id).await {
            // A groom moved it, or it was written by another: what is there now is looked at once more. A writer's own index
            // is always up to date.
            Err(StoreError::NotFound(_)) if self.inner.epoch.is_none() => {
                self.look_again().await?;
                at_rest::read(&self.inner, id).await?
            }
            Err(StoreError::Damaged { key, detail }) => match self.intact_elsewhere(id, &key).await? {
                Some(raw) => raw,
                None => return Err(StoreError::Damaged { key, detail }),
            },
            read => read?,
        };
        self.inner.cache().insert(id, raw.clone());
        Ok(raw)
    }

    fn contains(&self, id: BlockId) -> bool {
        self.inner.state().contains(&id)
    }

    async fn flush(&self) -> Result<(), StoreError> {
        self.inner.state().close();
        self.settle().await
    }
}
