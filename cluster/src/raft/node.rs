//! One member: Raft on its disk, and the task that takes commands to it.
//!
//! Commands wait in a mailbox while an entry is being written; then all that fit go into the next entry. One flush
//! carries many commands when many come.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use headwater_host::{ExitReason, Host, Kv};
use headwater_model::limits;
use openraft::error::{ClientWriteError, Fatal, InitializeError, RaftError};
use openraft::{BasicNode, RaftMetrics, ServerState, SnapshotPolicy};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::sleep;

use super::Raft;
use super::disk::Disk;
use super::log_store::LogStore;
use super::members::Members;
use super::network::Network;
use super::runtime::within;
use super::serve::Server;
use super::state_machine::StateMachine;
use crate::command::{Command, Response};
use crate::control::{ControlError, Settings};
use crate::state::{NodeId, State};

pub(crate) type Metrics = watch::Receiver<RaftMetrics<u64, BasicNode>>;

/// What waits in the mailbox.
#[expect(
    clippy::large_enum_variant,
    reason = "a mailbox holds few, and nearly all are the large one"
)]
pub(crate) enum Mail {
    Submit {
        command: Command,
        bytes: usize,
        answer: Asker,
    },
    Shutdown {
        done: oneshot::Sender<()>,
    },
}

/// What a command was answered with, and the entry it is in.
pub(crate) type Written = (Response, u64);

/// A running member.
pub(crate) struct Node {
    pub mailbox: mpsc::Sender<Mail>,
    pub members: Members,
    pub state: watch::Receiver<Arc<State>>,
    pub metrics: Metrics,
    pub server: Server,
}

impl Node {
    /// Opens the disk, starts Raft, and on a fresh disk begins the cluster of `settings.voters`.
    pub(crate) async fn start(
        host: &Host,
        kv: Arc<dyn Kv>,
        id: NodeId,
        settings: Settings,
    ) -> Result<Node, ControlError> {
        within(host, Node::start_within(host, kv, id, settings)).await
    }

    async fn start_within(host: &Host, kv: Arc<dyn Kv>, id: NodeId, settings: Settings) -> Result<Node, ControlError> {
        let failed = |error: &dyn std::fmt::Display| ControlError::Start(error.to_string());
        let disk = Disk::new(host, kv);
        disk.identify(id).await.map_err(|error| failed(&error))?;
        let machine = StateMachine::open(&disk).map_err(|error| failed(&error))?;
        let log = LogStore::open(&disk, Some(machine.covered())).map_err(|error| failed(&error))?;
        let state = machine.watch();
        let config = Arc::new(config(&settings).validate().map_err(|error| failed(&error))?);
        let network = Network(settings.transport.clone());
        let raft = Raft::new(id.0, config, network, log, machine)
            .await
            .map_err(|error| failed(&error))?;
        begin_cluster(&raft, &settings).await?;
        let metrics = raft.metrics();
        if is_alone(&raft, id).await? {
            lead(&raft).await?;
        }
        let (sender, mailbox) = mpsc::channel(limits::CONTROL_MAILBOX_CAPACITY);
        let server = Server {
            raft: raft.clone(),
            host: host.clone(),
            mailbox: sender.downgrade(),
        };
        let members = Members::new(raft.clone(), host.clone(), id, &settings);
        let task = Desk {
            raft,
            mailbox,
            host: host.clone(),
            settings,
            held: None,
            disk,
        };
        // Runs until the last handle is dropped.
        drop(host.spawn(within(host, task.run())));
        Ok(Node {
            mailbox: sender,
            members,
            state,
            metrics,
            server,
        })
    }
}

fn config(settings: &Settings) -> openraft::Config {
    openraft::Config {
        cluster_name: "headwater".to_owned(),
        heartbeat_interval: settings.heartbeat_ms,
        election_timeout_min: settings.election_min_ms,
        election_timeout_max: settings.election_max_ms,
        install_snapshot_timeout: settings.image_timeout_ms,
        max_payload_entries: 64,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(settings.entries_between_images),
        max_in_snapshot_log_to_keep: settings.entries_kept,
        ..openraft::Config::default()
    }
}

/// Every first member may begin, since all of them begin with the same.
async fn begin_cluster(raft: &Raft, settings: &Settings) -> Result<(), ControlError> {
    let voters: BTreeMap<u64, BasicNode> = settings
        .voters
        .iter()
        .map(|(id, address)| (id.0, BasicNode::new(address)))
        .collect();
    let begun = raft
        .is_initialized()
        .await
        .map_err(|error| ControlError::Start(error.to_string()))?;
    if begun || voters.is_empty() {
        return Ok(());
    }
    match raft.initialize(voters).await {
        Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
        Err(error) => Err(ControlError::Start(error.to_string())),
    }
}

async fn is_alone(raft: &Raft, id: NodeId) -> Result<bool, ControlError> {
    let alone =
        move |state: &openraft::RaftState<u64, BasicNode, _>| state.membership_state.effective().voter_ids().eq([id.0]);
    let alone = raft.with_raft_state(alone).await;
    alone.map_err(|error| ControlError::Start(error.to_string()))
}

/// How often a single voter is asked whether it leads.
const LEADS_YET: Duration = Duration::from_millis(10);

/// A single voter leads as soon as it has elected itself; then its state is as it was. Changes of the metrics are not waited
/// for: to ask is one.
async fn lead(raft: &Raft) -> Result<(), ControlError> {
    loop {
        match raft.ensure_linearizable().await {
            Ok(_) => return Ok(()),
            Err(RaftError::Fatal(fatal)) => return Err(ControlError::Start(fatal.to_string())),
            Err(RaftError::APIError(_)) => sleep(LEADS_YET).await,
        }
    }
}

/// Whether `metrics` show this member as the leader; advisory.
pub(crate) fn leads(metrics: &Metrics) -> bool {
    metrics.borrow().state == ServerState::Leader
}

/// Whether `metrics` show a leader of several members that most of them have not answered for more than `patience_ms`.
/// This version of openraft does not step down by itself.
pub(crate) fn leads_in_vain(metrics: &Metrics, patience_ms: u64) -> bool {
    let metrics = metrics.borrow();
    let several = metrics.membership_config.voter_ids().count() > 1;
    let silent_ms = metrics.millis_since_quorum_ack.unwrap_or_default();
    several && metrics.state == ServerState::Leader && silent_ms > patience_ms
}

/// The task that takes commands to Raft.
struct Desk {
    raft: Raft,
    mailbox: mpsc::Receiver<Mail>,
    host: Host,
    settings: Settings,
    /// A command that did not fit into the entry before.
    held: Option<Mail>,
    disk: Disk,
}

pub(crate) type Asker = oneshot::Sender<Result<Written, ControlError>>;

/// Pauses before it is believed that Raft has ended and the process has not.
const PAUSES: u32 = 16;

impl Desk {
    async fn run(mut self) {
        let mut metrics = self.raft.metrics();
        let asker = loop {
            let mail = match self.held.take() {
                Some(mail) => Some(mail),
                None => tokio::select! {
                    biased;
                    changed = metrics.changed() => {
                        let state = metrics.borrow_and_update().running_state.clone();
                        match (changed, state) {
                            (Ok(()), Ok(())) => continue,
                            (_, state) => {
                                // A runtime that is ending drops Raft's task, and this one as soon as it pauses.
                                for _ in 0..PAUSES {
                                    tokio::task::yield_now().await;
                                }
                                self.stop_in_doubt(state.err().unwrap_or(Fatal::Panicked));
                                break None;
                            }
                        }
                    }
                    mail = self.mailbox.recv() => mail,
                },
            };
            match mail {
                Some(Mail::Submit { command, bytes, answer }) => self.submit(command, bytes, answer).await,
                Some(Mail::Shutdown { done }) => break Some(done),
                None => break None,
            }
        };
        self.mailbox.close();
        // The task that is joined may have panicked; there is nobody left to tell.
        let _ = self.raft.shutdown().await;
        if let Err(error) = self.disk.flush().await {
            tracing::warn!(%error, "the last flush failed; nothing acknowledged depends on it");
        }
        drop(self);
        if let Some(asker) = asker {
            let _ = asker.send(());
        }
    }

    /// Writes one entry with this command and all waiting ones that fit.
    async fn submit(&mut self, command: Command, bytes: usize, answer: Asker) {
        let mut commands = vec![command];
        let mut askers = vec![answer];
        let mut total = bytes;
        while let Ok(mail) = self.mailbox.try_recv() {
            match mail {
                Mail::Submit { command, bytes, answer } if total + bytes <= limits::ENTRY_MAX_BYTES => {
                    total += bytes;
                    commands.push(command);
                    askers.push(answer);
                }
                other => {
                    self.held = Some(other);
                    break;
                }
            }
        }
        let answers = self.write(commands).await;
        match answers {
            Ok((answers, index)) => {
                let answers = answers
                    .into_iter()
                    .map(|answer| Ok((answer, index)))
                    .chain(std::iter::repeat_with(|| Err(ControlError::Unknown)));
                // An asker may have given up.
                askers
                    .into_iter()
                    .zip(answers)
                    .for_each(|(asker, answer)| drop(asker.send(answer)));
            }
            Err(error) => askers
                .into_iter()
                .for_each(|asker| drop(asker.send(Err(error.clone())))),
        }
    }

    async fn write(&self, commands: Vec<Command>) -> Result<(Vec<Response>, u64), ControlError> {
        let write = self.raft.client_write(commands);
        match tokio::time::timeout(self.settings.submit_timeout, write).await {
            Ok(Ok(written)) => Ok((written.data, written.log_id.index)),
            Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(to)))) => Err(ControlError::NotLeader {
                leader: to.leader_id.map(NodeId),
            }),
            Ok(Err(_)) | Err(_) => Err(ControlError::Unknown),
        }
    }

    fn stop_in_doubt(&self, fatal: Fatal<u64>) {
        let reason = match &fatal {
            Fatal::StorageError(error) => ExitReason::Storage(error.to_string()),
            Fatal::Panicked | Fatal::Stopped => ExitReason::Defect(format!("Raft has ended: {fatal}")),
        };
        self.host.exit.exit(reason);
    }
}
