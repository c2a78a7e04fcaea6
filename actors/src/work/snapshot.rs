//! The Snapshot child: asks for an image when a snapshot is due or wanted, and makes it known.

use std::sync::Arc;
use std::time::Duration;

use headwater_cluster::timetable::Timetable;
use headwater_cluster::{Command, checkpoints};
use headwater_host::Host;
use headwater_model::SnapshotId;

use crate::commands::submit_as_child;
use crate::set::Set;
use crate::worker::{Fault, Pace, Work};

/// How long the head's owner may take to cut an image before it is asked again.
const PATIENCE: Duration = Duration::from_secs(600);

/// Why the first snapshot of a history is taken.
const FIRST: &str = "sync";

/// See the module.
pub struct SnapshotWork {
    set: Arc<Set>,
}

impl SnapshotWork {
    /// Begins without memory: what is wanted stands in the control state.
    pub fn new(set: Arc<Set>) -> Self {
        SnapshotWork { set }
    }

    /// Asks for what is due: the first snapshot of a history, then one an interval.
    async fn request_due(&self) -> Result<(), Fault> {
        let (state, record) = self.set.record().map_err(|r| Fault::Retry(r.message))?;
        let now_ms = self.set.ground.host.clock.now_ms();
        let Some(deployment) = state.deployments.get(self.set.id.deployment()) else {
            return Ok(());
        };
        let of_this_history = state
            .snapshots
            .iter()
            .filter(|((set, _), s)| *set == self.set.id && s.incarnation == record.incarnation);
        let of_this_history = of_this_history.fold(Asked::default(), |asked, (_, snapshot)| Asked {
            all: asked.all + 1,
            waiting: asked.waiting + usize::from(snapshot.image.is_none()),
        });
        let due = due(
            of_this_history,
            record.next_snapshot_ms,
            &deployment.schedule.timetable,
            now_ms,
        );
        // A member of a cluster is cut together with the others, at checkpoints.
        let together = checkpoints::is_cut_together(&state, &self.set.id);
        if let Some(reason) = due.reason.filter(|reason| *reason == FIRST || !together) {
            let command = Command::RequestSnapshot {
                set: self.set.id.clone(),
                id: new_id(&self.set.ground.host)?,
                incarnation: record.incarnation,
                reason: reason.to_owned(),
                asked_ms: now_ms,
            };
            submit_as_child(&self.set.ground.control, command).await?;
        }
        if Some(due.next_ms) != record.next_snapshot_ms {
            let command = Command::ScheduleSnapshot {
                set: self.set.id.clone(),
                next_ms: Some(due.next_ms),
            };
            submit_as_child(&self.set.ground.control, command).await?;
        }
        Ok(())
    }
}

/// The snapshots that a history has.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked {
    /// Complete, or asked for.
    pub all: usize,
    /// Those that are not complete.
    pub waiting: usize,
}

/// What the schedule calls for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// Why a snapshot is to be taken now; `None` for not now.
    pub reason: Option<&'static str>,
    /// When the next one is due.
    pub next_ms: i64,
}

/// Decides by the snapshots this history has, when the next was due, and the time. One snapshot makes up for any number that
/// were missed. What waits is taken first: with as many waiting as may wait another one is refused.
pub fn due(asked: Asked, next_ms: Option<i64>, timetable: &Timetable, now_ms: i64) -> Due {
    let overdue = next_ms.filter(|next_ms| *next_ms <= now_ms);
    // Reckoned anew each time: a schedule that was changed or a clock that was set must not put the next one off.
    let next = timetable.next_after(now_ms);
    let (reason, next_ms) = match (asked, overdue) {
        (Asked { all: 0, .. }, _) => (Some(FIRST), next),
        (Asked { waiting: 0, .. }, Some(_)) => (Some("schedule"), next),
        (_, Some(still)) => (None, still),
        (_, None) => (None, next),
    };
    Due { reason, next_ms }
}

/// A new snapshot's id: when it was asked for, and four letters so that two of one second differ.
pub fn new_id(host: &Host) -> Result<SnapshotId, Fault> {
    let second = crate::times::compact(host.clock.now_ms());
    let mut random = [0; 2];
    host.entropy.fill(&mut random);
    SnapshotId::new(&format!("{second}-{:02x}{:02x}", random[0], random[1])).map_err(|e| Fault::Retry(e.to_string()))
}

impl Work for SnapshotWork {
    async fn step(&mut self) -> Result<Pace, Fault> {
        self.request_due().await?;
        let (state, record) = self.set.record().map_err(|r| Fault::Retry(r.message))?;
        let wanted = state
            .snapshots
            .iter()
            .find(|((set, _), s)| *set == self.set.id && s.image.is_none());
        let Some(((_, id), asked)) = wanted else {
            return Ok(Pace::Idle);
        };
        let stores = self.set.stores(record.incarnation).await?;
        let at_least = stores.oplog.tip().await?.map(|tip| tip.after.ts).unwrap_or_default();
        let image = self.set.cuts.ask(at_least);
        self.set.head_waker.wake();
        let cut = tokio::time::timeout(PATIENCE, image).await;
        let cut = match cut {
            Ok(Ok(cut)) => cut,
            // The head's owner ended or is far behind: the request stands in the control state, so ask again.
            Ok(Err(_)) | Err(_) => return Ok(Pace::Again),
        };
        // What the first copy stored was stored before its snapshot was cut.
        let first = asked.reason == FIRST;
        let command = Command::CompleteSnapshot {
            set: self.set.id.clone(),
            id: id.clone(),
            epoch: record.epoch,
            image: cut.image.clone(),
            stored_bytes: if first {
                self.set.repository.blocks().stats().stored_bytes
            } else {
                cut.stored_bytes
            },
            completed_ms: self.set.ground.host.clock.now_ms(),
        };
        submit_as_child(&self.set.ground.control, command).await?;
        self.set.settled(&cut.image);
        drop(cut.unsettled);
        Ok(Pace::Again)
    }
}

#[cfg(test)]
mod tests {
    use headwater_cluster::timetable::ReferenceTime;

    use super::*;

    #[test]
    fn snapshots_come_first_after_the_sync_then_on_the_grid_of_the_timetable() {
        let timetable = Timetable {
            interval_s: 60,
            reference: ReferenceTime::default(),
            anchor_ms: 0,
        };
        let none = |next_ms| Due { reason: None, next_ms };
        let take = |reason, next_ms| Due {
            reason: Some(reason),
            next_ms,
        };
        for (all, waiting, next_ms, now_ms, want) in [
            (0, 0, None, 5_000, take("sync", 60_000)),
            (0, 0, Some(1), 5_000, take("sync", 60_000)),
            (1, 0, None, 5_000, none(60_000)),
            (1, 1, None, 5_000, none(60_000)),
            (1, 0, Some(60_000), 59_999, none(60_000)),
            (1, 0, Some(60_000), 60_000, take("schedule", 120_000)),
            (9, 8, Some(60_000), 60_000, none(60_000)),
            (9, 0, Some(60_000), 70_000, take("schedule", 120_000)),
            (1, 0, Some(60_000), 130_000, take("schedule", 180_000)),
            (1, 0, Some(900_000), 5_000, none(60_000)),
        ] {
            let decided = due(Asked { all, waiting }, next_ms, &timetable, now_ms);
            assert_eq!(decided, want, "{all} {waiting} {next_ms:?} {now_ms}");
        }
    }
}
