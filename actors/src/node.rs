//! One node: the replica sets it owns with their supervisors, the nodes it sees, and the agents it has heard of.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use actix::{Actor, Addr, Arbiter};
use futures::future::join_all;
use headwater_cluster::leases::Heard;
use headwater_cluster::{NodeId, ReplicaSet, State};
use headwater_host::ExitReason;
use headwater_model::{DeploymentName, Epoch, ReplicaSetId};
use headwater_protocol::agent::{DeploymentFault, OrdersRequest, Refusal, RefusalKind};
use headwater_store::objects::StoreError;
use tokio::time::Instant;

use crate::checkpoints::OpenCheckpoints;
use crate::set::{Ground, Set};
use crate::sights::Sights;
use crate::supervisor::{Look, Retire, Supervisor};
use crate::trouble::refusal;
use crate::{lead, life};

/// An agent that asked for orders.
#[derive(Clone, Debug)]
pub struct Presence {
    /// Who and where.
    pub who: OrdersRequest,
    /// When it was last heard, by this node's clock.
    pub heard_ms: i64,
    /// The same, monotonic.
    pub heard: Instant,
}

struct Running {
    set: Arc<Set>,
    epoch: Epoch,
    supervisor: Addr<Supervisor>,
}

/// See the module.
pub struct Node {
    /// The parts every replica set needs.
    pub ground: Ground,
    /// Which nodes answer.
    pub sights: Sights,
    /// Names this process among all that this node ever was.
    pub(crate) start: u64,
    /// Epochs above it were given to this process; not known before the leader has heard of the start.
    pub(crate) floor: OnceLock<Epoch>,
    /// Whether the process is about to end.
    pub(crate) leaving: AtomicBool,
    /// Whether it was taken out of the cluster.
    pub(crate) removed: AtomicBool,
    /// Held while a node gets its vote or is taken out, by this node as the leader: one that starts while it is taken out
    /// would get its vote back in between.
    pub(crate) membership: tokio::sync::Mutex<()>,
    /// Since when this node leads.
    pub(crate) leading: Mutex<Option<Instant>>,
    /// Since when this node, leading, has seen checkpoints open.
    pub(crate) open_checkpoints: Mutex<OpenCheckpoints>,
    arbiters: Vec<Arbiter>,
    running: Mutex<BTreeMap<ReplicaSetId, Running>>,
    agents: Mutex<BTreeMap<String, Presence>>,
}

impl Node {
    /// Starts the node: it makes itself known to the cluster, and from then on owns what the control state says. Call
    /// within an actix system; without threads of its own ([`crate::Tuning::threads`]) a `LocalSet` is enough, and
    /// everything ends with that.
    ///
    /// A node that is the whole cluster owns its replica sets when this answers; one of several does so as soon as it has
    /// a leader.
    pub async fn start(ground: Ground) -> Result<Arc<Node>, Refusal> {
        let node = Arc::new(Node {
            start: ground.host.entropy.number().max(1),
            arbiters: (0..ground.tuning.threads).map(|_| Arbiter::new()).collect(),
            ground,
            sights: Sights::default(),
            floor: OnceLock::new(),
            leaving: AtomicBool::new(false),
            removed: AtomicBool::new(false),
            membership: tokio::sync::Mutex::default(),
            leading: Mutex::default(),
            open_checkpoints: Mutex::default(),
            running: Mutex::default(),
            agents: Mutex::default(),
        });
        if node.ground.control.is_leader() && node.ground.control.voters().len() == 1 {
            life::begin(&node).await?;
            node.follow().await;
        }
        life::spawn(&node);
        lead::spawn(&node);
        crate::alerting::spawn(&node);
        crate::cataloging::spawn(&node);
        Ok(node)
    }

    /// Its number.
    pub fn id(&self) -> NodeId {
        self.ground.node
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<ReplicaSetId, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this very process owns the replica set: the epoch was given to it, not to one before.
    pub fn owns(&self, record: &ReplicaSet) -> bool {
        let present = !self.removed.load(Ordering::SeqCst);
        present && record.node == self.id() && self.floor.get().is_some_and(|floor| record.epoch > *floor)
    }

    /// The replica set, opened and supervised; refused when another node owns it.
    pub async fn set(&self, id: &ReplicaSetId) -> Result<Arc<Set>, Refusal> {
        let state = self.ground.control.state();
        let Some(record) = state.replica_sets.get(id) else {
            let message = format!("replica set {id} is not known here");
            return Err(Refusal::new(RefusalKind::NotFound, message));
        };
        if !self.owns(record) {
            let message = format!("{id} is owned by node {} now, or it is being taken over", record.node);
            return Err(Refusal::new(RefusalKind::Unavailable, message));
        }
        self.opened(id, record.epoch).await.map_err(refusal)
    }

    async fn opened(&self, id: &ReplicaSetId, epoch: Epoch) -> Result<Arc<Set>, StoreError> {
        if let Some(found) = self.running_at(id, epoch) {
            return Ok(found);
        }
        let set = Set::open(self.ground.clone(), id.clone(), epoch).await?;
        let mut running = self.lock();
        // Somebody else may have opened it meanwhile; of two openings one is forgotten before it was used.
        if let Some(found) = running.get(id)
            && found.epoch >= epoch
            && found.supervisor.connected()
        {
            return Ok(found.set.clone());
        }
        if let Some(former) = running.remove(id) {
            former.supervisor.do_send(Retire);
        }
        let supervised = set.clone();
        let supervisor = match running.len().checked_rem(self.arbiters.len()) {
            Some(turn) => {
                let arbiter = self.arbiters[turn].handle();
                Supervisor::start_in_arbiter(&arbiter, move |_| Supervisor::new(supervised))
            }
            None => Supervisor::new(supervised).start(),
        };
        let entry = Running {
            set: set.clone(),
            epoch,
            supervisor,
        };
        running.insert(id.clone(), entry);
        tracing::info!(set = %id, %epoch, "this node owns the replica set");
        Ok(set)
    }

    fn running_at(&self, id: &ReplicaSetId, epoch: Epoch) -> Option<Arc<Set>> {
        let running = self.lock();
        let found = running.get(id)?;
        (found.epoch == epoch && found.supervisor.connected()).then(|| found.set.clone())
    }

    /// Does what the control state says: lets go of what others own, opens what this process owns.
    pub async fn follow(&self) {
        let state = self.ground.control.state();
        let owned: BTreeMap<&ReplicaSetId, Epoch> = state
            .replica_sets
            .iter()
            .filter(|(_, record)| self.owns(record))
            .map(|(id, record)| (id, record.epoch))
            .collect();
        self.lock().retain(|id, running| {
            let keep = owned.get(id) == Some(&running.epoch);
            if !keep {
                tracing::info!(set = %id, epoch = %running.epoch, "this node owns the replica set no longer");
                running.supervisor.do_send(Retire);
            }
            keep
        });
        let missing = owned
            .into_iter()
            .filter(|(id, epoch)| self.running_at(id, *epoch).is_none());
        let opening = missing.map(|(id, epoch)| async move {
            match self.opened(id, epoch).await {
                Ok(_) => {}
                Err(error @ StoreError::Fenced { .. }) => self.doubt(id, epoch, &error.to_string()).await,
                Err(error) => tracing::warn!(set = %id, %error, "the replica set cannot be opened; trying again"),
            }
        });
        join_all(opening).await;
        self.settle_doubts(&state).await;
    }

    /// A child was fenced, yet the control state here says that it is not: either that is about to change, or two clusters
    /// write to one store.
    async fn settle_doubts(&self, state: &State) {
        let doubtful: Vec<_> = self
            .lock()
            .iter()
            .filter(|(id, running)| state.replica_sets.contains_key(*id) && running.set.is_in_doubt())
            .map(|(id, running)| (id.clone(), running.epoch))
            .collect();
        for (id, epoch) in doubtful {
            self.doubt(&id, epoch, "a child was refused as stale").await;
        }
    }

    /// Ends the process if the cluster as a whole says that this process is the owner, while the store says it is not.
    async fn doubt(&self, id: &ReplicaSetId, epoch: Epoch, why: &str) {
        // Answered by the leader, so that what is looked at afterwards is the truth of this moment.
        if life::confirm(self).await.is_err() {
            return;
        }
        let state = self.ground.control.state();
        let still = state.replica_sets.get(id);
        if still.is_some_and(|record| record.epoch == epoch && self.owns(record)) {
            let text = format!("{id} is ours at epoch {epoch}, but its store says otherwise: {why}");
            self.ground.host.exit.exit(ExitReason::Fenced(text));
        }
    }

    /// Lets every supervisor look at the control state at once.
    pub fn look(&self) {
        for running in self.lock().values() {
            let _ = running.supervisor.try_send(Look);
        }
    }

    /// Notes that an agent asked for orders.
    pub fn heard(&self, who: OrdersRequest) {
        let presence = Presence {
            heard_ms: self.ground.host.clock.now_ms(),
            heard: Instant::now(),
            who,
        };
        let mut agents = self.agents.lock().unwrap_or_else(PoisonError::into_inner);
        agents.insert(presence.who.agent.clone(), presence);
        const REMEMBERED: usize = 256;
        while agents.len() > REMEMBERED {
            let oldest = agents.values().min_by_key(|p| p.heard).map(|p| p.who.agent.clone());
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

    /// The agents that were heard here.
    pub fn agents_heard(&self) -> BTreeMap<String, Heard> {
        let agents = self.agents.lock().unwrap_or_else(PoisonError::into_inner);
        let heard = |presence: &Presence| Heard {
            silent_ms: presence.heard.elapsed().as_millis() as u64,
            scope: presence.who.scope.clone(),
        };
        agents
            .iter()
            .map(|(id, presence)| (id.clone(), heard(presence)))
            .collect()
    }

    /// What agents say hinders them from even finding the replica set of a deployment. What only an agent without the
    /// deployment's lease says is passed over.
    pub fn deployment_faults(&self) -> Vec<DeploymentFault> {
        let state = self.ground.control.state();
        let streams =
            |agent: &str, name: &DeploymentName| state.leases.get(name).is_none_or(|lease| lease.agent == agent);
        let agents = self.agents.lock().unwrap_or_else(PoisonError::into_inner);
        let faults = agents
            .values()
            .flat_map(|p| p.who.faults.iter().map(move |fault| (&p.who.agent, fault)));
        faults
            .filter(|(agent, fault)| streams(agent, &fault.deployment))
            .map(|(_, fault)| fault.clone())
            .collect()
    }
}
