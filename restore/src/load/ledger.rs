//! The cursor while a load is under way, and the telling of it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use headwater_model::Namespace;
use tokio::time::Instant;

use super::{Cursor, LoadFault, Observer, Stage, Step};

/// Between two keepings of mere progress.
const INTERVAL: Duration = Duration::from_secs(2);
/// Who kept a cursor within this time is still the one who may.
const RECENT: Duration = Duration::from_secs(1);

pub(super) struct Ledger<'a> {
    state: Mutex<State>,
    /// When the cursor was last kept. Held while keeping, so that an older cursor never follows a newer one.
    kept: tokio::sync::Mutex<Instant>,
    observer: &'a dyn Observer,
}

struct State {
    cursor: Cursor,
    step: Step,
    notes: Vec<String>,
}

impl<'a> Ledger<'a> {
    pub fn new(cursor: Cursor, observer: &'a dyn Observer) -> Self {
        let state = Mutex::new(State {
            cursor,
            step: Step::Preparing,
            notes: Vec::new(),
        });
        Ledger {
            state,
            kept: tokio::sync::Mutex::new(Instant::now()),
            observer,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn step(&self, step: Step) {
        self.lock().step = step;
        self.tell();
    }

    pub fn note(&self, note: String) {
        self.lock().notes.push(note);
    }

    pub fn notes(&self) -> Vec<String> {
        self.lock().notes.clone()
    }

    pub fn stage(&self, to: &Namespace) -> Option<Stage> {
        self.lock().cursor.stage(to).cloned()
    }

    /// Notes a stage that is kept soon: after an interruption some work is done again.
    pub async fn advance(&self, to: &Namespace, stage: Stage) -> Result<(), LoadFault> {
        self.note_stage(to, stage);
        let due = self.kept.try_lock().is_ok_and(|at| at.elapsed() >= INTERVAL);
        if due { self.keep().await } else { Ok(()) }
    }

    /// Notes stages of many collections, to be kept with [`Ledger::keep`].
    pub fn note_stage(&self, to: &Namespace, stage: Stage) {
        self.lock().cursor.set(to, stage);
        self.tell();
    }

    pub async fn keep(&self) -> Result<(), LoadFault> {
        let mut kept = self.kept.lock().await;
        let cursor = self.lock().cursor.clone();
        self.observer.keep(&cursor).await.map_err(LoadFault::Keep)?;
        *kept = Instant::now();
        Ok(())
    }

    /// Keeps the cursor unless that was done just now: whoever may not keep it any more ends here.
    pub async fn keep_recent(&self) -> Result<(), LoadFault> {
        if self.kept.lock().await.elapsed() < RECENT {
            return Ok(());
        }
        self.keep().await
    }

    fn tell(&self) {
        let (step, (documents, bytes)) = {
            let state = self.lock();
            (state.step, state.cursor.amount())
        };
        self.observer.progress(step, documents, bytes);
    }
}
