//! `headwater cluster recover`: every daemon is lost; the store alone suffices.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use headwater_actors::recovery::plan::{DeploymentReport, Report, SetReport};
use headwater_config::keys as settings_keys;
use serde::Serialize;

use crate::cli::{Global, daemon};
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::output::{Format, table};
use crate::recover::{self, Recovery};
use crate::{confirm, keys, logging};

/// Longer than the ten seconds between the entries of a source to which nobody writes.
const WATCH: Duration = Duration::from_secs(12);

/// Begin a new cluster with what a store says, after every daemon was lost.
///
/// Only when no node of the former cluster can be started any more: as long as one majority of folders is there, start those.
/// Exit codes: 0 everything came back, 10 it came back without what is listed as lost, 4 nothing is in that store, 5 the former
/// cluster lives or DIR is in use, 2 a confirmation was needed.
#[derive(Debug, Args)]
#[command(before_help = "Examples:
  headwater cluster recover --store s3://backups/prod --dir /var/lib/headwater --dry-run
  headwater cluster recover --store s3://backups/prod --dir /var/lib/headwater --listen 10.0.0.1:7480
  headwater cluster recover --config /etc/headwater.yaml --yes --output json\n")]
pub struct Recover {
    /// Where the backups rest: the same as for the daemons that are lost
    #[arg(long, value_name = "URI")]
    store: Option<String>,
    /// An empty folder, for the first node of the new cluster
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Address and port at which that node will listen
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// Settings file, where stores of oplog and sync slices are named
    #[arg(long, value_name = "FILE", env = "HEADWATER_CONFIG")]
    config: Option<PathBuf>,
    /// File with the master key, if deployments are encrypted
    #[arg(long, value_name = "FILE")]
    master_key_file: Option<PathBuf>,
    /// Only show what would come back, and what is missing or damaged
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Go on although somebody writes to the store; whoever that is can write no more
    #[arg(long)]
    force: bool,
}

#[derive(Serialize)]
struct Told<'a> {
    /// Whether it was done, or only planned.
    done: bool,
    cluster: Option<&'a str>,
    keys: Option<KeyFiles>,
    #[serde(flatten)]
    report: &'a Report,
}

#[derive(Serialize)]
struct KeyFiles {
    admin: PathBuf,
    agent: PathBuf,
    cluster: PathBuf,
}

impl Recover {
    /// Carries it out.
    pub async fn run(self, global: Global) -> Outcome {
        logging::start(logging::LogFormat::Text, true);
        let text = |path: &PathBuf| path.display().to_string();
        let flags = [
            (settings_keys::NODE_DIR, "--dir", self.dir.as_ref().map(text)),
            (settings_keys::NET_LISTEN, "--listen", self.listen.clone()),
            (settings_keys::STORE_URI, "--store", self.store.clone()),
            (
                settings_keys::ENCRYPTION_MASTER_KEY_FILE,
                "--master-key-file",
                self.master_key_file.as_ref().map(text),
            ),
        ];
        let settings = daemon::settings(flags, self.config.as_deref())?;
        if !self.dry_run {
            recover::require_fresh(&settings.dir)?;
        }
        let recovery = Recovery::look(&settings).await?;
        let plan = recovery.plan().map_err(|nothing| {
            let failure = Failure::new(Exit::NotFound, nothing.to_string());
            failure.help("give the same --store, and the same settings file, as the lost daemons had")
        })?;
        let format = global.output;
        if self.dry_run {
            tell(format, &plan.report, None)?;
            return whole(&plan.report);
        }
        if !self.yes {
            eprintln!("{}\n", shown(&plan.report));
        }
        let former = plan.report.former_cluster.as_deref().unwrap_or("recover");
        let about = format!(
            "A new cluster takes over {}. Every daemon of the former one is shut out for good.",
            settings.store
        );
        confirm::typed(&about, former, self.yes)?;
        if !self.force
            && let Some(object) = recovery.sign_of_life(WATCH).await?
        {
            let message = format!("the former cluster lives: it has just written {object}; nothing was done");
            let failure = Failure::new(Exit::Conflict, message);
            return Err(failure.help("use that cluster, or end its daemons first; --force shuts them out"));
        }
        let begun = recovery.begin(&settings, &plan).await?;
        keys::of_node(&settings.dir)?;
        keys::of_cluster(&settings.dir, settings.cluster_key.as_deref(), false)?;
        tell(format, &plan.report, Some((&begun.cluster, settings.dir.as_path())))?;
        if format == Format::Table {
            let scheme = if settings.tls.is_some() { "https" } else { "http" };
            let listen = settings.listen;
            let store = settings.store.to_string();
            eprintln!(
                "{}",
                next(&settings.dir, scheme, &listen.to_string(), &store, &plan.report)
            );
        }
        whole(&plan.report)
    }
}

fn tell(format: Format, report: &Report, done: Option<(&String, &Path)>) -> Outcome {
    let told = Told {
        done: done.is_some(),
        cluster: done.map(|(cluster, _)| cluster.as_str()),
        keys: done.map(|(_, dir)| KeyFiles {
            admin: keys::admin_file(dir),
            agent: keys::agent_file(dir),
            cluster: keys::cluster_file(dir),
        }),
        report,
    };
    format.print(&told, |told| shown(told.report))
}

/// Whether nothing is lost, as an exit code.
fn whole(report: &Report) -> Outcome {
    match report.losses.len() {
        0 => Ok(()),
        count => Err(Failure::new(
            Exit::Damaged,
            format!("not everything comes back: {count} losses, listed above"),
        )),
    }
}

fn shown(report: &Report) -> String {
    let unknown = "nobody";
    let mut out = format!(
        "store of cluster {}, known from {}\n\n",
        report.former_cluster.as_deref().unwrap_or(unknown),
        report.catalog.as_deref().unwrap_or("images and oplog alone")
    );
    let rows = report.deployments.iter().map(deployment_row).collect();
    out += &table(&["deployment", "source", "streams"], rows, "No deployment comes back.");
    out += "\n\n";
    let rows = report.replica_sets.iter().map(set_row).collect();
    let header = [
        "replica set",
        "history",
        "state",
        "head at",
        "oplog from",
        "to",
        "snapshots",
    ];
    out += &table(&header, rows, "No replica set comes back.");
    if !report.losses.is_empty() {
        out += "\n\nlost, missing or damaged:";
        for loss in &report.losses {
            out += &format!("\n  {loss}");
        }
    }
    out
}

fn deployment_row(deployment: &DeploymentReport) -> Vec<String> {
    let streams = match (deployment.active, deployment.needs_source) {
        (_, true) => "when its connection string is given again",
        (true, false) => "yes",
        (false, false) => "stopped",
    };
    vec![
        deployment.name.to_string(),
        deployment.source.clone(),
        streams.to_owned(),
    ]
}

fn set_row(set: &SetReport) -> Vec<String> {
    let dash = || "-".to_owned();
    let (from, to) = set.oplog.clone().unwrap_or_else(|| (dash(), dash()));
    let state = match set.copied_anew {
        true => "copied anew",
        false => set.phase.text(),
    };
    vec![
        set.set.to_string(),
        set.incarnation.to_string(),
        state.to_owned(),
        set.head.clone().unwrap_or_else(dash),
        from,
        to,
        set.snapshots.len().to_string(),
    ]
}

fn next(dir: &Path, scheme: &str, listen: &str, store: &str, report: &Report) -> String {
    let mut out = format!(
        "\nThe new cluster is begun. next:\n  headwater daemon --dir {dir} --listen {listen} --store {store}\n  \
         headwater agent --service {scheme}://{listen} --key-file {agent}\n\
         Keys are new: {admin} for you, {agent} for agents, {cluster} for the daemons that join.",
        dir = dir.display(),
        agent = keys::agent_file(dir).display(),
        admin = keys::admin_file(dir).display(),
        cluster = keys::cluster_file(dir).display(),
    );
    for deployment in report.deployments.iter().filter(|deployment| deployment.needs_source) {
        out += &format!(
            "\nThe store keeps no passwords: HEADWATER_SOURCE_URI=mongodb://… headwater deployment add {}",
            deployment.name
        );
    }
    out
}
