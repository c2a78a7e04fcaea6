//! The single place of wiring: settings become a running node or a running agent.

use std::sync::Arc;

use anyhow::Context;
use headwater_actors::{Backup, Ground, Tuning};
use headwater_cluster::{Control, KeyRole, NodeId};
use headwater_config::{Settings, StoreUri};
use headwater_host::Host;
use headwater_host::real::SledKv;
use headwater_store::backend::directory::DirectoryObjects;
use tokio::sync::watch;

use crate::keys::Keys;

/// The only node there is until nodes can join.
const NODE: NodeId = NodeId(1);

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
    control: Control,
}

impl Node {
    /// Brings everything to rest; returns once what was acknowledged is durable.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.control.shutdown().await;
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

/// Starts a node. Called within an actix system on a runtime with several threads.
pub async fn start_node(NodeSettings { settings, keys }: NodeSettings) -> anyhow::Result<Node> {
    let host = Host::real()?;
    let StoreUri::File(folder) = &settings.store;
    let objects = DirectoryObjects::open(folder, host.blocking.clone())
        .await
        .context("cannot open the store")?;
    let control = start_control(&host, &settings)
        .await
        .context("cannot open the control state")?;
    let scratch = settings.dir.join("scratch");
    let leftovers = scratch.clone();
    host.blocking(move || std::fs::remove_dir_all(leftovers).ok()).await;
    let ground = Ground {
        host,
        control: control.clone(),
        objects: Arc::new(objects),
        node: NODE,
        tuning: Tuning {
            memtable_bytes: settings.memtable_budget_bytes,
            snapshot_interval_s: settings.snapshot_interval_seconds,
            scratch: Some(scratch),
            ..Tuning::default()
        },
    };
    let backup = Backup::start(ground)
        .await
        .map_err(|refusal| anyhow::anyhow!(refusal.message))?;
    for (key, role) in [(&keys.admin, KeyRole::Admin), (&keys.agent, KeyRole::Agent)] {
        backup
            .admit(key, role)
            .await
            .map_err(|refusal| anyhow::anyhow!(refusal.message))?;
    }
    Ok(Node { backup, control })
}

async fn start_control(host: &Host, settings: &Settings) -> anyhow::Result<Control> {
    let (folder, blocking) = (settings.dir.join("control"), host.blocking.clone());
    let kv = host.blocking(move || SledKv::open(&folder, blocking)).await?;
    let single = headwater_cluster::Settings::single(NODE);
    Ok(Control::start(host, Arc::new(kv), NODE, single).await?)
}

/// Runs an agent until `stop` becomes true; fails only by what no retry can mend.
pub async fn run_agent(settings: AgentSettings, stop: watch::Receiver<bool>) -> anyhow::Result<()> {
    let mut agent = headwater_agent::AgentSettings::new(settings.services, settings.key, settings.id);
    agent.host_name = host_name();
    headwater_agent::run(Host::real()?, agent, stop).await?;
    Ok(())
}

/// This machine's name, for people.
fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").map_or_else(|_| String::new(), |name| name.trim().to_owned())
}
