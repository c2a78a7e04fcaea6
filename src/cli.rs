//! The command line: what may be typed, and which file carries it out.

mod access;
mod agent;
mod alerts;
mod archive;
mod check;
mod cluster;
mod daemon;
mod deployment;
mod explain;
mod groom;
mod key;
mod named;
mod progress;
mod proof;
mod quickstart;
mod recover;
mod restore;
mod restores;
mod schedule;
mod snapshot;
mod status;
mod store;
#[cfg(test)]
mod tests;
mod timeline;

use std::future::Future;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::client::Client;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::local;
use crate::output::Format;

const EXAMPLES: &str = "\
Examples:
  headwater quickstart --uri mongodb://localhost:27017     everything in one process
  headwater status                                         how every backup stands
  headwater timeline shop                                  what can be restored
  headwater restore shop --at -15m --to-dir ./dump         the data of a quarter of an hour ago
";

const EXITS: &str = "\
Exit codes: 0 ok, 1 failed, 2 usage, 4 not found, 5 conflict, 6 key refused, 7 unreachable,
8 not restorable, 9 verification failed, 10 damaged, 75 retry later, 130 interrupted.
`headwater explain exit N` tells more.";

/// Continuous backup for MongoDB.
#[derive(Debug, Parser)]
#[command(name = "headwater", version, before_help = EXAMPLES, after_help = EXITS)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Options of every command.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Service")]
pub struct Global {
    /// Address of the service; several are tried in turn [default: the quickstart of this user, else
    /// http://127.0.0.1:7480]
    #[arg(
        long,
        global = true,
        value_name = "URL[,URL]",
        env = "HEADWATER_SERVICE",
        value_delimiter = ','
    )]
    service: Vec<String>,
    /// File that holds the key [default: that of the quickstart of this user]
    #[arg(long, global = true, value_name = "FILE", env = "HEADWATER_KEY_FILE")]
    key_file: Option<PathBuf>,
    /// File with the certificates, PEM, by which a service with https:// is believed [default: the system's]
    #[arg(long, global = true, value_name = "FILE", env = "HEADWATER_CA_FILE")]
    ca_file: Option<PathBuf>,
    /// How results look
    #[arg(long, global = true, value_enum, default_value = "table")]
    output: Format,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Try it: daemon and agent in one process, protecting one deployment
    Quickstart(quickstart::Quickstart),
    /// Run the service that keeps the backups
    Daemon(daemon::Daemon),
    /// Run an agent that reads deployments and ships them to a service
    Agent(agent::Agent),
    /// Protect deployments
    #[command(subcommand)]
    Deployment(deployment::Deployment),
    /// Show how every backup stands
    Status(status::Status),
    /// Show what can be restored
    Timeline(timeline::Timeline),
    /// Take and see snapshots
    #[command(subcommand)]
    Snapshot(snapshot::Snapshot),
    /// See and change when snapshots are taken and how long they stay
    #[command(subcommand)]
    Schedule(schedule::Schedule),
    /// Return the space of what is no longer needed
    #[command(subcommand)]
    Groom(groom::Groom),
    /// See what needs a look
    #[command(subcommand)]
    Alerts(alerts::Alerts),
    /// Prove that what is at rest is whole
    Check(check::Check),
    /// Prove that an instant can be restored
    #[command(subcommand)]
    Proof(proof::Proof),
    /// Give data back, as it was at any instant
    Restore(Box<restore::Restore>),
    /// See restores that were started, and end them
    #[command(subcommand)]
    Restores(restores::Restores),
    /// See to where backups rest
    #[command(subcommand)]
    Store(store::Store),
    /// Make and change the keys of encryption at rest
    #[command(subcommand)]
    Key(key::Key),
    /// Let people and agents in, and shut them out
    #[command(subcommand)]
    Access(access::Access),
    /// See and change the cluster of daemons
    #[command(subcommand)]
    Cluster(cluster::Cluster),
    /// Explain what the program says
    #[command(subcommand)]
    Explain(explain::Explain),
    /// Print a completion script for a shell
    #[command(before_help = "Examples:\n  headwater completions bash > /etc/bash_completion.d/headwater\n")]
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

/// Reads the command line, carries it out, and gives the exit code.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Nothing can be said to a closed terminal.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage } else { Exit::Ok }.into();
        }
    };
    let format = cli.global.output;
    match run(cli) {
        Ok(()) => Exit::Ok.into(),
        Err(failure) => {
            format.tell(&failure);
            failure.exit.into()
        }
    }
}

fn run(cli: Cli) -> Outcome {
    let global = cli.global;
    match cli.command {
        Command::Explain(explain) => explain.run(global.output),
        Command::Completions { shell } => completions(shell),
        Command::Quickstart(quickstart) => on_runtime(quickstart.run(global)),
        Command::Daemon(daemon) => on_runtime(daemon.run(global)),
        Command::Agent(agent) => on_runtime(agent.run(global)),
        Command::Deployment(deployment) => ask(global, deployment, deployment::Deployment::run),
        Command::Status(status) => ask(global, status, status::Status::run),
        Command::Timeline(timeline) => ask(global, timeline, timeline::Timeline::run),
        Command::Snapshot(snapshot) => ask(global, snapshot, snapshot::Snapshot::run),
        Command::Schedule(schedule) => ask(global, schedule, schedule::Schedule::run),
        Command::Groom(groom) => ask(global, groom, groom::Groom::run),
        Command::Alerts(alerts) => ask(global, alerts, alerts::Alerts::run),
        Command::Check(check) => ask(global, check, check::Check::run),
        Command::Proof(proof) => ask(global, proof, proof::Proof::run),
        Command::Restore(restore) => ask(global, *restore, restore::Restore::run),
        Command::Key(key::Key::New { name }) => key::new(name, global.output),
        Command::Key(key) => ask(global, key, key::Key::run),
        Command::Cluster(cluster::Cluster::Recover(recover)) => on_runtime(recover.run(global)),
        Command::Store(store::Store::Move(moving)) => on_runtime(moving.run(global)),
        Command::Cluster(cluster) => ask(global, cluster, cluster::Cluster::run),
        Command::Access(access) => ask(global, access, access::Access::run),
        Command::Restores(restores) => ask(global, restores, restores::Restores::run),
    }
}

/// Carries out a command that talks to a service.
fn ask<C>(global: Global, command: C, run: impl AsyncFnOnce(C, &Client, Format) -> Outcome) -> Outcome {
    let access = local::access(
        &global.service,
        global.key_file.as_deref(),
        global.ca_file.as_deref(),
        &variable,
    )?;
    let client = Client::new(access)?;
    // Ctrl-C ends the process as it ends any other, also at a prompt; a command that has more to do says so itself.
    on_runtime(run(command, &client, global.output))
}

fn on_runtime(work: impl Future<Output = Outcome>) -> Outcome {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|e| Failure::new(Exit::Failed, format!("cannot start threads: {e}")))?;
    // The engine's actors need a system around them.
    actix_rt::System::with_tokio_rt(|| runtime).block_on(work)
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn completions(shell: clap_complete::Shell) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "headwater", &mut script);
    let mut out = std::io::stdout().lock();
    out.write_all(&script)
        .map_err(|e| Failure::new(Exit::Failed, format!("cannot write the script: {e}")))
}
