//! The OplogApply child: in routine operation it owns the head, applies what the agent ships, cuts images on request,
//! and publishes waypoints.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use headwater_cluster::Command;
use headwater_cluster::checkpoints::{self, Bound, MemberCut};
use headwater_model::{Optime, SnapshotId, Ts};
use headwater_protocol::agent::RefusalKind;
use headwater_protocol::slices::documents;
use headwater_store::oplog_store::{OplogReader, OplogSlice, OplogStore};
use tokio::time::Instant;

use crate::commands::{submit, submit_as_child};
use crate::set::Set;
use crate::work::head_store::{HeadStore, entry_fault};
use crate::work::under_way;
use crate::worker::{Fault, Pace, Work};

/// Slices applied in one step at the most, so that requests for images never wait long.
const SLICES_A_STEP: usize = 8;

/// See the module.
pub struct OplogApplyWork {
    set: Arc<Set>,
    head: HeadStore,
    reader: OplogReader,
    /// A slice with entries that an open checkpoint holds back.
    held: Option<OplogSlice>,
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
            held: None,
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

    /// How far an open checkpoint lets the head go.
    fn bound(&self) -> Result<Bound, Fault> {
        let (state, _) = self.set.record().map_err(|r| Fault::Retry(r.message))?;
        Ok(checkpoints::bound(&state, &self.set.id))
    }

    /// The last position that may be applied; `None` for any.
    fn limit(&self, bound: &Bound) -> Option<Ts> {
        match bound {
            Bound::Free => None,
            Bound::Here => Some(self.head.head.applied().ts),
            Bound::UpTo(at) | Bound::Cut(_, _, at) => Some(*at),
        }
    }

    /// Cuts the image of a checkpoint once the head is exactly there: everything up to the cut is applied, and of every
    /// transaction that was prepared by then it is known whether it belongs to it. Otherwise it is tried again at the next step.
    async fn cut_at(&mut self, id: &SnapshotId, attempt: u32, at: Ts) -> Result<Option<Pace>, Fault> {
        let (_, record) = self.set.record().map_err(|r| Fault::Retry(r.message))?;
        let applied = self.head.head.applied();
        if applied.ts > at {
            let why = format!("the head of {} is at {}, past the cut at {at}", self.set.id, applied.ts);
            let command = Command::FailCheckpoint {
                name: self.set.id.deployment().clone(),
                id: id.clone(),
                why,
            };
            submit_as_child(&self.set.ground.control, command).await?;
            return Ok(None);
        }
        let is_there = applied.ts == at || self.held.as_ref().is_some_and(|slice| slice.header.last.ts > at);
        if !is_there {
            return Ok(None);
        }
        let Some(commits) = self.decided(at).await? else {
            return Ok(None);
        };
        self.head.head.commit_early(&commits).map_err(entry_fault)?;
        let cut = self.head.image(record.consistent_from).await?;
        let command = Command::CutCheckpoint {
            set: self.set.id.clone(),
            id: id.clone(),
            attempt,
            epoch: record.epoch,
            cut: MemberCut {
                image: cut.image.clone(),
                stored_bytes: cut.stored_bytes,
                under_way: under_way::read(&self.head.head).await?,
                completed_ms: self.set.ground.host.clock.now_ms(),
            },
        };
        let known = submit(&self.set.ground.control, command).await;
        if known
            .as_ref()
            .is_err_and(|refusal| refusal.kind == RefusalKind::Unavailable)
        {
            // It may be carried out yet: the image stays for as long as commands take that nobody waits for.
            return known.map(|_| None).map_err(|refusal| Fault::Retry(refusal.message));
        }
        self.set.settled(&cut.image);
        drop(cut.unsettled);
        match known {
            Ok(_) => Ok(Some(Pace::Again)),
            Err(refusal) if refusal.kind == RefusalKind::Stale => Err(Fault::Fenced(refusal.message)),
            // The checkpoint was given up meanwhile.
            Err(refusal) => {
                let why = refusal.message;
                tracing::info!(set = %self.set.id, "an image for checkpoint {id} was not taken: {why}");
                Ok(None)
            }
        }
    }

    /// The commits after the cut that belong to it; `None` while a transaction that was prepared by then is undecided.
    async fn decided(&self, at: Ts) -> Result<Option<Vec<Bytes>>, Fault> {
        let blocked = |e: String| Fault::Blocked(e);
        let mut outlook = self.head.head.outlook(at);
        let mut ahead = self.oplog.read(self.head.head.applied());
        while outlook.undecided() > 0 {
            let Some(slice) = ahead.next().await? else {
                return Ok(None);
            };
            for entry in documents(&slice.payload) {
                let entry = slice.payload.slice_ref(entry.map_err(|e| blocked(e.to_string()))?);
                let position = headwater_oplog::entry::position(&entry).map_err(|e| blocked(e.to_string()))?;
                if position.ts > at {
                    outlook.see(&entry).map_err(|e| blocked(e.to_string()))?;
                }
            }
        }
        Ok(Some(outlook.into_commits()))
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
        let head = &self.head.head;
        // What an image of a head that is ahead shows is later than its position: only its checkpoint knows that.
        head.applied() > self.waypoint_at
            && !head.is_ahead()
            && age_ms >= self.set.ground.tuning.waypoint_seconds as i64 * 1000
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
        let mut bound = Bound::Free;
        for _ in 0..SLICES_A_STEP {
            let slice = match self.held.take() {
                Some(slice) => slice,
                None => match self.reader.next().await? {
                    Some(slice) => slice,
                    None => break,
                },
            };
            // Looked at after the slice was there: a note is written only after its checkpoint is known here, so a slice that
            // came before that has nothing that must wait.
            bound = self.bound()?;
            if let Some(limit) = self.limit(&bound) {
                apply_slice(&mut self.head, &slice, Some(Optime::new(limit, i64::MAX)))?;
                if slice.header.last.ts > limit {
                    self.held = Some(slice);
                    break;
                }
            } else {
                apply_slice(&mut self.head, &slice, None)?;
            }
            self.head.tend().await?;
            pace = Pace::Again;
        }
        if pace == Pace::Idle {
            bound = self.bound()?;
        }
        if let Bound::Cut(id, attempt, at) = bound {
            pace = self.cut_at(&id, attempt, at).await?.unwrap_or(pace);
        }
        if pace == Pace::Idle && self.held.is_none() && self.looked.elapsed() >= LOOK_EVERY {
            self.looked = Instant::now();
            if self.oplog.look_ahead().await? {
                pace = Pace::Again;
            }
        }
        let applied = self.head.head.applied();
        self.set.board.set_applied(applied);
        self.head.tend().await?;
        self.note_missing();
        let ready = if self.head.head.is_ahead() {
            Vec::new()
        } else {
            self.set.cuts.ready(applied.ts)
        };
        for cut in ready {
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
