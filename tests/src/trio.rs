//! Several daemons on one machine that make one cluster, with several agents, to be killed, frozen, cut off and replaced.

mod proof;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::gate::{Gate, Rules, Way};
use crate::headwater::Headwater;
use crate::mongod::{free_port, log_tail, until_up};
use crate::process::Process;
use crate::until;

/// A cluster. Daemons and agents are counted from 0; a daemon's place is not its node's number.
#[derive(Debug)]
pub struct Trio {
    headwater: Headwater,
    daemons: Vec<Place>,
    agents: Vec<Option<Process>>,
    rules: Option<Rules>,
}

#[derive(Debug)]
struct Place {
    folder: PathBuf,
    port: u16,
    gate: Option<Gate>,
    process: Option<Process>,
}

impl Place {
    fn listens_at(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Where other daemons call it.
    fn address(&self) -> String {
        let gate = self.gate.as_ref().map(Gate::address);
        gate.unwrap_or_else(|| self.listens_at())
    }
}

impl Trio {
    /// Starts so many daemons; answers when all of them vote.
    pub async fn start(headwater: Headwater, daemons: usize) -> Result<Trio> {
        Trio::start_among(headwater, daemons, None).await
    }

    /// The same, with gates between the daemons. Commands and agents call them directly.
    pub async fn start_gated(headwater: Headwater, daemons: usize) -> Result<Trio> {
        Trio::start_among(headwater, daemons, Some(Rules::default())).await
    }

    async fn start_among(headwater: Headwater, daemons: usize, rules: Option<Rules>) -> Result<Trio> {
        let mut places = Vec::new();
        for number in 0..daemons {
            let port = free_port()?;
            places.push(Place {
                folder: match number {
                    0 => headwater.node_folder(),
                    _ => headwater.folder().join(format!("node-{number}")),
                },
                port,
                gate: match &rules {
                    Some(rules) => Some(Gate::before(number, port, rules).await?),
                    None => None,
                },
                process: None,
            });
        }
        let mut trio = Trio {
            headwater,
            daemons: places,
            agents: Vec::new(),
            rules,
        };
        trio.ask_all_but(None);
        for number in 0..daemons {
            trio.start_daemon(number).await?;
        }
        trio.until_whole().await?;
        Ok(trio)
    }

    /// The command line, with the addresses of all daemons.
    pub fn commands(&self) -> &Headwater {
        &self.headwater
    }

    /// Starts a daemon, or starts it again, and waits until it listens. On an empty folder it joins as a new node.
    pub async fn start_daemon(&mut self, number: usize) -> Result<()> {
        let role = format!("daemon-{number}");
        let mut command = self.headwater.logged(&role)?;
        let place = self.daemons.get(number).context("no such daemon")?;
        let others: Vec<String> = self
            .daemons
            .iter()
            .filter(|other| other.port != place.port)
            .map(Place::address)
            .collect();
        command
            .arg("daemon")
            .arg("--dir")
            .arg(&place.folder)
            .args(["--listen", &place.listens_at(), "--advertise", &place.address()])
            .args(["--store", &self.headwater.shared_store()]);
        match number {
            0 => command.arg("--init"),
            _ => command
                .args(["--join", &others.join(",")])
                .arg("--cluster-key")
                .arg(self.daemons[0].folder.join("cluster.key")),
        };
        let log = self.headwater.log(&role);
        let place = self.daemons.get_mut(number).context("no such daemon")?;
        let mut process = Process::start(&format!("headwater {role}"), &mut command)?;
        let up = until_up(place.port, || match process.ended()? {
            None => Ok(()),
            Some(status) => bail!("it ended at its start with {status}:\n{}", log_tail(&log)),
        });
        up.await?;
        place.process = Some(process);
        Ok(())
    }

    /// Shuts a way of the calls that the daemon `caller` makes to the daemon `called`.
    pub async fn shut(&self, caller: usize, called: usize, way: Way) -> Result<()> {
        let rules = self.rules.as_ref().context("these daemons have no gates")?;
        rules.shut(self.node_at(caller).await?, called, way);
        Ok(())
    }

    /// Opens every way again.
    pub fn heal(&mut self) {
        if let Some(rules) = &self.rules {
            rules.open_all();
        }
        self.ask_all_but(None);
    }

    /// Commands go to all daemons but this one: one that is cut off tells what it knows, which is what was.
    pub fn ask_all_but(&mut self, daemon: Option<usize>) {
        let asked = self.daemons.iter().enumerate().filter(|(n, _)| Some(*n) != daemon);
        let services: Vec<String> = asked
            .map(|(_, place)| self.headwater.url(&place.listens_at()))
            .collect();
        self.headwater.talk_to(&services.join(","));
    }

    /// Starts one more agent, or an ended one again.
    pub fn start_agent(&mut self, number: usize) -> Result<()> {
        let key = self.headwater.node_folder().join("agent.key");
        self.start_agent_with_key(number, &key)
    }

    /// The same with a key of its own.
    pub fn start_agent_with_key(&mut self, number: usize, key: &Path) -> Result<()> {
        let mut command = self.headwater.logged(&format!("agent-{number}"))?;
        command.arg("agent").args(["--service", &self.headwater.service()]);
        command.arg("--key-file").arg(key);
        let id_file = self.headwater.folder().join(format!("agent-{number}.id"));
        command.arg("--id-file").arg(id_file);
        let process = Process::start("headwater agent", &mut command)?;
        if self.agents.len() <= number {
            self.agents.resize_with(number + 1, || None);
        }
        self.agents[number] = Some(process);
        Ok(())
    }

    /// A daemon, to stop, kill or freeze it.
    pub fn daemon(&mut self, number: usize) -> Result<&mut Process> {
        let place = self.daemons.get_mut(number).context("no such daemon")?;
        place.process.as_mut().context("the daemon was not started")
    }

    /// An agent, likewise.
    pub fn agent(&mut self, number: usize) -> Result<&mut Process> {
        let agent = self.agents.get_mut(number).and_then(Option::as_mut);
        agent.context("the agent was not started")
    }

    /// How many daemons there are.
    pub fn daemons(&self) -> usize {
        self.daemons.len()
    }

    /// How many agents there are.
    pub fn agents(&self) -> usize {
        self.agents.len()
    }

    /// Kills a daemon and throws its folder away.
    pub fn wipe(&mut self, number: usize) -> Result<()> {
        self.daemon(number)?.kill()?;
        Ok(std::fs::remove_dir_all(&self.daemons[number].folder)?)
    }

    /// Kills every daemon and every agent, and throws every folder of a daemon away. The store stays.
    pub fn lose_everything(&mut self) -> Result<()> {
        for agent in self.agents.iter_mut().flatten() {
            agent.kill()?;
        }
        for number in 0..self.daemons.len() {
            self.daemon(number)?.kill()?;
        }
        for place in &self.daemons {
            std::fs::remove_dir_all(&place.folder)?;
        }
        Ok(())
    }

    /// Recovers from the store into the folder of the first daemon, which is not running; answers what the command says.
    pub async fn recover(&self) -> Result<Value> {
        let place = self.daemons.first().context("no daemons")?;
        let (folder, store) = (place.folder.display().to_string(), self.headwater.shared_store());
        let listen = place.listens_at();
        let mut arguments = vec!["cluster", "recover", "--yes", "--dir", &folder, "--store", &store];
        arguments.extend(["--listen", &listen]);
        self.headwater.json(&arguments).await
    }

    /// The cluster, as whoever answers sees it.
    pub async fn view(&self) -> Result<Value> {
        self.headwater.json(&["cluster", "status"]).await
    }

    /// Waits until every daemon votes, answers, and somebody leads.
    pub async fn until_whole(&self) -> Result<()> {
        let wanted = self.daemons.len();
        let whole = move |view: &Value| {
            let nodes = view.get("nodes")?.as_array()?;
            let well = |node: &&Value| node["voter"] == true && node["answers"] == true;
            let all = nodes.len() == wanted && nodes.iter().filter(well).count() == wanted;
            (all && !view.get("leader")?.is_null()).then_some(())
        };
        let outcome = self.until("every daemon to vote", &["cluster", "status"], whole).await;
        outcome.with_context(|| self.logs())
    }

    /// The daemon that owns the only replica set.
    pub async fn owner(&self) -> Result<usize> {
        let view = self.view().await?;
        self.place_of(&view, |node| {
            node["replica_sets"].as_array().is_some_and(|sets| !sets.is_empty())
        })
    }

    /// Waits until the only replica set belongs to another daemon than this one.
    pub async fn until_moved_from(&self, daemon: usize) -> Result<()> {
        let address = self.daemons[daemon].address();
        let owned = |node: &Value| node["replica_sets"].as_array().is_some_and(|sets| !sets.is_empty());
        let moved = |view: &Value| {
            let owner = view["nodes"].as_array()?.iter().find(|node| owned(node))?;
            (owner["address"] != address.as_str()).then_some(())
        };
        self.until("another owner", &["cluster", "status"], moved).await
    }

    /// The daemon that leads.
    pub async fn leader(&self) -> Result<usize> {
        let view = self.view().await?;
        self.place_of(&view, |node| node["leader"] == true)
    }

    /// The number of the node at a daemon's place.
    pub async fn node_at(&self, number: usize) -> Result<u64> {
        let (view, address) = (self.view().await?, self.daemons[number].address());
        let nodes = view["nodes"].as_array().into_iter().flatten();
        let found = nodes.filter(|node| node["address"] == address.as_str());
        let id = found.filter_map(|node| node["id"].as_u64()).next_back();
        id.with_context(|| format!("no node at {address} in {view}"))
    }

    /// The agent that streams the only replica set, as its owner last heard.
    pub async fn streaming_agent(&self) -> Result<usize> {
        let status = self.headwater.json(&["status"]).await?;
        let id = status.pointer("/replica_sets/0/agent/id").and_then(Value::as_str);
        let id = id.with_context(|| format!("nobody streams: {status}"))?;
        for number in 0..self.agents.len() {
            let file = self.headwater.folder().join(format!("agent-{number}.id"));
            if std::fs::read_to_string(file)?.trim() == id {
                return Ok(number);
            }
        }
        bail!("agent {id} is none of ours")
    }

    fn place_of(&self, view: &Value, wanted: impl Fn(&Value) -> bool) -> Result<usize> {
        let nodes = view["nodes"].as_array().context("no nodes")?;
        let node = nodes.iter().find(|node| wanted(node));
        let address = node.with_context(|| format!("no such node in {view}"))?["address"].clone();
        let place = self
            .daemons
            .iter()
            .position(|place| address == place.address().as_str());
        place.with_context(|| format!("no daemon at {address}"))
    }

    /// Runs a JSON command until it succeeds and `wanted` finds in it what it waits for; failures while daemons are dead or
    /// frozen do not end the wait.
    pub async fn until<T>(&self, what: &str, arguments: &[&str], wanted: impl Fn(&Value) -> Option<T>) -> Result<T> {
        let ask = || async {
            Ok(self
                .headwater
                .json(arguments)
                .await
                .ok()
                .and_then(|answer| wanted(&answer)))
        };
        until(what, ask).await.with_context(|| self.logs())
    }

    /// The ends of all logs.
    pub fn logs(&self) -> String {
        let daemons = (0..self.daemons.len()).map(|number| format!("daemon-{number}"));
        let agents = (0..self.agents.len()).map(|number| format!("agent-{number}"));
        let logs = daemons
            .chain(agents)
            .map(|role| format!("--- {role}:\n{}", self.headwater.log_tail(&role)));
        logs.collect::<Vec<_>>().join("\n")
    }

    /// Every daemon and agent that should run does.
    pub fn require_running(&mut self) -> Result<()> {
        for number in 0..self.daemons.len() {
            let ended = self.daemon(number)?.ended()?;
            ensure!(
                ended.is_none(),
                "daemon {number} ended with {ended:?}:\n{}",
                self.logs()
            );
        }
        Ok(())
    }
}
