//! Makes the progress of a restore known to the control state.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use headwater_cluster::command::RestoreProgress;
use headwater_cluster::restores::kept_notes;
use headwater_cluster::{Command, Restore, RestoreState};
use headwater_protocol::agent::Refusal;
use headwater_restore::load::{Cursor, Observer, Step};
use tokio::time::Instant;

use crate::commands::submit;
use crate::set::Set;
use crate::work::cursors;

/// How often progress is made known between changes of stage.
const TELL_EVERY: Duration = Duration::from_secs(2);

/// See the module.
#[derive(Clone)]
pub(super) struct Teller {
    set: Arc<Set>,
    id: u64,
    told: Arc<Mutex<Told>>,
    /// Held while something is submitted, so that what was known before never follows what is known now.
    in_order: Arc<tokio::sync::Mutex<()>>,
}

struct Told {
    progress: RestoreProgress,
    last: Option<Instant>,
    held_up_since: Option<Instant>,
}

impl Teller {
    pub(super) fn new(set: Arc<Set>, id: u64, restore: &Restore) -> Self {
        Teller {
            set,
            id,
            told: Arc::new(Mutex::new(Told {
                progress: restore.progress(),
                last: None,
                held_up_since: None,
            })),
            in_order: Arc::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Told> {
        lock(&self.told)
    }

    pub(super) fn expect(&self, bytes: u64) {
        self.lock().progress.total_bytes = bytes;
    }

    pub(super) fn has_kept(&self) -> bool {
        !self.lock().progress.cursor_json.is_empty()
    }

    /// How it stands after its end.
    pub(super) fn ended(&self, state: RestoreState, error: Option<String>, notes: &[String]) -> RestoreProgress {
        let mut progress = self.lock().progress.clone();
        progress.state = state;
        progress.error = error;
        progress.notes = kept_notes(notes);
        if state == RestoreState::Finished {
            progress.step = "finished".to_owned();
            progress.cursor_json.clear();
        }
        progress
    }

    /// Says what stands in its way; it goes on later.
    pub(super) async fn held_up(&self, why: &str) -> Result<(), Refusal> {
        self.lock().progress.error = Some(why.to_owned());
        self.submit().await
    }

    /// Hears why the target cannot be written to at present, and `None` when it can again.
    pub(super) fn hear(&self, why: Option<&str>) {
        {
            let mut told = self.lock();
            if told.progress.error.is_some() != why.is_some() {
                // Whoever watches is told at once.
                told.last = None;
            }
            told.held_up_since = why.map(|_| told.held_up_since.unwrap_or_else(Instant::now));
        }
        self.tell_in_time(|progress| progress.error = why.map(str::to_owned));
    }

    /// Why it is held up, if it has been for so long.
    pub(super) fn held_up_for(&self, span: Duration) -> Option<String> {
        let told = self.lock();
        let is_long = told.held_up_since.is_some_and(|since| since.elapsed() >= span);
        told.progress.error.clone().filter(|_| is_long)
    }

    /// Changes what is known and makes it known, unless that was just done.
    fn tell_in_time(&self, change: impl FnOnce(&mut RestoreProgress)) {
        let due = {
            let mut told = self.lock();
            change(&mut told.progress);
            let now = Instant::now();
            let due = told.last.is_none_or(|last| now - last >= TELL_EVERY);
            if due {
                told.last = Some(now);
            }
            due
        };
        if due {
            let this = self.clone();
            // Progress is a courtesy: one that is lost is told again in a moment.
            drop(self.set.ground.host.spawn(async move { this.submit().await }));
        }
    }

    async fn submit(&self) -> Result<(), Refusal> {
        let _in_order = self.in_order.lock().await;
        let (_, record) = self.set.record()?;
        let command = Command::UpdateRestore {
            id: self.id,
            epoch: record.epoch,
            progress: self.lock().progress.clone(),
        };
        submit(&self.set.ground.control, command).await.map(drop)
    }
}

fn lock(told: &Mutex<Told>) -> MutexGuard<'_, Told> {
    told.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl Observer for Teller {
    async fn keep(&self, cursor: &Cursor) -> Result<(), String> {
        let cursor_json = cursors::keep(&self.set, self.id, cursor).await?;
        self.lock().progress.cursor_json = cursor_json;
        self.submit().await.map_err(|r| r.message)
    }

    fn progress(&self, step: Step, documents: u64, bytes: u64) {
        tracing::debug!("restore step={} documents={documents} bytes={bytes}", step.text());
        self.tell_in_time(|progress| {
            // What stood in the way is past when more is done than was done before.
            if documents > progress.done_documents {
                progress.error = None;
            }
            progress.step = step.text().to_owned();
            progress.done_documents = documents;
            progress.done_bytes = bytes;
        });
    }
}
