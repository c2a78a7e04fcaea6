//! One mongod process on a free port of the loopback interface.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use bson::doc;
use mongodb::Client;
use rand::Rng;
use tokio::net::TcpStream;
use xtask::mongod as mongods;

use crate::process::Process;
use crate::until;

/// How a mongod is to be started.
#[derive(Clone, Debug)]
pub struct MongodSpec {
    /// One of [`mongods::RELEASES`]; installed on first use.
    pub version: String,
    /// The set it belongs to; `None` for a standalone.
    pub replica_set: Option<String>,
    /// Size of its oplog.
    pub oplog_mib: u64,
    /// Its cache; a transaction must fit a part of it.
    pub cache_mib: u32,
    /// `--setParameter`s.
    pub parameters: Vec<(String, String)>,
    /// Further arguments.
    pub arguments: Vec<String>,
}

/// Idle files are closed soon: with ten thousand collections there are more of them than many machines let a process open.
const CLOSES_FILES: &str = "file_manager=(close_idle_time=10,close_scan_interval=2,close_handle_minimum=2000)";

impl MongodSpec {
    /// A standalone of this version, with test commands and a small cache.
    pub fn new(version: &str) -> Self {
        let parameters = [
            ("enableTestCommands", "1"),
            ("diagnosticDataCollectionEnabled", "false"),
        ];
        MongodSpec {
            version: version.to_owned(),
            replica_set: None,
            oplog_mib: 990,
            cache_mib: 256,
            parameters: parameters
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .to_vec(),
            arguments: Vec::new(),
        }
    }

    /// With one more `--setParameter`.
    pub fn parameter(mut self, name: &str, value: impl ToString) -> Self {
        self.parameters.push((name.to_owned(), value.to_string()));
        self
    }
}

/// A mongod with its folder and port; killed when dropped.
#[derive(Debug)]
pub struct Mongod {
    spec: MongodSpec,
    folder: PathBuf,
    port: u16,
    process: Option<Process>,
    client: Client,
}

impl Mongod {
    /// Starts it on the data in `folder`, or on none when that is empty, and waits until it answers.
    pub async fn start(spec: MongodSpec, folder: PathBuf) -> Result<Mongod> {
        let port = free_port()?;
        let client = Client::with_uri_str(uri(port)).await?;
        let mut mongod = Mongod {
            spec,
            folder,
            port,
            process: None,
            client,
        };
        mongod.run().await?;
        Ok(mongod)
    }

    async fn run(&mut self) -> Result<()> {
        let version = self.spec.version.clone();
        let installed = tokio::task::block_in_place(|| mongods::install(&version))?;
        let data = self.data();
        fs::create_dir_all(&data)?;
        let mut command: Command = installed.command();
        command
            .args(["--bind_ip", "127.0.0.1", "--nounixsocket", "--logappend"])
            .args([
                "--wiredTigerCacheSizeGB",
                &(f64::from(self.spec.cache_mib) / 1024.0).to_string(),
            ])
            .args(["--wiredTigerEngineConfigString", CLOSES_FILES])
            .args(["--port", &self.port.to_string()])
            .arg("--dbpath")
            .arg(&data)
            .arg("--logpath")
            .arg(self.log());
        if let Some(set) = &self.spec.replica_set {
            command.args(["--replSet", set, "--oplogSize", &self.spec.oplog_mib.to_string()]);
        }
        for (name, value) in &self.spec.parameters {
            command.args(["--setParameter", &format!("{name}={value}")]);
        }
        command
            .args(&self.spec.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        self.process = Some(Process::start("mongod", &mut command)?);
        self.wait_until_it_answers().await
    }

    async fn wait_until_it_answers(&mut self) -> Result<()> {
        let log = self.log();
        until_up(self.port, || match self.process.as_mut().map(Process::ended) {
            Some(Ok(None)) => Ok(()),
            _ => bail!("mongod ended at its start:\n{}", log_tail(&log)),
        })
        .await?;
        self.client
            .database("admin")
            .run_command(doc! { "ping": 1 })
            .await
            .context("mongod does not answer")?;
        Ok(())
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Where it listens, on this machine.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Connection string to this very process, whatever its role.
    pub fn uri(&self) -> String {
        uri(self.port)
    }

    /// A client of this very process; survives restarts.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// How it was started.
    pub fn spec(&self) -> &MongodSpec {
        &self.spec
    }

    /// Changes how it will be started next time.
    pub fn spec_mut(&mut self) -> &mut MongodSpec {
        &mut self.spec
    }

    /// Its data folder.
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Its log file.
    pub fn log(&self) -> PathBuf {
        self.folder.join("mongod.log")
    }

    /// Whether the process runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.process.as_mut().map(Process::ended), Some(Ok(None)))
    }

    /// Ends it in good order.
    pub async fn stop(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            process.stop().await?;
        }
        Ok(())
    }

    /// Ends it as a power cut would.
    pub fn kill(&mut self) -> Result<()> {
        self.process.take().map_or(Ok(()), |mut process| process.kill())
    }

    /// The process, to freeze and resume it; `None` while it does not run.
    pub fn process(&self) -> Option<&Process> {
        self.process.as_ref()
    }

    /// Starts it again on the same port with the same data, after [`Mongod::stop`] or [`Mongod::kill`].
    pub async fn start_again(&mut self) -> Result<()> {
        ensure!(!self.is_running(), "mongod runs already");
        self.run().await
    }
}

fn uri(port: u16) -> String {
    format!("mongodb://127.0.0.1:{port}/?directConnection=true&serverSelectionTimeoutMS=60000")
}

/// A port nobody listens on now, below the range the kernel gives to outgoing connections.
pub(crate) fn free_port() -> Result<u16> {
    let mut rng = rand::thread_rng();
    for _ in 0..1000 {
        let port = rng.gen_range(17_000..32_000);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port on the loopback interface")
}

/// Waits until something listens on `port`; `check` ends the wait with an error when nothing ever will.
pub(crate) async fn until_up(port: u16, mut check: impl FnMut() -> Result<()>) -> Result<()> {
    until(&format!("port {port} to answer"), || {
        let alive = check();
        async move {
            alive?;
            Ok(TcpStream::connect(("127.0.0.1", port)).await.ok())
        }
    })
    .await
    .map(drop)
}

/// The last lines of a log.
pub(crate) fn log_tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(25)..].join("\n")
}
