//! Restores: asked for, running, ended.

use std::collections::BTreeMap;

use headwater_model::{DeploymentName, Epoch, ReplicaSetId, limits};
use serde::{Deserialize, Serialize};

use crate::apply::{Answer, shorten};
use crate::command::{RefusalKind, Response, RestoreProgress, Use};
use crate::keeping;
use crate::replica_sets::{self, ImageRef, check_epoch, check_image};
use crate::state::State;

/// The life of a restore.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RestoreState {
    /// Waiting or running.
    Running,
    /// Everything is at the target and was verified there.
    Finished,
    /// It ended without success.
    Failed,
    /// A user ended it.
    Cancelled,
}

/// A restore that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restore {
    /// Chosen by who asked for it, so that asking twice is asking once.
    pub token: u64,
    /// The request, for whoever carries it out.
    pub request_json: String,
    /// Of which.
    pub replica_set: ReplicaSetId,
    /// Running or ended.
    pub state: RestoreState,
    /// What it is at.
    pub step: String,
    /// Documents written.
    pub done_documents: u64,
    /// Bytes of BSON written.
    pub done_bytes: u64,
    /// Bytes of BSON expected.
    pub total_bytes: u64,
    /// Why it failed; while it runs, what stands in its way, which is tried again.
    pub error: Option<String>,
    /// What was left out or made otherwise than it was, for people.
    pub notes: Vec<String>,
    /// When it was asked for, milliseconds since 1970.
    pub created_ms: i64,
    /// Where to go on after a crash, for whoever carries it out.
    pub cursor_json: String,
    /// The images it begins with: neither they nor the oplog after them goes while the restore runs.
    pub uses: BTreeMap<ReplicaSetId, ImageRef>,
}

impl Restore {
    /// How it stands, to be changed and told.
    pub fn progress(&self) -> RestoreProgress {
        RestoreProgress {
            state: self.state,
            step: self.step.clone(),
            done_documents: self.done_documents,
            done_bytes: self.done_bytes,
            total_bytes: self.total_bytes,
            error: self.error.clone(),
            notes: self.notes.clone(),
            cursor_json: self.cursor_json.clone(),
        }
    }
}

pub(crate) fn create(
    state: &mut State,
    token: u64,
    set: &ReplicaSetId,
    request_json: &str,
    created_ms: i64,
    uses: &BTreeMap<ReplicaSetId, Use>,
) -> Answer {
    if let Some((id, there)) = state.restores.iter().find(|(_, restore)| restore.token == token) {
        // Asked again it may have been planned anew, with another instant for its `latest`; what was first answered counts.
        if there.replica_set == *set {
            return Ok(Response::RestoreCreated { id: *id });
        }
        let message = "another restore was asked for with that token; choose a fresh one at random";
        return Err(Response::refused(RefusalKind::Conflict, message));
    }
    replica_sets::find(state, set)?;
    if request_json.len() > limits::RESTORE_TEXT_MAX_BYTES {
        let message = format!(
            "a restore's request has at most {} bytes",
            limits::RESTORE_TEXT_MAX_BYTES
        );
        return Err(Response::refused(RefusalKind::Limit, message));
    }
    for (set, Use { image, until }) in uses {
        check_image(image)?;
        keeping::check_usable(state, set, image, *until)?;
    }
    let running = state
        .restores
        .values()
        .filter(|restore| restore.state == RestoreState::Running)
        .count();
    if running >= limits::RESTORES_RUNNING_MAX {
        let message = format!("{running} restores are running already; wait for one of them");
        return Err(Response::refused(RefusalKind::NotReady, message));
    }
    state.last_restore = state.last_restore.saturating_add(1);
    let restore = Restore {
        token,
        request_json: request_json.to_owned(),
        replica_set: set.clone(),
        state: RestoreState::Running,
        step: "preparing".to_owned(),
        done_documents: 0,
        done_bytes: 0,
        total_bytes: 0,
        error: None,
        notes: Vec::new(),
        created_ms,
        cursor_json: String::new(),
        uses: uses.iter().map(|(set, of)| (set.clone(), of.image.clone())).collect(),
    };
    state.restores.insert(state.last_restore, restore);
    forget_oldest(state);
    Ok(Response::RestoreCreated { id: state.last_restore })
}

pub(crate) fn update(state: &mut State, id: u64, epoch: Epoch, progress: &RestoreProgress) -> Answer {
    let message = || format!("there is no restore {id}");
    let restore = state
        .restores
        .get(&id)
        .ok_or_else(|| Response::refused(RefusalKind::NotFound, message()))?;
    if restore.state != RestoreState::Running {
        return match restore.state == progress.state {
            true => Ok(Response::Done),
            false => Err(Response::refused(
                RefusalKind::OutOfOrder,
                format!("restore {id} has ended already"),
            )),
        };
    }
    if progress.cursor_json.len() > limits::RESTORE_TEXT_MAX_BYTES {
        let message = format!(
            "a restore's cursor has at most {} bytes",
            limits::RESTORE_TEXT_MAX_BYTES
        );
        return Err(Response::refused(RefusalKind::Limit, message));
    }
    let set = restore.replica_set.clone();
    check_epoch(&set, replica_sets::find(state, &set)?, epoch)?;
    if let Some(restore) = state.restores.get_mut(&id) {
        restore.state = progress.state;
        restore.step = shorten(&progress.step, limits::NAME_MAX_BYTES);
        restore.done_documents = progress.done_documents;
        restore.done_bytes = progress.done_bytes;
        restore.total_bytes = progress.total_bytes;
        restore.error = progress
            .error
            .as_deref()
            .map(|text| shorten(text, limits::PROBLEM_MAX_BYTES));
        restore.notes = cut(&progress.notes);
        // Ended restores are kept for people, who have no use for the cursor.
        let cursor = if progress.state == RestoreState::Running {
            progress.cursor_json.as_str()
        } else {
            ""
        };
        cursor.clone_into(&mut restore.cursor_json);
    }
    Ok(Response::Done)
}

/// As many notes as are kept, each cut, and a count of the others.
pub fn kept_notes(notes: &[String]) -> Vec<String> {
    let mut kept = cut(&notes[..notes.len().min(limits::RESTORE_NOTES_KEPT)]);
    if let more @ 1.. = notes.len() - kept.len() {
        kept.push(format!("and {more} more"));
    }
    kept
}

fn cut(notes: &[String]) -> Vec<String> {
    let cut = |note: &String| shorten(note, limits::RESTORE_NOTE_MAX_BYTES);
    notes.iter().take(limits::RESTORE_NOTES_KEPT + 1).map(cut).collect()
}

/// Ends a restore that a user does not want any more. One that has ended stays as it is.
pub(crate) fn cancel(state: &mut State, id: u64) -> Answer {
    let Some(restore) = state.restores.get_mut(&id) else {
        return Err(Response::refused(
            RefusalKind::NotFound,
            format!("there is no restore {id}"),
        ));
    };
    match restore.state {
        RestoreState::Running => {
            restore.state = RestoreState::Cancelled;
            restore.cursor_json.clear();
            Ok(Response::Done)
        }
        RestoreState::Cancelled => Ok(Response::Done),
        RestoreState::Finished | RestoreState::Failed => Err(Response::refused(
            RefusalKind::OutOfOrder,
            format!("restore {id} has ended already"),
        )),
    }
}

/// Ends the restores of a deployment that goes.
pub(crate) fn fail_all_of(state: &mut State, name: &DeploymentName) {
    let running = state
        .restores
        .values_mut()
        .filter(|restore| restore.state == RestoreState::Running);
    for restore in running.filter(|restore| restore.replica_set.deployment() == name) {
        restore.state = RestoreState::Failed;
        restore.error = Some(format!("deployment {name} was removed"));
    }
}

fn forget_oldest(state: &mut State) {
    let excess = state.restores.len().saturating_sub(limits::RESTORES_KEPT);
    let ended = state
        .restores
        .iter()
        .filter(|(_, restore)| restore.state != RestoreState::Running);
    let oldest: Vec<u64> = ended.map(|(id, _)| *id).take(excess).collect();
    for id in oldest {
        state.restores.remove(&id);
    }
}
