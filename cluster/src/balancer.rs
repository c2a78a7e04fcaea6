//! The balancer of a sharded cluster, stopped for checkpoints where users wish so, and always put back. Pure.
//!
//! | step | who | what becomes durable |
//! |---|---|---|
//! | how is it? | the agent of the config servers | [`BalancerStep::Found`]: the mode it is put back to, *before* anything is touched |
//! | stop it | the same | [`BalancerStep::Stopped`]: the checkpoint goes on to its notes |
//! | it cannot be stopped | the same, or the leader after [`PATIENCE_MS`] | [`BalancerStep::Failed`]: it goes on, and is marked |
//! | put it back | the same, once no checkpoint needs it stopped | [`BalancerStep::PutBack`]: nothing is owed |
//!
//! What is owed is part of the deployment, so it is put back by whoever leads, owns and streams when the checkpoint is sealed or
//! given up, or when agent or daemon died in between. Every step has a number, and a word about a former one is passed over.

use headwater_model::{DeploymentName, ReplicaSetId, SnapshotId, limits};
use serde::{Deserialize, Serialize};

use crate::apply::{Answer, shorten};
use crate::checkpoints::{self, Quiet};
use crate::command::{RefusalKind, Response};
use crate::deployments;
use crate::state::State;

/// A balancer that is not stopped this long after the checkpoint was opened is let be, in milliseconds.
pub const PATIENCE_MS: i64 = 30_000;

/// The mode of a balancer that does nothing, as `config.settings` calls it.
pub const OFF: &str = "off";

/// The balancer of a deployment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Balancer {
    /// Whether it is to be stopped for checkpoints.
    pub stop: bool,
    /// How many steps there were.
    pub step: u64,
    /// The mode that it is owed: it was found like that, and is or may be stopped by us.
    pub owed: Option<String>,
}

/// What became of a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BalancerStep {
    /// It is in this mode.
    Found(String),
    /// It is stopped, and no round of it goes on.
    Stopped,
    /// It cannot be asked or stopped, and why.
    Failed(String),
    /// It is as it was.
    PutBack,
}

/// What the agent of the config servers shall do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Say in which mode it is.
    Look,
    /// Stop it and wait for the end of its round.
    Stop,
    /// Put it back to this mode.
    PutBack(String),
}

/// What is wanted of the agent of a replica set, with the number of the step.
pub fn wanted(state: &State, set: &ReplicaSetId) -> Option<(u64, Wanted)> {
    if checkpoints::spokesman(state, set.deployment()).as_ref() != Some(set) {
        return None;
    }
    let balancer = &state.deployments.get(set.deployment())?.balancer;
    let open = checkpoints::open_of(state, set.deployment()).map(|(_, checkpoint)| &checkpoint.quiet);
    let wanted = match (open, &balancer.owed) {
        (Some(Quiet::Wanted), None) => Wanted::Look,
        (Some(Quiet::Wanted), Some(_)) => Wanted::Stop,
        (Some(Quiet::Stopped), _) | (_, None) => return None,
        (_, Some(mode)) => Wanted::PutBack(mode.clone()),
    };
    Some((balancer.step, wanted))
}

/// Changes whether it is stopped for checkpoints. What is owed is put back all the same.
pub(crate) fn set(state: &mut State, name: &DeploymentName, stop: bool) -> Answer {
    deployments::find(state, name)?.balancer.stop = stop;
    Ok(Response::Done)
}

pub(crate) fn note(state: &mut State, name: &DeploymentName, step: u64, outcome: &BalancerStep) -> Answer {
    let balancer = &mut deployments::find(state, name)?.balancer;
    if balancer.step != step {
        let message = format!("step {step} with the balancer of {name} is over");
        return Err(Response::refused(RefusalKind::OutOfOrder, message));
    }
    let quiet = match outcome {
        BalancerStep::Found(mode) if mode == OFF => Some(Quiet::Stopped),
        BalancerStep::Found(mode) => {
            balancer.owed = Some(shorten(mode, limits::NAME_MAX_BYTES));
            None
        }
        BalancerStep::Stopped => Some(Quiet::Stopped),
        BalancerStep::Failed(why) => Some(Quiet::Failed(shorten(why, limits::PROBLEM_MAX_BYTES / 2))),
        BalancerStep::PutBack => {
            balancer.owed = None;
            None
        }
    };
    balancer.step += 1;
    if let Some(quiet) = quiet {
        checkpoints::quieted(state, name, quiet);
    }
    Ok(Response::Done)
}

/// What the leader says of a balancer that is not stopped in time: the checkpoint goes on without.
pub(crate) fn late(balancer: &Balancer, id: &SnapshotId) -> (u64, BalancerStep) {
    let why = format!("it was not stopped within {} s for checkpoint {id}", PATIENCE_MS / 1000);
    (balancer.step, BalancerStep::Failed(why))
}
