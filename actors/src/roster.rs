//! The cluster as users see and change it.

use std::time::Duration;

use headwater_cluster::{Command, NodeId};
use headwater_protocol::admin::{ClusterView, NodeView};
use headwater_protocol::agent::{Accepted, Refusal, RefusalKind};

use crate::backup::{Backup, not_found};
use crate::commands::submit;
use crate::peers::Ask;

impl Backup {
    /// The nodes, as seen from this one.
    pub fn cluster(&self) -> ClusterView {
        let node = &self.node;
        let state = node.ground.control.state();
        let (voters, leader) = (node.ground.control.voters(), node.ground.control.leader());
        let looks = node.looks();
        let lost_ms = node.ground.tuning.patience.lost_ms;
        let nodes = state.nodes.iter().map(|(id, known)| {
            let sight = looks.get(id).copied().unwrap_or_default();
            NodeView {
                id: id.0,
                address: known.address.clone(),
                answers: sight.silent_ms < lost_ms,
                silent_ms: sight.silent_ms,
                voter: voters.contains(id),
                leader: leader == Some(*id),
                draining: known.draining,
                leaving: sight.leaving,
                replica_sets: state
                    .replica_sets
                    .iter()
                    .filter(|(_, set)| set.node == *id)
                    .map(|(set, _)| set.clone())
                    .collect(),
            }
        });
        ClusterView {
            cluster: state.cluster.clone(),
            node: node.id().0,
            leader: leader.map(|id| id.0),
            nodes: nodes.collect(),
        }
    }

    /// Lets everything go from a node, and nothing come to it; or ends that.
    pub async fn drain(&self, node: u64, draining: bool) -> Result<ClusterView, Refusal> {
        let command = Command::SetDraining {
            node: NodeId(node),
            draining,
        };
        submit(&self.node.ground.control, command).await?;
        Ok(self.cluster())
    }

    /// Takes a node out of the cluster for ever. One that still answers has to be drained first, or its replica sets would
    /// stand still for a moment without need.
    pub async fn remove_node(&self, node: u64) -> Result<ClusterView, Refusal> {
        let view = self.cluster();
        let known = view.nodes.iter().find(|known| known.id == node);
        // One that was forgotten may have its vote still, when an attempt before was interrupted.
        if known.is_none() && !self.node.ground.control.members().contains_key(&NodeId(node)) {
            return Err(not_found("node", node));
        }
        if let Some(known) = known.filter(|known| known.answers && !known.replica_sets.is_empty()) {
            let message = format!(
                "node {node} answers and owns {} replica sets: drain it first, with `headwater cluster drain {node}`",
                known.replica_sets.len()
            );
            return Err(Refusal::new(RefusalKind::Conflict, message));
        }
        let Accepted {} = self
            .at_leader_surely(Ask::Expel(NodeId(node)), Duration::from_secs(20))
            .await?;
        Ok(self.cluster())
    }
}
