//! The `headwater` binary as a user runs it: daemon, agent, quickstart, and its command line.

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::certificates::Certificate;
use crate::mongod::{free_port, log_tail, until_up};
use crate::process::Process;
use crate::until;

/// One node, its agent, and commands given to it. Processes are killed when dropped.
#[derive(Debug)]
pub struct Headwater {
    binary: PathBuf,
    folder: PathBuf,
    port: u16,
    daemon: Option<Process>,
    agent: Option<Process>,
    /// Addresses of other daemons than its own.
    services: Option<String>,
    environment: Vec<(String, String)>,
    store: Option<String>,
    /// By what commands and agents believe daemons; without it they speak plainly.
    ca_file: Option<PathBuf>,
    steps_back: bool,
}

/// How a command ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// Exit code; -1 when a signal ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Headwater {
    /// Finds the binary: `HEADWATER_BIN`, else the one this workspace built with the running test's profile.
    pub fn find(folder: PathBuf) -> Result<Headwater> {
        let binary = match std::env::var_os("HEADWATER_BIN") {
            Some(path) => PathBuf::from(path),
            None => built_beside(&std::env::current_exe()?).context("cannot tell where the build puts its binaries")?,
        };
        ensure!(
            binary.is_file(),
            "{} is missing: run `cargo build -p headwater` or name the binary in HEADWATER_BIN",
            binary.display()
        );
        Ok(Headwater {
            binary,
            folder,
            port: free_port()?,
            daemon: None,
            agent: None,
            services: None,
            environment: Vec::new(),
            store: None,
            ca_file: None,
            steps_back: false,
        })
    }

    /// With a variable in the environment of commands, and of daemon and agent from their next start on.
    pub fn with_env(mut self, name: &str, value: &str) -> Headwater {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With TLS: daemons prove to be who they are by `certificate`, and everybody believes the authorities of `ca_file`.
    pub fn with_tls(mut self, ca_file: &Path, certificate: &Certificate) -> Headwater {
        for (name, file) in [
            ("HEADWATER_NET_TLS_CERT_FILE", certificate.cert.as_path()),
            ("HEADWATER_NET_TLS_KEY_FILE", &certificate.key),
            ("HEADWATER_NET_TLS_CA_FILE", ca_file),
            ("HEADWATER_CA_FILE", ca_file),
        ] {
            self = self.with_env(name, &file.display().to_string());
        }
        self.ca_file = Some(ca_file.to_owned());
        self
    }

    /// Its programs get the processors only when nobody else wants them (`nice`): what is measured beside them is not
    /// what they take from it on a small machine.
    pub fn stepping_back(mut self) -> Headwater {
        self.steps_back = true;
        self
    }

    /// Where a daemon that listens at an address is reached.
    pub fn url(&self, address: &str) -> String {
        let scheme = if self.ca_file.is_some() { "https" } else { "http" };
        format!("{scheme}://{address}")
    }

    /// With its store elsewhere than in its own folder.
    pub fn with_store(mut self, uri: &str) -> Headwater {
        self.store = Some(uri.to_owned());
        self
    }

    /// Where daemons that share a store find it.
    pub fn shared_store(&self) -> String {
        let own = || format!("file:{}", self.folder.join("store").display());
        self.store.clone().unwrap_or_else(own)
    }

    /// The folder of the node: its keys, its Raft log, its cache and, by default, its store.
    pub fn node_folder(&self) -> PathBuf {
        self.folder.join("node")
    }

    /// Address of the service.
    pub fn service(&self) -> String {
        let own = || self.url(&format!("127.0.0.1:{}", self.port));
        self.services.clone().unwrap_or_else(own)
    }

    /// From now on commands go to these addresses, with commas between.
    pub fn talk_to(&mut self, services: &str) {
        self.services = Some(services.to_owned());
    }

    /// Where everything of this lies.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The administrator's key; there once the daemon has started.
    pub fn admin_key(&self) -> Result<String> {
        let file = self.node_folder().join("admin.key");
        let key = std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        Ok(key.trim().to_owned())
    }

    /// Starts the daemon, or starts it again, and waits until it listens.
    pub async fn start_daemon(&mut self) -> Result<()> {
        let folder = self.node_folder();
        let listen = format!("127.0.0.1:{}", self.port);
        let mut command = self.logged("daemon")?;
        command
            .arg("daemon")
            .arg("--dir")
            .arg(folder)
            .args(["--listen", &listen]);
        if let Some(store) = &self.store {
            command.args(["--store", store]);
        }
        self.daemon = Some(Process::start("headwater daemon", &mut command)?);
        self.wait_until_it_listens("daemon").await
    }

    /// Starts the agent, or starts it again. The daemon must have made its keys.
    pub async fn start_agent(&mut self) -> Result<()> {
        self.start_agent_at(&self.service()).await
    }

    /// The same with another address for the service: that of something in between.
    pub async fn start_agent_at(&mut self, service: &str) -> Result<()> {
        let key = self.node_folder().join("agent.key");
        self.start_agent_as(service, &key)
    }

    /// The same with a key of its own.
    pub fn start_agent_with_key(&mut self, key: &Path) -> Result<()> {
        self.start_agent_as(&self.service(), key)
    }

    fn start_agent_as(&mut self, service: &str, key: &Path) -> Result<()> {
        let mut command = self.logged("agent")?;
        command.arg("agent").args(["--service", service]);
        command.arg("--key-file").arg(key);
        command.arg("--id-file").arg(self.folder.join("agent.id"));
        self.agent = Some(Process::start("headwater agent", &mut command)?);
        Ok(())
    }

    /// Starts daemon and agent in one process that protects `uri` as the deployment `name`; it takes the daemon's place.
    pub async fn start_quickstart(&mut self, uri: &str, name: &str) -> Result<()> {
        let folder = self.node_folder();
        let listen = format!("127.0.0.1:{}", self.port);
        let mut command = self.logged("daemon")?;
        command
            .arg("quickstart")
            .args(["--uri", uri, "--name", name, "--listen", &listen])
            .arg("--dir")
            .arg(folder);
        self.daemon = Some(Process::start("headwater quickstart", &mut command)?);
        self.wait_until_it_listens("daemon").await
    }

    /// The daemon or quickstart, to stop, kill or freeze it. Start it again with the call that started it.
    pub fn daemon(&mut self) -> Result<&mut Process> {
        self.daemon.as_mut().context("the daemon was not started")
    }

    /// The agent, likewise.
    pub fn agent(&mut self) -> Result<&mut Process> {
        self.agent.as_mut().context("the agent was not started")
    }

    /// What `daemon` or `agent` last logged.
    pub fn log_tail(&self, role: &str) -> String {
        log_tail(&self.log(role))
    }

    /// The log of `daemon` or `agent`, over all its starts.
    pub fn log(&self, role: &str) -> PathBuf {
        self.folder.join(format!("{role}.log"))
    }

    /// A command that talks to this node with the administrator's key.
    pub fn command<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Command {
        let mut command = self.program();
        command
            .args(arguments)
            .env("HEADWATER_SERVICE", self.service())
            .env("HEADWATER_KEY_FILE", self.node_folder().join("admin.key"))
            .envs(self.environment.iter().cloned())
            .stdin(Stdio::null());
        if let Some(ca) = &self.ca_file {
            command.env("HEADWATER_CA_FILE", ca);
        }
        command
    }

    /// Runs a command to its end, whatever that is.
    pub async fn run<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Result<Ended> {
        Headwater::end(self.command(arguments)).await
    }

    /// The same for a command that was changed.
    pub async fn end(command: Command) -> Result<Ended> {
        let output = tokio::process::Command::from(command)
            .kill_on_drop(true)
            .output()
            .await?;
        Ok(Ended {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Runs a command with `--output json`, requires success, and answers what it printed.
    pub async fn json(&self, arguments: &[&str]) -> Result<Value> {
        let ended = self.run(arguments.iter().copied().chain(["--output", "json"])).await?;
        let shown = arguments.join(" ");
        ensure!(
            ended.code == 0,
            "`headwater {shown}` ended with {}:\n{}\n{}\nthe daemon's log ends so:\n{}",
            ended.code,
            ended.stdout,
            ended.stderr,
            self.log_tail("daemon")
        );
        serde_json::from_str(&ended.stdout)
            .with_context(|| format!("`headwater {shown}` printed no JSON: {}", ended.stdout))
    }

    /// Runs a JSON command again and again until `wanted` finds in it what it waits for.
    pub async fn until<T>(&self, what: &str, arguments: &[&str], wanted: impl Fn(&Value) -> Option<T>) -> Result<T> {
        let outcome = until(what, || async { Ok(wanted(&self.json(arguments).await?)) }).await;
        outcome.with_context(|| format!("the daemon's log ends so:\n{}", self.log_tail("daemon")))
    }

    fn program(&self) -> Command {
        if !self.steps_back {
            return Command::new(&self.binary);
        }
        let mut command = Command::new("nice");
        command.args(["-n", "19"]).arg(&self.binary);
        command
    }

    pub(crate) fn logged(&self, role: &str) -> Result<Command> {
        let log = File::options().create(true).append(true).open(self.log(role))?;
        let mut command = self.program();
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        command
            .env("HOME", &self.folder)
            .env("XDG_DATA_HOME", self.folder.join("data"))
            .envs(self.environment.iter().cloned());
        Ok(command)
    }

    async fn wait_until_it_listens(&mut self, role: &str) -> Result<()> {
        let log = self.log(role);
        let port = self.port;
        let process = self.daemon()?;
        until_up(port, || match process.ended()? {
            None => Ok(()),
            Some(status) => bail!("it ended at its start with {status}:\n{}", log_tail(&log)),
        })
        .await
    }
}

/// Test programs lie in `target/PROFILE/deps`, binaries in `target/PROFILE`.
fn built_beside(test: &Path) -> Option<PathBuf> {
    let folder = test.parent()?;
    let profile = if folder.ends_with("deps") {
        folder.parent()?
    } else {
        folder
    };
    Some(profile.join("headwater"))
}
