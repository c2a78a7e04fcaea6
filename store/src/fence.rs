//! The fence of a repository: `fence/<epoch>`, one note per epoch that opened the repository for writing. Whoever opens
//! one under a higher epoch leaves a note first; whoever is about to change what others rely on looks for higher ones
//! first, and stops for good when it finds one.
//!
//! Between looking and writing a process may stand still for hours. What it then writes must not matter: packs and images
//! carry the epoch of their writer in their names, so that nothing of a successor is ever overwritten, and nobody knows
//! them until a command with the epoch makes them known, which is refused. What it then deletes must be its own or older.

use std::sync::Arc;

use headwater_model::Epoch;

use crate::note;
use crate::objects::{Objects, StoreError};

const KIND: &str = "fence";

/// A writer's place at the fence.
pub struct Fence {
    objects: Arc<dyn Objects>,
    folder: String,
    epoch: Epoch,
}

impl Fence {
    /// Shuts out everyone with an epoch below `epoch`. [`StoreError::Fenced`] when a higher one is inside already.
    pub async fn claim(objects: Arc<dyn Objects>, prefix: &str, epoch: Epoch) -> Result<Arc<Fence>, StoreError> {
        let fence = Fence {
            objects,
            folder: format!("{prefix}fence/"),
            epoch,
        };
        fence.check().await?;
        let note = note::seal(KIND, &epoch.0)?;
        fence.objects.put_new(&fence.key(epoch.0), note).await?;
        // Of two who claim at once, each sees the note of the other or is seen by it.
        for lower in fence.check().await? {
            fence.objects.delete(&fence.key(lower)).await?;
        }
        Ok(Arc::new(fence))
    }

    /// Whose place it is.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Fails when a higher epoch is inside; answers the lower ones that left notes.
    pub async fn check(&self) -> Result<Vec<u64>, StoreError> {
        let mut lower = Vec::new();
        for object in self.objects.list(&self.folder).await? {
            let name = object.key.strip_prefix(&self.folder).unwrap_or_default();
            let Ok(found) = u64::from_str_radix(name, 16) else {
                continue;
            };
            if found > self.epoch.0 {
                return Err(StoreError::Fenced {
                    key: self.folder.clone(),
                    ours: self.epoch.0,
                    current: found,
                });
            }
            if found < self.epoch.0 {
                lower.push(found);
            }
        }
        Ok(lower)
    }

    fn key(&self, epoch: u64) -> String {
        format!("{}{epoch:016x}", self.folder)
    }
}
