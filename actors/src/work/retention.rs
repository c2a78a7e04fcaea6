//! The Retention child: lets go what nobody is promised any more: snapshots past their dates, oplog before the point-in-time
//! window, ended histories, archives that nobody fetched. Merges small slices of oplog on its way.
//!
//! Write order: command → deletion. Reversed, an instant would be offered that is gone already. Decisions are those of
//! `headwater_cluster::keeping`, and are made again when the command is carried out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use headwater_cluster::command::RestoreProgress;
use headwater_cluster::{Command, ReplicaSet, Restore, RestoreState, State, keeping};
use headwater_model::{Incarnation, Optime, SnapshotId};
use headwater_protocol::agent::RefusalKind;
use headwater_store::objects::StoreError;
use tokio::time::Instant;

use crate::commands::submit;
use crate::set::Set;
use crate::worker::{Fault, Pace, Work};

/// How often snapshots are looked at: from the control state alone.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// An archive of which nothing was read for this long never will be.
const ARCHIVE_MAX_SILENCE: Duration = Duration::from_hours(24);

/// See the module.
pub struct RetentionWork {
    set: Arc<Set>,
    look: Instant,
    oplog: Instant,
    /// How many bytes of each archive were read, and when this was seen first.
    archives: BTreeMap<u64, (u64, Instant)>,
}

impl RetentionWork {
    /// Begins without memory.
    pub fn new(set: Arc<Set>) -> Self {
        let now = Instant::now();
        let oplog = now + set.ground.tuning.tend_every();
        RetentionWork {
            set,
            look: now,
            oplog,
            archives: BTreeMap::new(),
        }
    }

    fn now_ms(&self) -> i64 {
        self.set.ground.host.clock.now_ms()
    }

    /// Submits what was decided; a refusal means that things have changed, and it is decided anew next time.
    async fn submit(&self, command: Command) -> Result<bool, Fault> {
        match submit(&self.set.ground.control, command).await {
            Ok(_) => Ok(true),
            Err(refusal) if refusal.kind == RefusalKind::Stale => Err(Fault::Fenced(refusal.message)),
            Err(refusal) if matches!(refusal.kind, RefusalKind::Conflict | RefusalKind::NotFound) => Ok(false),
            Err(refusal) => Err(Fault::Retry(refusal.message)),
        }
    }

    async fn expire(&self, state: &State, record: &ReplicaSet) -> Result<(), Fault> {
        let now_ms = self.now_ms();
        let plan = keeping::plan(state, &self.set.id, now_ms).unwrap_or_default();
        let goes = |id: &SnapshotId| keeping::may_expire(state, &self.set.id, id, now_ms);
        for id in plan.dropped.into_iter().filter(goes) {
            let command = Command::ExpireSnapshot {
                set: self.set.id.clone(),
                id: id.clone(),
                epoch: record.epoch,
                now_ms,
            };
            if self.submit(command).await? {
                tracing::info!(set = %self.set.id, snapshot = %id, "a snapshot has expired");
            }
        }
        Ok(())
    }

    /// Ends restores to an archive that nobody came for, or that nobody reads any more: they would hold their image and its
    /// oplog for ever.
    async fn end_forgotten_archives(&mut self, state: &State, record: &ReplicaSet) -> Result<(), Fault> {
        let now_ms = self.now_ms();
        let is_open = |restore: &Restore| {
            restore.replica_set == self.set.id
                && restore.state == RestoreState::Running
                && restore.request_json.contains("\"to\":\"archive\"")
        };
        let open: Vec<_> = state.restores.iter().filter(|(_, restore)| is_open(restore)).collect();
        self.archives.retain(|id, _| open.iter().any(|(open, _)| *open == id));
        for (id, restore) in open {
            let seen = self.archives.entry(*id).or_insert((restore.done_bytes, Instant::now()));
            if seen.0 != restore.done_bytes {
                *seen = (restore.done_bytes, Instant::now());
            }
            let silence = match restore.done_bytes {
                0 => Duration::from_millis((now_ms - restore.created_ms).try_into().unwrap_or_default()),
                _ => seen.1.elapsed(),
            };
            if silence <= ARCHIVE_MAX_SILENCE {
                continue;
            }
            let progress = RestoreProgress {
                state: RestoreState::Failed,
                error: Some("nobody has read the archive for a day; start the restore again".to_owned()),
                ..restore.progress()
            };
            let command = Command::UpdateRestore {
                id: *id,
                epoch: record.epoch,
                progress,
            };
            self.submit(command).await?;
        }
        Ok(())
    }

    /// Trims and merges the oplog of the present history, and removes that of ended ones. One that cannot be tended holds no
    /// other one up.
    async fn tend_oplog(&self) -> Result<(), Fault> {
        let (state, record) = self.set.record().map_err(|r| Fault::Retry(r.message))?;
        let mut tended = self.tend_present(&state, &record).await;
        for incarnation in (1..record.incarnation.0).map(Incarnation) {
            tended = tended.and(self.tend_ended(&state, &record, incarnation).await);
        }
        tended
    }

    async fn tend_present(&self, state: &State, record: &ReplicaSet) -> Result<(), Fault> {
        let oplog = self.set.stores(record.incarnation).await?.oplog;
        let Some((start, _)) = oplog.range() else {
            return Ok(());
        };
        let plan = keeping::plan(state, &self.set.id, self.now_ms()).unwrap_or_default();
        let mut floor = keeping::oplog_floor(state, &self.set.id, record.incarnation);
        if let Some(needed) = plan.oplog_needed_from.filter(|needed| floor.unwrap_or(start) < *needed)
            && self.give_up(record, record.incarnation, needed).await?
        {
            floor = Some(needed);
        }
        if let Some(floor) = floor.filter(|floor| start < *floor) {
            oplog.trim(floor).await?;
        }
        while oplog.merge_small(self.set.ground.tuning.merge).await?.slices > 0 {}
        Ok(())
    }

    async fn tend_ended(&self, state: &State, record: &ReplicaSet, incarnation: Incarnation) -> Result<(), Fault> {
        if keeping::is_given_up(state, &self.set.id, incarnation) || self.end(state, record, incarnation).await? {
            // Whole or not: part of it may be gone, or have come back by a write that took effect late.
            let removed = self.set.repository.oplog_unread(incarnation).remove_all().await?;
            if removed > 0 {
                tracing::info!(set = %self.set.id, %incarnation, "the oplog of an ended history goes");
            }
        }
        Ok(())
    }

    /// Gives an ended history up if it is over.
    async fn end(&self, state: &State, record: &ReplicaSet, incarnation: Incarnation) -> Result<bool, Fault> {
        let range = match self.set.stores(incarnation).await {
            // Nothing after the last image can be restored: it is over when that is.
            Err(StoreError::Damaged { .. }) => {
                let snapshots = state.snapshots.iter().filter(|((of, _), _)| *of == self.set.id);
                let images = snapshots.filter_map(|(_, snapshot)| snapshot.image.as_ref());
                let its = images.filter(|image| image.incarnation == incarnation);
                Some((Optime::ZERO, its.map(|image| image.at).max().unwrap_or(Optime::ZERO)))
            }
            stores => stores?.oplog.range(),
        };
        let over =
            |(_, tip): &(Optime, Optime)| keeping::is_over(state, &self.set.id, incarnation, *tip, self.now_ms());
        match range.filter(over) {
            Some((_, tip)) => self.give_up(record, incarnation, tip).await,
            None => Ok(false),
        }
    }

    async fn give_up(&self, record: &ReplicaSet, incarnation: Incarnation, keep_after: Optime) -> Result<bool, Fault> {
        let command = Command::TrimOplog {
            set: self.set.id.clone(),
            incarnation,
            epoch: record.epoch,
            keep_after,
            now_ms: self.now_ms(),
        };
        self.submit(command).await
    }
}

impl Work for RetentionWork {
    async fn step(&mut self) -> Result<Pace, Fault> {
        let now = Instant::now();
        if now >= self.look {
            self.look = now + LOOK_EVERY;
            let (state, record) = self.set.record().map_err(|r| Fault::Retry(r.message))?;
            self.expire(&state, &record).await?;
            self.end_forgotten_archives(&state, &record).await?;
        }
        if now >= self.oplog {
            self.oplog = now + self.set.ground.tuning.tend_every();
            self.tend_oplog().await?;
        }
        Ok(Pace::Idle)
    }
}
