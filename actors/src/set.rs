//! What the ingest and the children of one replica set share.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use headwater_cluster::alerts::Thresholds;
use headwater_cluster::integrity::DamageKind;
use headwater_cluster::placement::Patience;
use headwater_cluster::shares::Rhythm;
use headwater_cluster::{Control, ImageRef, NodeId, ReplicaSet, State};
use headwater_host::Host;
use headwater_model::{Epoch, Incarnation, ReplicaSetId, limits};
use headwater_protocol::agent::{Refusal, RefusalKind};
use headwater_store::backend::directory::DirectoryObjects;
use headwater_store::backend::memory::MemoryObjects;
use headwater_store::backend::mongodb::BackingSet;
use headwater_store::blocks::Blocks;
use headwater_store::objects::{Objects, StoreError};
use headwater_store::oplog_store::{MergeSettings, OplogStore};
use headwater_store::pack::{PackSettings, PackStore};
use headwater_store::repository::Repository;
use headwater_store::sealed::Keyring;
use headwater_store::sync_store::SyncStore;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::alerting::Webhook;
use crate::board::Board;
use crate::child::Waker;
use crate::seal::{self, Purpose};
use crate::work::groom::when::GroomRules;

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
    /// The cluster's name for machines, for a node that begins one.
    pub cluster: String,
    /// Where other nodes reach this one, `host:port`; without it, what the cluster knows is left as it is.
    pub address: Option<String>,
    /// Nodes to ask for a vote while none is known.
    pub seeds: Vec<NodeId>,
    /// When a node counts as lost.
    pub patience: Patience,
    /// The MongoDB replica sets that hold the stores: none of them may be a source.
    pub backing_sets: Vec<BackingSet>,
    /// When slices of stored oplog are merged.
    pub merge: MergeSettings,
    /// When packs are groomed.
    pub groom: GroomRules,
    /// Seconds between looks at what is left over, and at the stored oplog.
    pub tend_seconds: u64,
    /// How quickly everything at rest is read and verified.
    pub rhythm: Rhythm,
    /// Bytes a second that are read by shares.
    pub check_bytes_per_second: u64,
    /// Seconds between proof restores; 0 for none by itself.
    pub proof_interval_s: u64,
    /// When trouble is worth an alert.
    pub thresholds: Thresholds,
    /// Who is told of alerts.
    pub webhook: Option<Webhook>,
    /// Data keys, and where master keys come from.
    pub keyring: Keyring,
    /// Whether a deployment is encrypted that was added without a word about it.
    pub encrypt: bool,
}

impl Tuning {
    pub(crate) fn tend_every(&self) -> Duration {
        Duration::from_secs(self.tend_seconds)
    }
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
            cluster: "headwater".to_owned(),
            address: None,
            seeds: Vec::new(),
            patience: Patience::default(),
            backing_sets: Vec::new(),
            merge: MergeSettings::default(),
            groom: GroomRules::default(),
            tend_seconds: 60,
            rhythm: Rhythm::default(),
            check_bytes_per_second: 64 << 20,
            proof_interval_s: 86_400,
            thresholds: Thresholds::default(),
            webhook: None,
            keyring: Keyring::default(),
            encrypt: false,
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
    /// The backing store. What is of a deployment is reached through `seal.rs`.
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
    /// Wakes the check child.
    pub check_waker: Waker,
    /// Requests for images, carried out by the child that owns the head.
    pub cuts: crate::work::cut::Cuts,
    /// Read-locked from the writing of an image's manifest until it is known; write-locked while leftovers are removed.
    pub images: Arc<tokio::sync::RwLock<()>>,
    /// Held by whoever has the head. Blocks that only a head knows of are alive though no image names them.
    pub head: Arc<Mutex<()>>,
    /// When images were cut, by this process.
    cut: std::sync::Mutex<BTreeMap<(Incarnation, String), Instant>>,
    /// The assignment this node works under; `None` when it only reads.
    epoch: Option<Epoch>,
    /// The children that were refused as stale, and when.
    fenced: std::sync::Mutex<BTreeMap<&'static str, Instant>>,
    stores: Mutex<Option<Stores>>,
}

/// A command whose outcome is not known arrives within this time or never.
const COMMANDS_ARRIVE_WITHIN: Duration = Duration::from_secs(60);
/// How long the control state may take to say why a child was refused as stale.
const DOUBT_AFTER: Duration = Duration::from_secs(10);

impl Set {
    /// Opens the repository for writing under `epoch`, which fences everyone with a lower one.
    pub async fn open(ground: Ground, id: ReplicaSetId, epoch: Epoch) -> Result<Arc<Set>, StoreError> {
        let state = ground.control.state();
        let condemned = state.grooms.get(&id).map(|grooming| grooming.condemned.clone());
        let condemned = condemned.unwrap_or_default();
        let objects = seal::objects_of(&ground, id.deployment(), Purpose::Write).await?;
        let repository = Repository::open_without(objects, &ground.host, &id, epoch, &condemned).await?;
        let integrity = state.integrity_of(&id);
        for (object, damage) in integrity.into_iter().flat_map(|known| &known.damage) {
            if matches!(damage.kind, DamageKind::Blocks | DamageKind::PackIndex) {
                repository.blocks().recall_lost(object).await?;
            }
        }
        Ok(Arc::new(Set::with(ground, id, repository, Some(epoch))))
    }

    /// Opens the repository for reading, as it is now, whoever owns it.
    pub async fn open_to_read(ground: Ground, id: ReplicaSetId) -> Result<Arc<Set>, StoreError> {
        let objects = seal::objects_of(&ground, id.deployment(), Purpose::Read).await?;
        let repository = Repository::open_to_read(objects, &ground.host, &id).await?;
        Ok(Arc::new(Set::with(ground, id, repository, None)))
    }

    fn with(ground: Ground, id: ReplicaSetId, repository: Repository, epoch: Option<Epoch>) -> Set {
        Set {
            id,
            ground,
            repository,
            board: epoch.map_or_else(Board::default, Board::of),
            head_waker: Waker::default(),
            snapshot_waker: Waker::default(),
            restore_waker: Waker::default(),
            check_waker: Waker::default(),
            cuts: crate::work::cut::Cuts::default(),
            images: Arc::default(),
            head: Arc::default(),
            cut: std::sync::Mutex::default(),
            epoch,
            fenced: std::sync::Mutex::default(),
            stores: Mutex::new(None),
        }
    }

    /// The control state, and this replica set in it. Refused as stale once the assignment it was opened under is over:
    /// nothing that was begun under one epoch goes on under the next.
    pub fn record(&self) -> Result<(Arc<State>, ReplicaSet), Refusal> {
        let state = self.ground.control.state();
        let record = state.replica_sets.get(&self.id).cloned();
        let record = record.ok_or_else(|| Refusal::new(RefusalKind::NotFound, format!("{} is not known", self.id)))?;
        match self.epoch {
            Some(epoch) if epoch != record.epoch || record.node != self.ground.node => {
                let message = format!(
                    "{} was given to node {} at epoch {}",
                    self.id, record.node, record.epoch
                );
                Err(Refusal::new(RefusalKind::Unavailable, message))
            }
            _ => Ok((state, record)),
        }
    }

    /// A child was refused as stale, or runs again.
    pub fn set_fenced(&self, child: &'static str, fenced: bool) {
        let mut all = self.fenced.lock().unwrap_or_else(PoisonError::into_inner);
        match fenced {
            true => _ = all.entry(child).or_insert_with(Instant::now),
            false => _ = all.remove(child),
        }
    }

    /// An image is about to be written.
    pub fn note_cut(&self, incarnation: Incarnation, name: &str) {
        let mut cut = self.cut.lock().unwrap_or_else(PoisonError::into_inner);
        cut.insert((incarnation, name.to_owned()), Instant::now());
    }

    /// What was to be made known of an image is: nothing is on its way any more.
    pub fn settled(&self, image: &ImageRef) {
        let mut cut = self.cut.lock().unwrap_or_else(PoisonError::into_inner);
        cut.remove(&(image.incarnation, image.name.clone()));
    }

    /// Images that were cut so lately that a command which makes them known may still be on its way though nobody waits for it.
    pub fn lately_cut(&self) -> BTreeSet<(Incarnation, String)> {
        let mut cut = self.cut.lock().unwrap_or_else(PoisonError::into_inner);
        cut.retain(|_, when| when.elapsed() < COMMANDS_ARRIVE_WITHIN);
        cut.keys().cloned().collect()
    }

    /// Every child begins anew.
    pub fn forget_fenced(&self) {
        self.fenced.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Whether a child was refused as stale, and nothing has explained it since.
    pub fn is_in_doubt(&self) -> bool {
        let fenced = self.fenced.lock().unwrap_or_else(PoisonError::into_inner);
        fenced.values().any(|since| since.elapsed() > DOUBT_AFTER)
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
pub async fn scratch(set: &Set, restore: u64) -> Result<Arc<dyn Blocks>, StoreError> {
    let ground = &set.ground;
    let objects: Arc<dyn Objects> = match &ground.tuning.scratch {
        Some(scratch) => {
            let folder = scratch.join(format!("restore-{restore}"));
            Arc::new(DirectoryObjects::open(&folder, ground.host.blocking.clone()).await?)
        }
        None => Arc::new(MemoryObjects::new()),
    };
    scratch_over(set, objects).await
}

/// The same in memory, for little.
pub async fn scratch_in_memory(set: &Set) -> Result<Arc<dyn Blocks>, StoreError> {
    scratch_over(set, Arc::new(MemoryObjects::new())).await
}

async fn scratch_over(set: &Set, objects: Arc<dyn Objects>) -> Result<Arc<dyn Blocks>, StoreError> {
    let objects = seal::passing(&set.ground, set.id.deployment(), objects);
    let blocks: Arc<dyn Blocks> =
        PackStore::open(objects, &set.ground.host, "scratch/", Epoch(1), PackSettings::default()).await?;
    Ok(blocks)
}

/// Removes a restore's folder; one that stays is removed at the next start.
pub async fn remove_scratch(ground: &Ground, restore: u64) {
    let Some(scratch) = &ground.tuning.scratch else { return };
    let folder = scratch.join(format!("restore-{restore}"));
    ground.host.blocking(move || std::fs::remove_dir_all(folder).ok()).await;
}
