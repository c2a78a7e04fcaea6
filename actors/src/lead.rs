//! What the leader does: looks at nodes and agents, decides by pure plans, submits.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use headwater_cluster::placement::{self, Sight};
use headwater_cluster::{Command, NodeId, leases};
use tokio::time::Instant;

use crate::node::Node;

const EVERY: Duration = Duration::from_millis(200);
/// Who asked for a change carries it through; after so long nobody does.
const SETTLES_AFTER: Duration = Duration::from_secs(20);

/// Starts the task. It ends when the node is dropped.
pub fn spawn(node: &Arc<Node>) {
    drop(node.ground.host.spawn(lead(Arc::downgrade(node))));
}

async fn lead(node: Weak<Node>) {
    while let Some(node) = node.upgrade() {
        if node.is_deaf() {
            tracing::warn!("the others do not reach this node, which leads: it lets another lead");
            node.ground.control.let_another_lead().await;
        } else if node.leads_for().is_some() {
            node.place().await;
            node.grant().await;
            node.tend_checkpoints().await;
            node.settle_members().await;
            node.expel_strangers().await;
        }
        drop(node);
        tokio::time::sleep(EVERY).await;
    }
}

impl Node {
    /// For how long this node has been leading; `None` when it does not.
    fn leads_for(&self) -> Option<Duration> {
        let leads = self.ground.control.is_leader() && !self.leaving.load(Ordering::SeqCst);
        let mut leading = self.leading.lock().unwrap_or_else(PoisonError::into_inner);
        *leading = leads.then(|| leading.unwrap_or_else(Instant::now));
        leading.map(|since| since.elapsed())
    }

    /// A change of the members that another leader began is carried through: until then a majority of both is needed.
    async fn settle_members(&self) {
        if self.leads_for().is_some_and(|span| span > SETTLES_AFTER) {
            // Not waited for long: it goes on by itself.
            let _ = tokio::time::timeout(EVERY, self.ground.control.settle()).await;
        }
    }

    /// Takes nodes out of the membership that the cluster has forgotten: whoever took them out died in the middle.
    async fn expel_strangers(&self) {
        let control = &self.ground.control;
        let nodes = &control.state().nodes;
        let strangers: Vec<NodeId> = match nodes.is_empty() {
            true => Vec::new(),
            false => control
                .members()
                .into_keys()
                .filter(|id| !nodes.contains_key(id))
                .collect(),
        };
        if strangers.is_empty() || self.leads_for().is_none_or(|span| span < SETTLES_AFTER) {
            return;
        }
        let _one_at_a_time = self.membership.lock().await;
        for id in strangers.into_iter().filter(|id| *id != self.id()) {
            tracing::warn!(node = %id, "a node that was removed is a member still: it is taken out");
            let _ = tokio::time::timeout(EVERY, control.expel(id)).await;
        }
    }

    /// Whether this node has led for a while, and the questions of so many others do not arrive that the rest is no majority:
    /// it would be followed, and nobody could ask it for anything.
    fn is_deaf(&self) -> bool {
        let deaf_ms = 2 * self.ground.tuning.patience.lost_ms;
        if self
            .leads_for()
            .is_none_or(|span| span.as_millis() < u128::from(deaf_ms))
        {
            return false;
        }
        let voters = self.ground.control.voters();
        let heard = voters
            .iter()
            .filter(|id| **id == self.id() || self.sights.unheard_ms(**id) < deaf_ms);
        heard.count() <= voters.len() / 2
    }

    /// All nodes as seen from here.
    pub(crate) fn looks(&self) -> std::collections::BTreeMap<NodeId, Sight> {
        let state = self.ground.control.state();
        let mut sights = self.sights.of(state.nodes.keys().copied());
        if let Some(own) = sights.get_mut(&self.id()) {
            own.silent_ms = 0;
            own.leaving = self.leaving.load(Ordering::SeqCst);
        }
        sights
    }

    async fn place(&self) {
        let state = self.ground.control.state();
        for command in placement::plan(&state, &self.looks(), self.ground.tuning.patience) {
            if let Command::Assign { set, node, .. } = &command {
                let from = state.replica_sets.get(set).map(|record| record.node.0);
                tracing::info!(%set, from, to = %node, "a replica set moves to another node");
            }
            self.submit_plan(command).await;
        }
    }

    /// Grants what is due.
    pub(crate) async fn grant(&self) {
        let Some(leading) = self.leads_for() else { return };
        let leading_ms = leading.as_millis() as u64;
        let state = self.ground.control.state();
        for command in leases::plan(&state, &self.agents_heard(), leading_ms) {
            if let Command::GrantLease { deployment, agent, .. } = &command {
                tracing::info!(%deployment, agent, "an agent gets the lease of a deployment");
            }
            self.submit_plan(command).await;
        }
    }

    pub(crate) async fn submit_plan(&self, command: Command) {
        match self.ground.control.submit(command).await {
            Ok(answer) if answer.is_refused() => tracing::debug!(?answer, "a plan was overtaken"),
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "a plan could not be carried out; it is made anew"),
        }
    }
}
