//! Who is a member, who leads, and calls that are not Raft's own.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use headwater_host::{Host, Transport};
use openraft::error::{ClientWriteError, RaftError};
use openraft::raft::ClientWriteResponse;
use openraft::{BasicNode, ChangeMembers, ServerState};
use tokio::time::{sleep, timeout};

use super::network::{CallError, Peer};
use super::runtime::within;
use super::wire::{Kind, SubmitAnswer};
use super::{Raft, TypeConfig};
use crate::command::Command;
use crate::control::{ControlError, Settings};
use crate::state::NodeId;

/// How long a change of the membership may take: the new member has to catch up first.
const CHANGE_PATIENCE: Duration = Duration::from_secs(15);
/// How long another member may take to lead.
const ELECTION_PATIENCE: Duration = Duration::from_secs(3);
const CALL_PATIENCE: Duration = Duration::from_secs(60);

type Changed = Result<ClientWriteResponse<TypeConfig>, RaftError<u64, ClientWriteError<u64, BasicNode>>>;

/// See the module.
pub(crate) struct Members {
    raft: Raft,
    host: Host,
    node: NodeId,
    transport: Arc<dyn Transport>,
    /// After so long without a heartbeat the others may vote.
    lease: Duration,
}

impl Members {
    pub(crate) fn new(raft: Raft, host: Host, node: NodeId, settings: &Settings) -> Self {
        Members {
            raft,
            host,
            node,
            transport: settings.transport.clone(),
            lease: Duration::from_millis(settings.election_max_ms),
        }
    }

    pub(crate) fn transport(&self) -> Arc<dyn Transport> {
        self.transport.clone()
    }

    /// Brings a command to the leader.
    pub(crate) async fn forward(&self, leader: NodeId, command: &Command) -> Result<SubmitAnswer, CallError> {
        let peer = Peer::new(self.transport.clone(), leader.0);
        peer.call(Kind::Submit, command, CALL_PATIENCE).await
    }

    /// Who votes, or will once a change that was begun is carried through.
    fn voters(&self) -> BTreeSet<u64> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        let configs = metrics.membership_config.membership().get_joint_config();
        configs.last().cloned().unwrap_or_default()
    }

    /// Whether a change was begun and not carried through: the leader that began it died, or was not waited for.
    fn is_between_two(&self) -> bool {
        let metrics = self.raft.metrics();
        let configs = metrics.borrow();
        configs.membership_config.membership().get_joint_config().len() > 1
    }

    /// Carries a change through that was begun.
    pub(crate) async fn settle(&self) {
        if self.is_between_two() {
            let settled = self.change(self.raft.change_membership(self.voters(), false));
            if let Err(error) = settled.await {
                tracing::info!(%error, "a change of the members is not carried through yet");
            }
        }
    }

    pub(crate) async fn admit(
        &self,
        node: NodeId,
        address: &str,
        former: &BTreeSet<NodeId>,
    ) -> Result<BTreeSet<NodeId>, ControlError> {
        let mut voters = self.voters();
        let is_needed = !voters.contains(&node.0) || former.iter().any(|id| voters.contains(&id.0));
        if is_needed || self.is_between_two() {
            let member = BasicNode::new(address);
            self.change(self.raft.add_learner(node.0, member, true)).await?;
            voters = self.voters();
            voters.insert(node.0);
            voters.retain(|id| !former.contains(&NodeId(*id)));
            self.change(self.raft.change_membership(voters.clone(), false)).await?;
        }
        Ok(voters.into_iter().map(NodeId).collect())
    }

    pub(crate) async fn expel(&self, node: NodeId) -> Result<(), ControlError> {
        let mut voters = self.voters();
        let is_needed = voters.remove(&node.0);
        if is_needed && voters.is_empty() {
            return Err(ControlError::Membership("the last node cannot leave".to_owned()));
        }
        if is_needed || self.is_between_two() {
            return self.change(self.raft.change_membership(voters, false)).await;
        }
        // One that came no further than to learn.
        if self
            .raft
            .metrics()
            .borrow()
            .membership_config
            .membership()
            .get_node(&node.0)
            .is_some()
        {
            let learner = ChangeMembers::RemoveNodes(BTreeSet::from([node.0]));
            return self.change(self.raft.change_membership(learner, false)).await;
        }
        Ok(())
    }

    async fn change(&self, change: impl Future<Output = Changed>) -> Result<(), ControlError> {
        let slow = || "most of the nodes did not agree in time; look at the cluster's status, and try again".to_owned();
        match within(&self.host, timeout(CHANGE_PATIENCE, change)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(to)))) => Err(ControlError::NotLeader {
                leader: to.leader_id.map(NodeId),
            }),
            Ok(Err(error)) => Err(ControlError::Membership(error.to_string())),
            Err(_) => Err(ControlError::Membership(slow())),
        }
    }

    /// Ends what [`Members::step_aside`] began.
    pub(crate) fn stand_again(&self) {
        self.raft.runtime_config().heartbeat(true);
        self.raft.runtime_config().elect(true);
    }

    /// This version of openraft cannot hand leadership over: the leader falls silent until the others may vote, and asks
    /// one of them to stand for election.
    pub(crate) async fn step_aside(&self) {
        let others: Vec<u64> = self.voters().into_iter().filter(|id| *id != self.node.0).collect();
        let mut metrics = self.raft.metrics();
        if metrics.borrow().state != ServerState::Leader || others.is_empty() {
            return;
        }
        self.raft.runtime_config().elect(false);
        self.raft.runtime_config().heartbeat(false);
        sleep(self.lease).await;
        for other in others {
            let peer = Peer::new(self.transport.clone(), other);
            let asked: Result<(), CallError> = peer.call(Kind::Elect, &(), Duration::from_secs(1)).await;
            if asked.is_ok() {
                break;
            }
        }
        let another = metrics.wait_for(|metrics| metrics.state != ServerState::Leader);
        // Late or never: they elect one by themselves once this process has ended.
        let _ = timeout(ELECTION_PATIENCE, another).await;
    }
}
