//! OpenSSL 1.1 for the builds that need it: Debian bullseye's package, fetched by apt with a source list of our own,
//! signed by Debian's keyring, checked by its hash and unpacked beside the mongod; nothing is installed on the system.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::{clear, run};

const PACKAGE: &str = "libssl1.1=1.1.1w-0+deb11u1";
const SHA256: &str = "aadf8b4b197335645b230c2839b4517aa444fd2e8f434e5438c48a18857988f7";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
const UNREACHABLE: &str = "is the machine's Debian mirror reachable, and does it still carry bullseye?";

/// Puts `libssl.so.1.1` and `libcrypto.so.1.1` into `home/lib`.
pub(super) fn unpack_libraries(home: &Path) -> Result<()> {
    let work = home.join("apt");
    for folder in ["lists/partial", "cache/archives/partial", "download", "tree"] {
        fs::create_dir_all(work.join(folder))?;
    }
    ensure!(
        Path::new(KEYRING).is_file(),
        "{KEYRING} is missing: install the package debian-archive-keyring"
    );
    let sources = work.join("sources.list");
    fs::write(
        &sources,
        format!(
            "deb [arch=amd64 signed-by={KEYRING}] {} bullseye main\n",
            debian_mirror()?
        ),
    )?;
    run(apt(&work).arg("update"), UNREACHABLE)?;
    run(
        apt(&work)
            .args(["download", PACKAGE])
            .current_dir(work.join("download")),
        UNREACHABLE,
    )?;
    let package = fs::read_dir(work.join("download"))?
        .next()
        .context("apt fetched no package")??
        .path();
    check_hash(&package)?;
    run(
        Command::new("dpkg").arg("-x").arg(&package).arg(work.join("tree")),
        "is the disk full?",
    )?;
    fs::create_dir_all(home.join("lib"))?;
    for library in ["libssl.so.1.1", "libcrypto.so.1.1"] {
        fs::rename(
            work.join("tree/usr/lib/x86_64-linux-gnu").join(library),
            home.join("lib").join(library),
        )
        .with_context(|| format!("the package holds no {library}"))?;
    }
    clear(&work)
}

/// `apt-get` with its source list, lists and cache in `work`, and everything else as the machine has it.
fn apt(work: &Path) -> Command {
    let mut command = Command::new("apt-get");
    for (option, place) in [
        ("Dir::Etc::sourcelist", "sources.list"),
        ("Dir::Etc::sourceparts", "none"),
        ("Dir::State::lists", "lists"),
        ("Dir::Cache", "cache"),
    ] {
        command
            .arg("-o")
            .arg(format!("{option}={}", work.join(place).display()));
    }
    command.args(["-q", "-o", "APT::Sandbox::User=root", "-o", "Acquire::Retries=3"]);
    command
}

/// Where this machine gets Debian from: the first archive of Debian itself in its own apt sources.
fn debian_mirror() -> Result<String> {
    let mut files = vec![Path::new("/etc/apt/sources.list").to_path_buf()];
    if let Ok(folder) = fs::read_dir("/etc/apt/sources.list.d") {
        files.extend(folder.flatten().map(|entry| entry.path()));
    }
    files.sort();
    files
        .iter()
        .filter_map(|file| fs::read_to_string(file).ok())
        .find_map(|text| mirror_in(&text).map(str::to_owned))
        .context("no Debian mirror among the machine's apt sources: add one, as any Debian system has it")
}

/// The first address of a Debian archive (`…/debian`) in a source list of either format.
fn mirror_in(text: &str) -> Option<&str> {
    text.lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .flat_map(str::split_whitespace)
        .find(|word| word.contains("://") && word.trim_end_matches('/').ends_with("/debian"))
}

fn check_hash(package: &Path) -> Result<()> {
    let output = Command::new("sha256sum")
        .arg(package)
        .output()
        .context("cannot run sha256sum")?;
    let found = String::from_utf8_lossy(&output.stdout);
    ensure!(
        found.starts_with(SHA256),
        "{} is not the package pinned here: {found}",
        package.display()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_is_read_from_both_formats_of_source_lists() {
        let old =
            "# deb http://old.example/debian sid main\ndeb [arch=amd64] http://mirror.example/debian bookworm main\n";
        assert_eq!(mirror_in(old), Some("http://mirror.example/debian"));
        let new = "Types: deb\nURIs: http://mirror.example/debian\nSuites: bookworm\n";
        assert_eq!(mirror_in(new), Some("http://mirror.example/debian"));
        assert_eq!(mirror_in("URIs: http://mirror.example/debian-security\n"), None);
    }
}
