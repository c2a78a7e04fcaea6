//! Nodes: the daemons of the cluster. A number is given once and never again, so that a node that lost its disk, and with
//! it its promises, can only come back as another one.

use std::collections::BTreeMap;

use headwater_model::{Epoch, limits};
use serde::{Deserialize, Serialize};

use crate::apply::Answer;
use crate::command::{RefusalKind, Response};
use crate::replica_sets::next_epoch;
use crate::state::{NodeId, State};

/// A daemon of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// Where the others reach it, `host:port`.
    pub address: String,
    /// What it chose when it joined; 0 for the first node.
    pub token: u64,
    /// The last start of its process; 0 before the first.
    pub start: u64,
    /// Epochs up to this one belong to former processes of it.
    pub floor: Epoch,
    /// Whether it is to own nothing.
    pub draining: bool,
}

impl NodeRecord {
    fn new(address: &str, token: u64) -> Self {
        NodeRecord {
            address: address.to_owned(),
            token,
            start: 0,
            floor: Epoch::default(),
            draining: false,
        }
    }
}

pub(crate) fn begin(state: &mut State, cluster: &str, nodes: &BTreeMap<NodeId, String>) -> Answer {
    nodes.values().try_for_each(|address| check_address(address))?;
    if state.cluster == cluster && !cluster.is_empty() {
        return Ok(Response::Done);
    }
    if !state.cluster.is_empty() {
        let message = "the cluster has begun already, under another name";
        return Err(Response::refused(RefusalKind::Conflict, message));
    }
    if cluster.is_empty() || cluster.len() > limits::NAME_MAX_BYTES || nodes.len() > limits::NODES_MAX {
        let message = "a cluster needs a short name and not too many nodes";
        return Err(Response::refused(RefusalKind::Limit, message));
    }
    cluster.clone_into(&mut state.cluster);
    for (id, address) in nodes {
        state.last_node = state.last_node.max(id.0);
        state.nodes.insert(*id, NodeRecord::new(address, 0));
    }
    Ok(Response::Done)
}

pub(crate) fn add(state: &mut State, token: u64, address: &str) -> Answer {
    check_address(address)?;
    if let Some((id, _)) = state.nodes.iter().find(|(_, node)| node.token == token && token != 0) {
        return Ok(Response::NodeAdded { id: *id });
    }
    if state.cluster.is_empty() {
        let message = "the cluster has not begun yet; ask again in a moment";
        return Err(Response::refused(RefusalKind::NotReady, message));
    }
    if token == 0 {
        return Err(Response::refused(RefusalKind::Limit, "choose a token at random"));
    }
    if state.nodes.len() >= limits::NODES_MAX {
        let message = format!("a cluster has at most {} nodes; remove one first", limits::NODES_MAX);
        return Err(Response::refused(RefusalKind::Limit, message));
    }
    state.last_node = state.last_node.saturating_add(1);
    let id = NodeId(state.last_node);
    state.nodes.insert(id, NodeRecord::new(address, token));
    Ok(Response::NodeAdded { id })
}

pub(crate) fn start(state: &mut State, node: NodeId, start: u64, address: &str) -> Answer {
    check_address(address)?;
    let known = find(state, node)?;
    if known.start == start && start != 0 {
        return Ok(Response::Started { floor: known.floor });
    }
    let floor = state.last_epoch;
    let known = find(state, node)?;
    known.start = start;
    known.floor = floor;
    address.clone_into(&mut known.address);
    let owned: Vec<_> = state
        .replica_sets
        .iter()
        .filter(|(_, set)| set.node == node)
        .map(|(id, _)| id.clone())
        .collect();
    for id in owned {
        let epoch = next_epoch(state);
        if let Some(set) = state.replica_sets.get_mut(&id) {
            set.epoch = epoch;
        }
    }
    Ok(Response::Started { floor })
}

pub(crate) fn set_draining(state: &mut State, node: NodeId, draining: bool) -> Answer {
    find(state, node)?.draining = draining;
    Ok(Response::Done)
}

pub(crate) fn remove(state: &mut State, node: NodeId) -> Answer {
    find(state, node)?;
    if state.nodes.len() == 1 {
        let message = "the last node cannot be removed; stop its daemon instead";
        return Err(Response::refused(RefusalKind::Conflict, message));
    }
    state.nodes.remove(&node);
    Ok(Response::Done)
}

fn find(state: &mut State, node: NodeId) -> Result<&mut NodeRecord, Response> {
    let message = || format!("there is no node {node}; a node that was removed joins again with an empty folder");
    state
        .nodes
        .get_mut(&node)
        .ok_or_else(|| Response::refused(RefusalKind::NotFound, message()))
}

fn check_address(address: &str) -> Result<(), Response> {
    match address.len() <= limits::URI_MAX_BYTES && !address.contains(char::is_whitespace) {
        true => Ok(()),
        false => Err(Response::refused(RefusalKind::Limit, "an address is HOST:PORT")),
    }
}
