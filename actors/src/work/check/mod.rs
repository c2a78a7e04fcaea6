//! The Check child: carries out checks one after the other, asks for those that are due, and looks after damage that
//! readers met in the daily work.
//!
//! A check goes on after a crash where it was: its cursor and what it found stand in the control state. One pack, one
//! slice and one path of nodes are in memory at a time. What it finds is compared with the control state of now before it
//! is believed: an image that was dropped meanwhile may lose its blocks.

mod damage;
mod images;
mod objects;
mod proof;
mod run;

use std::collections::BTreeMap;
use std::sync::Arc;

use headwater_cluster::integrity::{Check, CheckKind, Integrity, Pass};
use headwater_cluster::shares::{self, Share};
use headwater_cluster::{Command, ReplicaSet};
use headwater_model::Phase;

use crate::commands::submit_as_child;
use crate::set::Set;
use crate::worker::{Fault, Pace, Work};
use run::Run;

/// See the module.
pub struct CheckWork {
    set: Arc<Set>,
}

impl CheckWork {
    /// Begins without memory: what is wanted stands in the control state.
    pub fn new(set: Arc<Set>) -> Self {
        CheckWork { set }
    }

    /// Asks for what is due by itself.
    async fn ask_for_due(&self, record: &ReplicaSet, known: Option<&Integrity>) -> Result<(), Fault> {
        if record.phase != Phase::Complete {
            return Ok(());
        }
        let now_ms = self.set.ground.host.clock.now_ms();
        let pass = known.and_then(|known| known.pass.as_ref());
        let stored = self.set.repository.blocks().stats().stored_bytes;
        match shares::due(pass, stored, self.set.ground.tuning.rhythm, now_ms) {
            Share::Begin => self.begin_pass(record, now_ms).await?,
            Share::Read { .. } => self.ask(CheckKind::Share, now_ms).await?,
            Share::Wait { .. } | Share::Off => {}
        }
        match known.and_then(|known| shares::proof_due(known, self.set.ground.tuning.proof_interval_s)) {
            Some(due_ms) if due_ms <= now_ms => self.ask(CheckKind::Proof(None), now_ms).await,
            _ => Ok(()),
        }
    }

    async fn begin_pass(&self, record: &ReplicaSet, now_ms: i64) -> Result<(), Fault> {
        let pass = Pass {
            begun_ms: now_ms,
            ..Pass::default()
        };
        let command = Command::SetPass {
            set: self.set.id.clone(),
            epoch: record.epoch,
            pass,
        };
        submit_as_child(&self.set.ground.control, command).await.map(drop)
    }

    async fn ask(&self, kind: CheckKind, asked_ms: i64) -> Result<(), Fault> {
        let command = Command::AskCheck {
            set: self.set.id.clone(),
            token: self.set.ground.host.entropy.number(),
            kind,
            snapshot: None,
            asked_ms,
        };
        submit_as_child(&self.set.ground.control, command).await.map(drop)
    }
}

/// The check that is carried out next: what users asked for goes before what is due by itself.
fn next(checks: &BTreeMap<u64, Check>) -> Option<(u64, &Check)> {
    let running = checks.iter().filter(|(_, check)| check.is_running());
    running
        .min_by_key(|(number, check)| (check.kind == CheckKind::Share, **number))
        .map(|(number, check)| (*number, check))
}

impl Work for CheckWork {
    async fn step(&mut self) -> Result<Pace, Fault> {
        damage::look_after_met(&self.set).await?;
        let (state, record) = self.set.record().map_err(|r| Fault::Retry(r.message))?;
        let known = state.integrity_of(&self.set.id);
        let Some((number, check)) = known.and_then(|known| next(&known.checks)) else {
            self.ask_for_due(&record, known).await?;
            return Ok(Pace::Idle);
        };
        Run::new(self.set.clone(), number, check)?.carry_out().await?;
        Ok(Pace::Again)
    }
}

#[cfg(test)]
mod tests {
    use headwater_cluster::integrity::{CheckState, Standing};

    use super::*;

    #[test]
    fn what_users_ask_for_goes_first_in_the_order_of_asking() {
        let check = |kind, state| Check {
            token: 1,
            kind,
            snapshot: None,
            asked_ms: 0,
            standing: Standing {
                state,
                ..Standing::default()
            },
        };
        let mut checks = BTreeMap::from([
            (1, check(CheckKind::Data, CheckState::Finished)),
            (2, check(CheckKind::Share, CheckState::Running)),
            (3, check(CheckKind::Structure, CheckState::Running)),
            (4, check(CheckKind::Data, CheckState::Running)),
        ]);
        for want in [Some(3), Some(4), Some(2), None] {
            assert_eq!(next(&checks).map(|(number, _)| number), want);
            if let Some(done) = want {
                checks.remove(&done);
            }
        }
    }
}
