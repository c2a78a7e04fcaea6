//! `headwater daemon`: the service that keeps the backups.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Args;
use headwater_config::keys::{self as settings_keys, Key};
use headwater_config::{Settings, Sources};
use headwater_service::Listen;

use crate::cli::Global;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome, file_fault};
use crate::logging::{self, LogFormat};
use crate::node::{self, Node, NodeSettings};
use crate::{keys, stop};

/// Run the service that keeps the backups.
#[derive(Debug, Args)]
#[command(before_help = "Examples:
  headwater daemon --dir /var/lib/headwater --listen 0.0.0.0:7480
  headwater daemon --init --listen 10.0.0.1:7480 --store file:/mnt/backups          first of three
  headwater daemon --join 10.0.0.1:7480 --listen 10.0.0.2:7480 --store file:/mnt/backups --cluster-key cluster.key
  headwater daemon --listen 10.0.0.1:7480 --tls-cert node1.pem --tls-key node1.key --ca-file ca.pem
  headwater daemon --config /etc/headwater.yaml\n")]
pub struct Daemon {
    /// Folder of this node; its keys are made there at the first start: admin.key, agent.key
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Address and port to listen on [default: 127.0.0.1:7480]
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// Begin a cluster that others can join, if DIR belongs to none; so does a daemon without --init and --join
    #[arg(long, conflicts_with = "join")]
    init: bool,
    /// Join the cluster of these nodes, if DIR belongs to none
    #[arg(long, value_name = "ADDR[,ADDR]")]
    join: Option<String>,
    /// Address and port at which other nodes reach this one [default: that of --listen]
    #[arg(long, value_name = "ADDR")]
    advertise: Option<String>,
    /// File with the cluster's key, made by the node that began the cluster [default: cluster.key in DIR]
    #[arg(long, value_name = "FILE")]
    cluster_key: Option<PathBuf>,
    /// Where backups rest, the same for all nodes of a cluster: file:PATH [default: the folder store in DIR]
    #[arg(long, value_name = "URI")]
    store: Option<String>,
    /// File with this node's certificate chain, PEM: everybody who calls must do so with https://
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// File with its private key, PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// File with master keys for encrypted deployments, a line NAME KEY each, the current one first; `headwater key new`
    /// prints one
    #[arg(long, value_name = "FILE")]
    master_key_file: Option<PathBuf>,
    /// Settings file
    #[arg(long, value_name = "FILE", env = "HEADWATER_CONFIG")]
    config: Option<PathBuf>,
    /// How log lines look
    #[arg(long, value_enum, default_value = "text")]
    log_format: LogFormat,
}

impl Daemon {
    /// Carries it out: serves until told to stop.
    pub async fn run(self, global: Global) -> Outcome {
        logging::start(self.log_format, false);
        let text = |path: &PathBuf| path.display().to_string();
        let (dir, cluster_key) = (self.dir.as_ref().map(text), self.cluster_key.as_ref().map(text));
        let master_keys = self.master_key_file.as_ref().map(text);
        let (tls_cert, tls_key) = (self.tls_cert.as_ref().map(text), self.tls_key.as_ref().map(text));
        // Clients' certificates are named in the environment too, where a daemon without TLS has no use for them.
        let with_tls = tls_cert.is_some();
        let flags = [
            (settings_keys::NET_TLS_CERT_FILE, "--tls-cert", tls_cert),
            (settings_keys::NET_TLS_KEY_FILE, "--tls-key", tls_key),
            (
                settings_keys::NET_TLS_CA_FILE,
                "--ca-file",
                global.ca_file.as_ref().filter(|_| with_tls).map(text),
            ),
            (
                settings_keys::ENCRYPTION_MASTER_KEY_FILE,
                "--master-key-file",
                master_keys,
            ),
            (settings_keys::NODE_DIR, "--dir", dir),
            (settings_keys::NET_LISTEN, "--listen", self.listen),
            (settings_keys::NET_ADVERTISE, "--advertise", self.advertise),
            (settings_keys::CLUSTER_JOIN, "--join", self.join),
            (settings_keys::CLUSTER_KEY, "--cluster-key", cluster_key),
            (settings_keys::STORE_URI, "--store", self.store),
        ];
        let mut settings = settings(flags, self.config.as_deref())?;
        if self.init {
            settings.join.clear();
        }
        let keys = keys::of_node(&settings.dir)?;
        let listen = settings.listen;
        if !listen.ip().is_loopback() && settings.tls.is_none() {
            tracing::warn!(%listen, "listening beyond this machine without TLS: keys and data can be read on the way; set net.tls");
        }
        tracing::info!(admin_key = %keys::admin_file(&settings.dir).display(), "an administrator's key lies in a file");
        let node = start(NodeSettings { settings, keys }).await?;
        let leave = async {
            stop::wished().await;
            tracing::info!("handing over before ending");
            node.backup.leave().await;
        };
        let served = serve(&node, listen, leave).await;
        let stopped = end(node).await;
        served.and(stopped)
    }
}

/// Puts settings together from flags, environment and file.
pub fn settings<const N: usize>(
    flags: [(Key, &'static str, Option<String>); N],
    config: Option<&Path>,
) -> Outcome<Settings> {
    let read = |path: &Path| {
        let text = std::fs::read_to_string(path).map_err(|e| file_fault("read the settings file", path, &e))?;
        Ok::<_, Failure>((path.display().to_string(), text))
    };
    let file = config.map(read).transpose()?;
    let flags = flags
        .into_iter()
        .filter_map(|(key, flag, value)| Some((key, flag, value?)))
        .collect();
    let file = file.as_ref().map(|(name, text)| (name.as_str(), text.as_str()));
    Ok(Settings::resolve(&Sources {
        flags,
        env: &super::variable,
        file,
    })?)
}

/// Starts a node, or says why not.
pub async fn start(settings: NodeSettings) -> Outcome<Node> {
    let (dir, file) = (&settings.settings.dir, settings.settings.cluster_key.as_deref());
    let cluster_key = keys::of_cluster(dir, file, !settings.settings.join.is_empty())?;
    node::start_node(settings, &cluster_key)
        .await
        .map_err(|e| Failure::new(Exit::Failed, format!("the node cannot start: {e:#}")))
}

/// Brings a node to rest.
pub async fn end(node: Node) -> Outcome {
    node.stop()
        .await
        .map_err(|e| Failure::new(Exit::Failed, format!("the node did not come to rest: {e:#}")))
}

/// Serves a node until `stop`.
pub async fn serve(node: &Node, listen: SocketAddr, stop: impl Future<Output = ()>) -> Outcome {
    let tls = node.tls.clone();
    headwater_service::serve(node.backup.clone(), node.door.clone(), Listen { at: listen, tls }, stop)
        .await
        .map_err(|e| {
            let failure = Failure::new(Exit::Failed, format!("cannot serve at {listen}: {e}"));
            failure.help("another daemon may run already; choose another address with --listen")
        })
}
