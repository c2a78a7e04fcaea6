//! Image manifests at rest, one object each under `images/`. What is inside is the head's business.
//!
//! An image is written once: its name says incarnation, position and epoch, and one epoch has one owner. It exists for
//! the cluster only once the control plane has committed it; an image nobody committed is garbage.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use headwater_model::{Epoch, Incarnation, Optime, ReplicaSetId, Ts};
use headwater_protocol::frame::{self, Frame, FrameKind};
use serde::{Deserialize, Serialize};

use crate::objects::{Objects, Put, StoreError};

/// The name of an image: `<incarnation>-<ts>-<term>-<epoch>`, each as 16 hexadecimal digits. Sorts by position within
/// an incarnation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ImageName {
    /// The history it belongs to.
    pub incarnation: Incarnation,
    /// The position it stands at.
    pub at: Optime,
    /// The epoch it was made under.
    pub epoch: Epoch,
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ImageName { incarnation, at, epoch } = self;
        write!(
            f,
            "{:016x}-{:016x}-{:016x}-{:016x}",
            incarnation.0, at.ts.0, at.term as u64, epoch.0
        )
    }
}

/// The text names no image.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no name of an image: take one from the list of images")]
pub struct InvalidImageName(pub String);

impl FromStr for ImageName {
    type Err = InvalidImageName;

    fn from_str(text: &str) -> Result<Self, InvalidImageName> {
        let number = |part: &str| {
            if part.len() == 16 {
                u64::from_str_radix(part, 16).ok()
            } else {
                None
            }
        };
        let numbers: Option<Vec<u64>> = text.split('-').map(number).collect();
        match numbers.as_deref() {
            Some(&[incarnation, ts, term, epoch]) => Ok(ImageName {
                incarnation: Incarnation(incarnation),
                at: Optime::new(Ts(ts), term as i64),
                epoch: Epoch(epoch),
            }),
            _ => Err(InvalidImageName(text.to_owned())),
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Header {
    replica_set: ReplicaSetId,
    name: String,
}

/// One listed image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageMeta {
    /// Its name.
    pub name: ImageName,
    /// Its length at rest.
    pub size: u64,
}

/// The image manifests of one replica set.
pub struct ImageStore {
    objects: Arc<dyn Objects>,
    replica_set: ReplicaSetId,
    folder: String,
}

impl ImageStore {
    /// The images under `prefix` (ends with `/`). Touches nothing.
    pub fn new(objects: Arc<dyn Objects>, prefix: &str, replica_set: &ReplicaSetId) -> Self {
        ImageStore {
            objects,
            replica_set: replica_set.clone(),
            folder: format!("{prefix}images/"),
        }
    }

    fn key(&self, name: ImageName) -> String {
        format!("{}{name}", self.folder)
    }

    /// Stores an image. One that is there already and intact is kept ([`Put::Exists`]): the same name is the same
    /// state. One that is there but damaged is replaced.
    pub async fn put(&self, name: ImageName, manifest: &[u8]) -> Result<Put, StoreError> {
        let key = self.key(name);
        let header = Header {
            replica_set: self.replica_set.clone(),
            name: name.to_string(),
        };
        let bytes = frame::seal(FrameKind::Image, &header, manifest).map_err(|e| StoreError::refused(&key, e))?;
        match self.objects.put_new(&key, bytes.clone()).await? {
            Put::Created => Ok(Put::Created),
            Put::Exists => match self.get(name).await {
                Err(StoreError::Damaged { .. }) => self.objects.put(&key, bytes).await.map(|()| Put::Created),
                found => found.map(|_| Put::Exists),
            },
        }
    }

    /// Reads and verifies an image.
    pub async fn get(&self, name: ImageName) -> Result<Bytes, StoreError> {
        let key = self.key(name);
        let damaged = |detail: String| StoreError::Damaged {
            key: key.clone(),
            detail,
        };
        let frame = Frame::open(FrameKind::Image, self.objects.get(&key).await?).map_err(|e| damaged(e.to_string()))?;
        let header: Header = frame.header().map_err(|e| damaged(e.to_string()))?;
        if header.replica_set != self.replica_set || header.name != name.to_string() {
            return Err(damaged(format!(
                "it is image {} of {}",
                header.name, header.replica_set
            )));
        }
        frame.payload().map_err(|e| damaged(e.to_string()))
    }

    /// All images, by incarnation and position. For looking and for recovery; what exists for the cluster is what the
    /// control plane says.
    pub async fn list(&self) -> Result<Vec<ImageMeta>, StoreError> {
        let objects = self.objects.list(&self.folder).await?;
        let image = |object: crate::objects::ObjectMeta| {
            let name = object.key.strip_prefix(&self.folder)?.parse().ok()?;
            Some(ImageMeta {
                name,
                size: object.size,
            })
        };
        Ok(objects.into_iter().filter_map(image).collect())
    }

    /// Removes an image; one that is not there is no error.
    pub async fn delete(&self, name: ImageName) -> Result<(), StoreError> {
        self.objects.delete(&self.key(name)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_name_reads_back_what_it_writes() {
        let name = ImageName {
            incarnation: Incarnation(1),
            at: Optime::new(Ts::new(5, 6), -1),
            epoch: Epoch(9),
        };
        assert_eq!(
            name.to_string(),
            "0000000000000001-0000000500000006-ffffffffffffffff-0000000000000009"
        );
        assert_eq!(name.to_string().parse(), Ok(name));
        for wrong in ["", "1-2-3-4", "../0"] {
            assert!(wrong.parse::<ImageName>().is_err(), "{wrong}");
        }
    }
}
