//! One node: the replica sets it serves, their supervisors, and the agents it has heard of.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use actix::{Actor, Addr, Arbiter};
use headwater_cluster::Command;
use headwater_model::ReplicaSetId;
use headwater_protocol::agent::{OrdersRequest, Refusal, RefusalKind, StreamFault};

use crate::commands::submit;
use crate::set::{Ground, Set};
use crate::supervisor::{Look, Supervisor};
use crate::trouble::refusal;

/// An agent that asked for orders.
#[derive(Clone, Debug)]
pub struct Presence {
    /// Who and where.
    pub who: OrdersRequest,
    /// When it was last heard, by this node's clock.
    pub heard_ms: i64,
}

struct Running {
    set: Arc<Set>,
    supervisor: Addr<Supervisor>,
}

/// See the module.
pub struct Node {
    /// The parts every replica set needs.
    pub ground: Ground,
    arbiters: Vec<Arbiter>,
    running: tokio::sync::Mutex<BTreeMap<ReplicaSetId, Running>>,
    agents: Mutex<BTreeMap<String, Presence>>,
}

impl Node {
    /// Starts supervisors for every replica set of the control state. Call within an actix system; without threads of its
    /// own ([`crate::Tuning::threads`]) a `LocalSet` is enough, and everything ends with that.
    pub async fn start(ground: Ground) -> Result<Arc<Node>, Refusal> {
        let node = Arc::new(Node {
            arbiters: (0..ground.tuning.threads).map(|_| Arbiter::new()).collect(),
            ground,
            running: tokio::sync::Mutex::default(),
            agents: Mutex::default(),
        });
        let state = node.ground.control.state();
        for (id, record) in &state.replica_sets {
            // A new epoch: whatever a former process of this node still writes is refused.
            let command = Command::Assign {
                set: id.clone(),
                node: node.ground.node,
                expected: record.epoch,
            };
            submit(&node.ground.control, command).await?;
            node.set(id).await?;
        }
        Ok(node)
    }

    /// The replica set, opened and supervised.
    pub async fn set(&self, id: &ReplicaSetId) -> Result<Arc<Set>, Refusal> {
        let mut running = self.running.lock().await;
        if let Some(found) = running.get(id).filter(|r| r.supervisor.connected()) {
            return Ok(found.set.clone());
        }
        if !self.ground.control.state().replica_sets.contains_key(id) {
            return Err(Refusal::new(
                RefusalKind::NotFound,
                format!("replica set {id} is not known here"),
            ));
        }
        let set = match running.get(id) {
            Some(ended) => ended.set.clone(),
            None => Set::open(self.ground.clone(), id.clone()).await.map_err(refusal)?,
        };
        let supervised = set.clone();
        let supervisor = match running.len().checked_rem(self.arbiters.len()) {
            Some(turn) => {
                let arbiter = self.arbiters[turn].handle();
                Supervisor::start_in_arbiter(&arbiter, move |_| Supervisor::new(supervised))
            }
            None => Supervisor::new(supervised).start(),
        };
        running.insert(
            id.clone(),
            Running {
                set: set.clone(),
                supervisor,
            },
        );
        Ok(set)
    }

    /// Lets every supervisor look at the control state at once.
    pub async fn look(&self) {
        for running in self.running.lock().await.values() {
            let _ = running.supervisor.try_send(Look);
        }
    }

    /// Forgets a replica set that left the control state; its children end.
    pub async fn forget(&self, id: &ReplicaSetId) {
        self.running.lock().await.remove(id);
    }

    /// Notes that an agent asked for orders.
    pub fn heard(&self, who: OrdersRequest) {
        let presence = Presence {
            heard_ms: self.ground.host.clock.now_ms(),
            who,
        };
        let mut agents = self.agents.lock().unwrap_or_else(PoisonError::into_inner);
        agents.insert(presence.who.agent.clone(), presence);
        const REMEMBERED: usize = 256;
        while agents.len() > REMEMBERED {
            let oldest = agents.values().min_by_key(|p| p.heard_ms).map(|p| p.who.agent.clone());
            if let Some(oldest) = oldest {
                agents.remove(&oldest);
            }
        }
    }

    /// An agent by its id.
    pub fn agent(&self, id: &str) -> Option<Presence> {
        self.agents
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(id)
            .cloned()
    }

    /// What agents say hinders them from even finding the replica set of a deployment.
    pub fn deployment_faults(&self) -> Vec<(headwater_model::DeploymentName, StreamFault)> {
        let agents = self.agents.lock().unwrap_or_else(PoisonError::into_inner);
        let faults = agents.values().flat_map(|p| p.who.faults.iter());
        faults.map(|f| (f.deployment.clone(), f.fault.clone())).collect()
    }
}
