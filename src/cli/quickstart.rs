//! `headwater quickstart`: daemon and agent in one process, protecting one deployment, told as a short story.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use headwater_config::keys as settings_keys;
use headwater_model::DeploymentName;
use headwater_protocol::admin::{AddDeployment, DeploymentView, Phase, ReplicaSetStatus, Status};
use headwater_protocol::redact;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::cli::progress::Progress;
use crate::cli::{Global, agent, daemon};
use crate::client::Client;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::instants;
use crate::local::{self, Access, Local};
use crate::logging::{self, LogFormat};
use crate::node::{AgentSettings, NodeSettings};
use crate::output::{Format, bytes};
use crate::{keys, stop};

/// How often the backup is looked at while the story is told.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// How long after the start alerts are held back.
const QUIET: Duration = Duration::from_secs(5);
/// How long the service may take to be ready.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// Try it: daemon and agent in one process, protecting one deployment.
///
/// Keys are made by itself and kept in DIR; other commands of the same user find them without being told. Ctrl-C stops
/// it, and the same command goes on where it was.
#[derive(Debug, Args)]
#[command(before_help = "Examples:
  headwater quickstart --uri mongodb://localhost:27017
  headwater quickstart --uri mongodb://backup:PASSWORD@db1,db2/?replicaSet=rs0 --name shop --dir /data/backup\n")]
pub struct Quickstart {
    /// Connection string of the source; in the environment it is not seen by other users of the machine
    #[arg(long, env = "HEADWATER_SOURCE_URI", hide_env_values = true)]
    uri: String,
    /// What to call the deployment
    #[arg(long, default_value = "default")]
    name: DeploymentName,
    /// Folder for everything [default: ~/.local/share/headwater]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Address and port to listen on [default: 127.0.0.1:7480]
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
}

impl Quickstart {
    /// Carries it out: runs until told to stop.
    pub async fn run(self, global: Global) -> Outcome {
        logging::start(LogFormat::Text, true);
        let variable = &super::variable;
        let dir = self
            .dir
            .clone()
            .or_else(|| variable(&settings_keys::NODE_DIR.variable()).map(PathBuf::from));
        let dir = dir.unwrap_or_else(|| local::data_dir(variable));
        let flags = [
            (settings_keys::NODE_DIR, "--dir", Some(dir.display().to_string())),
            (settings_keys::NET_LISTEN, "--listen", self.listen.clone()),
        ];
        let settings = daemon::settings(flags, None)?;
        if settings.tls.is_some() {
            let failure = Failure::new(
                Exit::Usage,
                "a quickstart talks to itself without TLS, but net.tls is set",
            );
            return Err(failure.help("run `headwater daemon` and `headwater agent` for TLS, or take net.tls away"));
        }
        let keys = keys::of_node(&dir)?;
        let listen = settings.listen;
        let url = url_of(listen);
        let client = Client::new(Access {
            services: vec![url.clone()],
            key: keys.admin.clone(),
            ca_pem: None,
        })?;
        let agent_settings = AgentSettings {
            services: vec![url.clone()],
            key: keys.agent.clone(),
            ca_pem: None,
            id: keys::agent_id(&dir.join("agent.id"))?,
        };
        let node = daemon::start(NodeSettings { settings, keys }).await?;

        let (stop, stopped) = watch::channel(false);
        let wish = async {
            stop::wished().await;
            let _ = stop.send(true);
        };
        let serving = daemon::serve(&node, listen, told(stopped.clone()));
        let story = async {
            ready(&client).await?;
            leave_pointer(&url, &dir)?;
            self.tell(&client, &url, &dir, global.output).await
        };
        let agent = async {
            // Before the service listens, an agent could only complain.
            tokio::select! {
                outcome = ready(&client) => outcome?,
                () = told(stopped.clone()) => return Ok(()),
            }
            agent::run(agent_settings, stopped.clone()).await
        };
        let ended = together(serving, story, agent, wish).await;
        let _ = stop.send(true);
        let rested = daemon::end(node).await;
        ended.and(rested)
    }

    async fn tell(&self, client: &Client, url: &str, dir: &Path, format: Format) -> Outcome {
        let began = Instant::now();
        let mut progress = Progress::start();
        progress.say(&format!(
            "Headwater {}: daemon and agent in one process.",
            env!("CARGO_PKG_VERSION")
        ));
        progress.say(&format!(
            "  service  {url}  (status page; key in {})",
            keys::admin_file(dir).display()
        ));
        progress.say(&format!("  data     {}", dir.display()));
        let deployment = self.protect(client).await?;
        progress.say(&format!(
            "  source   {} as deployment {}",
            redact::uri(&self.uri),
            deployment.name
        ));
        let first = self.until_restorable(client, &mut progress).await;
        progress.end();
        let set = first?;
        let Some(range) = set.restorable else { return Ok(()) };
        let took = began.elapsed().as_secs();
        eprintln!(
            "  first restorable point {}, after {took} s",
            instants::position(range.to)
        );
        eprintln!("\nnext, in another terminal:\n{}", next_commands(&self.name));
        eprintln!("\nCtrl-C stops; the same command goes on where it was.");
        match format {
            Format::Json => format.print(&set, |_| String::new()),
            Format::Table => Ok(()),
        }
    }

    /// Protects the source, or goes on with what an earlier run protected.
    async fn protect(&self, client: &Client) -> Outcome<DeploymentView> {
        let path = format!("/api/v1/deployments/{}", self.name);
        match client.get::<DeploymentView>(&path).await {
            Ok(known) if redact::hosts(&known.uri) == redact::hosts(&self.uri) => Ok(known),
            Ok(known) => {
                let message = format!(
                    "deployment {} exists already and protects {}",
                    self.name,
                    redact::uri(&known.uri)
                );
                Err(Failure::new(Exit::Conflict, message).help("choose another --name, or another --dir"))
            }
            Err(failure) if failure.exit == Exit::NotFound => {
                let request = AddDeployment {
                    name: self.name.clone(),
                    uri: self.uri.clone(),
                    snapshot_interval_seconds: None,
                    encrypt: None,
                    stop_balancer: false,
                };
                client.post("/api/v1/deployments", &request).await
            }
            Err(failure) => Err(failure),
        }
    }

    async fn until_restorable(&self, client: &Client, progress: &mut Progress) -> Outcome<ReplicaSetStatus> {
        let mut story = Story::default();
        let began = Instant::now();
        loop {
            let status: Status = client.get("/api/v1/status").await?;
            for set in status
                .replica_sets
                .iter()
                .filter(|set| *set.name.deployment() == self.name)
            {
                story.news(set).iter().for_each(|line| progress.say(line));
                let (done, total) = set.scan.map_or((0, 0), |scan| (scan.bytes, scan.bytes_estimated));
                progress.show(set.phase.text(), done, total);
                if set.restorable.is_some() && set.phase == Phase::Complete {
                    return Ok(set.clone());
                }
            }
            // An alert that passes by itself while everything starts would only frighten.
            let alerts = if began.elapsed() < QUIET {
                Vec::new()
            } else {
                status.alerts
            };
            story.alerts(alerts).iter().for_each(|line| progress.say(line));
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
}

/// Runs the parts until one of them fails, or until the user wishes to stop.
async fn together(
    serving: impl Future<Output = Outcome>,
    story: impl Future<Output = Outcome>,
    agent: impl Future<Output = Outcome>,
    wish: impl Future<Output = ()>,
) -> Outcome {
    tokio::pin!(serving, story, agent, wish);
    let mut told = false;
    loop {
        tokio::select! {
            biased;
            () = &mut wish => break,
            outcome = &mut serving => return outcome,
            outcome = &mut agent => return outcome,
            outcome = &mut story, if !told => {
                outcome?;
                told = true;
            }
        }
    }
    eprintln!("stopping");
    // Both end by themselves once the wish is known to them.
    let (served, agent) = futures::join!(serving, agent);
    served.and(agent)
}

async fn told(mut stop: watch::Receiver<bool>) {
    // A sender that is gone is a wish to stop, too.
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn ready(client: &Client) -> Outcome {
    let asking = async {
        while !client.is_ready().await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let late = |_| {
        Failure::new(
            Exit::Failed,
            format!("the service was not ready within {} s", READY_WITHIN.as_secs()),
        )
    };
    tokio::time::timeout(READY_WITHIN, asking).await.map_err(late)
}

fn leave_pointer(url: &str, dir: &Path) -> Outcome {
    let Some(path) = local::pointer_path(&super::variable) else {
        return Ok(());
    };
    let absolute = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    local::leave(
        &path,
        &Local {
            url: url.to_owned(),
            key_file: keys::admin_file(&absolute),
        },
    )
}

/// Where a service that listens at an address is reached from this machine.
fn url_of(listen: std::net::SocketAddr) -> String {
    let mut at = listen;
    if at.ip().is_unspecified() {
        at.set_ip(match at {
            std::net::SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            std::net::SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    format!("http://{at}")
}

fn next_commands(name: &DeploymentName) -> String {
    format!("  headwater status\n  headwater timeline {name}\n  headwater restore {name} --at latest --to-dir ./dump")
}

/// What was already told.
#[derive(Default)]
struct Story {
    phase: Option<Phase>,
    problem: Option<String>,
    alerts: Vec<String>,
}

impl Story {
    /// Alerts that were not there the last time.
    fn alerts(&mut self, now: Vec<String>) -> Vec<String> {
        let lines = now
            .iter()
            .filter(|alert| !self.alerts.contains(alert))
            .map(|alert| format!("  alert: {alert}"));
        let lines = lines.collect();
        self.alerts = now;
        lines
    }

    /// What is new: a phase entered, a problem met or over.
    fn news(&mut self, set: &ReplicaSetStatus) -> Vec<String> {
        let mut lines = Vec::new();
        if self.phase != Some(set.phase) {
            let scanned = set
                .scan
                .filter(|scan| set.phase > Phase::Transferring && scan.bytes > 0);
            let with = scanned.map_or_else(String::new, |scan| {
                format!(" ({} documents, {} copied)", scan.documents, bytes(scan.bytes))
            });
            lines.push(format!("  {}  {}{with}", set.name, set.phase.text()));
            self.phase = Some(set.phase);
        }
        if self.problem != set.problem {
            lines.push(match &set.problem {
                Some(problem) => format!("  {}  problem: {problem}", set.name),
                None => format!("  {}  the problem is over", set.name),
            });
            self.problem.clone_from(&set.problem);
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::status::samples;

    #[test]
    fn the_story_tells_each_thing_once() {
        let mut story = Story::default();
        let mut set = ReplicaSetStatus {
            phase: Phase::Starting,
            ..samples::set()
        };
        assert_eq!(story.news(&set), ["  shop/rs0  starting"]);
        assert!(story.news(&set).is_empty());
        set.problem = Some("the source cannot be reached".into());
        assert_eq!(story.news(&set), ["  shop/rs0  problem: the source cannot be reached"]);
        assert!(story.news(&set).is_empty());
        set.problem = None;
        set.phase = Phase::Transferring;
        assert_eq!(
            story.news(&set),
            ["  shop/rs0  transferring", "  shop/rs0  the problem is over"]
        );
    }

    #[test]
    fn a_service_that_listens_everywhere_is_reached_locally() {
        assert_eq!(url_of("0.0.0.0:1".parse().unwrap()), "http://127.0.0.1:1");
        assert_eq!(url_of("[::]:1".parse().unwrap()), "http://[::1]:1");
        assert_eq!(url_of("10.0.0.1:1".parse().unwrap()), "http://10.0.0.1:1");
    }

    #[actix_rt::test]
    async fn a_part_that_fails_ends_the_whole_and_a_wish_ends_it_well() {
        use std::future::{pending, ready};
        let fault = || Failure::new(Exit::Failed, "x");
        let failed = together(pending(), pending(), ready(Err(fault())), pending()).await;
        assert_eq!(failed, Err(fault()));
        let failed = together(pending(), ready(Err(fault())), pending(), pending()).await;
        assert_eq!(failed, Err(fault()));
        let stopped = together(ready(Ok(())), ready(Ok(())), ready(Ok(())), ready(())).await;
        assert_eq!(stopped, Ok(()));
    }
}
