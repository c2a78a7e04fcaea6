//! Grooms: asked for, under way, done.
//!
//! Packs that go are named here before they are deleted. Whoever owns the replica set next neither trusts nor reads them,
//! so that a former owner, who stood still between looking at the fence and deleting, takes nothing away.

use std::collections::BTreeSet;

use headwater_model::{Epoch, ReplicaSetId, limits};
use serde::{Deserialize, Serialize};

use crate::apply::{Answer, shorten};
use crate::command::{RefusalKind, Response};
use crate::replica_sets::{self, check_epoch};
use crate::state::State;

/// How the grooming of one replica set stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grooming {
    /// Packs that are on their way out.
    pub condemned: BTreeSet<String>,
    /// What a user asked for.
    pub asked: Option<Asked>,
    /// The last that ended.
    pub last: Option<GroomReport>,
}

/// A user's wish for a groom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// Whether to look only.
    pub dry_run: bool,
    /// When, milliseconds since 1970.
    pub at_ms: i64,
}

/// What a groom found and did. At rest as it is; fields keep their order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroomReport {
    /// The wish that it carried out, by when that was uttered.
    pub asked_ms: Option<i64>,
    /// When it began, milliseconds since 1970 by the owner's clock.
    pub began_ms: i64,
    /// When it ended.
    pub ended_ms: i64,
    /// Why it began.
    pub why: String,
    /// Whether it was to look only.
    pub dry_run: bool,
    /// Packs before it.
    pub packs: u64,
    /// Bytes at rest of living blocks.
    pub living_bytes: u64,
    /// Bytes of packs that no living block takes.
    pub dead_bytes: u64,
    /// Packs that went, or would go.
    pub packs_removed: u64,
    /// Bytes that were written elsewhere for that, or would be.
    pub copied_bytes: u64,
    /// Bytes of packs before it, and after it.
    pub bytes_before: u64,
    /// See `bytes_before`; for one that only looked, what would be left.
    pub bytes_after: u64,
    /// Why it did not come to its end; what it did until then holds.
    pub error: Option<String>,
}

/// Packs in one command.
pub const PACKS_PER_COMMAND: usize = 64;

/// The longest key of a pack.
const KEY_MAX_BYTES: usize = 400;

pub(crate) fn request(state: &mut State, set: &ReplicaSetId, dry_run: bool, at_ms: i64) -> Answer {
    replica_sets::find(state, set)?;
    let grooming = state.grooms.entry(set.clone()).or_default();
    grooming.asked = Some(Asked { dry_run, at_ms });
    Ok(Response::Done)
}

pub(crate) fn condemn(state: &mut State, set: &ReplicaSetId, epoch: Epoch, packs: &[String]) -> Answer {
    check_epoch(set, replica_sets::find(state, set)?, epoch)?;
    if packs.len() > PACKS_PER_COMMAND || packs.iter().any(|key| key.is_empty() || key.len() > KEY_MAX_BYTES) {
        let message = format!("at most {PACKS_PER_COMMAND} packs go at once");
        return Err(Response::refused(RefusalKind::Limit, message));
    }
    let grooming = state.grooms.entry(set.clone()).or_default();
    grooming.condemned.extend(packs.iter().cloned());
    Ok(Response::Done)
}

pub(crate) fn removed(state: &mut State, set: &ReplicaSetId, epoch: Epoch, packs: &[String]) -> Answer {
    check_epoch(set, replica_sets::find(state, set)?, epoch)?;
    if let Some(grooming) = state.grooms.get_mut(set) {
        grooming.condemned.retain(|key| !packs.contains(key));
    }
    // Of a pack that is gone nothing is damaged any more.
    if let Some(known) = state.integrity.get_mut(set) {
        known.damage.retain(|object, _| !packs.contains(object));
    }
    Ok(Response::Done)
}

pub(crate) fn note(state: &mut State, set: &ReplicaSetId, epoch: Epoch, report: &GroomReport) -> Answer {
    check_epoch(set, replica_sets::find(state, set)?, epoch)?;
    let grooming = state.grooms.entry(set.clone()).or_default();
    if grooming.asked.is_some_and(|asked| Some(asked.at_ms) == report.asked_ms) {
        grooming.asked = None;
    }
    grooming.last = Some(GroomReport {
        why: shorten(&report.why, limits::PROBLEM_MAX_BYTES),
        error: report
            .error
            .as_deref()
            .map(|text| shorten(text, limits::PROBLEM_MAX_BYTES)),
        ..report.clone()
    });
    Ok(Response::Done)
}
