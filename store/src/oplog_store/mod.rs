//! The durable home of oplog slices of one incarnation: an unbroken chain, with exactly one successor per position.
//!
//! Write order: slice durable → tip advanced → acknowledged. Reversed, an acknowledged slice could be lost.
//! The fence is the name: a slice is written with `put_new` under the position before it, so of two writers at one
//! tip one wins and the other learns of it. A maintainer may merge or trim what lies before the *floor* (see
//! [`index`]); since that frees names, a writer looks for a newer manifest after each write and before it
//! acknowledges. A manifest is durable before any slice is removed, so a writer who could take a freed name sees it.

mod append;
pub mod index;
mod keys;
mod load;
mod maintain;
mod read;
mod segment;
mod walk;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use headwater_model::{Incarnation, Optime, ReplicaSetId, Ts};
use headwater_protocol::agent::TailOrder;

use crate::note;
use crate::objects::{Objects, StoreError};
pub use append::AppendError;
use index::{Anchor, Index, Manifest};
pub use maintain::{MergeSettings, Merged};
pub use read::{OplogReader, OplogSlice, Verified};
pub use walk::{Walk, Walked};

const MANIFEST: &str = "oplog-manifest";

/// See the module. Share one per process and replica set; several processes may append and read at once.
pub struct OplogStore {
    objects: Arc<dyn Objects>,
    replica_set: ReplicaSetId,
    incarnation: Incarnation,
    folder: String,
    index: Mutex<Option<Index>>,
    /// One append at a time.
    appending: tokio::sync::Mutex<()>,
    /// One merge or trim at a time.
    maintaining: tokio::sync::Mutex<()>,
    /// The index of the segment read last.
    segment: Mutex<Option<(String, Arc<Vec<segment::Part>>)>>,
}

impl OplogStore {
    /// Opens the oplog of an incarnation under `prefix` (ends with `/`): one listing, the manifest, the last slice.
    /// An oplog that was not begun opens empty.
    pub async fn open(
        objects: Arc<dyn Objects>,
        prefix: &str,
        replica_set: &ReplicaSetId,
        incarnation: Incarnation,
    ) -> Result<OplogStore, StoreError> {
        let store = OplogStore::unread(objects, prefix, replica_set, incarnation);
        store.refresh().await?;
        Ok(store)
    }

    /// The same without a look at what is there: for an oplog that is to be removed, whole or not.
    pub fn unread(
        objects: Arc<dyn Objects>,
        prefix: &str,
        replica_set: &ReplicaSetId,
        incarnation: Incarnation,
    ) -> OplogStore {
        OplogStore {
            objects,
            replica_set: replica_set.clone(),
            incarnation,
            folder: keys::folder(prefix, incarnation),
            index: Mutex::default(),
            appending: tokio::sync::Mutex::default(),
            maintaining: tokio::sync::Mutex::default(),
            segment: Mutex::default(),
        }
    }

    /// Marks where the incarnation starts. Again with the same position: no change.
    pub async fn begin(&self, start: Optime) -> Result<(), StoreError> {
        let _one_at_a_time = self.appending.lock().await;
        self.refresh().await?;
        if self.index().is_none() {
            let first = Manifest {
                number: 0,
                replica_set: self.replica_set.clone(),
                incarnation: self.incarnation,
                origin: start,
                start: Anchor {
                    after: start,
                    slice: String::new(),
                },
                segments: Vec::new(),
            };
            let key = keys::manifest(&self.folder, 0);
            self.objects.put_new(&key, note::seal(MANIFEST, &first)?).await?;
            self.refresh().await?;
        }
        let origin = self.read_index(|index| index.manifest.origin)?;
        if origin == start {
            return Ok(());
        }
        let detail = format!("the oplog begins after {origin}, not after {start}: start a new incarnation");
        Err(StoreError::refused(&self.folder, detail))
    }

    /// The end of the chain, where the tail goes on; `None` before `begin`. Looks at what this process knows, and at
    /// the store only while nothing is known.
    pub async fn tip(&self) -> Result<Option<TailOrder>, StoreError> {
        if self.index().is_none() {
            self.refresh().await?;
        }
        Ok(self.index().as_ref().map(|index| index.tip.order()))
    }

    /// What is stored: entries after the first position, up to the second. `None` before `begin`.
    pub fn range(&self) -> Option<(Optime, Optime)> {
        self.index()
            .as_ref()
            .map(|index| (index.manifest.start.after, index.tip.after))
    }

    /// Where the incarnation began. `None` before `begin`.
    pub fn origin(&self) -> Option<Optime> {
        self.index().as_ref().map(|index| index.manifest.origin)
    }

    /// How many slices hold entries after `from` and up to `to`, and their bytes at rest. Merged slices count by whole
    /// segments: good for progress, not for accounts.
    pub fn slices_between(&self, from: Optime, to: Optime) -> (u64, u64) {
        self.index().as_ref().map_or((0, 0), |index| index.between(from, to))
    }

    /// The last position stored whose second is at most `seconds`; the start itself counts. `None` when all that is
    /// stored is later. While the tip is within that second, more may come.
    pub async fn find_wall(self: &Arc<Self>, seconds: u32) -> Result<Option<Optime>, StoreError> {
        let end = Optime::new(Ts::new(seconds, u32::MAX), i64::MAX);
        let (start, tip) = self.range().ok_or_else(|| self.not_begun())?;
        if end < start || tip <= end {
            return Ok((tip <= end).then_some(tip));
        }
        match self.read(end).next().await? {
            Some(slice) => slice.last_up_to(end.ts).map(Some),
            None => Ok(Some(tip)),
        }
    }

    fn index(&self) -> MutexGuard<'_, Option<Index>> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_index<T>(&self, read: impl FnOnce(&Index) -> T) -> Result<T, StoreError> {
        self.index().as_ref().map(read).ok_or_else(|| self.not_begun())
    }

    fn not_begun(&self) -> StoreError {
        let detail = "the oplog was not begun: an agent must start the first copy of this incarnation";
        StoreError::refused(&self.folder, detail)
    }

    /// The chain is sound up to `after`, and does not go on.
    fn broken(&self, after: Optime, detail: impl std::fmt::Display) -> StoreError {
        let detail = format!("the oplog breaks after {after}: {detail}; what comes later needs a new incarnation");
        StoreError::damaged(&self.folder, detail)
    }
}
