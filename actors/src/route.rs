//! Where a question is answered: by the owner of a replica set, by the leader, or here.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use headwater_cluster::{Command, Control, NodeId, Response};
use headwater_model::ReplicaSetId;
use headwater_protocol::agent::{Accepted, DeploymentOrder, OrdersReply, Refusal, RefusalKind};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::backup::{Backup, not_found};
use crate::commands::submit;
use crate::peers::{self, Ask, Joined, Pong};
use crate::sharding;

/// How long the owner may take for a question without a frame.
pub(crate) const SHORT: Duration = Duration::from_secs(5);
/// …and with one: it has to be made durable.
pub(crate) const LONG: Duration = Duration::from_secs(45);
/// How long the leader may take to answer what can be answered without it.
const COURTESY: Duration = Duration::from_millis(1500);
const ELECTION_PAUSE: Duration = Duration::from_millis(100);

fn value(answer: impl Serialize) -> Result<Value, Refusal> {
    serde_json::to_value(answer).map_err(|e| Refusal::new(RefusalKind::Internal, e.to_string()))
}

fn typed<T: DeserializeOwned>(answer: Value) -> Result<T, Refusal> {
    serde_json::from_value(answer).map_err(|e| Refusal::new(RefusalKind::Internal, e.to_string()))
}

impl Backup {
    /// Asks the owner of a replica set, which may be this node. When the replica set is given to another meanwhile, there
    /// is no use in waiting: the asker shall ask again.
    pub(crate) async fn at_owner<T: DeserializeOwned>(
        &self,
        set: &ReplicaSetId,
        question: Ask,
        frame: Bytes,
        patience: Duration,
    ) -> Result<T, Refusal> {
        let control = &self.node.ground.control;
        let state = control.state();
        let record = state
            .replica_sets
            .get(set)
            .ok_or_else(|| not_found("replica set", set))?;
        let (owner, epoch) = (record.node, record.epoch);
        if owner == self.node.id() {
            return typed(self.answer(question, frame).await?);
        }
        let mut changes = control.watch();
        let moved = changes.wait_for(|state| state.replica_sets.get(set).is_none_or(|record| record.epoch != epoch));
        let transport = control.transport();
        tokio::select! {
            biased;
            answer = peers::ask(transport.as_ref(), owner, &question, &frame, patience) => answer,
            _ = moved => {
                let message = format!("{set} was given from node {owner} to another; ask again");
                Err(Refusal::new(RefusalKind::Unavailable, message))
            }
        }
    }

    /// Asks the leader, which may be this node.
    pub(crate) async fn at_leader<T: DeserializeOwned>(&self, question: Ask, patience: Duration) -> Result<T, Refusal> {
        match self.node.ground.control.is_leader() {
            true => typed(self.answer(question, Bytes::new()).await?),
            false => self.at_leader_elsewhere(question, patience).await,
        }
    }

    /// The same for what must be done: as long as there is patience left, it waits for an election and asks again.
    /// Only for what may be asked twice.
    pub(crate) async fn at_leader_surely<T: DeserializeOwned>(
        &self,
        question: Ask,
        patience: Duration,
    ) -> Result<T, Refusal> {
        let deadline = Instant::now() + patience;
        loop {
            match self.at_leader(question.clone(), patience).await {
                Err(refusal) if refusal.kind == RefusalKind::Unavailable && Instant::now() < deadline => {
                    sleep(ELECTION_PAUSE).await;
                }
                answer => return answer,
            }
        }
    }

    async fn at_leader_elsewhere<T: DeserializeOwned>(&self, question: Ask, patience: Duration) -> Result<T, Refusal> {
        let control = &self.node.ground.control;
        let Some(leader) = control.leader().filter(|leader| *leader != self.node.id()) else {
            let message = headwater_cluster::ControlError::NoLeader.to_string();
            return Err(Refusal::new(RefusalKind::Unavailable, message));
        };
        peers::ask(control.transport().as_ref(), leader, &question, &[], patience).await
    }

    /// The leader's answer where it comes soon, for what is only for show or can be guessed from here.
    pub(crate) async fn at_leader_soon<T: DeserializeOwned>(&self, question: Ask) -> Result<T, Refusal> {
        self.at_leader(question, COURTESY).await
    }

    /// Answers a question that reached this node, from another or from itself.
    pub(crate) async fn answer(&self, question: Ask, frame: Bytes) -> Result<Value, Refusal> {
        let node = &self.node;
        match question {
            Ask::Ping(from) => {
                node.sights.heard(from, node.ground.tuning.patience.lost_ms);
                value(Pong {
                    leaving: node.leaving.load(Ordering::SeqCst),
                })
            }
            Ask::Open(set, request) => value(node.set(&set).await?.open_stream(request).await?),
            Ask::SyncBegin(set) => value(node.set(&set).await?.sync_begin(frame).await?),
            Ask::SyncSlice(set) => value(node.set(&set).await?.sync_slice(frame).await?),
            Ask::SyncEnd(set, end) => {
                let accepted = node.set(&set).await?.sync_end(end).await?;
                node.look();
                value(accepted)
            }
            Ask::Oplog(set) => value(node.set(&set).await?.oplog_slice(frame).await?),
            Ask::Documents(set) => value(node.set(&set).await?.documents(frame).await?),
            Ask::Poll(set, request) => value(node.set(&set).await?.poll(request).await?),
            Ask::Status(set) => value(self.status_here(&set).await?),
            Ask::GroomDecision(set) => value(node.set(&set).await?.board.groom_decision()),
            Ask::Orders(request) => {
                let agent = request.agent.clone();
                node.take_in_clusters(&request).await;
                node.heard(request);
                node.grant().await;
                value(self.orders_here(&agent))
            }
            Ask::Faults => value(node.deployment_faults()),
            Ask::Join(token, address) => value(self.take_in(token, address).await?),
            Ask::Enter(id) => value(self.enter(id).await?),
            Ask::Expel(id) => value(self.expel(id).await?),
            Ask::Removed => {
                tracing::error!(node = %node.id(), "this node was removed from its cluster; end it, and delete its folder");
                node.removed.store(true, Ordering::SeqCst);
                value(Accepted {})
            }
        }
    }

    /// What the control state here says that an agent shall stream.
    pub(crate) fn orders_here(&self, agent: &str) -> OrdersReply {
        let state = self.node.ground.control.state();
        let leased = |name| state.leases.get(name).is_some_and(|lease| lease.agent == agent);
        let orders = state.deployments.iter().filter(|(name, d)| d.active && leased(name));
        let deployments = orders.map(|(name, d)| DeploymentOrder {
            deployment: name.clone(),
            uri: d.uri.clone(),
            members: sharding::orders(d),
        });
        OrdersReply {
            deployments: deployments.collect(),
        }
    }

    async fn take_in(&self, token: u64, address: String) -> Result<Joined, Refusal> {
        let control = &self.node.ground.control;
        let Response::NodeAdded { id } = submit(control, Command::AddNode { token, address }).await? else {
            return Err(Refusal::new(RefusalKind::Internal, "the node was not given a number"));
        };
        let state = control.state();
        Ok(Joined {
            cluster: state.cluster.clone(),
            node: id,
            nodes: state
                .nodes
                .iter()
                .map(|(id, node)| (*id, node.address.clone()))
                .collect(),
        })
    }

    /// Gives a node its vote. A node that was reached at the same address before has lost its disk: it is forgotten.
    async fn enter(&self, id: NodeId) -> Result<Accepted, Refusal> {
        let control = &self.node.ground.control;
        if !control.is_leader() {
            return self.at_leader_elsewhere(Ask::Enter(id), Duration::from_secs(20)).await;
        }
        let _one_at_a_time = self.node.membership.lock().await;
        let state = control.state();
        let known = state.nodes.get(&id).ok_or_else(|| not_found("node", id))?;
        let at_its_place = state
            .nodes
            .iter()
            .filter(|(other, node)| **other != id && node.address == known.address);
        let former = at_its_place.map(|(other, _)| *other).collect();
        let voters = control.admit(id, &known.address, &former).await.map_err(unavailable)?;
        tracing::info!(node = %id, ?voters, "a node votes from now on");
        for node in former {
            forget(control, node).await?;
        }
        Ok(Accepted {})
    }

    /// Takes a node out. One that is out already is no fault.
    ///
    /// Order: forgotten → without a vote → told. A node that is forgotten gets no vote again, and its vote is taken away by
    /// whoever leads next (`Node::expel_strangers`); reversed, one that was told could come back, and its disk be thrown away.
    async fn expel(&self, id: NodeId) -> Result<Accepted, Refusal> {
        let control = &self.node.ground.control;
        if !control.state().nodes.contains_key(&id) && !control.members().contains_key(&id) {
            return Ok(Accepted {});
        }
        if id == self.node.id() {
            // A leader that takes its own vote away would hear nothing of the rest.
            control.let_another_lead().await;
        }
        if id == self.node.id() || !control.is_leader() {
            let message = "this node does not lead; ask again";
            return Err(Refusal::new(RefusalKind::Unavailable, message));
        }
        let _one_at_a_time = self.node.membership.lock().await;
        forget(control, id).await?;
        control.expel(id).await.map_err(unavailable)?;
        // One that does not hear it finds out when it starts again.
        let told: Result<Accepted, Refusal> =
            peers::ask(control.transport().as_ref(), id, &Ask::Removed, &[], COURTESY).await;
        if let Err(refusal) = told {
            tracing::info!(node = %id, "the removed node was not told: {}", refusal.message);
        }
        Ok(Accepted {})
    }
}

/// Forgets a node, or finds that an attempt before has.
async fn forget(control: &Control, node: NodeId) -> Result<(), Refusal> {
    match submit(control, Command::RemoveNode { node }).await {
        Err(refusal) if refusal.kind == RefusalKind::NotFound => Ok(()),
        answer => answer.map(drop),
    }
}

fn unavailable(error: headwater_cluster::ControlError) -> Refusal {
    Refusal::new(RefusalKind::Unavailable, error.to_string())
}
