//! A daemon: production control state, supervisors, children, head and stores, in a simulated process.

use std::cell::OnceCell;
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
use headwater_host::{ExitReason, Host, Kv, Serve, Transport, TransportError};
use headwater_model::KeyRole;
use headwater_store::objects::Objects;
use headwater_store::oplog_store::MergeSettings;
use headwater_store::pack::groom::Thresholds;

use crate::disk::SimKv;
use crate::door::{self, AGENT_KEY};
use crate::draw::TuningDraw;
use crate::network::{Peer, Request, Socket};
use crate::oracle::raft::Owner;
use crate::oracle::{Oracle, own_disk};
use crate::planted::{self, Bug};
use crate::process::Life;
use crate::trace;
use crate::user;
use crate::world::Parts;

/// The names daemons have on the network.
pub const NAMES: [Peer; 5] = ["d1", "d2", "d3", "d4", "d5"];
/// Numbers that no node has: addresses to ask are known under them until the nodes behind them are.
const STRANGERS: u64 = u64::MAX - 1000;

/// One run of a daemon.
pub(crate) struct Run {
    pub(crate) name: Peer,
    pub(crate) founder: bool,
    pub(crate) process: u64,
    pub(crate) seed: u64,
    pub(crate) disk: MemoryDisk,
    /// Whose disk it is: which machine's, and how many that had before.
    pub(crate) owner: Owner,
    /// The key of something on it that is not what was written.
    pub(crate) rotten: Option<Vec<u8>>,
    pub(crate) tuning: TuningDraw,
    pub(crate) parts: Parts,
}

impl Run {
    pub(crate) async fn main(self, host: Host, life: Life) {
        if let Err(why) = self.serve(&host, &life).await {
            if self.rotten.is_some() {
                trace::mark("disk: refused for damage");
            }
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
            self.parts.oracle.promises(self.owner),
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
        let claimed = enrol::claim_apart(&kv, &*objects, [], &identity).await;
        claimed.map_err(|e| e.to_string())?;
        let settings = Settings {
            entries_between_images: self.tuning.images.0,
            entries_kept: self.tuning.images.1,
            ..Settings::among(voters, Arc::new(wire))
        };
        let control = Control::start(host, kv, node, settings);
        let control = control.await.map_err(|e| e.to_string())?;
        if let Some(key) = self.rotten.as_ref().filter(|_| life.is_alive()) {
            let daemon = self.name;
            let key = key.escape_ascii().to_string();
            self.parts.oracle.report(own_disk::Trusted { daemon, key });
        }
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
                memtable_bytes: match planted::is(Bug::MemtableUnbounded) {
                    true => 1 << 40,
                    false => self.tuning.memtable_bytes,
                },
                waypoint_seconds: self.tuning.waypoint_seconds,
                tend_seconds: self.tuning.tend_seconds,
                merge: MergeSettings {
                    segment_bytes: 200_000,
                    min_slices: self.tuning.merge_slices,
                    keep_slices: 8,
                },
                groom: GroomRules {
                    thresholds: Thresholds {
                        dead_min_bytes: 1,
                        ..Thresholds::default()
                    },
                    count_max_age_ms: 60_000,
                    rest_ms: self.tuning.tend_seconds as i64 * 1000,
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
        if draw.metrics {
            let (oracle, budget) = (self.parts.oracle.clone(), self.tuning.memtable_bytes);
            tokio::task::spawn_local(watch_metrics(started.clone(), life.clone(), oracle, budget));
        }
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
        let (mut states, control) = (control.watch(), control.clone());
        tokio::task::spawn_local(async move {
            loop {
                let state = states.borrow_and_update().clone();
                if life.is_alive() {
                    oracle.state(id, &state);
                    oracle.figures(control.figures());
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

async fn watch_metrics(backup: Backup, life: Life, oracle: Oracle, budget: usize) {
    loop {
        tokio::time::sleep(Duration::from_millis(700)).await;
        let metrics = backup.metrics().await;
        if life.is_alive() {
            oracle.metrics(&metrics, budget);
        }
    }
}
