//! The single place of wiring: settings become a running node or a running agent.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use headwater_actors::alerting::Webhook;
use headwater_actors::enrol::{Enrolled, Wish, claim_apart, enrol};
use headwater_actors::{Backup, Ground, Tuning};
use headwater_cluster::alerts::Thresholds;
use headwater_cluster::shares::Rhythm;
use headwater_cluster::{Control, NodeId};
use headwater_config::Settings;
use headwater_host::real::{SledKv, TlsAcceptor};
use headwater_host::{Host, Kv};
use headwater_model::KeyRole;
use headwater_protocol::internal::ClusterKey;
use headwater_service::Door;
use headwater_store::backend::open::{self, Places};
use headwater_store::objects::StoreError;
use tokio::sync::watch;

use crate::keys::Keys;
use crate::transport::{HttpTransport, STRANGERS};
use crate::webhook::HttpWebhook;
use crate::{master_keys, roots};

/// Milliseconds between a leader's heartbeats…
const HEARTBEAT_MS: u64 = 120;
/// …and of its silence after which another is elected. Together: at most 1.7 s without a leader.
const ELECTION_MS: (u64, u64) = (500, 800);
/// How long a command may take at the leader before its outcome is unknown.
const SUBMIT_PATIENCE: Duration = Duration::from_secs(6);
/// How long a key waits for somebody who can admit it.
const ADMIT_PAUSE: Duration = Duration::from_secs(1);

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
    /// Its side door, for other daemons.
    pub door: Door,
    /// How it listens.
    pub tls: Option<TlsAcceptor>,
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
    /// Certificates, PEM, by which a service with `https` is believed; `None` for the system's.
    pub ca_pem: Option<Vec<u8>>,
    /// Its own id.
    pub id: String,
}

/// Starts a node. Called within an actix system on a runtime with several threads.
pub async fn start_node(NodeSettings { settings, keys }: NodeSettings, cluster_key: &str) -> anyhow::Result<Node> {
    let host = Host::real()?;
    let opened = open::open(&places(&settings), &host)
        .await
        .context("cannot open the store")?;
    let key = ClusterKey::new(cluster_key);
    let tls = tls(&settings)?;
    let calls = tls.as_ref().map(|(_, ca)| ca.as_deref());
    let transport = HttpTransport::new(host.clone(), key.clone(), calls)?;
    let kv = open_disk(&host, &settings)
        .await
        .context("cannot open the control state")?;
    let seeds: Vec<NodeId> = (STRANGERS..).zip(&settings.join).map(|(id, _)| NodeId(id)).collect();
    transport
        .addresses()
        .know((STRANGERS..).zip(settings.join.iter().cloned()));
    let wish = Wish {
        address: advertised(&settings),
        ask: seeds.clone(),
    };
    let Enrolled { identity, node, voters } = enrol(
        &host,
        &kv,
        opened.objects.as_ref(),
        &wish,
        &transport,
        transport.addresses(),
    )
    .await?;
    match opened.require_in_use(&places(&settings)).await {
        // Raft goes on while a store does not answer.
        Err(error @ StoreError::Unavailable { .. }) => tracing::warn!("the store is not looked at yet: {error}"),
        looked => looked.context("cannot use the store")?,
    }
    claim_apart(&kv, opened.objects.as_ref(), opened.apart(), &identity).await?;
    transport.at_home(&identity.cluster, node.0);
    let raft = headwater_cluster::Settings {
        heartbeat_ms: HEARTBEAT_MS,
        election_min_ms: ELECTION_MS.0,
        election_max_ms: ELECTION_MS.1,
        submit_timeout: SUBMIT_PATIENCE,
        ..headwater_cluster::Settings::among(voters, Arc::new(transport.clone()))
    };
    let control = Control::start(&host, kv, node, raft)
        .await
        .context("cannot open the control state")?;
    drop(host.spawn(transport.addresses().clone().follow(control.clone())));
    let scratch = settings.dir.join("scratch");
    let leftovers = scratch.clone();
    host.blocking(move || std::fs::remove_dir_all(leftovers).ok()).await;
    let ground = Ground {
        host: host.clone(),
        control: control.clone(),
        objects: opened.objects,
        node,
        tuning: Tuning {
            memtable_bytes: settings.memtable_budget_bytes,
            snapshot_interval_s: settings.snapshot_interval_seconds,
            scratch: Some(scratch),
            cluster: identity.cluster.clone(),
            address: Some(wish.address),
            rhythm: Rhythm {
                pass_days: settings.check_pass_days,
            },
            check_bytes_per_second: settings.check_bytes_per_second,
            proof_interval_s: settings.proof_interval_seconds,
            thresholds: Thresholds {
                oplog_behind_s: settings.alert_oplog_behind_seconds,
                agent_down_s: settings.alert_agent_down_seconds,
                node_down_s: settings.alert_node_down_seconds,
                proof_interval_s: settings.proof_interval_seconds,
            },
            webhook: match &settings.webhook {
                Some(url) => Some(Webhook(Arc::new(HttpWebhook::new(url, calls.flatten())?))),
                None => None,
            },
            seeds,
            backing_sets: opened.backing_sets,
            keyring: master_keys::keyring(settings.master_keys.as_ref(), &host),
            encrypt: settings.encrypt,
            ..Tuning::default()
        },
    };
    let backup = Backup::start(ground)
        .await
        .map_err(|refusal| anyhow::anyhow!(refusal.message))?;
    // A node that is the whole cluster admits at once; one of several as soon as there is a leader.
    let admitting = host.spawn(admit(backup.clone(), node, keys));
    if control.is_leader() && control.voters().len() == 1 {
        admitting.await.context("the keys could not be admitted")?;
    }
    let door = Door {
        key,
        cluster: identity.cluster,
        node: node.0,
        server: backup.server(),
    };
    let tls = tls.map(|(acceptor, _)| acceptor);
    if let Some(acceptor) = tls.clone() {
        drop(host.spawn(acceptor.follow()));
    }
    Ok(Node {
        backup,
        door,
        tls,
        control,
    })
}

/// How a node listens with TLS, and the certificates by which it believes other nodes.
fn tls(settings: &Settings) -> anyhow::Result<Option<(TlsAcceptor, Option<Vec<u8>>)>> {
    let Some(tls) = &settings.tls else { return Ok(None) };
    let acceptor = TlsAcceptor::open(&tls.cert, &tls.key).context("TLS cannot be set up")?;
    let ca = roots::read(tls.ca.as_deref()).map_err(|failure| anyhow::anyhow!(failure.message))?;
    Ok(Some((acceptor, ca)))
}

async fn open_disk(host: &Host, settings: &Settings) -> anyhow::Result<Arc<dyn Kv>> {
    let (folder, blocking) = (settings.dir.join("control"), host.blocking.clone());
    Ok(Arc::new(host.blocking(move || SledKv::open(&folder, blocking)).await?))
}

/// Where the stores are.
pub fn places(settings: &Settings) -> Places {
    Places {
        blocks: settings.store.clone(),
        oplog: settings.oplog_store.clone(),
        sync: settings.sync_store.clone(),
    }
}

/// Where other nodes reach this one.
pub fn advertised(settings: &Settings) -> String {
    let listen = settings.listen;
    match &settings.advertise {
        Some(address) => address.clone(),
        None if listen.ip().is_unspecified() => format!("{}:{}", host_name(), listen.port()),
        None => listen.to_string(),
    }
}

/// Makes the keys of this node known to the cluster.
async fn admit(backup: Backup, node: NodeId, keys: Keys) {
    for (key, role) in [(&keys.admin, KeyRole::Admin), (&keys.agent, KeyRole::Agent)] {
        let name = format!("node-{node}-{role}");
        while let Err(refusal) = backup.admit(key, role, &name).await {
            tracing::debug!("a key is not admitted yet: {}", refusal.message);
            tokio::time::sleep(ADMIT_PAUSE).await;
        }
    }
}

/// Runs an agent until `stop` becomes true; fails only by what no retry can mend.
pub async fn run_agent(settings: AgentSettings, stop: watch::Receiver<bool>) -> anyhow::Result<()> {
    let mut agent = headwater_agent::AgentSettings::new(settings.services, settings.key, settings.id);
    agent.host_name = host_name();
    agent.ca_pem = settings.ca_pem;
    headwater_agent::run(Host::real()?, agent, stop).await?;
    Ok(())
}

/// This machine's name, for people.
fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").map_or_else(|_| String::new(), |name| name.trim().to_owned())
}
