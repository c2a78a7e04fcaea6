//! The life of this node in its cluster: it makes itself known, gets its vote, follows the control state, looks at the
//! other nodes, and leaves.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use headwater_cluster::{Command, NodeId, Response, placement};
use headwater_protocol::agent::Accepted;
use headwater_protocol::agent::{Refusal, RefusalKind};

use crate::backup::Backup;
use crate::commands::submit;
use crate::node::Node;
use crate::peers::{Ask, Pong, ask};

/// How often the control state is looked at when nothing tells of a change.
const FOLLOW_EVERY: Duration = Duration::from_millis(500);
/// How often the other nodes are looked at.
const PING_EVERY: Duration = Duration::from_millis(250);
/// How long one may take to answer.
const PING_PATIENCE: Duration = Duration::from_secs(2);
const AGAIN: Duration = Duration::from_millis(200);
/// How long other nodes may take to own what this one hands over before it ends.
const LEAVE_PATIENCE: Duration = Duration::from_secs(5);

/// Starts the tasks of a life. They end when the node is dropped.
pub fn spawn(node: &Arc<Node>) {
    let host = node.ground.host.clone();
    drop(host.spawn(settle_in(Arc::downgrade(node))));
    drop(host.spawn(follow(Arc::downgrade(node))));
    drop(host.spawn(look_around(Arc::downgrade(node))));
}

/// Makes this process known to the leader. Afterwards the control state here is as new as the leader's was.
pub async fn begin(node: &Node) -> Result<(), Refusal> {
    let control = &node.ground.control;
    let state = control.state();
    if state.cluster.is_empty() && control.is_leader() {
        let mut nodes: BTreeMap<NodeId, String> = control.members();
        if let Some(address) = &node.ground.tuning.address {
            nodes.insert(node.id(), address.clone());
        }
        let cluster = node.ground.tuning.cluster.clone();
        submit(control, Command::BeginCluster { cluster, nodes }).await?;
    }
    // Whoever gave this node its vote may have died before it forgot the one that was here before.
    if !control.voters().contains(&node.id()) || has_a_predecessor(node) {
        enter(node).await?;
    }
    confirm(node).await
}

/// Whether another node, which has lost its disk, is known at this node's place.
fn has_a_predecessor(node: &Node) -> bool {
    let state = node.ground.control.state();
    let Some(own) = state.nodes.get(&node.id()) else {
        return false;
    };
    let mut others = state.nodes.iter();
    others.any(|(id, other)| *id != node.id() && other.address == own.address)
}

/// See [`begin`]; a second time it only brings the control state here up to date.
pub async fn confirm(node: &Node) -> Result<(), Refusal> {
    let state = node.ground.control.state();
    let known = state.nodes.get(&node.id()).map(|known| known.address.clone());
    let start = Command::StartNode {
        node: node.id(),
        start: node.start,
        address: node.ground.tuning.address.clone().or(known).unwrap_or_default(),
    };
    match submit(&node.ground.control, start).await? {
        Response::Started { floor } => {
            let _ = node.floor.set(floor);
            Ok(())
        }
        other => Err(Refusal::new(
            RefusalKind::Internal,
            format!("unexpected answer {other:?}"),
        )),
    }
}

/// Asks whoever leads for a vote; a node that has just joined does not know who that is.
async fn enter(node: &Node) -> Result<(), Refusal> {
    let state = node.ground.control.state();
    let known = state
        .nodes
        .keys()
        .copied()
        .chain(node.ground.tuning.seeds.iter().copied());
    let mut last = Refusal::new(RefusalKind::Unavailable, "no other node is known");
    for peer in known.filter(|peer| *peer != node.id()) {
        let question = Ask::Enter(node.id());
        let transport = node.ground.control.transport();
        match ask::<Accepted>(transport.as_ref(), peer, &question, &[], Duration::from_secs(20)).await {
            Ok(Accepted {}) => return Ok(()),
            Err(refusal) => last = refusal,
        }
    }
    Err(last)
}

async fn settle_in(node: Weak<Node>) {
    let mut said = String::new();
    while let Some(node) = node.upgrade() {
        if node.floor.get().is_some() {
            return;
        }
        match begin(&node).await {
            Ok(()) => tracing::info!(node = %node.id(), "this node is part of the cluster"),
            Err(refusal) if refusal.message != said => {
                tracing::warn!(node = %node.id(), "not part of the cluster yet: {}", refusal.message);
                said = refusal.message;
            }
            Err(_) => {}
        }
        drop(node);
        tokio::time::sleep(AGAIN).await;
    }
}

async fn follow(node: Weak<Node>) {
    let Some(mut changes) = node.upgrade().map(|node| node.ground.control.watch()) else {
        return;
    };
    while let Some(node) = node.upgrade() {
        changes.borrow_and_update();
        node.follow().await;
        drop(node);
        // A change, or some time: both are reasons to look.
        let _ = tokio::time::timeout(FOLLOW_EVERY, changes.changed()).await;
        if changes.has_changed().is_err() {
            tokio::time::sleep(FOLLOW_EVERY).await;
        }
    }
}

async fn look_around(node: Weak<Node>) {
    while let Some(strong) = node.upgrade() {
        strong.sights.beat();
        let others = strong.ground.control.state();
        for peer in others.nodes.keys().copied().filter(|peer| *peer != strong.id()) {
            drop(strong.ground.host.spawn(ping(node.clone(), peer)));
        }
        drop(strong);
        tokio::time::sleep(PING_EVERY).await;
    }
}

async fn ping(node: Weak<Node>, peer: NodeId) {
    let Some((transport, own)) = node.upgrade().map(|node| (node.ground.control.transport(), node.id())) else {
        return;
    };
    let pong: Result<Pong, Refusal> = ask(transport.as_ref(), peer, &Ask::Ping(own), &[], PING_PATIENCE).await;
    if let (Some(node), Ok(pong)) = (node.upgrade(), pong) {
        let lost_ms = node.ground.tuning.patience.lost_ms;
        node.sights.answered(peer, pong.leaving, lost_ms);
    }
}

impl Backup {
    /// Hands over what this node owns, and then the lead, to nodes that answer. For a process that is about to end: it
    /// answers once that is done, or when it took too long, which costs the others some seconds and nothing else.
    pub async fn leave(&self) {
        let node = &self.node;
        node.leaving.store(true, Ordering::SeqCst);
        let state = node.ground.control.state();
        if state.nodes.len() < 2 {
            return;
        }
        let mut sights = node.sights.of(state.nodes.keys().copied());
        sights.remove(&node.id());
        for command in placement::plan(&state, &sights, node.ground.tuning.patience) {
            if let Command::Assign { set, .. } = &command
                && state
                    .replica_sets
                    .get(set)
                    .is_some_and(|record| record.node == node.id())
            {
                let handed = tokio::time::timeout(LEAVE_PATIENCE, submit(&node.ground.control, command)).await;
                if !matches!(handed, Ok(Ok(_))) {
                    tracing::warn!("a replica set could not be handed over; it will be taken over");
                }
            }
        }
        node.ground.control.step_aside().await;
    }
}
