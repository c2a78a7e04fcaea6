//! The world: machines, the source, the network, and what befalls them.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use headwater_model::{DeploymentName, ReplicaSetId};
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};

use crate::agent::AgentMachine;
use crate::disk::Health;
use crate::draw::Draw;
use crate::machine::Machine;
use crate::mongo::cluster::{Cluster, TICK};
use crate::mongo::set::Role;
use crate::mongo::{Mongo, Shared, set, workload};
use crate::network::Network;
use crate::oracle::Oracle;
use crate::store::Store;
use crate::time::Clock;
use crate::trace;

/// The deployment that is protected.
pub const DEPLOYMENT: &str = "shop";

/// What everything in a world shares. Cheap to clone.
#[derive(Clone)]
pub struct Parts {
    /// What the world was drawn to be.
    pub draw: Rc<Draw>,
    /// The network.
    pub network: Network,
    /// The oracles, which know the store and the source.
    pub oracle: Oracle,
    /// Whether disks still fail.
    pub health: Health,
}

impl Parts {
    /// A stream of random numbers of its own for everything that has a name.
    pub fn seed_of(&self, name: &str, number: u64) -> u64 {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.draw.seed.to_le_bytes());
        hasher.update(name.as_bytes());
        hasher.update(&number.to_le_bytes());
        let mut first = [0; 8];
        first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
        u64::from_le_bytes(first)
    }

    /// Every replica set of the source, by its name: one, or config servers and shards.
    pub fn sets(&self) -> Vec<(ReplicaSetId, Shared)> {
        let named = |set: &Shared| {
            let id = ReplicaSetId::new(deployment()?, &set::lock(set).name).ok()?;
            Some((id, set.clone()))
        };
        self.oracle.sets().iter().filter_map(named).collect()
    }

    /// The connection string of the source.
    pub fn source_uri(&self) -> &'static str {
        match self.draw.cluster {
            None => "mongodb://m0:27017/?replicaSet=rs0",
            Some(_) => "mongodb://cfg-m0:27017/?replicaSet=cfg",
        }
    }

    /// How wishes name a replica set of the deployment: not at all where there is but one.
    pub fn named(&self, set: &ReplicaSetId) -> Option<String> {
        self.draw.cluster.is_some().then(|| set.set().to_owned())
    }

    /// A generator of its own.
    pub fn rng(&self, name: &str) -> StdRng {
        StdRng::seed_from_u64(self.seed_of(name, 0))
    }
}

/// The deployment's name.
pub fn deployment() -> Option<DeploymentName> {
    DeploymentName::new(DEPLOYMENT).ok()
}

/// What is protected, as it is before the backup begins.
fn source(draw: &Draw, seed: impl Fn(&str) -> u64) -> (Vec<Shared>, Option<Cluster>) {
    let Some(drawn) = &draw.cluster else {
        let mut mongo = Mongo::new(seed("mongo"), "rs0", Role::Plain, draw.mongo.clone());
        let mut rng = StdRng::seed_from_u64(seed("before"));
        workload::prepare(&mut mongo, &mut rng, &draw.workload);
        return (vec![std::sync::Arc::new(std::sync::Mutex::new(mongo))], None);
    };
    let cluster = Cluster::new(&seed, drawn, &draw.mongo);
    for (at, shard) in cluster.shards.iter().enumerate() {
        let mut rng = StdRng::seed_from_u64(seed(&format!("before {at}")));
        workload::prepare(&mut set::lock(shard), &mut rng, &draw.workload);
    }
    let sets = cluster.sets();
    sets.iter().for_each(|set| set::lock(set).level());
    (sets, Some(cluster))
}

/// See the module.
pub struct World {
    /// What all share.
    pub parts: Parts,
    /// The daemons' machines.
    pub daemons: Vec<Rc<RefCell<Machine>>>,
    /// The agents' machines.
    pub agents: Vec<Rc<RefCell<AgentMachine>>>,
    /// What makes a sharded cluster of the replica sets.
    pub cluster: Option<Rc<RefCell<Cluster>>>,
    /// Faults go on while this is true.
    pub faults: Rc<std::cell::Cell<bool>>,
    /// Bits rotted in the store.
    pub rotten: std::cell::Cell<bool>,
    /// The user who protects the source has said all that is to be said.
    pub is_protected: std::cell::Cell<bool>,
    /// A user stopped the deployment and started it again: a stop whose answer was lost may take effect after that.
    pub was_stopped: std::cell::Cell<bool>,
    /// A node is being replaced.
    pub replacing: std::cell::Cell<bool>,
}

impl World {
    /// Builds a world and starts it. Within a `LocalSet` and a paused runtime.
    pub fn begin(draw: Draw) -> World {
        let draw = Rc::new(draw);
        let seed = |name: &str| {
            let mut hasher = blake3::Hasher::new();
            hasher.update(&draw.seed.to_le_bytes()).update(name.as_bytes());
            u64::from_le_bytes(hasher.finalize().as_bytes()[..8].try_into().unwrap_or_default())
        };
        let (sets, cluster) = source(&draw, seed);
        let store = Store::new(seed("store"), draw.store);
        let parts = Parts {
            network: Network::start(seed("network"), draw.network),
            oracle: Oracle::new(store, sets),
            draw: draw.clone(),
            health: Health::default(),
        };
        let mut clocks = parts.rng("clocks");
        let mut clock = || {
            let (offset, drift) = draw.clock;
            Clock::new(clocks.gen_range(-offset..=offset), clocks.gen_range(-drift..=drift))
        };
        let daemons = (0..draw.daemons).map(|at| Rc::new(RefCell::new(Machine::new(at, clock(), draw.tuning()))));
        let daemons: Vec<_> = daemons.collect();
        let agents = (0..draw.agents).map(|at| {
            Rc::new(RefCell::new(AgentMachine {
                at,
                clock: clock(),
                boots: 0,
                process: None,
                patience: Duration::from_millis(draw.patience_ms),
            }))
        });
        let world = World {
            agents: agents.collect(),
            daemons,
            cluster: cluster.map(|cluster| Rc::new(RefCell::new(cluster))),
            faults: Rc::new(std::cell::Cell::new(true)),
            rotten: std::cell::Cell::new(false),
            is_protected: std::cell::Cell::new(false),
            was_stopped: std::cell::Cell::new(false),
            replacing: std::cell::Cell::new(false),
            parts,
        };
        for daemon in &world.daemons {
            daemon.borrow_mut().boot(&world.parts);
        }
        for agent in &world.agents {
            agent.borrow_mut().boot(&world.parts);
        }
        world.keep_running();
        world.run_source();
        world
    }

    /// Whoever ends by itself is started again, as a service manager would.
    fn keep_running(&self) {
        let (daemons, parts) = (self.daemons.clone(), self.parts.clone());
        tokio::task::spawn_local(async move {
            let mut rng = parts.rng("service manager");
            loop {
                tokio::time::sleep(Duration::from_millis(200)).await;
                for daemon in &daemons {
                    let ended = daemon
                        .borrow()
                        .process
                        .as_ref()
                        .is_some_and(|process| !process.is_alive());
                    if ended {
                        let mut daemon = daemon.borrow_mut();
                        daemon.kill(rng.next_u64());
                        trace::line(&format!("{} is started again", daemon.name()));
                        daemon.boot(&parts);
                    }
                }
            }
        });
    }

    fn run_source(&self) {
        for set in self.parts.oracle.sets() {
            self.run_set(set.clone());
        }
        if let Some(cluster) = &self.cluster {
            let (cluster, faults) = (cluster.clone(), self.faults.clone());
            tokio::task::spawn_local(async move {
                loop {
                    tokio::time::sleep(TICK).await;
                    cluster.borrow_mut().tick(faults.get());
                    if !faults.get() {
                        // A late election may have taken back what ended a transaction.
                        cluster.borrow().finish();
                    }
                }
            });
        }
    }

    fn run_set(&self, source: Shared) {
        let (role, stream) = {
            let set = set::lock(&source);
            let stream = match set.role {
                Role::Plain => "workload".to_owned(),
                _ => format!("workload {}", set.name),
            };
            (set.role, stream)
        };
        let ticking = source.clone();
        tokio::task::spawn_local(async move {
            loop {
                tokio::time::sleep(Duration::from_millis(40)).await;
                set::lock(&ticking).tick();
            }
        });
        if role == Role::ConfigServers {
            return;
        }
        let (parts, faults) = (self.parts.clone(), self.faults.clone());
        tokio::task::spawn_local(async move {
            let mut rng = parts.rng(&stream);
            let draw = &parts.draw.workload;
            while faults.get() {
                let pause = rng.gen_range(1..=2000 / u64::from(draw.rate));
                tokio::time::sleep(Duration::from_millis(pause)).await;
                workload::step(&mut set::lock(&source), &mut rng, draw);
            }
        });
    }

    /// Kills a daemon; it is back after a while.
    pub async fn bounce_daemon(daemon: Rc<RefCell<Machine>>, parts: Parts, seed: u64, away: Duration) {
        trace::mark("daemon killed");
        trace::line(&format!("{} is killed", daemon.borrow().name()));
        daemon.borrow_mut().kill(seed);
        tokio::time::sleep(away).await;
        if daemon.borrow().process.is_none() {
            daemon.borrow_mut().boot(&parts);
        }
    }

    /// Kills an agent; it is back after a while.
    pub async fn bounce_agent(agent: Rc<RefCell<AgentMachine>>, parts: Parts, away: Duration) {
        trace::mark("agent killed");
        trace::line(&format!("a{} is killed", agent.borrow().at + 1));
        agent.borrow_mut().kill();
        tokio::time::sleep(away).await;
        if agent.borrow().process.is_none() {
            agent.borrow_mut().boot(&parts);
        }
    }

    /// No more faults: everything runs, everything answers.
    pub fn heal(&self) {
        trace::line("the faults are over");
        self.faults.set(false);
        self.parts.network.heal();
        self.parts.health.heal();
        self.parts.oracle.store().heal();
        for source in self.parts.oracle.sets() {
            set::lock(source).heal();
            if !set::lock(source).is_writable() {
                set::lock(source).elect();
            }
            workload::finish(&mut set::lock(source));
        }
        for daemon in &self.daemons {
            let mut daemon = daemon.borrow_mut();
            if daemon.process.is_none() {
                daemon.boot(&self.parts);
            }
        }
        for agent in &self.agents {
            let mut agent = agent.borrow_mut();
            if agent.process.is_none() {
                agent.boot(&self.parts);
            }
        }
    }

    /// Ends every process.
    pub fn end(&self) {
        for agent in &self.agents {
            agent.borrow_mut().kill();
        }
        for daemon in &self.daemons {
            daemon.borrow_mut().kill(0);
        }
    }
}
