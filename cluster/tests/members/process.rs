//! Members that can be killed as `kill -9` kills: their tasks stop where they are, their disk forgets what was not
//! flushed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::{AbortHandle, Abortable, BoxFuture, FutureExt};
use headwater_cluster::{Command, Control, ControlError, Key, NodeId, Response, Settings};
use headwater_host::memory::{MemoryDisk, MemoryNetwork};
use headwater_host::{Exit, ExitReason, Host, Spawn};
use headwater_model::KeyRole;

/// The tasks of one process.
struct Tasks {
    spawn: Arc<dyn Spawn>,
    running: Mutex<Vec<AbortHandle>>,
}

impl Spawn for Tasks {
    fn start(&self, future: BoxFuture<'static, ()>) {
        let (handle, registration) = AbortHandle::new_pair();
        self.running.lock().unwrap().push(handle);
        self.spawn.start(Abortable::new(future, registration).map(drop).boxed());
    }
}

/// Notes why the process would have ended.
#[derive(Default)]
pub struct Noted(pub Mutex<Vec<ExitReason>>);

impl Exit for Noted {
    fn exit(&self, reason: ExitReason) {
        self.0.lock().unwrap().push(reason);
    }
}

pub struct Member {
    pub control: Control,
    pub noted: Arc<Noted>,
    tasks: Arc<Tasks>,
}

/// Starts a member on `disk`.
pub async fn start(disk: &MemoryDisk, node: NodeId, settings: Settings) -> Result<Member, ControlError> {
    let real = Host::real().unwrap();
    let tasks = Arc::new(Tasks {
        spawn: real.spawn.clone(),
        running: Mutex::default(),
    });
    let noted = Arc::new(Noted::default());
    let host = Host {
        spawn: tasks.clone(),
        exit: noted.clone(),
        ..real
    };
    let control = Control::start(&host, Arc::new(disk.open()), node, settings).await?;
    Ok(Member { control, noted, tasks })
}

impl Member {
    /// Ends the process without a word.
    pub fn kill(self, disk: &MemoryDisk, seed: u64) {
        disk.crash(seed);
        self.tasks.running.lock().unwrap().iter().for_each(AbortHandle::abort);
    }
}

pub fn key(n: u64) -> String {
    format!("{n:064x}")
}

pub fn add_key(n: u64) -> Command {
    Command::AddKey {
        id: key(n),
        key: Key {
            name: key(n).parse().unwrap(),
            role: KeyRole::Agent,
            scope: BTreeSet::new(),
            hash: key(n),
            created_ms: 0,
        },
    }
}

/// Three members on one network.
pub struct Trio {
    pub network: MemoryNetwork,
    pub disks: BTreeMap<NodeId, MemoryDisk>,
    pub members: BTreeMap<NodeId, Member>,
    pub settings: fn(Settings) -> Settings,
}

impl Trio {
    pub async fn start(settings: fn(Settings) -> Settings) -> Trio {
        let disks: BTreeMap<NodeId, MemoryDisk> = (1..=3).map(|id| (NodeId(id), MemoryDisk::new())).collect();
        let mut trio = Trio {
            network: MemoryNetwork::new(),
            disks,
            members: BTreeMap::new(),
            settings,
        };
        for id in [1, 2, 3].map(NodeId) {
            trio.boot(id).await;
        }
        trio
    }

    pub async fn boot(&mut self, id: NodeId) {
        let voters = self.disks.keys().map(|id| (*id, format!("member-{id}"))).collect();
        let settings = Settings::among(voters, Arc::new(self.network.transport(id.0)));
        let quick = Settings {
            heartbeat_ms: 50,
            election_min_ms: 250,
            election_max_ms: 500,
            submit_timeout: Duration::from_secs(2),
            ..settings
        };
        let member = start(&self.disks[&id], id, (self.settings)(quick)).await.unwrap();
        self.network.join(id.0, member.control.server());
        self.members.insert(id, member);
    }

    pub fn kill(&mut self, id: NodeId, seed: u64) {
        self.network.leave(id.0);
        self.members.remove(&id).unwrap().kill(&self.disks[&id], seed);
    }

    /// Submits to whoever leads until it is acknowledged, which tells who led.
    pub async fn submit(&self, command: Command) -> (NodeId, Response) {
        let attempt = async {
            loop {
                for (id, member) in &self.members {
                    if let Ok(response) = member.control.submit(command.clone()).await {
                        return (*id, response);
                    }
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), attempt)
            .await
            .expect("no leader within a minute")
    }

    /// Waits until all members that run have the same state with `keys` keys.
    pub async fn converge(&self, keys: usize) {
        let alike = async {
            loop {
                let states: Vec<_> = self.members.values().map(|member| member.control.state()).collect();
                if states
                    .iter()
                    .all(|state| state.keys.len() == keys && **state == *states[0])
                {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), alike)
            .await
            .expect("no agreement within a minute");
        for (id, member) in &self.members {
            assert_eq!(
                *member.noted.0.lock().unwrap(),
                [],
                "member {id} would have ended itself"
            );
        }
    }
}
