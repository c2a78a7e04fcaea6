//! Makes the progress of a restore known to the control state.

use std::sync::{Arc, Mutex, PoisonError};
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
pub(super) struct Teller {
    set: Arc<Set>,
    id: u64,
    told: Mutex<Told>,
}

struct Told {
    progress: RestoreProgress,
    last: Option<Instant>,
}

impl Teller {
    pub(super) fn new(set: Arc<Set>, id: u64, restore: &Restore) -> Self {
        let progress = RestoreProgress {
            state: RestoreState::Running,
            step: restore.step.clone(),
            done_documents: restore.done_documents,
            done_bytes: restore.done_bytes,
            total_bytes: restore.total_bytes,
            error: restore.error.clone(),
            notes: Vec::new(),
            cursor_json: restore.cursor_json.clone(),
        };
        Teller {
            set,
            id,
            told: Mutex::new(Told { progress, last: None }),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
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
        submit(&self.set.ground.control, self.command()?).await.map(drop)
    }

    fn command(&self) -> Result<Command, Refusal> {
        let (_, record) = self.set.record()?;
        Ok(Command::UpdateRestore {
            id: self.id,
            epoch: record.epoch,
            progress: self.lock().progress.clone(),
        })
    }
}

#[async_trait]
impl Observer for Teller {
    async fn keep(&self, cursor: &Cursor) -> Result<(), String> {
        let cursor_json = cursors::keep(&self.set, self.id, cursor).await?;
        self.lock().progress.cursor_json = cursor_json;
        let command = self.command().map_err(|r| r.message)?;
        submit(&self.set.ground.control, command)
            .await
            .map(|_| ())
            .map_err(|r| r.message)
    }

    fn progress(&self, step: Step, documents: u64, bytes: u64) {
        tracing::debug!("restore step={} documents={documents} bytes={bytes}", step.text());
        let due = {
            let mut told = self.lock();
            // What stood in the way is past when more is done than was done before.
            if documents > told.progress.done_documents {
                told.progress.error = None;
            }
            told.progress.step = step.text().to_owned();
            told.progress.done_documents = documents;
            told.progress.done_bytes = bytes;
            let now = Instant::now();
            let due = told.last.is_none_or(|last| now - last >= TELL_EVERY);
            if due {
                told.last = Some(now);
            }
            due
        };
        if due && let Ok(command) = self.command() {
            let control = self.set.ground.control.clone();
            // Progress is a courtesy: one that is lost is told again in a moment.
            self.set
                .ground
                .host
                .spawn(async move { submit(&control, command).await });
        }
    }
}
