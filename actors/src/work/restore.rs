//! The Restore child: carries out restores to running servers, one after the other, and goes on after a crash.

mod teller;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use headwater_cluster::{Command, Restore, RestoreState, State};
use headwater_protocol::admin::Destination;
use headwater_protocol::agent::{Refusal, RefusalKind};
use headwater_restore::load::{LoadFault, Loaded, Settings, Target, load};
use headwater_restore::rebuild::{NewCluster, rebuild};
use headwater_restore::source::SourceFault;
use tokio::time::Instant;

use crate::commands::submit_as_child;
use crate::restores::{Kept, chosen, kept, open_whole, selection, source_of};
use crate::set::Set;
use crate::trouble::refusal;
use crate::work::cursors;
use crate::worker::{Fault, Pace, Work};
use teller::Teller;

/// Connections to the target.
const CONNECTIONS: u32 = 16;

/// A restore that is held up rests so long before it is tried again, then twice as long, …
const REST_FIRST: Duration = Duration::from_secs(1);
/// …and at the most so long. Others have their turn meanwhile.
const REST_MOST: Duration = Duration::from_secs(30);
/// One that is held up for so long steps back if another waits.
const STEPS_BACK_AFTER: Duration = Duration::from_secs(10);
/// How often it is looked whether a user has ended the restore that runs.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// See the module.
pub struct RestoreWork {
    set: Arc<Set>,
    resting: BTreeMap<u64, Rest>,
    tidied: bool,
}

#[derive(Clone, Copy)]
struct Rest {
    until: Instant,
    took: Duration,
}

impl RestoreWork {
    /// Begins without memory: what runs stands in the control state.
    pub fn new(set: Arc<Set>) -> Self {
        RestoreWork {
            set,
            resting: BTreeMap::new(),
            tidied: false,
        }
    }

    fn is_ours(&self, id: u64, restore: &Restore) -> bool {
        // What cannot be read is ended below, with a word about it.
        let goes_to_servers = || kept(id, restore).map_or(true, |kept| kept.request.to != Destination::Archive);
        restore.replica_set == self.set.id && restore.state == RestoreState::Running && goes_to_servers()
    }

    /// What was kept for restores that ended elsewhere or between two tries.
    async fn tidy(&mut self, state: &State) -> Result<(), Fault> {
        if !self.tidied {
            cursors::remove_all_but(&self.set, |id| {
                state.restores.get(&id).is_some_and(|r| self.is_ours(id, r))
            })
            .await?;
            self.tidied = true;
        }
        let over: Vec<u64> = self
            .resting
            .keys()
            .copied()
            .filter(|id| !is_running(state, *id))
            .collect();
        for id in over {
            self.forget(id).await;
        }
        Ok(())
    }

    async fn forget(&mut self, id: u64) {
        self.resting.remove(&id);
        crate::set::remove_scratch(&self.set.ground, id).await;
        cursors::remove(&self.set, id).await;
    }

    fn rest(&mut self, id: u64) {
        let took = self
            .resting
            .get(&id)
            .map_or(REST_FIRST, |rest| (rest.took * 2).min(REST_MOST));
        let until = Instant::now() + took;
        self.resting.insert(id, Rest { until, took });
    }

    /// The restore whose turn it is.
    fn next<'a>(&self, state: &'a State) -> Option<(u64, &'a Restore)> {
        let now = Instant::now();
        let ours = state
            .restores
            .iter()
            .filter(|(id, restore)| self.is_ours(**id, restore));
        let rested = |id: &u64| self.resting.get(id).is_none_or(|rest| rest.until <= now);
        ours.map(|(id, restore)| (*id, restore)).find(|(id, _)| rested(id))
    }

    /// Why it is held up while another waits.
    async fn until_another_goes_first(&self, id: u64, teller: &Teller) -> String {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let Some(why) = teller.held_up_for(STEPS_BACK_AFTER) else {
                continue;
            };
            let state = self.set.ground.control.state();
            let mut others = state.restores.iter().filter(|(other, _)| **other != id);
            if others.any(|(other, restore)| self.is_ours(*other, restore) && !self.resting.contains_key(other)) {
                return why;
            }
        }
    }

    async fn until_ended_by_a_user(&self, id: u64) {
        while is_running(&self.set.ground.control.state(), id) {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

fn is_running(state: &State, id: u64) -> bool {
    let restore = state.restores.get(&id);
    restore.is_some_and(|restore| restore.state == RestoreState::Running)
}

impl Work for RestoreWork {
    async fn step(&mut self) -> Result<Pace, Fault> {
        let (state, record) = self.set.record().map_err(|r| Fault::Retry(r.message))?;
        self.tidy(&state).await?;
        let Some((id, restore)) = self.next(&state) else {
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
        let carried = carry_out(self.set.clone(), id, restore.clone(), teller.clone());
        let outcome = tokio::select! {
            biased;
            outcome = carried => outcome,
            why = self.until_another_goes_first(id, &teller) => Err(Trouble::Passing(why)),
            () = self.until_ended_by_a_user(id) => {
                tracing::info!(restore = id, "restore was ended by a user");
                self.forget(id).await;
                return Ok(Pace::Again);
            }
        };
        let (ended, error, notes) = match outcome {
            Ok(loaded) => (RestoreState::Finished, None, loaded.notes),
            Err(Trouble::Passing(text)) => {
                tracing::warn!(restore = id, error = text, "restore is held up; it is tried again");
                self.rest(id);
                // A courtesy; whether it has been ended meanwhile is looked at above.
                if let Err(refused) = teller.held_up(&text).await {
                    tracing::info!(restore = id, error = %refused.message, "what holds a restore up could not be told");
                }
                return Ok(Pace::Again);
            }
            Err(Trouble::Final(text)) => (RestoreState::Failed, Some(text), Vec::new()),
        };
        for note in &notes {
            tracing::info!(restore = id, "{note}");
        }
        tracing::info!(restore = id, error, "restore ended");
        let progress = teller.ended(ended, error, &notes);
        submit_as_child(
            &self.set.ground.control,
            Command::UpdateRestore {
                id,
                epoch: record.epoch,
                progress,
            },
        )
        .await?;
        // Only now: with its cursor gone it could not go on, and would be told as failed.
        self.forget(id).await;
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
            let (target, settings) = (reached(uri, begun, &teller).await?, settings(&kept, &version));
            load(&*source, &chosen, &target, &settings, cursor, &*teller).await
        }
        Destination::Cluster(targets) => {
            let scratch = crate::set::scratch(&set, id).await.map_err(refusal)?;
            let opened = open_whole(&set, &kept.request.at, &restore, scratch).await?;
            let (old, version) = opened.into_old_cluster(&kept.request).await?;
            teller.expect(old.shards.iter().map(|(_, chosen)| chosen.bytes()).sum());
            let new = new_cluster(set.id.set(), targets, begun, &teller).await?;
            rebuild(&old, &new, &settings(&kept, &version), cursor, &*teller).await
        }
    };
    ended.map_err(|e| match e {
        LoadFault::Unreachable { .. } if begun || teller.has_kept() => Trouble::Passing(e.to_string()),
        LoadFault::Keep(_) | LoadFault::Source(SourceFault::Away(_)) => Trouble::Passing(e.to_string()),
        other => Trouble::Final(other.to_string()),
    })
}

fn settings(kept: &Kept, version: &str) -> Settings {
    let mut settings = Settings::new(version);
    settings.drop = kept.request.drop;
    settings
}

/// `begun`: the string could be used before, and what it names cannot be looked up at present.
async fn reached(uri: &str, begun: bool, teller: &Arc<Teller>) -> Result<Target, Trouble> {
    let target = Target::new(uri, CONNECTIONS).await;
    let target = target.map_err(|e| match begun {
        true => Trouble::Passing(e.to_string()),
        false => Trouble::Final(e.to_string()),
    })?;
    let teller = teller.clone();
    Ok(target.heard_by(Arc::new(move |why| teller.hear(why))))
}

/// `config` is what the config servers' replica set is called.
async fn new_cluster(
    config: &str,
    targets: &BTreeMap<String, String>,
    begun: bool,
    teller: &Arc<Teller>,
) -> Result<NewCluster, Trouble> {
    let (mut of_config, mut shards) = (None, BTreeMap::new());
    for (member, uri) in targets {
        let target = reached(uri, begun, teller).await?;
        match member == config {
            true => of_config = Some(target),
            false => _ = shards.insert(member.clone(), target),
        }
    }
    let config = of_config.ok_or_else(|| Trouble::Final("no target is named for the config servers".into()))?;
    Ok(NewCluster { config, shards })
}
