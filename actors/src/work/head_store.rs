//! A head and its way to rest: spills and folds beside the applying, images in the order that makes them whole or absent.

use std::sync::Arc;

use bytes::Bytes;

use futures::FutureExt;
use headwater_cluster::ImageRef;
use headwater_head::inspect::needs;
use headwater_head::{FoldDone, FoldJob, Head, HeadError, HeadFault, Image, Missing, SpillDone, SpillJob};
use headwater_host::{Task, TaskEnded};
use headwater_model::{Epoch, Incarnation, Optime};
use headwater_store::blocks::Blocks;
use headwater_store::objects::StoreError;
use tokio::sync::OwnedMutexGuard;

use crate::set::Set;
use crate::work::cut::CutImage;
use crate::worker::Fault;

/// How far a capped collection of a source before 5.0 may grow beyond its bounds before an image trims it.
const CAPPED_SLACK_PERCENT: u64 = 50;

/// Turns the head's troubles into faults: a store's troubles may pass, damage needs the user.
pub fn fault(e: HeadError) -> Fault {
    match e {
        HeadError::Store(e) => e.into(),
        HeadError::Broken => Fault::Retry(e.to_string()),
        other => Fault::Blocked(other.to_string()),
    }
}

/// An entry that was not applied is never passed over: the head waits for the user, or for a program that knows it.
pub fn entry_fault(e: HeadFault) -> Fault {
    match e {
        HeadFault::Broken => Fault::Retry(e.to_string()),
        other => Fault::Blocked(other.to_string()),
    }
}

/// A head with its background work.
pub struct HeadStore {
    set: Arc<Set>,
    incarnation: Incarnation,
    _alive: OwnedMutexGuard<()>,
    /// The head. Whoever applies checks `memtable_bytes` by calling [`HeadStore::tend`].
    pub head: Head,
    spill: Option<Running<SpillDone>>,
    fold: Option<Running<FoldDone>>,
    missing: Vec<Missing>,
    written_at_last_image: u64,
}

type Running<T> = Task<Result<T, HeadError>>;

/// The result of background work that has ended; `None` while it runs.
fn ended<T>(task: &mut Option<Running<T>>) -> Option<Result<T, Fault>> {
    let result = task.as_mut()?.now_or_never()?;
    *task = None;
    Some(settled(result))
}

async fn awaited<T>(task: &mut Option<Running<T>>) -> Option<Result<T, Fault>> {
    let result = task.as_mut()?.await;
    *task = None;
    Some(settled(result))
}

fn settled<T>(result: Result<Result<T, HeadError>, TaskEnded>) -> Result<T, Fault> {
    result.map_err(|e| Fault::Retry(e.to_string()))?.map_err(fault)
}

impl HeadStore {
    /// Takes a head under care, once no other one of the replica set is.
    pub async fn new(set: Arc<Set>, incarnation: Incarnation, head: Head) -> Self {
        let alive = set.head.clone().lock_owned().await;
        let written_at_last_image = set.repository.blocks().stats().stored_bytes_written;
        HeadStore {
            set,
            incarnation,
            _alive: alive,
            head,
            spill: None,
            fold: None,
            missing: Vec::new(),
            written_at_last_image,
        }
    }

    /// Opens the head of an image.
    pub async fn open(set: Arc<Set>, image: &ImageRef) -> Result<Self, Fault> {
        let bytes = manifest(&set, image.incarnation, &image.name).await?;
        let decoded = Image::decode(&bytes).map_err(fault)?;
        let head = Head::open(blocks(&set), decoded).await.map_err(fault)?;
        Ok(HeadStore::new(set, image.incarnation, head).await)
    }

    /// Collects finished background work and starts what is due. Cheap when there is nothing to do.
    ///
    /// A memtable far over its budget waits for the running spill: that is the back-pressure on the applying.
    pub async fn tend(&mut self) -> Result<(), Fault> {
        let budget = self.set.ground.tuning.memtable_bytes;
        let spilled = if self.head.memtable_bytes() > 2 * budget {
            awaited(&mut self.spill).await
        } else {
            ended(&mut self.spill)
        };
        if let Some(done) = spilled {
            self.head.finish_spill(done?);
        }
        if let Some(done) = ended(&mut self.fold) {
            self.finish_fold(done?);
        }
        if self.spill.is_none()
            && self.head.memtable_bytes() > budget
            && let Some(job) = self.head.begin_spill()
        {
            self.spill = Some(self.start_spill(job));
        }
        if self.fold.is_none()
            && self.spill.is_none()
            && let Some(job) = self.head.plan_fold().into_iter().next()
        {
            self.fold = Some(self.start_fold(job));
        }
        self.set.board.set_memtable_bytes(self.head.memtable_bytes());
        Ok(())
    }

    fn start_spill(&self, job: SpillJob) -> Running<SpillDone> {
        tracing::debug!(set = %self.set.id, "spill begins");
        let blocks = blocks(&self.set);
        self.set.ground.host.spawn(async move {
            let done = job.run(blocks).await;
            tracing::debug!("spill ended");
            done
        })
    }

    fn start_fold(&self, job: FoldJob) -> Running<FoldDone> {
        tracing::debug!(set = %self.set.id, "fold begins");
        let blocks = blocks(&self.set);
        self.set.ground.host.spawn(async move {
            let done = job.run(blocks).await;
            tracing::debug!("fold ended");
            done
        })
    }

    fn finish_fold(&mut self, done: FoldDone) {
        let missing = self.head.finish_fold(done);
        self.missing.extend(missing);
    }

    /// Waits for what runs beside the applying.
    async fn quiesce(&mut self) -> Result<(), Fault> {
        if let Some(done) = awaited(&mut self.spill).await {
            self.head.finish_spill(done?);
        }
        if let Some(done) = awaited(&mut self.fold).await {
            self.finish_fold(done?);
        }
        Ok(())
    }

    /// The documents that folds found changed but never seen, since this was last asked.
    pub fn take_missing(&mut self) -> Vec<Missing> {
        std::mem::take(&mut self.missing)
    }

    /// Folds every collection to one layer and gives the documents that were changed but never seen.
    pub async fn fold_all(&mut self) -> Result<Vec<Missing>, Fault> {
        self.quiesce().await?;
        if let Some(job) = self.head.begin_spill() {
            self.spill = Some(self.start_spill(job));
            self.quiesce().await?;
        }
        for job in self.head.force_folds() {
            self.fold = Some(self.start_fold(job));
            self.quiesce().await?;
        }
        Ok(self.take_missing())
    }

    /// Cuts an image of the head as it is: blocks durable, then the manifest. It does not exist for anyone until a
    /// command makes it known; reversed, a crash could leave a known image with blocks missing.
    pub async fn image(&mut self, consistent_from: Option<Optime>) -> Result<CutImage, Fault> {
        self.quiesce().await?;
        self.head.trim_capped(CAPPED_SLACK_PERCENT).await.map_err(fault)?;
        tracing::debug!(set = %self.set.id, "image begins");
        let epoch = self.set.record().map_err(|r| Fault::Retry(r.message))?.1.epoch;
        if let Some(at) = consistent_from {
            self.head.set_consistent_from(at);
        }
        let job = self.head.begin_image(&self.set.id, self.incarnation).map_err(fault)?;
        let (image, spilled) = job.run(blocks(&self.set)).await.map_err(fault)?;
        self.head.finish_spill(spilled);
        self.set.repository.blocks().flush().await?;
        // Held from before it is asked whether blocks are lost: who finds some meanwhile waits, and sees this image.
        let unsettled = self.set.images.clone().read_owned().await;
        self.require_whole(&image).await?;
        let name = name(image.applied, epoch, self.set.ground.host.entropy.number());
        let manifest = image.encode().map_err(fault)?;
        self.set.note_cut(self.incarnation, &name);
        let images = self.set.repository.images(self.incarnation);
        images.put(&name, &manifest).await?;
        // From now on a command may be on its way.
        self.set.note_cut(self.incarnation, &name);
        tracing::debug!(set = %self.set.id, name, "image ended");
        let written = self.set.repository.blocks().stats().stored_bytes_written;
        let stored = written - std::mem::replace(&mut self.written_at_last_image, written);
        let reference = ImageRef {
            name,
            incarnation: self.incarnation,
            at: image.applied,
            replay_from: image.replay_from,
            documents: image.totals.documents,
            collections: image.totals.collections,
            logical_bytes: image.totals.bytes,
        };
        Ok(CutImage {
            image: reference,
            stored_bytes: stored,
            unsettled,
        })
    }

    /// Refuses an image of blocks that rotted before any image needed them: from the last one the head makes them anew. What
    /// comes from a head whose own image is damaged is known to be damaged.
    async fn require_whole(&self, image: &Image) -> Result<(), Fault> {
        let lost = self.set.repository.blocks().lost();
        let (state, _) = self.set.record().map_err(|r| Fault::Retry(r.message))?;
        if lost.is_empty() || state.damage_of_head(&self.set.id).is_some() {
            return Ok(());
        }
        match needs(&blocks(&self.set), image, &lost).await.map_err(fault)? {
            true => Err(Fault::Retry(
                "blocks that only the head needed are lost; it is built anew from its last image".to_owned(),
            )),
            false => Ok(()),
        }
    }
}

/// A name for an image. What a head holds can be cut several times at one position, before and after a fold that counts
/// better: each cut is an image of its own.
fn name(at: Optime, epoch: Epoch, number: u64) -> String {
    format!("{:016x}-{:016x}-{number:016x}", at.ts.0, epoch.0)
}

/// The epoch under which an image was cut, by its name.
pub fn epoch_of(name: &str) -> Option<Epoch> {
    let epoch = name.split('-').nth(1)?;
    u64::from_str_radix(epoch, 16).ok().map(Epoch)
}

/// The repository's blocks as a head sees them.
pub fn blocks(set: &Set) -> Arc<dyn Blocks> {
    set.repository.blocks().clone()
}

/// Reads the manifest of an image that the control state names.
pub async fn manifest(set: &Set, incarnation: Incarnation, name: &str) -> Result<Bytes, StoreError> {
    set.repository.images(incarnation).get(name).await
}
