//! What the ingest and the children of one replica set share.

use std::sync::Arc;

use headwater_cluster::{Control, NodeId, ReplicaSet, State};
use headwater_host::Host;
use headwater_model::{Epoch, Incarnation, ReplicaSetId, limits};
use headwater_protocol::agent::{Refusal, RefusalKind};
use headwater_store::backend::directory::DirectoryObjects;
use headwater_store::backend::memory::MemoryObjects;
use headwater_store::blocks::Blocks;
use headwater_store::objects::{Objects, StoreError};
use headwater_store::oplog_store::OplogStore;
use headwater_store::pack::{PackSettings, PackStore};
use headwater_store::repository::Repository;
use headwater_store::sync_store::SyncStore;
use tokio::sync::Mutex;

use crate::board::Board;
use crate::child::Waker;

/// What an operator may set and the children need.
#[derive(Clone, Debug)]
pub struct Tuning {
    /// Bytes of changes a head holds in memory before it spills them.
    pub memtable_bytes: usize,
    /// Seconds between waypoints of a head that changes.
    pub waypoint_seconds: u64,
    /// Seconds between scheduled snapshots of a deployment that was added without an interval of its own.
    pub snapshot_interval_s: u64,
    /// Where restores keep what they spill; removed when they end. Without a folder it is kept in memory.
    pub scratch: Option<std::path::PathBuf>,
    /// Threads for actors: replica sets are dealt to them in turn. With none, actors run where the node was started.
    pub threads: usize,
}

impl Default for Tuning {
    fn default() -> Self {
        Tuning {
            memtable_bytes: limits::MEMTABLE_BUDGET_BYTES,
            waypoint_seconds: 60,
            // As in Ops Manager.
            snapshot_interval_s: 6 * 3600,
            scratch: Some(std::env::temp_dir().join("headwater-scratch")),
            threads: 2,
        }
    }
}

/// The parts of a node that every replica set needs.
#[derive(Clone)]
pub struct Ground {
    /// Clock, entropy, tasks, blocking work.
    pub host: Host,
    /// The control state.
    pub control: Control,
    /// The backing store.
    pub objects: Arc<dyn Objects>,
    /// Which node this is.
    pub node: NodeId,
    /// Settings.
    pub tuning: Tuning,
}

/// The stores of one incarnation.
#[derive(Clone)]
pub struct Stores {
    /// Whose history these are.
    pub incarnation: Incarnation,
    /// The oplog as shipped.
    pub oplog: Arc<OplogStore>,
    /// The first copy as shipped.
    pub sync: Arc<SyncStore>,
}

/// One replica set on this node.
pub struct Set {
    /// Which one.
    pub id: ReplicaSetId,
    /// The node's parts.
    pub ground: Ground,
    /// Blocks, images, and the doors to the stores of every incarnation.
    pub repository: Repository,
    /// What is known right now.
    pub board: Board,
    /// Wakes the child that owns the head.
    pub head_waker: Waker,
    /// Wakes the snapshot child.
    pub snapshot_waker: Waker,
    /// Wakes the restore child.
    pub restore_waker: Waker,
    /// Requests for images, carried out by the child that owns the head.
    pub cuts: crate::work::cut::Cuts,
    stores: Mutex<Option<Stores>>,
}

impl Set {
    /// Opens the repository.
    pub async fn open(ground: Ground, id: ReplicaSetId) -> Result<Arc<Set>, StoreError> {
        let epoch = ground
            .control
            .state()
            .replica_sets
            .get(&id)
            .map(|r| r.epoch)
            .unwrap_or_default();
        let repository = Repository::open(ground.objects.clone(), &ground.host, &id, epoch).await?;
        Ok(Arc::new(Set {
            id,
            ground,
            repository,
            board: Board::default(),
            head_waker: Waker::default(),
            snapshot_waker: Waker::default(),
            restore_waker: Waker::default(),
            cuts: crate::work::cut::Cuts::default(),
            stores: Mutex::new(None),
        }))
    }

    /// The control state, and this replica set in it.
    pub fn record(&self) -> Result<(Arc<State>, ReplicaSet), Refusal> {
        let state = self.ground.control.state();
        let record = state.replica_sets.get(&self.id).cloned();
        let record = record.ok_or_else(|| Refusal::new(RefusalKind::NotFound, format!("{} is not known", self.id)))?;
        Ok((state, record))
    }

    /// The stores of an incarnation; opened once for the current one.
    pub async fn stores(&self, incarnation: Incarnation) -> Result<Stores, StoreError> {
        let mut cached = self.stores.lock().await;
        if let Some(stores) = cached.as_ref().filter(|s| s.incarnation == incarnation) {
            return Ok(stores.clone());
        }
        let opened = Stores {
            incarnation,
            oplog: Arc::new(self.repository.oplog(incarnation).await?),
            sync: Arc::new(self.repository.sync(incarnation).await?),
        };
        let newer = cached.as_ref().is_none_or(|s| s.incarnation < incarnation);
        if newer {
            *cached = Some(opened.clone());
        }
        Ok(opened)
    }
}

/// A blockstore for what a restore spills, in a folder of its own.
pub async fn scratch(ground: &Ground, restore: u64) -> Result<Arc<dyn Blocks>, StoreError> {
    let objects: Arc<dyn Objects> = match &ground.tuning.scratch {
        Some(scratch) => {
            let folder = scratch.join(format!("restore-{restore}"));
            Arc::new(DirectoryObjects::open(&folder, ground.host.blocking.clone()).await?)
        }
        None => Arc::new(MemoryObjects::new()),
    };
    let blocks: Arc<dyn Blocks> =
        PackStore::open(objects, &ground.host, "scratch/", Epoch(1), PackSettings::default()).await?;
    Ok(blocks)
}

/// Removes a restore's folder; one that stays is removed at the next start.
pub async fn remove_scratch(ground: &Ground, restore: u64) {
    let Some(scratch) = &ground.tuning.scratch else { return };
    let folder = scratch.join(format!("restore-{restore}"));
    ground.host.blocking(move || std::fs::remove_dir_all(folder).ok()).await;
}
