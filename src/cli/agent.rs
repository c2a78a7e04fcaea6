//! `headwater agent`: reads deployments and ships them to a service.

use std::path::PathBuf;

use clap::Args;
use tokio::sync::watch;

use crate::cli::Global;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::logging::{self, LogFormat};
use crate::node::{self, AgentSettings};
use crate::{keys, local, roots, stop};

/// Run an agent that reads deployments and ships them to a service.
///
/// Which deployments, the service tells it: see `headwater deployment add`.
#[derive(Debug, Args)]
#[command(before_help = "Examples:
  headwater agent --service http://backup1:7480 --key-file agent.key
  headwater agent --service https://backup1:7480,https://backup2:7480 --ca-file ca.pem --key-file agent.key\n")]
pub struct Agent {
    /// File in which the agent keeps its id [default: agent.id beside the key file]
    #[arg(long, value_name = "FILE")]
    id_file: Option<PathBuf>,
    /// How log lines look
    #[arg(long, value_enum, default_value = "text")]
    log_format: LogFormat,
}

impl Agent {
    /// Carries it out: ships until told to stop.
    pub async fn run(self, global: Global) -> Outcome {
        logging::start(self.log_format, false);
        let Some(key_file) = global.key_file else {
            let failure = Failure::new(Exit::Usage, "an agent needs its key");
            return Err(failure.help("give --key-file; the key lies in agent.key in the daemon's folder"));
        };
        if global.service.is_empty() {
            let failure = Failure::new(Exit::Usage, "an agent needs to know its service");
            return Err(failure.help("give --service http://HOST:PORT"));
        }
        let services = global
            .service
            .iter()
            .map(|url| local::checked_url(url))
            .collect::<Outcome<Vec<_>>>()?;
        let id_file = self.id_file.unwrap_or_else(|| key_file.with_file_name("agent.id"));
        let settings = AgentSettings {
            services,
            key: keys::read(&key_file)?,
            ca_pem: roots::read(global.ca_file.as_deref())?,
            id: keys::agent_id(&id_file)?,
        };
        let (stop, stopped) = watch::channel(false);
        let wish = async {
            stop::wished().await;
            let _ = stop.send(true);
            std::future::pending::<()>().await;
        };
        tokio::select! {
            outcome = run(settings, stopped) => outcome,
            () = wish => Ok(()),
        }
    }
}

/// Runs an agent until it is told to stop.
pub async fn run(settings: AgentSettings, stop: watch::Receiver<bool>) -> Outcome {
    node::run_agent(settings, stop)
        .await
        .map_err(|e| Failure::new(Exit::Failed, format!("the agent ended: {e:#}")))
}
