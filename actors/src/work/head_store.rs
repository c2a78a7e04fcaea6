//! A head and its way to rest: spills and folds beside the applying, images in the order that makes them whole or absent.

use std::sync::Arc;

use headwater_cluster::state::ImageRef;
use headwater_head::fold::{FoldDone, FoldJob};
use headwater_head::{Head, Image, SpillDone};
use headwater_host::spawn::Task;
use headwater_model::{Incarnation, Optime};
use headwater_store::blocks::Blocks;

use crate::set::Set;
use crate::worker::Fault;

/// Turns the head's troubles into faults: damage and unknown entries need the user, the rest may pass.
pub fn fault(e: headwater_head::HeadFault) -> Fault {
    use headwater_head::HeadFault as H;
    match e {
        H::Store(e) => e.into(),
        H::Entry { .. } | H::Damaged { .. } => Fault::Blocked(e.to_string()),
    }
}

/// A head with its background work.
pub struct HeadStore {
    set: Arc<Set>,
    incarnation: Incarnation,
    /// The head. Whoever applies checks `memtable_bytes` by calling [`HeadStore::tend`].
    pub head: Head,
    spill: Option<Task<Result<SpillDone, headwater_head::HeadFault>>>,
    fold: Option<Task<Result<FoldDone, headwater_head::HeadFault>>>,
    written_at_last_image: u64,
}

impl HeadStore {
    /// Takes a head under care.
    pub fn new(set: Arc<Set>, incarnation: Incarnation, head: Head) -> Self {
        let written_at_last_image = set.repository.blocks().stats().stored_bytes_written;
        HeadStore { set, incarnation, head, spill: None, fold: None, written_at_last_image }
    }

    /// Opens the head of an image.
    pub async fn open(set: Arc<Set>, image: &ImageRef) -> Result<Self, Fault> {
        let bytes = set.repository.images(image.incarnation).get(&image.name).await?;
        let decoded = Image::decode(&bytes).map_err(fault)?;
        let head = Head::open(blocks(&set), decoded).await.map_err(fault)?;
        Ok(HeadStore::new(set, image.incarnation, head))
    }

    /// Collects finished background work and starts what is due. Cheap when there is nothing to do.
    ///
    /// A memtable far over its budget waits for the running spill: that is the back-pressure on the applying.
    pub async fn tend(&mut self) -> Result<(), Fault> {
        let budget = self.set.ground.tuning.memtable_bytes;
        if self.spill.as_ref().is_some_and(|t| t.is_finished()) || self.head.memtable_bytes() > 2 * budget {
            self.collect_spill().await?;
        }
        if self.fold.as_ref().is_some_and(|t| t.is_finished()) {
            self.collect_fold().await?;
        }
        if self.spill.is_none()
            && self.head.memtable_bytes() > budget
            && let Some(job) = self.head.begin_spill()
        {
            let blocks = blocks(&self.set);
            self.spill = Some(self.set.ground.host.task(async move { job.run(blocks).await }));
        }
        if self.fold.is_none()
            && self.spill.is_none()
            && let Some(job) = self.head.plan_fold().into_iter().next()
        {
            self.fold = Some(self.start_fold(job));
        }
        Ok(())
    }

    fn start_fold(&self, job: FoldJob) -> Task<Result<FoldDone, headwater_head::HeadFault>> {
        let blocks = blocks(&self.set);
        self.set.ground.host.task(async move { job.run(blocks).await })
    }

    async fn collect_spill(&mut self) -> Result<(), Fault> {
        if let Some(task) = self.spill.take() {
            let done = task.await.map_err(|e| Fault::Retry(e.to_string()))?.map_err(fault)?;
            self.head.finish_spill(done);
        }
        Ok(())
    }

    async fn collect_fold(&mut self) -> Result<(), Fault> {
        if let Some(task) = self.fold.take() {
            let done = task.await.map_err(|e| Fault::Retry(e.to_string()))?.map_err(fault)?;
            self.note_missing(&done);
            self.head.finish_fold(done);
        }
        Ok(())
    }

    /// In routine operation a change to a document that does not exist means that something went wrong before.
    fn note_missing(&self, done: &FoldDone) {
        if !done.missing.is_empty() {
            let text = format!("{} changes met no document; resync this replica set", done.missing.len());
            tracing::error!(set = %self.set.id, "{text}");
            self.set.board.set_trouble("fold", Some(text));
        }
    }

    /// Folds every collection to one layer and gives the documents that were changed but never seen.
    pub async fn fold_all(&mut self) -> Result<Vec<headwater_head::fold::Missing>, Fault> {
        self.collect_spill().await?;
        if let Some(task) = self.fold.take() {
            let done = task.await.map_err(|e| Fault::Retry(e.to_string()))?.map_err(fault)?;
            let missing = done.missing.clone();
            self.head.finish_fold(done);
            if !missing.is_empty() {
                return Ok(missing);
            }
        }
        self.head.spill(blocks(&self.set)).await.map_err(fault)?;
        let mut missing = Vec::new();
        for job in self.head.force_folds() {
            let done = self.start_fold(job).await.map_err(|e| Fault::Retry(e.to_string()))?.map_err(fault)?;
            missing.extend(done.missing.iter().cloned());
            self.head.finish_fold(done);
        }
        Ok(missing)
    }

    /// Cuts an image of the head as it is: blocks durable, then the manifest. It does not exist for anyone until a
    /// command makes it known; reversed, a crash could leave a known image with blocks missing.
    pub async fn image(&mut self, consistent_from: Option<Optime>) -> Result<(ImageRef, u64), Fault> {
        self.collect_spill().await?;
        let epoch = self.set.record().map_err(|r| Fault::Retry(r.message))?.1.epoch;
        let image = self.head.image(blocks(&self.set), consistent_from).await.map_err(fault)?;
        let name = format!("{:016x}-{:016x}", image.applied.ts.0, epoch.0);
        self.set.repository.images(self.incarnation).put(&name, &image.encode()).await?;
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
        Ok((reference, stored))
    }
}

/// The repository's blocks as a head sees them.
pub fn blocks(set: &Set) -> Arc<dyn Blocks> {
    set.repository.blocks().clone()
}
