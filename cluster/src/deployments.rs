//! Deployments: what is protected.

use headwater_model::{DeploymentName, limits};
use serde::{Deserialize, Serialize};

use crate::apply::Answer;
use crate::command::{RefusalKind, Response};
use crate::restores::{self};
use crate::state::State;

/// A replica set or sharded cluster that is protected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deployment {
    /// Connection string of the source, credentials included.
    pub uri: String,
    /// Whether it is streamed.
    pub active: bool,
    /// Seconds between scheduled snapshots.
    pub snapshot_interval_s: u64,
    /// When it was added, milliseconds since 1970.
    pub created_ms: i64,
}

pub(crate) fn add(state: &mut State, name: &DeploymentName, uri: &str, interval: u64, created_ms: i64) -> Answer {
    check_interval(interval)?;
    if uri.is_empty() || uri.len() > limits::URI_MAX_BYTES {
        let message = format!("a connection string has 1 to {} bytes", limits::URI_MAX_BYTES);
        return Err(Response::refused(RefusalKind::Limit, message));
    }
    match state.deployments.get(name) {
        Some(known) if known.uri == uri && known.snapshot_interval_s == interval => return Ok(Response::Done),
        Some(_) => {
            let message = format!("{name} exists already with another source or interval; remove it or choose a name");
            return Err(Response::refused(RefusalKind::Conflict, message));
        }
        None => {}
    }
    if state.deployments.len() >= limits::DEPLOYMENTS_MAX {
        let message = format!(
            "{} deployments are protected already, which is the limit",
            limits::DEPLOYMENTS_MAX
        );
        return Err(Response::refused(RefusalKind::Limit, message));
    }
    let deployment = Deployment {
        uri: uri.to_owned(),
        active: true,
        snapshot_interval_s: interval,
        created_ms,
    };
    state.deployments.insert(name.clone(), deployment);
    Ok(Response::Done)
}

pub(crate) fn remove(state: &mut State, name: &DeploymentName) -> Answer {
    find(state, name)?;
    state.deployments.remove(name);
    state.leases.remove(name);
    let State {
        replica_sets, retired, ..
    } = state;
    replica_sets.retain(|set, known| {
        let leaves = set.deployment() == name;
        if leaves {
            retired.insert(set.clone(), known.incarnation);
        }
        !leaves
    });
    state.snapshots.retain(|(set, _), _| set.deployment() != name);
    restores::fail_all_of(state, name);
    Ok(Response::Done)
}

pub(crate) fn set_active(state: &mut State, name: &DeploymentName, active: bool) -> Answer {
    find(state, name)?.active = active;
    Ok(Response::Done)
}

pub(crate) fn set_snapshot_interval(state: &mut State, name: &DeploymentName, seconds: u64) -> Answer {
    check_interval(seconds)?;
    find(state, name)?.snapshot_interval_s = seconds;
    Ok(Response::Done)
}

pub(crate) fn find<'a>(state: &'a mut State, name: &DeploymentName) -> Result<&'a mut Deployment, Response> {
    let message = || format!("there is no deployment {name}; add it first");
    state
        .deployments
        .get_mut(name)
        .ok_or_else(|| Response::refused(RefusalKind::NotFound, message()))
}

fn check_interval(seconds: u64) -> Result<(), Response> {
    match seconds {
        0 => Err(Response::refused(
            RefusalKind::Limit,
            "snapshots are at least one second apart",
        )),
        _ => Ok(()),
    }
}
