//! A daemon: production control state, supervisors, children, head and stores, in a simulated process.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use headwater_actors::{Backup, Ground, Tuning};
use headwater_cluster::{Control, KeyRole, NodeId, Settings};
use headwater_host::memory::MemoryDisk;
use headwater_host::{ExitReason, Host};

use crate::disk::SimKv;
use crate::door::{self, AGENT_KEY};
use crate::network::{Peer, Request};
use crate::oracle::Oracle;
use crate::process::{Life, Process};
use crate::time::Clock;
use crate::user;
use crate::world::Parts;

/// The names daemons have on the network.
pub const NAMES: [Peer; 3] = ["d1", "d2", "d3"];

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
            id: self.at as u64 + 1,
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
        }
    }
}

/// One run of a daemon.
struct Run {
    id: u64,
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
        let kv = SimKv::open(
            &self.disk,
            life.clone(),
            draw.disk,
            self.parts.health.clone(),
            self.seed,
        );
        let settings = Settings::single(NodeId(self.id));
        let control = Control::start(host, Arc::new(kv), NodeId(self.id), settings);
        let control = control.await.map_err(|e| e.to_string())?;
        self.watch(&control, life);
        let ground = Ground {
            host: host.clone(),
            control,
            objects: self.parts.oracle.store().door(life.clone()),
            node: NodeId(self.id),
            tuning: Tuning {
                snapshot_interval_s: Tuning::default().snapshot_interval_s,
                memtable_bytes: draw.memtable_bytes,
                waypoint_seconds: draw.waypoint_seconds,
                scratch: None,
                threads: 0,
            },
        };
        let backup = Backup::start(ground).await.map_err(|refusal| refusal.message)?;
        let admitted = backup.admit(AGENT_KEY, KeyRole::Agent).await;
        admitted.map_err(|refusal| refusal.message)?;
        self.listen(backup, life);
        std::future::pending().await
    }

    /// Shows every control state to the oracle.
    fn watch(&self, control: &Control, life: &Life) {
        let (oracle, life, id) = (self.parts.oracle.clone(), life.clone(), self.id);
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

    fn listen(&self, backup: Backup, life: &Life) {
        let oracle = self.parts.oracle.clone();
        let watched = (backup.clone(), life.clone(), oracle.clone(), self.process);
        tokio::task::spawn_local(watch_status(watched));
        let (backup, life) = (Rc::new(backup), life.clone());
        self.parts
            .network
            .listen(NAMES[self.id as usize - 1], move |_, request| {
                let (backup, oracle, life): (_, Oracle, Life) = (backup.clone(), oracle.clone(), life.clone());
                async move {
                    match request {
                        Request::Agent { path, key, body } => {
                            door::agent_post(&backup, &oracle, &life, &path, &key, body).await
                        }
                        Request::User(wish) => user::grant(&backup, wish).await,
                        Request::Member { .. } => (404, bytes::Bytes::new()),
                    }
                }
                .boxed_local()
            });
    }
}

async fn watch_status((backup, life, oracle, process): (Backup, Life, Oracle, u64)) {
    loop {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        if let Ok(status) = backup.status().await
            && life.is_alive()
        {
            oracle.status(process, &status);
        }
    }
}
