//! Deployments: what is protected.

use headwater_model::{DeploymentName, WrappedKey, limits, redact};
use serde::{Deserialize, Serialize};

use crate::apply::Answer;
use crate::balancer::Balancer;
use crate::command::{RefusalKind, Response};
use crate::restores::{self};
use crate::schedules::{self, Schedule};
use crate::sharding::Sharding;
use crate::state::State;
use crate::timetable::Timetable;

/// A replica set or sharded cluster that is protected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deployment {
    /// Connection string of the source, credentials included.
    pub uri: String,
    /// Whether it is streamed.
    pub active: bool,
    /// When it was added, milliseconds since 1970.
    pub created_ms: i64,
    /// When snapshots are taken and how long they stay.
    pub schedule: Schedule,
    /// What everything of it in the store is sealed with; `None` for a deployment that is not encrypted.
    pub key: Option<WrappedKey>,
    /// Its members, when it is a sharded cluster; known once an agent has looked.
    pub sharding: Option<Sharding>,
    /// What is done about its balancer, when it is a sharded cluster.
    #[serde(default)]
    pub balancer: Balancer,
}

pub(crate) fn add(
    state: &mut State,
    name: &DeploymentName,
    uri: &str,
    interval: u64,
    created_ms: i64,
    key: Option<&WrappedKey>,
) -> Answer {
    let schedule = schedules::begin(interval, created_ms)?;
    if uri.is_empty() || uri.len() > limits::URI_MAX_BYTES {
        let message = format!("a connection string has 1 to {} bytes", limits::URI_MAX_BYTES);
        return Err(Response::refused(RefusalKind::Limit, message));
    }
    if let Some(known) = state
        .deployments
        .get_mut(name)
        .filter(|known| redact::is_withheld(&known.uri) && !redact::is_withheld(uri))
    {
        // Recovered from a store, which keeps no secrets: it is given again.
        uri.clone_into(&mut known.uri);
        known.active = true;
        return Ok(Response::Done);
    }
    match state.deployments.get(name) {
        // The key that is known stays: something may be sealed with it.
        Some(known)
            if known.uri == uri
                // A cluster that was added without an interval has one of its own.
                && (known.schedule.timetable.interval_s == interval || known.sharding.is_some())
                && known.key.is_some() == key.is_some() =>
        {
            return Ok(Response::Done);
        }
        Some(known) if known.key.is_some() != key.is_some() => {
            let message = format!(
                "{name} exists already, {}; that is decided when a deployment is added: remove it first",
                if known.key.is_some() {
                    "encrypted"
                } else {
                    "not encrypted"
                }
            );
            return Err(Response::refused(RefusalKind::Conflict, message));
        }
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
        created_ms,
        schedule,
        key: key.cloned(),
        sharding: None,
        balancer: Balancer::default(),
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
    state.oplog_floors.retain(|(set, _), _| set.deployment() != name);
    state.grooms.retain(|set, _| set.deployment() != name);
    state.checkpoints.remove(name);
    restores::fail_all_of(state, name);
    Ok(Response::Done)
}

pub(crate) fn set_active(state: &mut State, name: &DeploymentName, active: bool) -> Answer {
    let known = find(state, name)?;
    if active && redact::is_withheld(&known.uri) {
        let message = format!(
            "the store of a recovered cluster keeps no passwords: give the connection string again with `headwater deployment \
             add {name} --uri …`"
        );
        return Err(Response::refused(RefusalKind::NotReady, message));
    }
    known.active = active;
    Ok(Response::Done)
}

pub(crate) fn set_snapshot_interval(state: &mut State, name: &DeploymentName, seconds: u64) -> Answer {
    let timetable = find(state, name)?.schedule.timetable;
    schedules::check_interval(seconds)?;
    find(state, name)?.schedule.timetable = Timetable {
        interval_s: seconds,
        ..timetable
    };
    Ok(Response::Done)
}

/// The same data key, wrapped anew; revisions follow each other, so that of two at once one is refused.
pub(crate) fn rewrap(state: &mut State, name: &DeploymentName, wrapped: &WrappedKey) -> Answer {
    let Some(known) = &mut find(state, name)?.key else {
        let message = format!("{name} is not encrypted");
        return Err(Response::refused(RefusalKind::Conflict, message));
    };
    if known == wrapped {
        return Ok(Response::Done);
    }
    if known.key != wrapped.key || known.revision.checked_add(1) != Some(wrapped.revision) {
        let message = format!("the data key of {name} was wrapped anew meanwhile; look, and try again");
        return Err(Response::refused(RefusalKind::Conflict, message));
    }
    *known = wrapped.clone();
    Ok(Response::Done)
}

pub(crate) fn find<'a>(state: &'a mut State, name: &DeploymentName) -> Result<&'a mut Deployment, Response> {
    let message = || format!("there is no deployment {name}; add it first");
    state
        .deployments
        .get_mut(name)
        .ok_or_else(|| Response::refused(RefusalKind::NotFound, message()))
}
