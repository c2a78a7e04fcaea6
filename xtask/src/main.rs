//! The chores of this workspace: `cargo xtask --help`.

mod chores;
mod test;
mod verify;

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
    /// Runs every test, after installing what the tests need.
    Test {
        /// On every version of mongod known, not only on the two newest.
        #[arg(long)]
        matrix: bool,
    },
    /// Installs the double of Azure Blob Storage, with which its tests run from then on; needs Node with npm.
    Azure,
    /// Checks everything: formatting, lints, house rules, documentation, tests, dependencies.
    Verify,
    /// Runs the simulation on many seeds; without any range, on those every change must pass.
    Sim {
        /// Seeds, as `A..B`.
        #[arg(long, conflicts_with = "hours")]
        seeds: Option<String>,
        /// Goes on with new seeds for so many hours.
        #[arg(long)]
        hours: Option<f64>,
    },
    /// Shows a backup and a restore on a real replica set.
    Demo,
    /// Measures the main path on a seeded corpus and prints a table.
    Bench {
        /// Size of the corpus; 1 is about 3 GB.
        #[arg(default_value_t = 1.0)]
        scale: f64,
        /// Measures the build that tests use, which is there already but slower.
        #[arg(long)]
        dev: bool,
    },
    /// Measures how long a head is gone when its daemon is killed, and prints a table.
    Failover {
        /// Kills for each size of data.
        #[arg(default_value_t = 20)]
        runs: usize,
        /// How much data the source holds, in gigabytes that do not compress.
        #[arg(long, value_delimiter = ',', default_value = "0.01,3")]
        gigabytes: Vec<f64>,
        /// Measures the build that tests use, which is there already but slower.
        #[arg(long)]
        dev: bool,
    },
    /// Measures what encryption at rest costs a first copy and a restore, and prints a table.
    EncryptionCost {
        /// First copies and restores, with and without.
        #[arg(default_value_t = 3)]
        rounds: usize,
        /// Size of the corpus; 1 is about 3 GB.
        #[arg(default_value_t = 0.1)]
        scale: f64,
        /// Measures the build that tests use, which is there already but slower.
        #[arg(long)]
        dev: bool,
    },
    /// Measures every backing store against what it is made of, and prints a table.
    StoreRates {
        /// Objects of 64 MB for each figure.
        #[arg(default_value_t = 6)]
        rounds: usize,
        /// Measures the build that tests use, which is there already but slower.
        #[arg(long)]
        dev: bool,
    },
    /// Kills and freezes daemons and agents at random under load, and proves that nothing is lost.
    Storm {
        /// So many faults.
        #[arg(default_value_t = 200)]
        faults: usize,
        /// Decides which.
        #[arg(long, default_value_t = 71)]
        seed: u64,
    },
    /// Moves money, chunks and collections in a sharded cluster while checkpoints are taken, restores every checkpoint and
    /// many other cluster times, proves that they are exact, and prints how long checkpoints take.
    Bank {
        /// For so long.
        #[arg(default_value_t = 30.0)]
        minutes: f64,
        /// Shards beside the config servers.
        #[arg(long, default_value_t = 2)]
        shards: usize,
        /// Kills daemons, agents, shards and config servers meanwhile.
        #[arg(long)]
        kills: bool,
        /// Seconds between checkpoints.
        #[arg(long, default_value_t = 60)]
        every: u64,
        /// About so many other cluster times are restored.
        #[arg(long, default_value_t = 50)]
        instants: u32,
        /// Decides about chance.
        #[arg(long, default_value_t = 7)]
        seed: u64,
    },
    /// Measures what a checkpoint costs those who write at a sharded cluster, and prints a table.
    Stall {
        /// Checkpoints, and shams to hold them against.
        #[arg(default_value_t = 100)]
        rounds: usize,
        /// Shards beside the config servers.
        #[arg(long, value_delimiter = ',', default_value = "2,4,8")]
        shards: Vec<usize>,
        /// Measures the build that tests use, which is there already but slower.
        #[arg(long)]
        dev: bool,
    },
    /// Real mongods for tests and demos.
    #[command(subcommand)]
    Mongod(MongodChore),
}

#[derive(Subcommand)]
enum MongodChore {
    /// Installs mongods into the cache folder and prints where they are.
    Install {
        /// Versions, or `all`; without any, those that every test run needs.
        versions: Vec<String>,
    },
    /// Starts a replica set to play with, prints its connection string, and ends it at Ctrl-C.
    Start {
        /// Version.
        #[arg(default_value = mongod::DEFAULT_VERSIONS[0])]
        version: String,
        /// Members.
        #[arg(long, default_value_t = 1)]
        members: usize,
    },
}

fn main() -> Result<()> {
    match Arguments::parse().chore {
        Chore::Test { matrix } => test::run(matrix),
        Chore::Azure => xtask::azure_double::install().map(drop),
        Chore::Verify => verify::run(),
        Chore::Sim { seeds, hours } => sim(seeds, hours),
        Chore::Demo => demo(),
        Chore::Bench { scale, dev } => bench(scale, dev),
        Chore::Failover { runs, gigabytes, dev } => measured_for("failover", runs, &gigabytes, dev),
        Chore::EncryptionCost { rounds, scale, dev } => {
            measured("encryption_cost", &[&rounds.to_string(), &scale.to_string()], dev)
        }
        Chore::StoreRates { rounds, dev } => {
            xtask::s3_double::install()?;
            measured("store_rates", &[&rounds.to_string()], dev)
        }
        Chore::Storm { faults, seed } => storm(faults, seed),
        Chore::Bank {
            minutes,
            shards,
            kills,
            every,
            instants,
            seed,
        } => {
            let numbers = [every, u64::from(instants), seed].map(|number| number.to_string());
            let [every, instants, seed] = &numbers;
            bank(&[
                &minutes.to_string(),
                &shards.to_string(),
                every,
                instants,
                seed,
                &kills.to_string(),
            ])
        }
        Chore::Stall { rounds, shards, dev } => measured_for("stall", rounds, &shards, dev),
        Chore::Mongod(MongodChore::Install { versions }) => install(&versions),
        Chore::Mongod(MongodChore::Start { version, members }) => start(&version, members),
    }
}

fn sim(seeds: Option<String>, hours: Option<f64>) -> Result<()> {
    // With a test, so that dependencies have the same features as for the tests and are compiled once.
    chores::cargo(&["build", "--workspace", "--bin", "simulation", "--test", "simulation"]).run()?;
    let hours = hours.map(|hours| hours.to_string());
    let range = seeds.unwrap_or_else(|| "0..200".to_owned());
    let arguments = match &hours {
        Some(hours) => ["--hours", hours],
        None => ["--seeds", &range],
    };
    chores::built("debug", "simulation", &arguments).run()
}

fn demo() -> Result<()> {
    mongod::install(mongod::DEFAULT_VERSIONS[0])?;
    // With a test, so that dependencies have the same features as for the tests and are compiled once.
    chores::cargo(&["build", "--workspace", "--bins", "--test", "tidy"]).run()?;
    chores::built("debug", "demo", &[]).run()
}

fn bench(scale: f64, dev: bool) -> Result<()> {
    measured("bench", &[&scale.to_string()], dev)
}

/// A program that is told a number first and then for what.
fn measured_for<T: ToString>(name: &str, number: usize, what: &[T], dev: bool) -> Result<()> {
    let arguments: Vec<String> = std::iter::once(number.to_string())
        .chain(what.iter().map(ToString::to_string))
        .collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    measured(name, &arguments, dev)
}

fn storm(faults: usize, seed: u64) -> Result<()> {
    mongod::install(mongod::DEFAULT_VERSIONS[0])?;
    chores::cargo(&["build", "--workspace", "--bins", "--tests"]).run()?;
    let storm = [
        "test",
        "--workspace",
        "--test",
        "cluster",
        "--",
        "--nocapture",
        "a_storm_of_kills",
    ];
    chores::cargo(&storm)
        .with("HEADWATER_FAULTS", faults.to_string())
        .with("HEADWATER_SEED", seed.to_string())
        .with("HEADWATER_MONGOD_VERSIONS", mongod::DEFAULT_VERSIONS[0])
        .run()
}

fn bank(arguments: &[&str]) -> Result<()> {
    mongod::install(mongod::DEFAULT_VERSIONS[0])?;
    chores::cargo(&["build", "--workspace", "--bins", "--tests"]).run()?;
    chores::built("debug", "bank", arguments).run()
}

/// Builds in release and runs a program that measures.
fn measured(name: &str, arguments: &[&str], dev: bool) -> Result<()> {
    mongod::install(mongod::DEFAULT_VERSIONS[0])?;
    let mut build = vec!["build", "--workspace", "--bins"];
    if !dev {
        build.push("--release");
    }
    chores::cargo(&build).run()?;
    let profile = if dev { "debug" } else { "release" };
    chores::built(profile, name, arguments).run()
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

fn start(version: &str, members: usize) -> Result<()> {
    mongod::install(version)?;
    let members = members.to_string();
    chores::cargo(&[
        "run",
        "--quiet",
        "--package",
        "headwater-tests",
        "--bin",
        "bed",
        "--",
        version,
        &members,
    ])
    .run()
}
