//! One check from its begin, or from where it was interrupted, to its end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use headwater_cluster::integrity::{Check, CheckKind, CheckState, Pass, Standing};
use headwater_cluster::{Command, State};
use headwater_model::{Optime, SnapshotId, limits};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::damage::Finding;
use crate::commands::submit_as_child;
use crate::set::Set;
use crate::worker::Fault;

/// How often progress is made known. A crash repeats at most so much.
const TELL_EVERY: Duration = Duration::from_secs(2);

/// Where a check is; in the control state as JSON.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Cursor {
    /// All images were walked.
    pub images_done: bool,
    /// The last pack that was read.
    pub packs_after: String,
    /// All packs were read.
    pub packs_done: bool,
    /// How far the oplog was read, by incarnation.
    pub oplog: BTreeMap<u64, Optime>,
    /// Objects found damaged in this check.
    pub found: BTreeSet<String>,
}

/// See the module.
pub(super) struct Run {
    pub set: Arc<Set>,
    pub kind: CheckKind,
    pub snapshot: Option<SnapshotId>,
    pub standing: Standing,
    pub cursor: Cursor,
    /// Of a share: the pass it belongs to.
    pub pass: Option<Pass>,
    number: u64,
    began: Instant,
    took_before_ms: u64,
    told: Instant,
}

impl Run {
    /// Takes a check up.
    pub fn new(set: Arc<Set>, number: u64, check: &Check) -> Result<Run, Fault> {
        let text = check.standing.cursor_json.as_str();
        let cursor = match text {
            "" => Cursor::default(),
            text => serde_json::from_str(text).map_err(|e| Fault::Retry(format!("check {number}: {e}")))?,
        };
        tracing::info!(set = %set.id, check = number, kind = ?check.kind, "a check {}", match text {
            "" => "begins",
            _ => "goes on where it was interrupted",
        });
        let now = Instant::now();
        Ok(Run {
            kind: check.kind.clone(),
            snapshot: check.snapshot.clone(),
            took_before_ms: check.standing.took_ms,
            standing: check.standing.clone(),
            cursor,
            pass: None,
            number,
            began: now,
            told: now,
            set,
        })
    }

    /// Carries it out. A fault that may pass leaves it where it is; it goes on later.
    pub async fn carry_out(mut self) -> Result<(), Fault> {
        let outcome = self.look().await;
        match outcome {
            Ok(()) => self.standing.state = CheckState::Finished,
            Err(Fault::Blocked(text)) => {
                self.standing.state = CheckState::Failed;
                self.standing.error = Some(text);
            }
            Err(passing) => return Err(passing),
        }
        if self.standing.state == CheckState::Finished {
            self.clear_what_is_whole().await?;
            self.end_share().await?;
        }
        self.standing.ended_ms = Some(self.set.ground.host.clock.now_ms());
        self.standing.cursor_json.clear();
        self.submit().await?;
        let standing = &self.standing;
        tracing::info!(
            set = %self.set.id, check = self.number, faults = standing.faults, bytes = standing.counts.bytes,
            error = standing.error, "a check ended"
        );
        Ok(())
    }

    /// Its number.
    pub fn number(&self) -> u64 {
        self.number
    }

    async fn look(&mut self) -> Result<(), Fault> {
        if let CheckKind::Proof(at) = self.kind {
            return self.prove(at).await;
        }
        if !self.cursor.images_done {
            self.images().await?;
            self.cursor.images_done = true;
        }
        match self.kind {
            // A snapshot that is looked at alone was read with its image.
            CheckKind::Data if self.snapshot.is_some() => Ok(()),
            CheckKind::Structure if self.snapshot.is_some() => Ok(()),
            CheckKind::Structure => self.oplog(false).await,
            CheckKind::Data | CheckKind::Share => {
                self.packs().await?;
                self.oplog(true).await
            }
            CheckKind::Proof(_) => Ok(()),
        }
    }

    /// The control state of now.
    pub fn state(&self) -> Result<Arc<State>, Fault> {
        let (state, _) = self.set.record().map_err(|r| Fault::Retry(r.message))?;
        Ok(state)
    }

    /// Notes damage: in the control state, and in what this check says.
    pub async fn find(&mut self, finding: Finding) -> Result<(), Fault> {
        let object = finding.object.clone();
        let first = self.cursor.found.insert(object);
        let noted = super::damage::note(&self.set, finding, self.snapshot.is_some()).await?;
        if first {
            self.standing.faults += u64::from(!noted.mended);
            self.standing.mended += u64::from(noted.mended);
            self.standing.findings.push(noted.text);
        }
        Ok(())
    }

    /// Every byte of an object was found to be as it was written: what was said of it before is no longer true.
    pub async fn sound(&mut self, object: &str) -> Result<(), Fault> {
        let state = self.state()?;
        let known = state.integrity_of(&self.set.id);
        if !self.cursor.found.contains(object) && known.is_some_and(|known| known.damage.contains_key(object)) {
            super::damage::clear(&self.set, object).await?;
        }
        Ok(())
    }

    /// A check of everything has the last word on everything.
    async fn clear_what_is_whole(&mut self) -> Result<(), Fault> {
        // With so many, not each of them is known by its own name.
        let too_many = self.cursor.found.len() >= limits::DAMAGE_KEPT_PER_SET;
        if self.kind != CheckKind::Data || self.snapshot.is_some() || too_many {
            return Ok(());
        }
        let state = self.state()?;
        let known = state
            .integrity_of(&self.set.id)
            .into_iter()
            .flat_map(|known| &known.damage);
        let whole = known.filter(|(object, damage)| {
            damage.kind != headwater_cluster::integrity::DamageKind::Proof && !self.cursor.found.contains(*object)
        });
        for (object, _) in whole {
            super::damage::clear(&self.set, object).await?;
        }
        Ok(())
    }

    async fn end_share(&mut self) -> Result<(), Fault> {
        if let Some(pass) = &mut self.pass {
            pass.share_ms = Some(self.set.ground.host.clock.now_ms());
            self.submit_pass().await?;
        }
        Ok(())
    }

    /// Makes progress known, if it is time to.
    pub async fn tell(&mut self) -> Result<(), Fault> {
        if self.told.elapsed() < TELL_EVERY {
            return Ok(());
        }
        self.told = Instant::now();
        self.standing.cursor_json = serde_json::to_string(&self.cursor).map_err(|e| Fault::Retry(e.to_string()))?;
        self.submit_pass().await?;
        self.submit().await
    }

    async fn submit_pass(&self) -> Result<(), Fault> {
        let Some(pass) = self.pass.clone() else { return Ok(()) };
        let (_, record) = self.set.record().map_err(|r| Fault::Retry(r.message))?;
        let command = Command::SetPass {
            set: self.set.id.clone(),
            epoch: record.epoch,
            pass,
        };
        submit_as_child(&self.set.ground.control, command).await.map(drop)
    }

    async fn submit(&mut self) -> Result<(), Fault> {
        self.standing.took_ms = self.took_before_ms + self.began.elapsed().as_millis() as u64;
        let (_, record) = self.set.record().map_err(|r| Fault::Retry(r.message))?;
        let command = Command::UpdateCheck {
            set: self.set.id.clone(),
            epoch: record.epoch,
            number: self.number,
            standing: self.standing.clone(),
        };
        submit_as_child(&self.set.ground.control, command).await.map(drop)
    }
}
