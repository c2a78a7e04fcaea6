//! The Restore child: carries out restores to running servers, one after the other, and goes on after a crash.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use headwater_cluster::command::RestoreProgress;
use headwater_cluster::{Command, Restore, RestoreState};
use headwater_protocol::admin::Destination;
use headwater_protocol::agent::{Refusal, RefusalKind};
use headwater_restore::load::{Cursor, LoadFault, Loaded, Observer, Settings, Step, Target, load};
use tokio::time::Instant;

use crate::commands::{submit, submit_as_child};
use crate::restores::{chosen, kept, materialize, plan_kept, selection};
use crate::set::Set;
use crate::trouble::refusal;
use crate::work::cursors;
use crate::worker::{Fault, Pace, Work};

/// How often progress is made known between changes of stage.
const TELL_EVERY: Duration = Duration::from_secs(2);
/// Connections to the target.
const CONNECTIONS: u32 = 16;

/// See the module.
pub struct RestoreWork {
    set: Arc<Set>,
}

impl RestoreWork {
    /// Begins without memory: what runs stands in the control state.
    pub fn new(set: Arc<Set>) -> Self {
        RestoreWork { set }
    }
}

impl Work for RestoreWork {
    async fn step(&mut self) -> Result<Pace, Fault> {
        let (state, record) = self.set.record().map_err(|r| Fault::Retry(r.message))?;
        let to_server = |restore: &Restore| restore.request_json.contains("\"uri\":");
        let next = state
            .restores
            .iter()
            .find(|(_, r)| r.replica_set == self.set.id && r.state == RestoreState::Running && to_server(r));
        let Some((&id, restore)) = next else {
            return Ok(Pace::Idle);
        };
        tracing::info!(
            restore = id,
            "{}",
            match restore.cursor_json.as_str() {
                "" => "restore begins",
                _ => "restore goes on where it was interrupted",
            }
        );
        let teller = Arc::new(Teller::new(self.set.clone(), id, restore));
        let (ended, error) = match carry_out(self.set.clone(), id, restore.clone(), teller.clone()).await {
            Ok(loaded) => {
                for note in &loaded.notes {
                    tracing::info!(restore = id, "{note}");
                }
                (RestoreState::Finished, None)
            }
            Err(Trouble::Passing(text)) => return Err(Fault::Retry(text)),
            Err(Trouble::Final(text)) => (RestoreState::Failed, Some(text)),
        };
        tracing::info!(restore = id, error, "restore ended");
        crate::set::remove_scratch(&self.set.ground, id).await;
        cursors::remove(&self.set, id).await;
        let progress = teller.ended(ended, error);
        submit_as_child(
            &self.set.ground.control,
            Command::UpdateRestore {
                id,
                epoch: record.epoch,
                progress,
            },
        )
        .await?;
        Ok(Pace::Again)
    }
}

/// Why a restore stopped.
enum Trouble {
    /// Going on later from the cursor may help.
    Passing(String),
    /// It cannot be completed.
    Final(String),
}

impl From<Refusal> for Trouble {
    fn from(refusal: Refusal) -> Self {
        match refusal.kind {
            RefusalKind::Unavailable | RefusalKind::StoreFull => Trouble::Passing(refusal.message),
            _ => Trouble::Final(refusal.message),
        }
    }
}

async fn carry_out(set: Arc<Set>, id: u64, restore: Restore, teller: Arc<Teller>) -> Result<Loaded, Trouble> {
    let kept = kept(id, &restore)?;
    let Destination::Uri(uri) = &kept.request.to else {
        return Err(Trouble::Final("it has no server to go to".into()));
    };
    let planned = plan_kept(&set, &kept.request, &restore).await?;
    let scratch = crate::set::scratch(&set, id).await.map_err(refusal)?;
    let source = materialize(&set, &planned.plan, scratch).await?;
    let chosen = chosen(&source, &selection(&kept.request)?).await?;
    teller.expect(chosen.bytes());
    let cursor = cursors::read(&set, id, &restore.cursor_json).await?;
    let begun = !restore.cursor_json.is_empty();
    let target = Target::new(uri, CONNECTIONS)
        .await
        .map_err(|e| Trouble::Final(e.to_string()))?;
    let mut settings = Settings::new(source.source_version());
    settings.drop = kept.request.drop;
    load(&source, &chosen, &target, &settings, cursor, &*teller)
        .await
        .map_err(|e| match e {
            LoadFault::Unreachable { .. } if begun || teller.has_kept() => Trouble::Passing(e.to_string()),
            LoadFault::Keep(_) => Trouble::Passing(e.to_string()),
            other => Trouble::Final(other.to_string()),
        })
}

/// Makes progress known to the control state.
struct Teller {
    set: Arc<Set>,
    id: u64,
    told: Mutex<Told>,
}

struct Told {
    progress: RestoreProgress,
    last: Option<Instant>,
}

impl Teller {
    fn new(set: Arc<Set>, id: u64, restore: &Restore) -> Self {
        let progress = RestoreProgress {
            state: RestoreState::Running,
            step: restore.step.clone(),
            done_documents: restore.done_documents,
            done_bytes: restore.done_bytes,
            total_bytes: restore.total_bytes,
            error: None,
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

    fn expect(&self, bytes: u64) {
        self.lock().progress.total_bytes = bytes;
    }

    fn has_kept(&self) -> bool {
        !self.lock().progress.cursor_json.is_empty()
    }

    fn ended(&self, state: RestoreState, error: Option<String>) -> RestoreProgress {
        let mut progress = self.lock().progress.clone();
        progress.state = state;
        progress.error = error;
        if state == RestoreState::Finished {
            progress.step = "finished".to_owned();
            progress.cursor_json.clear();
        }
        progress
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
