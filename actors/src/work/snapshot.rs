//! The Snapshot child: asks for an image when a snapshot is due or wanted, and makes it known.

use std::sync::Arc;
use std::time::Duration;

use headwater_cluster::command::Command;
use headwater_model::SnapshotId;

use crate::commands::submit_as_child;
use crate::set::Set;
use crate::worker::{Fault, Pace, Work};

/// How long the head's owner may take to cut an image before it is asked again.
const PATIENCE: Duration = Duration::from_secs(600);

/// See the module.
pub struct SnapshotWork {
    set: Arc<Set>,
}

impl SnapshotWork {
    /// Begins without memory: what is wanted stands in the control state.
    pub fn new(set: Arc<Set>) -> Self {
        SnapshotWork { set }
    }

    async fn request_if_due(&self) -> Result<(), Fault> {
        let (_, record) = self.set.record().map_err(|r| Fault::Retry(r.message))?;
        let now_ms = self.set.ground.host.clock.now_ms();
        if record.next_snapshot_ms.is_some_and(|due| due <= now_ms) {
            let id = new_id(&self.set)?;
            let command = Command::RequestSnapshot {
                set: self.set.id.clone(),
                id,
                reason: "schedule".into(),
                now_ms,
                scheduled: true,
            };
            submit_as_child(&self.set.ground.control, command).await?;
        }
        Ok(())
    }
}

/// A new snapshot's id: when it was asked for, and four letters so that two of one second differ.
pub fn new_id(set: &Set) -> Result<SnapshotId, Fault> {
    let host = &set.ground.host;
    let second = crate::times::compact(host.clock.now_ms());
    let mut random = [0; 2];
    host.entropy.fill(&mut random);
    SnapshotId::new(&format!("{second}-{:02x}{:02x}", random[0], random[1])).map_err(|e| Fault::Retry(e.to_string()))
}

impl Work for SnapshotWork {
    async fn step(&mut self) -> Result<Pace, Fault> {
        self.request_if_due().await?;
        let (state, record) = self.set.record().map_err(|r| Fault::Retry(r.message))?;
        let wanted = state.snapshots.iter().find(|((set, _), s)| *set == self.set.id && s.image.is_none());
        let Some(((_, id), _)) = wanted else {
            return Ok(Pace::Idle);
        };
        let stores = self.set.stores(record.incarnation).await?;
        let at_least = stores.oplog.tip().await?.map(|tip| tip.after.ts).unwrap_or_default();
        let image = self.set.cuts.ask(at_least);
        self.set.head_waker.wake();
        let cut = tokio::time::timeout(PATIENCE, image).await;
        let (image, stored_bytes) = match cut {
            Ok(Ok(cut)) => cut,
            // The head's owner ended or is far behind: the request stands in the control state, so ask again.
            Ok(Err(_)) | Err(_) => return Ok(Pace::Again),
        };
        let command = Command::CompleteSnapshot {
            set: self.set.id.clone(),
            id: id.clone(),
            epoch: record.epoch,
            image,
            stored_bytes,
            now_ms: self.set.ground.host.clock.now_ms(),
        };
        submit_as_child(&self.set.ground.control, command).await?;
        Ok(Pace::Again)
    }
}
