//! The OplogApply child: in routine operation it owns the head, applies what the agent ships, cuts images on request,
//! and publishes waypoints.

use std::sync::Arc;
use std::time::Duration;

use headwater_cluster::Command;
use headwater_model::Optime;
use headwater_protocol::slices::documents;
use headwater_store::oplog_store::{OplogReader, OplogSlice, OplogStore};
use tokio::time::Instant;

use crate::commands::submit_as_child;
use crate::set::Set;
use crate::work::head_store::{HeadStore, entry_fault};
use crate::worker::{Fault, Pace, Work};

/// Slices applied in one step at the most, so that requests for images never wait long.
const SLICES_A_STEP: usize = 8;

/// See the module.
pub struct OplogApplyWork {
    set: Arc<Set>,
    head: HeadStore,
    reader: OplogReader,
    waypoint_at: Optime,
    waypoint_ms: i64,
    oplog: Arc<OplogStore>,
    looked: Instant,
}

/// How often a head with nothing to do looks for what a former owner may still have stored.
const LOOK_EVERY: Duration = Duration::from_secs(1);

impl OplogApplyWork {
    /// Opens the head from the last waypoint.
    pub async fn build(set: Arc<Set>) -> Result<Self, Fault> {
        let (_, record) = set.record().map_err(|r| Fault::Retry(r.message))?;
        let waypoint = record
            .waypoint
            .clone()
            .ok_or_else(|| Fault::Retry("no waypoint yet".into()))?;
        let stores = set.stores(record.incarnation).await?;
        let head = HeadStore::open(set.clone(), &waypoint).await?;
        let applied = head.head.applied();
        set.board.set_applied(applied);
        let reader = stores.oplog.read(applied);
        let waypoint_ms = set.ground.host.clock.now_ms();
        Ok(OplogApplyWork {
            set,
            head,
            reader,
            waypoint_at: applied,
            waypoint_ms,
            oplog: stores.oplog,
            looked: Instant::now(),
        })
    }

    async fn publish_waypoint(&mut self) -> Result<(), Fault> {
        let (_, record) = self.set.record().map_err(|r| Fault::Retry(r.message))?;
        let cut = self.head.image(record.consistent_from).await?;
        let command = Command::PublishWaypoint {
            set: self.set.id.clone(),
            epoch: record.epoch,
            image: cut.image.clone(),
        };
        submit_as_child(&self.set.ground.control, command).await?;
        self.set.settled(&cut.image);
        drop(cut.unsettled);
        self.waypoint_at = self.head.head.applied();
        self.waypoint_ms = self.set.ground.host.clock.now_ms();
        Ok(())
    }

    /// In routine operation a change that meets no document means that something went wrong before.
    fn note_missing(&mut self) {
        let missing = self.head.take_missing();
        if !missing.is_empty() {
            let text = format!("{} changes met no document; resync this deployment", missing.len());
            tracing::error!(set = %self.set.id, "{text}");
            self.set.board.set_trouble("fold", Some(text));
        }
    }

    fn waypoint_due(&self) -> bool {
        let age_ms = self.set.ground.host.clock.now_ms() - self.waypoint_ms;
        self.head.head.applied() > self.waypoint_at && age_ms >= self.set.ground.tuning.waypoint_seconds as i64 * 1000
    }
}

/// Applies a slice, up to and including `until`; entries at or before the head's position are passed over.
pub fn apply_slice(head: &mut HeadStore, slice: &OplogSlice, until: Option<Optime>) -> Result<(), Fault> {
    for entry in documents(&slice.payload) {
        let entry = entry.map_err(|e| Fault::Blocked(e.to_string()))?;
        let entry = slice.payload.slice_ref(entry);
        if let Some(until) = until {
            let at = headwater_oplog::entry::position(&entry).map_err(|e| Fault::Blocked(e.to_string()))?;
            if at > until {
                break;
            }
        }
        head.head.apply(entry).map_err(entry_fault)?;
    }
    Ok(())
}

impl Work for OplogApplyWork {
    async fn step(&mut self) -> Result<Pace, Fault> {
        let mut pace = Pace::Idle;
        for _ in 0..SLICES_A_STEP {
            let Some(slice) = self.reader.next().await? else {
                break;
            };
            apply_slice(&mut self.head, &slice, None)?;
            self.head.tend().await?;
            pace = Pace::Again;
        }
        if pace == Pace::Idle && self.looked.elapsed() >= LOOK_EVERY {
            self.looked = Instant::now();
            if self.oplog.look_ahead().await? {
                pace = Pace::Again;
            }
        }
        let applied = self.head.head.applied();
        self.set.board.set_applied(applied);
        self.head.tend().await?;
        self.note_missing();
        for cut in self.set.cuts.ready(applied.ts) {
            let (_, record) = self.set.record().map_err(|r| Fault::Retry(r.message))?;
            let image = self.head.image(record.consistent_from).await?;
            // Nobody waits any more: the image is a leftover that a groom removes.
            let _ = cut.answer.send(image);
        }
        if self.waypoint_due() {
            self.publish_waypoint().await?;
        }
        Ok(pace)
    }
}
