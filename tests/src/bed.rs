//! The place of one test: its folder, and its seat among the tests that start mongods.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use tempfile::TempDir;
use xtask::mongod as mongods;

use crate::headwater::Headwater;
use crate::mongod::{Mongod, MongodSpec};
use crate::replica_set::{ReplicaSet, ReplicaSetSpec};

/// How many tests may have mongods running at once on one machine, over all processes.
const SEATS: usize = 2;

/// A test's place. Make it first, so that it is dropped last: everything started on it lives in its folder.
///
/// Set `HEADWATER_KEEP=1` to keep the folder with all data and logs.
#[derive(Debug)]
pub struct Bed {
    folder: TempDir,
    next: AtomicUsize,
    _seat: File,
}

impl Bed {
    /// Waits for a free seat and makes an empty folder.
    pub async fn new() -> Result<Bed> {
        let seat = take_seat().await?;
        let mut folder = tempfile::Builder::new().prefix("headwater-bed-").tempdir()?;
        if std::env::var_os("HEADWATER_KEEP").is_some() {
            folder.disable_cleanup(true);
            eprintln!("keeping {}", folder.path().display());
        }
        Ok(Bed {
            folder,
            next: AtomicUsize::new(0),
            _seat: seat,
        })
    }

    /// A new empty folder for one purpose.
    pub fn new_folder(&self, purpose: &str) -> Result<PathBuf> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let folder = self.path().join(format!("{number:02}-{purpose}"));
        std::fs::create_dir_all(&folder)?;
        Ok(folder)
    }

    /// The bed's own folder.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Starts one mongod on an empty folder: a plain target for restores when `spec` names no replica set.
    pub async fn mongod(&self, spec: MongodSpec) -> Result<Mongod> {
        Mongod::start(spec, self.new_folder("mongod")?).await
    }

    /// Starts a replica set and waits for its primary.
    pub async fn replica_set(&self, spec: ReplicaSetSpec) -> Result<ReplicaSet> {
        ReplicaSet::start(self, spec).await
    }

    /// The `headwater` binary, with a folder of its own for whatever its processes write.
    pub fn headwater(&self) -> Result<Headwater> {
        Headwater::find(self.new_folder("headwater")?)
    }
}

async fn take_seat() -> Result<File> {
    let folder = mongods::cache_folder()?.join("seats");
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    loop {
        for seat in 0..SEATS {
            let file = File::create(folder.join(format!("{seat}.lock")))?;
            if file.try_lock().is_ok() {
                return Ok(file);
            }
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// The mongod versions a test over all versions shall use: `HEADWATER_MONGOD_VERSIONS` (commas between), or the default.
pub fn versions() -> Vec<String> {
    match std::env::var("HEADWATER_MONGOD_VERSIONS") {
        Ok(list) if !list.trim().is_empty() => list.split(',').map(|version| version.trim().to_owned()).collect(),
        _ => mongods::DEFAULT_VERSIONS.map(str::to_owned).to_vec(),
    }
}
