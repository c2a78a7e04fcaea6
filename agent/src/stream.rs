//! One deployment: connect, look, ask the service where it stands, then converse until something ends the conversation;
//! then from the beginning. Everything a conversation does can be dropped at any moment and taken up again.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use headwater_host::Host;
use headwater_model::{Incarnation, ReplicaSetId};
use headwater_protocol::agent::{OpenReply, OpenRequest, PollRequest, Refusal, RefusalKind, StreamFault};

use crate::backoff::Backoff;
use crate::orders::{StreamOrder, Tidings};
use crate::poll::{self, Status};
use crate::settings::AgentSettings;
use crate::shipping::Service;
use crate::source::oplog::Sight;
use crate::source::{Connect, Hello, Node, Source, SourceError, privileges};
use crate::{scan, sharding, tail};

/// What all parts of one conversation share.
pub struct Conversation {
    /// The world.
    pub host: Host,
    /// The operator's choices.
    pub settings: Arc<AgentSettings>,
    /// The service.
    pub service: Service,
    /// The replica set.
    pub source: Source,
    /// Its name.
    pub set: ReplicaSetId,
    /// The history the service wants.
    pub incarnation: Incarnation,
    /// `buildInfo.version`.
    pub server_version: String,
    /// What the poll reports.
    pub status: Status,
}

/// Why a conversation ended.
#[derive(Clone, Debug)]
pub enum End {
    /// The service must be asked again where it stands.
    Reopen(String),
    /// The service, or a person, must know.
    Fault(StreamFault),
}

impl From<SourceError> for End {
    fn from(error: SourceError) -> Self {
        End::Fault(error.fault())
    }
}

impl From<Refusal> for End {
    fn from(refusal: Refusal) -> Self {
        if refusal.kind == RefusalKind::Invalid {
            tracing::error!("the service calls a request of this agent invalid: {}", refusal.message);
        }
        End::Reopen(format!("{:?}: {}", refusal.kind, refusal.message))
    }
}

/// How long the same fault is only reported before the source is looked at again.
const FAULT_PAUSE: Duration = Duration::from_secs(3);

/// Streams one deployment for ever. To stop it, drop it.
pub async fn run(
    host: Host,
    settings: Arc<AgentSettings>,
    service: Service,
    connect: Arc<dyn Connect>,
    tidings: Tidings,
    order: StreamOrder,
) -> Infallible {
    let mut stream = Stream {
        host,
        settings,
        service,
        connect,
        tidings,
        order,
        known: None,
    };
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
    loop {
        let started = tokio::time::Instant::now();
        let end = stream.converse().await;
        if started.elapsed() > Duration::from_secs(10) {
            backoff.reset();
        }
        let deployment = &stream.order.deployment;
        match end {
            End::Reopen(why) => tracing::info!(%deployment, "opening the stream again: {why}"),
            End::Fault(fault) => {
                tracing::error!(%deployment, "{}", words(&fault));
                stream.report(fault).await;
            }
        }
        tokio::time::sleep(backoff.after_failure(stream.host.entropy.number())).await;
    }
}

fn words(fault: &StreamFault) -> String {
    match fault {
        StreamFault::HistoryLost { detail } => {
            format!("the source's oplog does not go on where the backup ended: {detail}")
        }
        StreamFault::Unreachable { detail } => format!("the source cannot be read: {detail}"),
        StreamFault::Refused { detail, cure } => format!("{detail}. To go on: {cure}"),
    }
}

struct Stream {
    host: Host,
    settings: Arc<AgentSettings>,
    service: Service,
    connect: Arc<dyn Connect>,
    tidings: Tidings,
    order: StreamOrder,
    /// What faults are reported under once the stream was opened.
    known: Option<(ReplicaSetId, Incarnation)>,
}

impl Stream {
    async fn converse(&mut self) -> End {
        match self.conversation().await {
            Ok(never) => match never {},
            Err(end) => end,
        }
    }

    async fn conversation(&mut self) -> Result<Infallible, End> {
        let source = Source::connect(&*self.connect, &self.order.uri, self.settings.source_timeout).await?;
        let (node, hello) = source.reader().await?;
        if self.order.member.is_none() && (hello.router || hello.config_server) {
            return self.look_at_cluster(&source).await;
        }
        let set = self.named(&hello)?;
        if let Some(fault) = privileges::check(&node).await? {
            return Err(End::Fault(fault));
        }
        let (request, reply) = self.open(&set, &node).await?;
        self.known = Some((set.clone(), reply.incarnation));
        self.tidings.fault(&self.order, None);
        let conversation = Conversation {
            host: self.host.clone(),
            settings: self.settings.clone(),
            service: self.service.clone(),
            source,
            set,
            incarnation: reply.incarnation,
            server_version: request.server_version,
            status: Status::default(),
        };
        conversation.status.source_at(request.oplog_last);
        hold(Arc::new(conversation), reply).await
    }

    fn named(&self, hello: &Hello) -> Result<ReplicaSetId, End> {
        let refused = |detail: &str, cure: &str| {
            End::Fault(StreamFault::Refused {
                detail: detail.to_owned(),
                cure: cure.to_owned(),
            })
        };
        let Some(set) = &hello.set else {
            return Err(refused(
                "the source is a standalone server: it has no oplog",
                "restart it with --replSet rs0 and run rs.initiate(); one member is enough",
            ));
        };
        if !hello.primary && !hello.secondary {
            return Err(refused(
                "the member answers but holds no data: it is an arbiter, starting or removed",
                "name other members in the deployment's connection string, or wait until it is a secondary",
            ));
        }
        if let Some(member) = self.order.member.as_ref().filter(|member| *member != set) {
            let detail = format!("the servers that the cluster names as replica set {member} call themselves {set}");
            return Err(refused(&detail, "correct the shard's host in config.shards"));
        }
        ReplicaSetId::new(self.order.deployment.clone(), set)
            .map_err(|e| refused(&e.to_string(), "a replica set with such a name cannot be protected"))
    }

    async fn open(&self, set: &ReplicaSetId, node: &Node) -> Result<(OpenRequest, OpenReply), End> {
        let request = OpenRequest {
            agent: self.settings.agent_id.clone(),
            server_version: node.version().await?,
            fcv: scan::begin::compatibility(node, None).await?.version,
            oplog_first: node.oldest().await?,
            oplog_last: node.newest(Sight::Majority).await?,
            members: node.hello().await?.members,
            shard: sharding::identity(node).await?,
        };
        if let (Some(shard), None) = (&request.shard, &self.order.member) {
            tracing::warn!(
                %set, shard,
                "this replica set is a shard; protected by itself it is not restored consistently with the others: add its \
                 cluster by a connection string to the config servers or to a mongos"
            );
        }
        let reply = self.service.open(set, &request).await?;
        tracing::info!(
            %set, incarnation = %reply.incarnation, server = node.address(), sync = reply.sync.is_some(),
            after = reply.tail.as_ref().map(|tail| tail.after.ts.to_string()), "stream opened"
        );
        Ok((request, reply))
    }

    /// Looks again and again how the cluster is made up. Its members are streamed once the service orders it.
    async fn look_at_cluster(&self, source: &Source) -> Result<Infallible, End> {
        loop {
            let report = sharding::look(source, &self.order.deployment).await?;
            self.tidings.fault(&self.order, None);
            self.tidings.cluster(report);
            tokio::time::sleep(sharding::LOOK_EVERY).await;
        }
    }

    /// Tells the service about a fault until it wants something else or it is time to look again.
    async fn report(&mut self, fault: StreamFault) {
        let Some((set, incarnation)) = self.known.clone() else {
            self.tidings.fault(&self.order, Some(fault));
            return tokio::time::sleep(FAULT_PAUSE).await;
        };
        let request = PollRequest {
            agent: self.settings.agent_id.clone(),
            incarnation,
            source_last: None,
            scan: None,
            fault: Some(fault),
            noted: None,
            balancer: None,
        };
        let until = tokio::time::Instant::now() + FAULT_PAUSE;
        while tokio::time::Instant::now() < until {
            match self.service.poll(&set, &request).await {
                Ok(reply) if !reply.reopen => {}
                _ => return,
            }
            tokio::time::sleep(self.settings.poll_every).await;
        }
    }
}

/// Does what the service asked for, all at once, until one part ends.
async fn hold(conversation: Arc<Conversation>, reply: OpenReply) -> Result<Infallible, End> {
    let begun = reply.sync.as_ref().map(|sync| sync.begun.as_ref());
    let first_copy = async {
        match begun {
            Some(None) => scan::begin::begin(&conversation).await,
            Some(Some(begun)) if !begun.ended => {
                scan::run(&conversation, begun).await?;
                std::future::pending().await
            }
            _ => std::future::pending().await,
        }
    };
    let tailing = async {
        match reply.tail.clone() {
            Some(order) => tail::run(&conversation, order).await,
            None => std::future::pending().await,
        }
    };
    let polling = poll::run(&conversation);
    tokio::select! {
        end = first_copy => end,
        end = tailing => end,
        end = polling => end,
    }
}
