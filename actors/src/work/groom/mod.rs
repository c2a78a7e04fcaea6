//! The Groom child: removes what nothing refers to any more. Image manifests and sync slices that are left over go as soon as
//! they are seen ([`leftovers`]); packs of blocks when it is worth it ([`when`]), by a census ([`packs`]).
//!
//! It can be cut off anywhere: what it has not finished stands in the control state, or is found again.

mod leftovers;
mod packs;
pub mod when;

use std::collections::BTreeSet;
use std::sync::Arc;

use headwater_cluster::grooms::{Asked, PACKS_PER_COMMAND};
use headwater_cluster::{Command, GroomReport, ReplicaSet, State};
use headwater_model::{Incarnation, Phase};
use headwater_store::pack::groom::Thresholds;
use tokio::time::Instant;

use crate::commands::submit_as_child;
use crate::set::Set;
use crate::worker::{Fault, Pace, Work};
use when::{Decision, Seen};

/// See the module.
pub struct GroomWork {
    set: Arc<Set>,
    next: Instant,
    /// Ended histories whose sync slices are gone.
    emptied: BTreeSet<Incarnation>,
}

impl GroomWork {
    /// Begins without memory.
    pub fn new(set: Arc<Set>) -> Self {
        let next = Instant::now() + set.ground.tuning.tend_every();
        GroomWork {
            set,
            next,
            emptied: BTreeSet::new(),
        }
    }

    fn now_ms(&self) -> i64 {
        self.set.ground.host.clock.now_ms()
    }

    /// Deletes packs that are known to go: a former owner, or this child before it was cut off, did not come to it.
    async fn remove_condemned(&self, state: &State, record: &ReplicaSet) -> Result<(), Fault> {
        let Some(grooming) = state.grooms.get(&self.set.id) else {
            return Ok(());
        };
        let condemned: Vec<String> = grooming.condemned.iter().cloned().collect();
        for packs in condemned.chunks(PACKS_PER_COMMAND) {
            remove_known(&self.set, record, packs).await?;
        }
        Ok(())
    }

    async fn decide(&self, state: &State, record: &ReplicaSet, asked: Option<Asked>) -> Result<Decision, Fault> {
        if record.phase != Phase::Complete {
            let why = format!(
                "packs are groomed once the first copy is complete; it is {}",
                record.phase.text()
            );
            return Ok(Decision::Wait { why });
        }
        let (_, packs_bytes) = self.set.repository.blocks().at_rest().await?;
        Ok(when::decide(
            &self.set.ground.tuning.groom,
            &Seen {
                asked: asked.is_some(),
                last: state
                    .grooms
                    .get(&self.set.id)
                    .and_then(|grooming| grooming.last.as_ref()),
                packs_bytes,
                now_ms: self.now_ms(),
            },
        ))
    }

    async fn run(&self, why: String, asked: Option<Asked>, record: &ReplicaSet) -> Result<(), Fault> {
        tracing::info!(set = %self.set.id, why, "groom begins");
        let mut report = GroomReport {
            asked_ms: asked.map(|asked| asked.at_ms),
            began_ms: self.now_ms(),
            why,
            dry_run: asked.is_some_and(|asked| asked.dry_run),
            ..GroomReport::default()
        };
        let thresholds = match asked {
            Some(_) => Thresholds::thorough(),
            None => self.set.ground.tuning.groom.thresholds,
        };
        let ended = packs::groom(&self.set, record, thresholds, &mut report).await;
        report.ended_ms = self.now_ms();
        report.error = match ended {
            Ok(()) => None,
            Err(Fault::Fenced(message)) => return Err(Fault::Fenced(message)),
            Err(Fault::Retry(message) | Fault::Blocked(message)) => Some(message),
        };
        tracing::info!(
            set = %self.set.id,
            packs = report.packs_removed,
            before = report.bytes_before,
            after = report.bytes_after,
            error = report.error,
            "groom ended"
        );
        let command = Command::NoteGroom {
            set: self.set.id.clone(),
            epoch: record.epoch,
            report,
        };
        submit_as_child(&self.set.ground.control, command).await.map(drop)
    }
}

/// Deletes packs whose condemnation is known, and makes known that they are gone.
pub(super) async fn remove_known(set: &Set, record: &ReplicaSet, packs: &[String]) -> Result<(), Fault> {
    set.repository.blocks().remove_condemned(packs).await?;
    let removal = Command::PacksRemoved {
        set: set.id.clone(),
        epoch: record.epoch,
        packs: packs.to_vec(),
    };
    submit_as_child(&set.ground.control, removal).await.map(drop)
}

impl Work for GroomWork {
    async fn step(&mut self) -> Result<Pace, Fault> {
        let (state, record) = self.set.record().map_err(|r| Fault::Retry(r.message))?;
        let asked = state.grooms.get(&self.set.id).and_then(|grooming| grooming.asked);
        let now = Instant::now();
        if now < self.next && asked.is_none_or(|_| record.phase != Phase::Complete) {
            return Ok(Pace::Idle);
        }
        self.next = now + self.set.ground.tuning.tend_every();
        self.remove_condemned(&state, &record).await?;
        leftovers::remove(&self.set, &mut self.emptied).await?;
        match self.decide(&state, &record, asked).await? {
            Decision::Wait { why } => self.set.board.set_groom_decision(why),
            Decision::Run { why } => {
                self.set.board.set_groom_decision(format!("running now: {why}"));
                self.run(why, asked, &record).await?;
                let (state, record) = self.set.record().map_err(|r| Fault::Retry(r.message))?;
                if let Decision::Wait { why } = self.decide(&state, &record, None).await? {
                    self.set.board.set_groom_decision(why);
                }
            }
        }
        Ok(Pace::Idle)
    }
}
