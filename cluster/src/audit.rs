//! Who did what: every change that somebody asked for, and every restore.
//!
//! An entry is there before the deed, and gets its outcome afterwards: a deed of which nothing is known never happens. One
//! without an outcome was cut off, and may have been done.

use headwater_model::{DeploymentName, limits};
use serde::{Deserialize, Serialize};

use crate::apply::{Answer, shorten};
use crate::command::{Command, RefusalKind, Response};
use crate::restores::RestoreState;
use crate::state::State;

/// One deed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// Chosen by the submitter; the same token again is the same deed.
    pub token: u64,
    /// By the submitter's clock, milliseconds since 1970.
    pub at_ms: i64,
    /// What the key is called.
    pub who: String,
    /// The key's id.
    pub key: String,
    /// What was asked for, as the command line calls it.
    pub what: String,
    /// The path of the request, which names what it was about.
    pub path: String,
    /// Of which deployment.
    pub deployment: Option<DeploymentName>,
    /// The restore that came of it.
    pub restore: Option<u64>,
    /// What became of it, for people.
    pub outcome: Option<String>,
}

pub(crate) fn begin(state: &mut State, entry: &AuditEntry) -> Answer {
    if known(state, entry.token).is_some() {
        return Ok(Response::Done);
    }
    if entry.outcome.is_some() || entry.restore.is_some() {
        let message = "an entry is made before its outcome is known";
        return Err(Response::refused(RefusalKind::OutOfOrder, message));
    }
    let cut = |text: &str| shorten(text, limits::AUDIT_TEXT_MAX_BYTES);
    let entry = AuditEntry {
        who: cut(&entry.who),
        key: cut(&entry.key),
        what: cut(&entry.what),
        path: cut(&entry.path),
        ..entry.clone()
    };
    state.last_audit += 1;
    state.audit.insert(state.last_audit, entry);
    while state.audit.len() > limits::AUDIT_KEPT {
        state.audit.pop_first();
    }
    Ok(Response::Done)
}

pub(crate) fn end(
    state: &mut State,
    token: u64,
    deployment: Option<&DeploymentName>,
    restore: Option<u64>,
    outcome: &str,
) -> Answer {
    // A small restore has ended before it is said that it was begun.
    let ended = restore.and_then(|id| {
        let restore = state.restores.get(&id)?;
        ended_as(id, restore.state, restore.error.as_deref())
    });
    let Some(entry) = known(state, token) else {
        return Err(Response::refused(RefusalKind::NotFound, "there is no such entry"));
    };
    if entry.outcome.is_none() {
        let outcome = ended.as_deref().unwrap_or(outcome);
        entry.outcome = Some(shorten(outcome, limits::AUDIT_TEXT_MAX_BYTES));
        entry.deployment = deployment.cloned().or(entry.deployment.take());
        entry.restore = restore;
    }
    Ok(Response::Done)
}

/// A restore that ended is the outcome of the deed that began it.
pub(crate) fn follow(state: &mut State, command: &Command) {
    let (Command::UpdateRestore { id, .. } | Command::CancelRestore { id }) = command else {
        return;
    };
    let Some(restore) = state.restores.get(id) else {
        return;
    };
    let Some(outcome) = ended_as(*id, restore.state, restore.error.as_deref()) else {
        return;
    };
    let begun = state.audit.values_mut().rfind(|entry| entry.restore == Some(*id));
    if let Some(entry) = begun {
        entry.outcome = Some(shorten(&outcome, limits::AUDIT_TEXT_MAX_BYTES));
    }
}

fn ended_as(id: u64, state: RestoreState, error: Option<&str>) -> Option<String> {
    match state {
        RestoreState::Running => None,
        RestoreState::Finished => Some(format!("restore {id} finished")),
        RestoreState::Failed => Some(format!("restore {id} failed: {}", error.unwrap_or_default())),
        RestoreState::Cancelled => Some(format!("restore {id} was cancelled")),
    }
}

/// The newest come first: what is looked for is nearly always the last.
fn known(state: &mut State, token: u64) -> Option<&mut AuditEntry> {
    state.audit.values_mut().rfind(|entry| entry.token == token)
}
