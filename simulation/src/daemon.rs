//! A daemon: production control state, supervisors, children, head and stores, in a simulated process.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use headwater_actors::enrol::{self, Enrolled, Wish};
use headwater_actors::{Backup, GroomRules, Ground, Tuning};
use headwater_cluster::{Addresses, Control, NodeId, Settings};
use headwater_host::memory::MemoryDisk;
use headwater_host::{ExitReason, Host, Kv, Op, Serve, Transport, TransportError};
use headwater_model::KeyRole;
use headwater_store::objects::Objects;
use headwater_store::oplog_store::MergeSettings;
use headwater_store::pack::groom::Thresholds;

use crate::disk::SimKv;
use crate::door::{self, AGENT_KEY};
use crate::network::{Peer, Request, Socket};
use crate::oracle::Oracle;
use crate::planted::{self, Bug};
use crate::process::{Life, Process};
use crate::time::Clock;
use crate::user;
use crate::world::Parts;

/// The names daemons have on the network.
pub const NAMES: [Peer; 3] = ["d1", "d2", "d3"];
/// Numbers that no node has: addresses to ask are known under them until the nodes behind them are.
const STRANGERS: u64 = u64::MAX - 1000;

/// A machine that a daemon runs on: what outlives its process.
pub struct Machine {
    /// Counted from 0.
    pub at: usize,
    /// Its clock.
    pub clock: Clock,
    /// Its own disk.
    pub disk: MemoryDisk,
    /// How often it was started.
    pub boots: u64,
    /// The process that runs.
    pub process: Option<Process>,
    /// Whether it is told to begin a cluster; otherwise it is told to join.
    founder: bool,
    yesterday: Option<BTreeMap<Vec<u8>, Vec<u8>>>,
}

impl Machine {
    /// A machine with an empty disk.
    pub fn new(at: usize, clock: Clock) -> Machine {
        Machine {
            at,
            clock,
            disk: MemoryDisk::new(),
            boots: 0,
            process: None,
            founder: at == 0,
            yesterday: None,
        }
    }

    /// Its daemon's name on the network.
    pub fn name(&self) -> Peer {
        NAMES[self.at]
    }

    /// Starts the daemon.
    pub fn boot(&mut self, parts: &Parts) {
        self.boots += 1;
        let run = Run {
            name: self.name(),
            founder: self.founder,
            process: self.boots * 10 + self.at as u64,
            seed: parts.seed_of(self.name(), self.boots),
            disk: self.disk.clone(),
            parts: parts.clone(),
        };
        let (seed, clock) = (run.seed, self.clock.clone());
        self.process = Some(Process::start(
            self.name(),
            seed,
            clock,
            parts.draw.schedule,
            move |host, life| run.main(host, life),
        ));
    }

    /// Ends the daemon as kill -9 or a power cut do: what was not flushed may be lost.
    pub fn kill(&mut self, seed: u64) {
        if let Some(process) = self.process.take() {
            process.kill();
            self.disk.crash(seed);
            if planted::is(Bug::DiskOfYesterday) {
                self.go_back();
            }
        }
    }

    /// A new disk in the place of the old one; from now on it joins.
    pub fn wipe(&mut self) {
        self.disk = MemoryDisk::new();
        self.founder = false;
        self.yesterday = None;
    }

    /// The disk of the second start comes back at every later one.
    fn go_back(&mut self) {
        if self.boots == 2 {
            self.yesterday = Some(self.disk.durable());
        } else if let Some(yesterday) = &self.yesterday {
            let old = MemoryDisk::new();
            let kv = old.open();
            let puts = yesterday.iter().map(|(key, value)| Op::put(key.clone(), value.clone()));
            // In memory, and nothing is planted into it.
            let _ = kv.write(puts.collect());
            let _ = kv.flush().now_or_never();
            self.disk = old;
        }
    }
}

/// One run of a daemon.
struct Run {
    name: Peer,
    founder: bool,
    process: u64,
    seed: u64,
    disk: MemoryDisk,
    parts: Parts,
}

impl Run {
    async fn main(self, host: Host, life: Life) {
        if let Err(why) = self.serve(&host, &life).await {
            host.exit.exit(ExitReason::Defect(why));
        }
    }

    async fn serve(&self, host: &Host, life: &Life) -> Result<(), String> {
        let draw = &self.parts.draw;
        let kv: Arc<dyn Kv> = Arc::new(SimKv::open(
            &self.disk,
            life.clone(),
            draw.disk,
            self.parts.health.clone(),
            self.seed,
        ));
        let objects: Arc<dyn Objects> = self.parts.oracle.store().door(life.clone(), self.process);
        let addresses = Addresses::default();
        let wire = Wire {
            from: self.name,
            socket: self.parts.network.socket(),
            life: life.clone(),
            addresses: addresses.clone(),
        };
        let wish = Wish {
            address: self.name.to_owned(),
            ask: self.strangers(&addresses),
        };
        let enrolled = enrol::enrol(host, &kv, &*objects, &wish, &wire, &addresses).await;
        let Enrolled { identity, node, voters } = enrolled.map_err(|e| e.to_string())?;
        let settings = Settings::among(voters, Arc::new(wire));
        let control = Control::start(host, kv, node, settings);
        let control = control.await.map_err(|e| e.to_string())?;
        tokio::task::spawn_local(addresses.follow(control.clone()));
        self.watch(&control, life);
        // Listens at once: members of several need one another to start.
        let backup = Rc::new(OnceCell::new());
        self.listen(node, control.server(), backup.clone(), life);
        let ground = Ground {
            host: host.clone(),
            control,
            objects,
            node,
            tuning: Tuning {
                memtable_bytes: draw.memtable_bytes,
                waypoint_seconds: draw.waypoint_seconds,
                tend_seconds: draw.tend_seconds,
                merge: MergeSettings {
                    segment_bytes: 200_000,
                    min_slices: draw.merge_slices,
                    keep_slices: 8,
                },
                groom: GroomRules {
                    thresholds: Thresholds {
                        dead_min_bytes: 1,
                        ..Thresholds::default()
                    },
                    count_max_age_ms: 60_000,
                    rest_ms: draw.tend_seconds as i64 * 1000,
                },
                scratch: None,
                threads: 0,
                cluster: identity.cluster,
                address: Some(wish.address),
                seeds: wish.ask,
                ..Tuning::default()
            },
        };
        let started = Backup::start(ground).await.map_err(|refusal| refusal.message)?;
        let watched = (
            started.clone(),
            life.clone(),
            self.parts.oracle.clone(),
            (self.process, draw.daemons > 1),
        );
        tokio::task::spawn_local(watch_status(watched));
        tokio::task::spawn_local(admit(started.clone()));
        // Set once: there is one start in a process.
        let _ = backup.set(started);
        std::future::pending().await
    }

    /// Whom it is told to ask, under numbers that no node has.
    fn strangers(&self, addresses: &Addresses) -> Vec<NodeId> {
        if self.founder {
            return Vec::new();
        }
        let others = NAMES
            .iter()
            .take(self.parts.draw.daemons)
            .filter(|name| **name != self.name);
        let others: Vec<(u64, String)> = (STRANGERS..).zip(others.map(|name| (*name).to_owned())).collect();
        let ids = others.iter().map(|(id, _)| NodeId(*id)).collect();
        addresses.know(others);
        ids
    }

    /// Shows every control state to the oracle.
    fn watch(&self, control: &Control, life: &Life) {
        let (oracle, life) = (self.parts.oracle.clone(), life.clone());
        // What a single member acknowledged outlives its process; one of several may begin behind and catch up.
        let id = if self.parts.draw.daemons == 1 { 0 } else { self.process };
        let mut states = control.watch();
        tokio::task::spawn_local(async move {
            loop {
                let state = states.borrow_and_update().clone();
                if life.is_alive() {
                    oracle.state(id, &state);
                }
                if states.changed().await.is_err() {
                    return;
                }
            }
        });
    }

    fn listen(&self, node: NodeId, raft: Arc<dyn Serve>, backup: Rc<OnceCell<Backup>>, life: &Life) {
        let (oracle, life) = (self.parts.oracle.clone(), life.clone());
        self.parts.network.listen(self.name, move |_, request| {
            let (raft, backup, oracle, life) = (raft.clone(), backup.clone(), oracle.clone(), life.clone());
            async move {
                let backup = backup.get();
                match (request, backup) {
                    // As `service/src/internal.rs` has it.
                    (Request::Member { to, .. }, _) if to != node.0 && to < STRANGERS => (409, Bytes::new()),
                    (Request::Member { kind, body, .. }, Some(backup)) => {
                        (200, backup.server().serve(kind, body).await.into())
                    }
                    (Request::Member { kind, body, .. }, None) => (200, raft.serve(kind, body).await.into()),
                    (_, None) => (503, Bytes::new()),
                    (Request::Agent { path, key, body }, Some(backup)) => {
                        door::agent_post(backup, &oracle, &life, &path, &key, body).await
                    }
                    (Request::User(wish), Some(backup)) => user::grant(backup, wish).await,
                }
            }
            .boxed_local()
        });
    }
}

/// A daemon's calls to others.
struct Wire {
    from: Peer,
    socket: Socket,
    life: Life,
    addresses: Addresses,
}

impl Transport for Wire {
    fn call(&self, peer: u64, kind: u8, body: Vec<u8>) -> BoxFuture<'static, Result<Vec<u8>, TransportError>> {
        let address = self.addresses.of(peer);
        let to = address.and_then(|address| NAMES.into_iter().find(|name| *name == address));
        let (from, socket, life) = (self.from, self.socket.clone(), self.life.clone());
        async move {
            let name = to.ok_or(TransportError::UnknownPeer(peer))?;
            if !life.is_alive() {
                return std::future::pending().await;
            }
            let failed = |reason: String| TransportError::Unreachable { peer, reason };
            match socket.ask(from, name, Request::Member { to: peer, kind, body }).await {
                Ok((200, body)) => Ok(body.to_vec()),
                Ok((status, _)) => Err(failed(format!("it answers with status {status}"))),
                Err(silence) => Err(failed(format!("{silence:?}"))),
            }
        }
        .boxed()
    }
}

/// The agents' key is let in as soon as there is somebody to decide it.
async fn admit(backup: Backup) {
    while backup.admit(AGENT_KEY, KeyRole::Agent, "agents").await.is_err() {
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

async fn watch_status((backup, life, oracle, (process, several)): (Backup, Life, Oracle, (u64, bool))) {
    loop {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        if let Ok(status) = backup.status().await
            && life.is_alive()
        {
            oracle.status(process, several, &status);
        }
    }
}
