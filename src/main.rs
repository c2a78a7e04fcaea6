//! The `headwater` binary: command line and wiring, no decisions about backups.

mod at;
mod cli;
mod client;
mod confirm;
mod exit;
mod failure;
mod instants;
mod keys;
mod local;
mod logging;
mod master_keys;
mod node;
mod output;
mod recover;
mod roots;
mod stop;
mod store_move;
mod transport;
mod webhook;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
