//! Everything of one replica set, under `rs/<deployment>/<set>/`.

use std::collections::BTreeSet;
use std::sync::Arc;

use headwater_host::Host;
use headwater_model::{Epoch, Incarnation, ReplicaSetId};

use crate::fence::Fence;
use crate::images::ImageStore;
use crate::objects::{Objects, StoreError};
use crate::oplog_store::OplogStore;
use crate::pack::{PackSettings, PackStore};
use crate::sync_store::SyncStore;

/// The stores of one replica set. Cheap to clone.
#[derive(Clone)]
pub struct Repository {
    objects: Arc<dyn Objects>,
    replica_set: ReplicaSetId,
    prefix: String,
    blocks: Arc<PackStore>,
    /// `None`: opened to read.
    fence: Option<Arc<Fence>>,
}

/// Where a replica set's objects are, with a `/` at its end.
pub fn prefix(replica_set: &ReplicaSetId) -> String {
    format!("rs/{}/{}/", replica_set.deployment(), replica_set.set())
}

impl Repository {
    /// Opens the repository for writing under `epoch`; from then on everyone with a lower one is fenced.
    pub async fn open(
        objects: Arc<dyn Objects>,
        host: &Host,
        replica_set: &ReplicaSetId,
        epoch: Epoch,
    ) -> Result<Repository, StoreError> {
        Self::open_without(objects, host, replica_set, epoch, &BTreeSet::new()).await
    }

    /// The same; what rests in `condemned` packs counts as absent.
    pub async fn open_without(
        objects: Arc<dyn Objects>,
        host: &Host,
        replica_set: &ReplicaSetId,
        epoch: Epoch,
        condemned: &BTreeSet<String>,
    ) -> Result<Repository, StoreError> {
        let prefix = prefix(replica_set);
        let fence = Fence::claim(objects.clone(), &prefix, epoch).await?;
        let settings = PackSettings::default();
        let blocks = PackStore::open_fenced(objects.clone(), host, &prefix, fence.clone(), condemned, settings).await?;
        Ok(Self::with(objects, replica_set, blocks, Some(fence)))
    }

    /// Opens the blocks for reading only, whatever epoch writes meanwhile.
    pub async fn open_to_read(
        objects: Arc<dyn Objects>,
        host: &Host,
        replica_set: &ReplicaSetId,
    ) -> Result<Repository, StoreError> {
        let blocks =
            PackStore::open_to_read(objects.clone(), host, &prefix(replica_set), PackSettings::default()).await?;
        Ok(Self::with(objects, replica_set, blocks, None))
    }

    fn with(
        objects: Arc<dyn Objects>,
        replica_set: &ReplicaSetId,
        blocks: Arc<PackStore>,
        fence: Option<Arc<Fence>>,
    ) -> Repository {
        Repository {
            objects,
            replica_set: replica_set.clone(),
            prefix: prefix(replica_set),
            blocks,
            fence,
        }
    }

    /// Whose it is.
    pub fn replica_set(&self) -> &ReplicaSetId {
        &self.replica_set
    }

    /// The objects all of it rests in.
    pub fn objects(&self) -> &dyn Objects {
        self.objects.as_ref()
    }

    /// The blocks.
    pub fn blocks(&self) -> &Arc<PackStore> {
        &self.blocks
    }

    /// The image manifests of one incarnation.
    pub fn images(&self, incarnation: Incarnation) -> ImageStore {
        let fence = self.fence.clone();
        ImageStore::new(
            self.objects.clone(),
            &self.prefix,
            &self.replica_set,
            incarnation,
            fence,
        )
    }

    /// Opens the oplog of one incarnation.
    pub async fn oplog(&self, incarnation: Incarnation) -> Result<OplogStore, StoreError> {
        OplogStore::open(self.objects.clone(), &self.prefix, &self.replica_set, incarnation).await
    }

    /// The oplog of one incarnation without a look at it, to be removed whole or not.
    pub fn oplog_unread(&self, incarnation: Incarnation) -> OplogStore {
        OplogStore::unread(self.objects.clone(), &self.prefix, &self.replica_set, incarnation)
    }

    /// Opens the sync store of one incarnation.
    pub async fn sync(&self, incarnation: Incarnation) -> Result<SyncStore, StoreError> {
        let store = SyncStore::open(self.objects.clone(), &self.prefix, &self.replica_set, incarnation).await?;
        Ok(store.fenced(self.fence.clone()))
    }

    /// The sync store of one incarnation without a look at it, to be removed whole or not.
    pub fn sync_unread(&self, incarnation: Incarnation) -> SyncStore {
        SyncStore::unread(self.objects.clone(), &self.prefix, &self.replica_set, incarnation).fenced(self.fence.clone())
    }
}
