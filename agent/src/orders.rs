//! What to protect: asks the service once a second and keeps exactly one stream per deployment it names.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::AbortHandle;
use headwater_host::Host;
use headwater_model::DeploymentName;
use headwater_protocol::agent::{DeploymentFault, DeploymentOrder, OrdersRequest, RefusalKind, StreamFault};
use tokio::sync::watch;

use crate::http::Http;
use crate::settings::AgentSettings;
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

/// A stream; ends with its owner.
struct Running {
    order: DeploymentOrder,
    abort: AbortHandle,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.abort.abort();
    }
}

/// Faults of streams that do not know their replica set yet; told with every request for orders.
#[derive(Clone, Debug, Default)]
pub struct Faults(Arc<Mutex<BTreeMap<DeploymentName, StreamFault>>>);

impl Faults {
    /// Remembers or forgets what hinders a deployment.
    pub fn set(&self, deployment: &DeploymentName, fault: Option<StreamFault>) {
        let mut faults = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match fault {
            Some(fault) => faults.insert(deployment.clone(), fault),
            None => faults.remove(deployment),
        };
    }

    fn all(&self) -> Vec<DeploymentFault> {
        let faults = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let pairs = faults.iter();
        pairs
            .map(|(deployment, fault)| DeploymentFault {
                deployment: deployment.clone(),
                fault: fault.clone(),
            })
            .collect()
    }
}

async fn follow(
    host: &Host,
    settings: &Arc<AgentSettings>,
    service: &Service,
    source: &Arc<dyn Connect>,
) -> Result<(), AgentError> {
    let faults = Faults::default();
    let mut streams: BTreeMap<DeploymentName, Running> = BTreeMap::new();
    let mut heard = false;
    loop {
        let request = OrdersRequest {
            agent: settings.agent_id.clone(),
            host: settings.host_name.clone(),
            version: settings.version.clone(),
            faults: faults.all(),
            scope: BTreeSet::new(),
        };
        match service.orders(&request).await {
            Ok(reply) => {
                heard = true;
                let wanted = reply
                    .deployments
                    .into_iter()
                    .map(|order| (order.deployment.clone(), order))
                    .collect();
                for order in change(&mut streams, &faults, wanted) {
                    tracing::info!(deployment = %order.deployment, "starting to stream");
                    let run = stream::run(
                        host.clone(),
                        settings.clone(),
                        service.clone(),
                        source.clone(),
                        faults.clone(),
                        order.clone(),
                    );
                    let task = host.spawn(run);
                    streams.insert(
                        order.deployment.clone(),
                        Running {
                            order,
                            abort: task.abort_handle(),
                        },
                    );
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
    streams: &mut BTreeMap<DeploymentName, Running>,
    faults: &Faults,
    wanted: BTreeMap<DeploymentName, DeploymentOrder>,
) -> Vec<DeploymentOrder> {
    streams.retain(|name, running| {
        let keep = wanted.get(name) == Some(&running.order);
        if !keep {
            faults.set(name, None);
            tracing::info!(deployment = %name, "no longer streaming under the old order");
        }
        keep
    });
    wanted
        .into_values()
        .filter(|order| !streams.contains_key(&order.deployment))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(name: &str, uri: &str) -> (DeploymentName, DeploymentOrder) {
        let deployment = DeploymentName::new(name).unwrap();
        (
            deployment.clone(),
            DeploymentOrder {
                deployment,
                uri: uri.to_owned(),
            },
        )
    }

    #[test]
    fn a_stream_is_kept_while_its_order_stands_and_replaced_when_the_uri_changes() {
        let mut streams = BTreeMap::new();
        for (name, order) in [order("a", "1"), order("b", "1"), order("c", "1")] {
            let abort = AbortHandle::new_pair().0;
            streams.insert(name, Running { order, abort });
        }
        let kept = streams.values().next().unwrap().abort.clone();
        let let_go = streams.values().nth(1).unwrap().abort.clone();
        let faults = Faults::default();
        for (name, _) in [order("a", "1"), order("b", "1")] {
            faults.set(
                &name,
                Some(StreamFault::Unreachable {
                    detail: "words".to_owned(),
                }),
            );
        }
        let start = change(
            &mut streams,
            &faults,
            [order("a", "1"), order("b", "2"), order("d", "1")].into(),
        );
        let names: Vec<&str> = start.iter().map(|order| order.deployment.as_str()).collect();
        assert_eq!(names, ["b", "d"]);
        assert!(!kept.is_aborted() && let_go.is_aborted());
        assert_eq!(streams.len(), 1);
        let told: Vec<String> = faults.all().iter().map(|fault| fault.deployment.to_string()).collect();
        assert_eq!(told, ["a"], "a fault goes with its stream");
    }
}
