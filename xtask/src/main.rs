//! The chores of this workspace: `cargo xtask --help`.

use anyhow::Result;
use clap::{Parser, Subcommand};
use xtask::mongod;

#[derive(Parser)]
#[command(about = "The chores of this workspace")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Real mongods for tests and demos.
    #[command(subcommand)]
    Mongod(MongodChore),
}

#[derive(Subcommand)]
enum MongodChore {
    /// Installs mongods into the cache folder and prints where they are.
    Install {
        /// A version, or `all`; without any, those that every test run needs.
        versions: Vec<String>,
    },
}

fn main() -> Result<()> {
    match Arguments::parse().chore {
        Chore::Mongod(MongodChore::Install { versions }) => install(&versions),
    }
}

fn install(versions: &[String]) -> Result<()> {
    let versions: Vec<&str> = match versions {
        [] => mongod::DEFAULT_VERSIONS.to_vec(),
        [all] if all == "all" => mongod::RELEASES.iter().map(|release| release.version).collect(),
        some => some.iter().map(String::as_str).collect(),
    };
    for version in versions {
        println!("{} {}", version, mongod::install(version)?.program.display());
    }
    Ok(())
}
