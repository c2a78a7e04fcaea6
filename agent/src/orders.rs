//! What to protect: asks the service once a second and keeps exactly one stream per replica set it names, and one look at
//! every deployment that is not known to be a replica set.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::AbortHandle;
use headwater_host::Host;
use headwater_model::DeploymentName;
use headwater_protocol::agent::{
    ClusterReport, DeploymentFault, DeploymentOrder, OrdersRequest, RefusalKind, StreamFault,
};
use tokio::sync::watch;

use crate::http::Http;
use crate::settings::AgentSettings;
use crate::sharding::member_uri;
use crate::shipping::{NoService, Post, Service};
use crate::source::Connect;
use crate::source::driver::Driver;
use crate::stream;

/// Why an agent cannot work at all.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The service does not know the key.
    #[error(
        "the service refuses the agent key: {0}; take the file agent.key from the folder of the daemon and name it with --key-file"
    )]
    Key(String),
    /// The settings cannot work.
    #[error(transparent)]
    Service(#[from] NoService),
}

/// Asks for orders and follows them until `stop` becomes true or its sender is gone.
///
/// Fails only when the settings cannot work or the service refuses the key at the very first request; from then on
/// every trouble is waited out.
pub async fn run(host: Host, settings: AgentSettings, stop: watch::Receiver<bool>) -> Result<(), AgentError> {
    let reach = Reach {
        service: Arc::new(Http::new(&settings)?),
        source: Arc::new(Driver),
    };
    run_with(host, settings, reach, stop).await
}

/// How an agent gets at the two it stands between.
#[derive(Clone)]
pub struct Reach {
    /// The service.
    pub service: Arc<dyn Post>,
    /// The sources.
    pub source: Arc<dyn Connect>,
}

/// The same as [`run`] by other ways than HTTP and the driver.
pub async fn run_with(
    host: Host,
    settings: AgentSettings,
    reach: Reach,
    mut stop: watch::Receiver<bool>,
) -> Result<(), AgentError> {
    let service = Service::new(host.clone(), &settings, reach.service)?;
    let settings = Arc::new(settings);
    tokio::select! {
        end = follow(&host, &settings, &service, &reach.source) => end,
        _ = stop.wait_for(|stop| *stop) => Ok(()),
    }
}

/// What one stream is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamOrder {
    /// Of which deployment.
    pub deployment: DeploymentName,
    /// Which replica set of a sharded cluster; `None` for what the deployment's connection string leads to.
    pub member: Option<String>,
    /// The connection string, with credentials: never to be logged.
    pub uri: String,
}

/// Names a stream.
type StreamKey = (DeploymentName, Option<String>);

impl StreamOrder {
    fn key(&self) -> StreamKey {
        (self.deployment.clone(), self.member.clone())
    }

    /// What an order comes to: the look at the deployment, which streams a replica set, and a stream for each member of a
    /// cluster.
    fn all_of(order: DeploymentOrder) -> Vec<StreamOrder> {
        let DeploymentOrder {
            deployment,
            uri,
            members,
        } = order;
        let members = members.into_iter().map(|member| StreamOrder {
            deployment: deployment.clone(),
            uri: member_uri(&uri, &member.set, &member.hosts),
            member: Some(member.set),
        });
        let mut all: Vec<StreamOrder> = members.collect();
        all.push(StreamOrder {
            deployment,
            member: None,
            uri,
        });
        all
    }
}

/// A stream; ends with its owner.
struct Running {
    order: StreamOrder,
    abort: AbortHandle,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.abort.abort();
    }
}

/// What is told with every request for orders: faults of streams that do not know their replica set yet, and the sharded
/// clusters that were looked at.
#[derive(Clone, Debug, Default)]
pub struct Tidings(Arc<Mutex<Told>>);

#[derive(Debug, Default)]
struct Told {
    faults: BTreeMap<StreamKey, StreamFault>,
    clusters: BTreeMap<DeploymentName, ClusterReport>,
}

impl Tidings {
    fn change<T>(&self, with: impl FnOnce(&mut Told) -> T) -> T {
        with(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Remembers or forgets what hinders a stream.
    pub fn fault(&self, order: &StreamOrder, fault: Option<StreamFault>) {
        self.change(|told| match fault {
            Some(fault) => told.faults.insert(order.key(), fault),
            None => told.faults.remove(&order.key()),
        });
    }

    /// Remembers how a cluster is made up.
    pub fn cluster(&self, report: ClusterReport) {
        self.change(|told| told.clusters.insert(report.deployment.clone(), report));
    }

    /// Forgets what a stream told that is let go.
    fn forget(&self, order: &StreamOrder) {
        self.fault(order, None);
        if order.member.is_none() {
            self.change(|told| told.clusters.remove(&order.deployment));
        }
    }

    fn faults(&self) -> Vec<DeploymentFault> {
        let one = |((deployment, _), fault): (&StreamKey, &StreamFault)| DeploymentFault {
            deployment: deployment.clone(),
            fault: fault.clone(),
        };
        self.change(|told| told.faults.iter().map(one).collect())
    }

    fn clusters(&self) -> Vec<ClusterReport> {
        self.change(|told| told.clusters.values().cloned().collect())
    }
}

async fn follow(
    host: &Host,
    settings: &Arc<AgentSettings>,
    service: &Service,
    source: &Arc<dyn Connect>,
) -> Result<(), AgentError> {
    let tidings = Tidings::default();
    let mut streams: BTreeMap<StreamKey, Running> = BTreeMap::new();
    let mut heard = false;
    loop {
        let request = OrdersRequest {
            agent: settings.agent_id.clone(),
            host: settings.host_name.clone(),
            version: settings.version.clone(),
            faults: tidings.faults(),
            clusters: tidings.clusters(),
            scope: BTreeSet::new(),
        };
        match service.orders(&request).await {
            Ok(reply) => {
                heard = true;
                let wanted = reply.deployments.into_iter().flat_map(StreamOrder::all_of);
                let wanted = wanted.map(|order| (order.key(), order)).collect();
                for order in change(&mut streams, &tidings, wanted) {
                    tracing::info!(deployment = %order.deployment, member = order.member, "starting to stream");
                    let run = stream::run(
                        host.clone(),
                        settings.clone(),
                        service.clone(),
                        source.clone(),
                        tidings.clone(),
                        order.clone(),
                    );
                    let task = host.spawn(run);
                    let abort = task.abort_handle();
                    streams.insert(order.key(), Running { order, abort });
                }
            }
            Err(refusal) if matches!(refusal.kind, RefusalKind::Unauthorized | RefusalKind::Forbidden) && !heard => {
                return Err(AgentError::Key(refusal.message));
            }
            Err(refusal) => tracing::error!("the service refuses to give orders: {}", refusal.message),
        }
        tokio::time::sleep(settings.orders_every).await;
    }
}

/// Lets go of what is not wanted, or wanted differently; gives what must be started.
fn change(
    streams: &mut BTreeMap<StreamKey, Running>,
    tidings: &Tidings,
    wanted: BTreeMap<StreamKey, StreamOrder>,
) -> Vec<StreamOrder> {
    streams.retain(|key, running| {
        let keep = wanted.get(key) == Some(&running.order);
        if !keep {
            tidings.forget(&running.order);
            tracing::info!(deployment = %key.0, member = key.1, "no longer streaming under the old order");
        }
        keep
    });
    wanted
        .into_values()
        .filter(|order| !streams.contains_key(&order.key()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(name: &str, uri: &str) -> (StreamKey, StreamOrder) {
        let order = StreamOrder {
            deployment: DeploymentName::new(name).unwrap(),
            member: None,
            uri: uri.to_owned(),
        };
        (order.key(), order)
    }

    #[test]
    fn a_cluster_is_looked_at_and_each_of_its_members_streamed() {
        let members = vec![headwater_protocol::agent::MemberOrder {
            set: "sh0".to_owned(),
            hosts: vec!["b:1".to_owned()],
        }];
        let streams = StreamOrder::all_of(DeploymentOrder {
            deployment: DeploymentName::new("shop").unwrap(),
            uri: "mongodb://a:1/?replicaSet=cfg".to_owned(),
            members,
        });
        let told: Vec<_> = streams.iter().map(|s| (s.member.as_deref(), s.uri.as_str())).collect();
        assert_eq!(
            told,
            [
                (Some("sh0"), "mongodb://b:1/?replicaSet=sh0"),
                (None, "mongodb://a:1/?replicaSet=cfg")
            ]
        );
    }

    #[test]
    fn a_stream_is_kept_while_its_order_stands_and_replaced_when_the_uri_changes() {
        let mut streams = BTreeMap::new();
        for (key, order) in [order("a", "1"), order("b", "1"), order("c", "1")] {
            let abort = AbortHandle::new_pair().0;
            streams.insert(key, Running { order, abort });
        }
        let kept = streams.values().next().unwrap().abort.clone();
        let let_go = streams.values().nth(1).unwrap().abort.clone();
        let tidings = Tidings::default();
        for (_, order) in [order("a", "1"), order("b", "1")] {
            tidings.fault(
                &order,
                Some(StreamFault::Unreachable {
                    detail: "words".to_owned(),
                }),
            );
        }
        let start = change(
            &mut streams,
            &tidings,
            [order("a", "1"), order("b", "2"), order("d", "1")].into(),
        );
        let names: Vec<&str> = start.iter().map(|order| order.deployment.as_str()).collect();
        assert_eq!(names, ["b", "d"]);
        assert!(!kept.is_aborted() && let_go.is_aborted());
        assert_eq!(streams.len(), 1);
        let told: Vec<String> = tidings
            .faults()
            .iter()
            .map(|fault| fault.deployment.to_string())
            .collect();
        assert_eq!(told, ["a"], "a fault goes with its stream");
    }
}
