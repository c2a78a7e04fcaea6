//! The single place of wiring: settings become a running node or a running agent.

use headwater_actors::Backup;
use headwater_config::Settings;
use tokio::sync::watch;

use crate::keys::Keys;

/// What a node needs to start.
pub struct NodeSettings {
    /// Checked settings.
    pub settings: Settings,
    /// The keys it accepts.
    pub keys: Keys,
}

/// A running node.
pub struct Node {
    /// Its front door.
    pub backup: Backup,
}

impl Node {
    /// Brings everything to rest; returns once what was acknowledged is durable.
    pub async fn stop(self) -> anyhow::Result<()> {
        Ok(())
    }
}

/// What an agent needs to run.
pub struct AgentSettings {
    /// Services, to be tried in turn.
    pub services: Vec<String>,
    /// Its bearer key.
    pub key: String,
    /// Its own id.
    pub id: String,
}

/// Starts a node. Called within an actix system.
pub async fn start_node(settings: NodeSettings) -> anyhow::Result<Node> {
    let _ = (settings.settings, settings.keys);
    anyhow::bail!("this build holds no backup engine")
}

/// Runs an agent until `stop` becomes true; fails only by what no retry can mend.
pub async fn run_agent(settings: AgentSettings, stop: watch::Receiver<bool>) -> anyhow::Result<()> {
    let _ = (settings.services, settings.key, settings.id, stop);
    anyhow::bail!("this build holds no agent")
}
