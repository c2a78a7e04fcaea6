//! The handle on the cluster's control state.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use headwater_host::{Host, Kv, Serve, Transport};
use headwater_model::limits;
use tokio::sync::{mpsc, oneshot, watch};

use crate::codec;
use crate::command::{Command, Response};
use crate::raft::network::NoPeers;
use crate::raft::node::{Mail, Metrics, Node, leads};
use crate::state::{NodeId, State};

/// What a member is started with.
#[derive(Clone)]
pub struct Settings {
    /// The first members with their addresses. A member with an empty disk begins a cluster of these; all of them must
    /// be given the same. Empty for one that waits to be taken into a cluster.
    pub voters: BTreeMap<NodeId, String>,
    /// How members call one another.
    pub transport: Arc<dyn Transport>,
    /// Milliseconds between a leader's heartbeats.
    pub heartbeat_ms: u64,
    /// Silence of the leader after which a member stands for election, at the least; ten times a slow flush.
    pub election_min_ms: u64,
    /// The same, at the most.
    pub election_max_ms: u64,
    /// How long a peer may take to install a control image.
    pub image_timeout_ms: u64,
    /// Log entries after which a new control image is written.
    pub entries_between_images: u64,
    /// Log entries that are kept behind the image for slow members.
    pub entries_kept: u64,
    /// How long a command may take before its outcome is unknown.
    pub submit_timeout: Duration,
}

impl Settings {
    /// A cluster of the one member `node`.
    pub fn single(node: NodeId) -> Self {
        Settings::among(BTreeMap::from([(node, String::new())]), Arc::new(NoPeers))
    }

    /// A cluster that begins with `voters`.
    pub fn among(voters: BTreeMap<NodeId, String>, transport: Arc<dyn Transport>) -> Self {
        Settings {
            voters,
            transport,
            heartbeat_ms: 150,
            election_min_ms: 600,
            election_max_ms: 1200,
            image_timeout_ms: 10_000,
            entries_between_images: 1000,
            entries_kept: 200,
            submit_timeout: Duration::from_secs(30),
        }
    }
}

/// Why a command has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// Nothing was done: commands are taken by the leader.
    #[error("this daemon does not lead the cluster; ask {}", leader_text(*.leader))]
    NotLeader {
        /// Who leads, if that is known.
        leader: Option<NodeId>,
    },
    /// Nothing was done.
    #[error("a command of {bytes} bytes is too large: {max} are taken")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// It may have been carried out, or be carried out later. Submitting it again is harmless.
    #[error("the outcome is unknown; look at the state, or submit the command again, which is harmless")]
    Unknown,
    /// Nothing was done: the daemon is ending.
    #[error("the cluster's control has ended on this daemon")]
    Stopped,
    /// The member could not be started.
    #[error("the cluster's control cannot start: {0}")]
    Start(String),
}

fn leader_text(leader: Option<NodeId>) -> String {
    leader.map_or("again once a leader is elected".to_owned(), |id| format!("node {id}"))
}

/// A member of the cluster. Cheap to clone, usable from any thread; ends when the last clone is dropped.
#[derive(Clone)]
pub struct Control {
    node: NodeId,
    mailbox: mpsc::Sender<Mail>,
    state: watch::Receiver<Arc<State>>,
    metrics: Metrics,
    server: Arc<dyn Serve>,
}

impl Control {
    /// Starts member `node` on the disk `kv`, which is its own.
    ///
    /// On an empty disk it begins the cluster of `settings.voters`. A single voter's state is complete when this
    /// answers; a member of several learns its own as soon as it hears of a leader.
    pub async fn start(
        host: &Host,
        kv: Arc<dyn Kv>,
        node: NodeId,
        settings: Settings,
    ) -> Result<Control, ControlError> {
        let Node {
            mailbox,
            state,
            metrics,
            server,
        } = Node::start(host, kv, node, settings).await?;
        Ok(Control {
            node,
            mailbox,
            state,
            metrics,
            server: Arc::new(server),
        })
    }

    /// Carries out a command. When it answers, the command is durable and [`Control::state`] shows what it did.
    ///
    /// A refusal is an answer. Dropping the future leaves the command to its fate.
    pub async fn submit(&self, command: Command) -> Result<Response, ControlError> {
        let max = limits::COMMAND_MAX_BYTES;
        let bytes = codec::encode("command", &command).map_or(usize::MAX, |encoded| encoded.len());
        if bytes > max {
            return Err(ControlError::TooLarge { bytes, max });
        }
        let (answer, answered) = oneshot::channel();
        let mail = Mail::Submit { command, bytes, answer };
        self.mailbox.send(mail).await.map_err(|_| ControlError::Stopped)?;
        answered.await.unwrap_or(Err(ControlError::Unknown))
    }

    /// The state after every command applied here. On a member that does not lead it may be behind.
    pub fn state(&self) -> Arc<State> {
        self.state.borrow().clone()
    }

    /// The state and word of its changes.
    pub fn watch(&self) -> watch::Receiver<Arc<State>> {
        self.state.clone()
    }

    /// Which member this is.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// Whether this member leads, as far as it knows: good for choosing who plans, never for what must be right.
    pub fn is_leader(&self) -> bool {
        leads(&self.metrics)
    }

    /// Who leads, as far as is known here.
    pub fn leader(&self) -> Option<NodeId> {
        self.metrics.borrow().current_leader.map(NodeId)
    }

    /// Answers the calls of other members.
    pub fn server(&self) -> Arc<dyn Serve> {
        self.server.clone()
    }

    /// Ends this member and waits until it has. Commands still waiting are not carried out.
    pub async fn shutdown(&self) {
        let (done, ended) = oneshot::channel();
        if self.mailbox.send(Mail::Shutdown { done }).await.is_ok() {
            // An error means that it ended by itself, which is what was wanted.
            let _ = ended.await;
        }
    }
}
