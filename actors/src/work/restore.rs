//! The Restore child: carries out restores to running servers, one after the other, and goes on after a crash.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use headwater_cluster::command::RestoreProgress;
use headwater_cluster::{Command, Restore, RestoreState};
use headwater_protocol::admin::Destination;
use headwater_protocol::agent::{Refusal, RefusalKind};
use headwater_restore::load::{Cursor, LoadFault, Loaded, Observer, Settings, Step, Target, load};
use headwater_restore::rebuild::{NewCluster, rebuild};
use tokio::time::Instant;

use crate::commands::{submit, submit_as_child};
use crate::restores::{Kept, chosen, kept, open_whole, selection, source_of};
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
        let next = state
            .restores
            .iter()
            .filter(|(_, r)| r.replica_set == self.set.id && r.state == RestoreState::Running)
            // What cannot be read is ended below, with a word about it.
            .find(|(id, r)| kept(**id, r).map_or(true, |kept| kept.request.to != Destination::Archive));
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
    let cursor = cursors::read(&set, id, &restore.cursor_json).await?;
    let begun = !restore.cursor_json.is_empty();
    let ended = match &kept.request.to {
        Destination::Archive => return Err(Trouble::Final("it has no server to go to".into())),
        Destination::Uri(uri) => {
            let (source, version) = source_of(&set, id, &restore).await?;
            let chosen = chosen(&*source, &selection(&kept.request)?).await?;
            teller.expect(chosen.bytes());
            let (target, settings) = (reached(uri).await?, settings(&kept, &version));
            load(&*source, &chosen, &target, &settings, cursor, &*teller).await
        }
        Destination::Cluster(targets) => {
            let scratch = crate::set::scratch(&set, id).await.map_err(refusal)?;
            let opened = open_whole(&set, &kept.request.at, &restore, scratch).await?;
            let (old, version) = opened.into_old_cluster(&kept.request).await?;
            teller.expect(old.shards.iter().map(|(_, chosen)| chosen.bytes()).sum());
            let new = new_cluster(set.id.set(), targets).await?;
            rebuild(&old, &new, &settings(&kept, &version), cursor, &*teller).await
        }
    };
    ended.map_err(|e| match e {
        LoadFault::Unreachable { .. } if begun || teller.has_kept() => Trouble::Passing(e.to_string()),
        LoadFault::Keep(_) => Trouble::Passing(e.to_string()),
        other => Trouble::Final(other.to_string()),
    })
}

fn settings(kept: &Kept, version: &str) -> Settings {
    let mut settings = Settings::new(version);
    settings.drop = kept.request.drop;
    settings
}

async fn reached(uri: &str) -> Result<Target, Trouble> {
    let target = Target::new(uri, CONNECTIONS).await;
    target.map_err(|e| Trouble::Final(e.to_string()))
}

/// `config` is what the config servers' replica set is called.
async fn new_cluster(config: &str, targets: &BTreeMap<String, String>) -> Result<NewCluster, Trouble> {
    let (mut of_config, mut shards) = (None, BTreeMap::new());
    for (member, uri) in targets {
        let target = reached(uri).await?;
        match member == config {
            true => of_config = Some(target),
            false => _ = shards.insert(member.clone(), target),
        }
    }
    let config = of_config.ok_or_else(|| Trouble::Final("no target is named for the config servers".into()))?;
    Ok(NewCluster { config, shards })
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
