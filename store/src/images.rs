//! Image manifests at rest, one object each under `images/<incarnation>/`. What is inside is the head's business.
//!
//! Names are the caller's and never given twice: position, epoch, and a number at random. An image exists for the
//! cluster only once the control plane has committed it; one that nobody committed is garbage.

use std::sync::Arc;

use bytes::Bytes;
use headwater_model::{Incarnation, ReplicaSetId};
use headwater_protocol::frame::{self, Frame, FrameKind};
use serde::{Deserialize, Serialize};

use crate::fence::Fence;
use crate::objects::{ObjectMeta, Objects, Put, StoreError};

#[derive(Serialize, Deserialize)]
struct Header {
    replica_set: ReplicaSetId,
    name: String,
}

/// The image manifests of one incarnation of a replica set.
pub struct ImageStore {
    objects: Arc<dyn Objects>,
    replica_set: ReplicaSetId,
    folder: String,
    fence: Option<Arc<Fence>>,
}

impl ImageStore {
    /// The images under `prefix` (ends with `/`), to be written within `fence` only. Touches nothing.
    pub fn new(
        objects: Arc<dyn Objects>,
        prefix: &str,
        replica_set: &ReplicaSetId,
        incarnation: Incarnation,
        fence: Option<Arc<Fence>>,
    ) -> ImageStore {
        let folder = format!("{prefix}images/{:016x}/", incarnation.0);
        ImageStore {
            objects,
            replica_set: replica_set.clone(),
            folder,
            fence,
        }
    }

    async fn writable(&self) -> Result<(), StoreError> {
        match &self.fence {
            Some(fence) => fence.check().await.map(drop),
            None => Err(StoreError::refused(
                &self.folder,
                "opened to read; open it with an epoch to write",
            )),
        }
    }

    fn key(&self, name: &str) -> Result<String, StoreError> {
        if name.contains('/') {
            return Err(StoreError::refused(name, "the name of an image has no /"));
        }
        Ok(format!("{}{name}", self.folder))
    }

    /// Stores an image, durably. It is written once: a name that is taken is refused, whatever lies there.
    pub async fn put(&self, name: &str, manifest: &[u8]) -> Result<(), StoreError> {
        let key = self.key(name)?;
        let header = Header {
            replica_set: self.replica_set.clone(),
            name: name.to_owned(),
        };
        self.writable().await?;
        let bytes = frame::seal(FrameKind::Image, &header, manifest).map_err(|e| StoreError::refused(&key, e))?;
        match self.objects.put_new(&key, bytes).await? {
            Put::Created => Ok(()),
            Put::Exists => Err(StoreError::refused(
                &key,
                "an image of this name is there; cut it anew under another",
            )),
        }
    }

    /// Reads and verifies an image.
    pub async fn get(&self, name: &str) -> Result<Bytes, StoreError> {
        let key = self.key(name)?;
        let frame = Frame::open(FrameKind::Image, self.objects.get(&key).await?);
        let frame = frame.map_err(|e| StoreError::damaged(&key, e))?;
        let header: Header = frame.header().map_err(|e| StoreError::damaged(&key, e))?;
        if header.replica_set != self.replica_set || header.name != name {
            let detail = format!("it is image {} of {}", header.name, header.replica_set);
            return Err(StoreError::damaged(&key, detail));
        }
        frame.payload().map_err(|e| StoreError::damaged(&key, e))
    }

    /// Names of all images, sorted. For looking and for recovery; what exists for the cluster is what the control plane
    /// says.
    pub async fn list(&self) -> Result<Vec<String>, StoreError> {
        let objects = self.objects.list(&self.folder).await?;
        let name = |object: ObjectMeta| object.key.strip_prefix(&self.folder).map(str::to_owned);
        Ok(objects.into_iter().filter_map(name).collect())
    }

    /// Removes an image; one that is not there is no error.
    pub async fn delete(&self, name: &str) -> Result<(), StoreError> {
        self.writable().await?;
        self.objects.delete(&self.key(name)?).await
    }
}
