//! `cargo xtask test`: every test, with everything the tests need.

use anyhow::Result;
use xtask::{azure_double, mongod, s3_double, tools};

use crate::chores::{cargo, has};

/// Installs mongods, builds the binary, runs the tests of all rooms and those in the documentation.
///
/// `matrix` runs the tests that are meant for every version on every version known, those with the genuine mongorestore and the double of Azure,
/// and the long variants of others.
pub fn run(matrix: bool) -> Result<()> {
    let versions: Vec<&str> = if matrix {
        mongod::RELEASES.iter().map(|release| release.version).collect()
    } else {
        mongod::DEFAULT_VERSIONS.to_vec()
    };
    for version in &versions {
        mongod::install(version)?;
    }
    s3_double::install()?;
    if matrix {
        tools::install()?;
        azure_double::install()?;
    }
    // The same choice of packages as the tests have, so that dependencies are compiled once.
    cargo(&["build", "--workspace", "--bins", "--tests"]).run()?;
    let tests = if has("nextest") {
        let profile = if std::env::var_os("CI").is_some() {
            "ci"
        } else {
            "default"
        };
        cargo(&["nextest", "run", "--workspace", "--profile", profile])
    } else {
        cargo(&["test", "--workspace", "--lib", "--bins", "--tests"])
    };
    let tests = tests.with("HEADWATER_MONGOD_VERSIONS", versions.join(","));
    let tests = if matrix {
        tests.with("HEADWATER_LONG", "1")
    } else {
        tests
    };
    tests.run()?;
    cargo(&["test", "--workspace", "--doc"]).run()
}
