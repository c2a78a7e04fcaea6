//! Which node should own which replica set. Pure: the leader looks, decides here, and submits.
//!
//! A replica set stays where it is, since the cache is warm there, unless its owner is lost, leaves, or is drained; or
//! unless another node owns so much less that moving one is worth a cold cache. A wrong decision costs time, never data:
//! whoever lost a replica set is refused by its epoch.

use std::collections::BTreeMap;

use headwater_model::Phase;

use crate::command::Command;
use crate::state::{NodeId, State};

/// What the looker knows of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sight {
    /// Milliseconds since it last answered; 0 for the looker itself.
    pub silent_ms: u64,
    /// Milliseconds for which it has answered without a pause.
    pub steady_ms: u64,
    /// Whether it says that it is about to end.
    pub leaving: bool,
}

/// When a node counts as lost, and when as back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// A node that is silent for so long is lost, in milliseconds.
    pub lost_ms: u64,
    /// A node gets replica sets for the sake of balance only after answering for so long, in milliseconds.
    pub steady_ms: u64,
}

impl Default for Patience {
    fn default() -> Self {
        Patience {
            lost_ms: 2_000,
            steady_ms: 30_000,
        }
    }
}

/// The nodes that may own something, with how many replica sets they own.
fn eligible(state: &State, sights: &BTreeMap<NodeId, Sight>, patience: Patience) -> BTreeMap<NodeId, usize> {
    let fit = state.nodes.iter().filter(|(id, node)| {
        let seen = sights.get(id);
        !node.draining && seen.is_some_and(|sight| !sight.leaving && sight.silent_ms < patience.lost_ms)
    });
    fit.map(|(id, _)| {
        let owned = state.replica_sets.values().filter(|set| set.node == *id).count();
        (*id, owned)
    })
    .collect()
}

/// Who should own a replica set that is new: the node with the least.
pub fn choose(state: &State, sights: &BTreeMap<NodeId, Sight>, patience: Patience) -> Option<NodeId> {
    least(&eligible(state, sights, patience))
}

fn least(load: &BTreeMap<NodeId, usize>) -> Option<NodeId> {
    load.iter().min_by_key(|(id, owned)| (**owned, **id)).map(|(id, _)| *id)
}

/// The commands that bring every replica set to a node that can own it.
pub fn plan(state: &State, sights: &BTreeMap<NodeId, Sight>, patience: Patience) -> Vec<Command> {
    let mut load = eligible(state, sights, patience);
    let mut moves = Vec::new();
    for (id, set) in &state.replica_sets {
        if load.contains_key(&set.node) {
            continue;
        }
        let Some(node) = least(&load) else { break };
        load.entry(node).and_modify(|owned| *owned += 1);
        moves.push(Command::Assign {
            set: id.clone(),
            node,
            expected: set.epoch,
        });
    }
    if moves.is_empty() {
        moves.extend(balance(state, &load, sights, patience));
    }
    moves
}

/// One move from the node with the most to the one with the least, if that is worth it.
fn balance(
    state: &State,
    load: &BTreeMap<NodeId, usize>,
    sights: &BTreeMap<NodeId, Sight>,
    patience: Patience,
) -> Option<Command> {
    let steady = |id: &NodeId| {
        sights
            .get(id)
            .is_some_and(|sight| sight.steady_ms >= patience.steady_ms)
    };
    let (to, few) = load
        .iter()
        .filter(|(id, _)| steady(id))
        .min_by_key(|(id, owned)| (**owned, **id))?;
    let (from, many) = load.iter().max_by_key(|(id, owned)| (**owned, **id))?;
    if *many < few + 2 {
        return None;
    }
    // A first copy under way would lose what it has not published.
    let (id, set) = state
        .replica_sets
        .iter()
        .find(|(_, set)| set.node == *from && set.phase == Phase::Complete)?;
    Some(Command::Assign {
        set: id.clone(),
        node: *to,
        expected: set.epoch,
    })
}
