//! The handle on the cluster's control state.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use headwater_host::{Host, Kv, Serve, Transport};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::command::{Command, Response};
use crate::raft::members::Members;
use crate::raft::network::NoPeers;
use crate::raft::node::{Mail, Metrics, Node, leads, leads_in_vain};
use crate::raft::serve;
use crate::raft::wire::SubmitAnswer;
use crate::state::{NodeId, State};

/// What a member is started with.
#[derive(Clone)]
pub struct Settings {
    /// The first members with their addresses. A member with an empty disk begins a cluster of these; all of them must
    /// be given the same. Empty for one that waits to be taken into a cluster.
    ///
    /// A member of several that lost its disk must not begin again: it has forgotten whom it voted for. It is started
    /// with none, and taken in anew.
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
    /// Nothing was done, or not known to be: nobody leads.
    #[error(
        "the cluster has no leader: most of its nodes must run and reach one another. Nothing can be changed until then; \
         what is backed up stays restorable"
    )]
    NoLeader,
    /// The membership was not changed.
    #[error("the members of the cluster were not changed: {0}")]
    Membership(String),
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
    members: Arc<Members>,
}

/// Raft in figures, as this member sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// The present term.
    pub term: u64,
    /// Index of the last log entry applied.
    pub applied: u64,
    /// Commands waiting to be submitted.
    pub waiting: u64,
}

/// How long a command is tried to be brought to a leader.
const FORWARD_PATIENCE: Duration = Duration::from_secs(10);
/// How long one leader may take to answer it.
const FORWARD_ANSWER: Duration = Duration::from_secs(4);
/// A leader that has not heard of a majority for so long, in milliseconds, counts as none.
const CUT_OFF_MS: u64 = 3_000;
const FORWARD_PAUSE: Duration = Duration::from_millis(50);

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
            members,
        } = Node::start(host, kv, node, settings).await?;
        Ok(Control {
            node,
            mailbox,
            state,
            metrics,
            server: Arc::new(server),
            members: Arc::new(members),
        })
    }

    /// Carries out a command. When it answers, the command is durable and [`Control::state`] shows what it did.
    ///
    /// A refusal is an answer. Dropping the future leaves the command to its fate.
    pub async fn submit(&self, command: Command) -> Result<Response, ControlError> {
        serve::submit(Some(&self.mailbox), command)
            .await
            .map(|(response, _)| response)
    }

    /// Carries out a command wherever the leader is. When it answers, [`Control::state`] shows here what it did.
    ///
    /// It may be submitted more than once, which is harmless: what was carried out already may then be answered with a
    /// refusal that says so.
    pub async fn submit_to_leader(&self, command: Command) -> Result<Response, ControlError> {
        let deadline = Instant::now() + FORWARD_PATIENCE;
        let mut ended = ControlError::NoLeader;
        loop {
            if self.is_cut_off() {
                // It would wait in a log that nobody else takes in.
                if Instant::now() >= deadline {
                    return Err(ended);
                }
                sleep(FORWARD_PAUSE).await;
                continue;
            }
            let leader = match serve::submit(Some(&self.mailbox), command.clone()).await {
                Err(ControlError::NotLeader { leader }) => leader.filter(|leader| *leader != self.node),
                other => return other.map(|(response, _)| response),
            };
            if let Some(leader) = leader {
                match timeout(FORWARD_ANSWER, self.members.forward(leader, &command)).await {
                    Ok(Ok(SubmitAnswer::Done(response, index))) => {
                        // Whoever asked wants to see here what was done there.
                        let _ = timeout_at(deadline, self.applied(index)).await;
                        return Ok(response);
                    }
                    Ok(Ok(SubmitAnswer::NotLeader(_))) => {}
                    Ok(Ok(SubmitAnswer::Unknown)) | Ok(Err(_)) | Err(_) => ended = ControlError::Unknown,
                }
            }
            if Instant::now() >= deadline {
                return Err(ended);
            }
            sleep(FORWARD_PAUSE).await;
        }
    }

    async fn applied(&self, index: u64) {
        let mut metrics = self.metrics.clone();
        // An error means that this member has ended.
        let _ = metrics
            .wait_for(|metrics| metrics.last_applied.is_some_and(|id| id.index >= index))
            .await;
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
        leads(&self.metrics) && !self.is_cut_off()
    }

    /// Whether this member leads, but most of the others have not answered for so long that it can do nothing.
    fn is_cut_off(&self) -> bool {
        leads_in_vain(&self.metrics, CUT_OFF_MS)
    }

    /// Who leads, as far as is known here.
    pub fn leader(&self) -> Option<NodeId> {
        let leader = self.metrics.borrow().current_leader.map(NodeId);
        leader.filter(|leader| *leader != self.node || !self.is_cut_off())
    }

    /// Raft in figures.
    pub fn figures(&self) -> Figures {
        let metrics = self.metrics.borrow();
        Figures {
            term: metrics.current_term,
            applied: metrics.last_applied.map_or(0, |id| id.index),
            waiting: (self.mailbox.max_capacity() - self.mailbox.capacity()) as u64,
        }
    }

    /// What this member calls others with.
    pub fn transport(&self) -> Arc<dyn Transport> {
        self.members.transport()
    }

    /// The members whose votes count, as far as is known here. While the members change, those that voted before and will
    /// afterwards: on one that is coming nothing can rely yet.
    pub fn voters(&self) -> BTreeSet<NodeId> {
        let metrics = self.metrics.borrow();
        let all = metrics.membership_config.membership().get_joint_config();
        let everywhere = |id: &u64| all.iter().all(|voters| voters.contains(id));
        let voters = metrics.membership_config.voter_ids();
        voters.filter(everywhere).map(NodeId).collect()
    }

    /// All members with their addresses, as far as is known here.
    pub fn members(&self) -> BTreeMap<NodeId, String> {
        let metrics = self.metrics.borrow();
        let nodes = metrics.membership_config.nodes();
        nodes.map(|(id, node)| (NodeId(*id), node.addr.clone())).collect()
    }

    /// Takes a node into the cluster, in the place of `former` ones: it learns first, and votes as soon as it has caught
    /// up. Only the leader can. Again is harmless.
    pub async fn admit(
        &self,
        node: NodeId,
        address: &str,
        former: &BTreeSet<NodeId>,
    ) -> Result<BTreeSet<NodeId>, ControlError> {
        self.members.admit(node, address, former).await
    }

    /// Takes a node's vote away. Only the leader can. Again is harmless.
    pub async fn expel(&self, node: NodeId) -> Result<(), ControlError> {
        self.members.expel(node).await
    }

    /// Carries a change of the members through that a former leader began. Only the leader can.
    pub async fn settle(&self) {
        self.members.settle().await;
    }

    /// Lets another member lead, if this one does; for a daemon that is about to end. Answers once another leads, or when
    /// it was waited for long enough.
    pub async fn step_aside(&self) {
        self.members.step_aside().await;
    }

    /// The same for one that stays, and may be elected again.
    pub async fn let_another_lead(&self) {
        self.members.step_aside().await;
        self.members.stand_again();
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
