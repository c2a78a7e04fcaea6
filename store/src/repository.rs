//! Everything of one replica set, under `rs/<deployment>/<set>/`.

use std::sync::Arc;

use headwater_model::{Epoch, Incarnation, ReplicaSetId};

use crate::images::ImageStore;
use crate::objects::{Objects, StoreError};
use crate::oplog_store::{OplogError, OplogStore};
use crate::pack::{PackSettings, PackStore};
use crate::sync_store::{SyncError, SyncStore};

/// The stores of one replica set. Cheap to clone.
#[derive(Clone)]
pub struct Repository {
    objects: Arc<dyn Objects>,
    replica_set: ReplicaSetId,
    prefix: String,
    blocks: Arc<PackStore>,
    images: Arc<ImageStore>,
}

/// Where a replica set's objects are, with a `/` at its end.
pub fn prefix(replica_set: &ReplicaSetId) -> String {
    format!("rs/{}/{}/", replica_set.deployment(), replica_set.set())
}

impl Repository {
    /// Opens the blocks for writing under `epoch`, and the images.
    pub async fn open(
        objects: Arc<dyn Objects>,
        replica_set: &ReplicaSetId,
        epoch: Epoch,
        settings: PackSettings,
    ) -> Result<Repository, StoreError> {
        let blocks = PackStore::open(objects.clone(), &prefix(replica_set), epoch, settings).await?;
        Ok(Self::with(objects, replica_set, blocks))
    }

    /// Opens the blocks for reading only, and the images: whatever epoch writes meanwhile.
    pub async fn open_to_read(
        objects: Arc<dyn Objects>,
        replica_set: &ReplicaSetId,
        settings: PackSettings,
    ) -> Result<Repository, StoreError> {
        let blocks = PackStore::open_to_read(objects.clone(), &prefix(replica_set), settings).await?;
        Ok(Self::with(objects, replica_set, blocks))
    }

    fn with(objects: Arc<dyn Objects>, replica_set: &ReplicaSetId, blocks: Arc<PackStore>) -> Repository {
        let prefix = prefix(replica_set);
        let images = Arc::new(ImageStore::new(objects.clone(), &prefix, replica_set));
        Repository {
            objects,
            replica_set: replica_set.clone(),
            prefix,
            blocks,
            images,
        }
    }

    /// Whose it is.
    pub fn replica_set(&self) -> &ReplicaSetId {
        &self.replica_set
    }

    /// The blocks.
    pub fn blocks(&self) -> &Arc<PackStore> {
        &self.blocks
    }

    /// The image manifests.
    pub fn images(&self) -> &ImageStore {
        &self.images
    }

    /// Opens the oplog of one incarnation.
    pub async fn oplog(&self, incarnation: Incarnation) -> Result<Arc<OplogStore>, OplogError> {
        OplogStore::open(self.objects.clone(), &self.prefix, &self.replica_set, incarnation).await
    }

    /// Opens the sync store of one incarnation.
    pub async fn sync(&self, incarnation: Incarnation) -> Result<Arc<SyncStore>, SyncError> {
        SyncStore::open(self.objects.clone(), &self.prefix, &self.replica_set, incarnation).await
    }
}
