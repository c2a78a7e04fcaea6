//! Starts, kills and restarts agents.

use std::time::Duration;

use headwater_agent::{AgentError, AgentSettings};
use headwater_host::{Host, Task};
use headwater_model::DeploymentName;
use headwater_protocol::agent::DeploymentOrder;
use tokio::sync::watch;

use crate::receiver::Receiver;

/// A running agent.
pub struct Agent {
    task: Task<Result<(), AgentError>>,
    stop: watch::Sender<bool>,
}

impl Agent {
    pub fn start(host: &Host, receiver: &Receiver) -> Agent {
        let _ = tracing_subscriber::fmt()
            .with_env_filter("info")
            .with_test_writer()
            .try_init();
        // The first URL is dead: the agent has to find the other one.
        let urls = vec!["http://127.0.0.1:9".to_owned(), receiver.url.clone()];
        let mut settings = AgentSettings::new(urls, "secret-key", "agent-1");
        settings.split_over_bytes = 6 << 20;
        settings.split_max_parts = 4;
        settings.orders_every = Duration::from_millis(200);
        settings.poll_every = Duration::from_millis(100);
        let (stop, stopped) = watch::channel(false);
        Agent {
            task: host.spawn(headwater_agent::run(host.clone(), settings, stopped)),
            stop,
        }
    }

    /// As `kill -9` would.
    pub fn kill(self) {
        self.task.abort();
    }

    /// As it is asked to.
    pub async fn stop(self) {
        self.stop.send(true).unwrap();
        self.task.await.unwrap().unwrap();
    }
}

/// Orders to stream one deployment.
pub fn protect(receiver: &Receiver, uri: &str) {
    let deployment = DeploymentName::new("shop").unwrap();
    receiver.kept().orders = vec![DeploymentOrder {
        deployment,
        uri: uri.to_owned(),
        members: Vec::new(),
    }];
}
