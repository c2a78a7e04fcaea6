//! The program's log, on standard error. `HEADWATER_LOG` chooses what is shown, by the rules of `tracing`'s filters.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Starts the log; `quiet` shows warnings only.
pub fn start(format: LogFormat, quiet: bool) {
    // The frameworks below tell every step of theirs at this level; and a node that does not answer is no error of ours:
    // status and alerts tell of it.
    let default = if quiet {
        "warn"
    } else {
        "info,openraft=warn,openraft::replication=off,openraft::core::raft_core=off,actix_server=warn"
    };
    let filter = EnvFilter::try_from_env("HEADWATER_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colours());
    let started = match format {
        LogFormat::Text => log.try_init(),
        LogFormat::Json => log.json().try_init(),
    };
    if let Err(error) = started {
        eprintln!("the log could not be started: {error}");
    }
}

fn colours() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
