//! A checkpoint of a cluster is sealed for all members or for none, and says the same ever after.

use std::collections::BTreeMap;

use headwater_cluster::State;
use headwater_cluster::checkpoints::{Checkpoint, Outcome};
use headwater_model::{DeploymentName, ReplicaSetId, SnapshotId, Ts};
use headwater_protocol::admin::Timeline;

use crate::planted::{self, Bug};
use crate::trace;

/// A checkpoint that is not whole.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Partial {
    /// Sealed, and a member of the cluster has no snapshot of it at its instant.
    #[error("a checkpoint is sealed for all or for none: {id} is sealed at {at} and {set} has no snapshot of it")]
    Lacks {
        /// Which.
        id: SnapshotId,
        /// Its cut.
        at: Ts,
        /// The member.
        set: String,
    },
    /// A snapshot of a checkpoint that is not sealed.
    #[error("a checkpoint is sealed for all or for none: {set} has a snapshot of {id}, which is not sealed")]
    Early {
        /// Which.
        id: SnapshotId,
        /// The member.
        set: ReplicaSetId,
    },
    /// It was over, and is something else now.
    #[error("a checkpoint is sealed for all or for none: {id} was {before} and is {now}")]
    Changed {
        /// Which.
        id: SnapshotId,
        /// Before.
        before: String,
        /// Now.
        now: String,
    },
    /// It is offered to users without some member.
    #[error("a checkpoint is sealed for all or for none: {id} is offered with {members} members of {all}")]
    Offered {
        /// Which.
        id: SnapshotId,
        /// How many it has.
        members: usize,
        /// How many the cluster has.
        all: usize,
    },
}

/// How a checkpoint ended.
#[derive(Clone, Debug, PartialEq)]
enum End {
    Sealed(Ts),
    GivenUp,
}

/// How checkpoints ended, by what each daemon showed.
#[derive(Debug, Default)]
pub struct Checkpoints {
    ended: BTreeMap<(u64, SnapshotId), End>,
}

impl Checkpoints {
    /// A daemon shows its control state. States of one daemon come in their order.
    pub fn state(&mut self, daemon: u64, state: &State) -> Result<(), Partial> {
        for (name, known) in &state.checkpoints {
            for (id, checkpoint) in &known.all {
                let Some(end) = end(state, name, id, checkpoint)? else {
                    continue;
                };
                self.ends(daemon, id, end)?;
            }
        }
        Ok(())
    }

    fn ends(&mut self, daemon: u64, id: &SnapshotId, end: End) -> Result<(), Partial> {
        match self.ended.get(&(daemon, id.clone())) {
            Some(before) if *before == end => Ok(()),
            Some(before) => Err(Partial::Changed {
                id: id.clone(),
                before: format!("{before:?}"),
                now: format!("{end:?}"),
            }),
            None => {
                trace::mark(match end {
                    End::Sealed(_) => "checkpoint: sealed",
                    End::GivenUp => "checkpoint: given up",
                });
                self.ended.insert((daemon, id.clone()), end);
                Ok(())
            }
        }
    }
}

/// How a checkpoint ended; `None` while it is open.
fn end(state: &State, name: &DeploymentName, id: &SnapshotId, checkpoint: &Checkpoint) -> Result<Option<End>, Partial> {
    let of = |set: &str| {
        let set = ReplicaSetId::new(name.clone(), set).ok()?;
        state.snapshots.get(&(set, id.clone()))
    };
    let sealed = match &checkpoint.outcome {
        Outcome::Sealed => checkpoint.at(),
        Outcome::Open | Outcome::Failed(_) => None,
    };
    let Some(at) = sealed else {
        let mut early = state.snapshots.keys();
        return match early.find(|(set, other)| set.deployment() == name && other == id) {
            Some((set, _)) => Err(Partial::Early {
                id: id.clone(),
                set: set.clone(),
            }),
            None => Ok(matches!(checkpoint.outcome, Outcome::Failed(_)).then_some(End::GivenUp)),
        };
    };
    let deployment = state.deployments.get(name);
    let sharding = deployment.and_then(|deployment| deployment.sharding.as_ref());
    let members = sharding.into_iter().flat_map(|sharding| sharding.present());
    for (nth, (set, _)) in members.enumerate() {
        let snapshot = of(set).filter(|snapshot| snapshot.checkpoint == Some(at));
        let image = snapshot.and_then(|snapshot| snapshot.image.as_ref());
        let is_forgotten = nth == 1 && planted::is(Bug::CheckpointWithoutMember);
        if is_forgotten || image.is_none_or(|image| image.at.ts > at) {
            return Err(Partial::Lacks {
                id: id.clone(),
                at,
                set: set.clone(),
            });
        }
    }
    Ok(Some(End::Sealed(at)))
}

/// What users are told of a cluster of so many members.
pub fn offered(timeline: &Timeline, all: usize) -> Result<(), Partial> {
    let complete = timeline.snapshots.iter().filter(|snapshot| snapshot.complete);
    let partial = complete
        .into_iter()
        .find(|snapshot| (1..all).contains(&snapshot.members.len()));
    match partial {
        None => Ok(()),
        Some(snapshot) => Err(Partial::Offered {
            id: snapshot.id.clone(),
            members: snapshot.members.len(),
            all,
        }),
    }
}
