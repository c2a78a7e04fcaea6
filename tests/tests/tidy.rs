//! The house rules that a machine can check.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// Which room may use which, by `[dependencies]`; what is for tests only is not looked at.
const ROOMS: [(&str, &[&str]); 16] = [
    ("model", &[]),
    ("host", &["model"]),
    ("oplog", &["model"]),
    ("protocol", &["model"]),
    ("config", &["model"]),
    ("store", &["model", "host", "protocol"]),
    ("head", &["model", "oplog", "protocol", "store"]),
    ("restore", &["model", "head", "oplog", "protocol", "store"]),
    ("cluster", &["model", "host"]),
    ("agent", &["model", "host", "oplog", "protocol"]),
    (
        "actors",
        &[
            "model", "cluster", "head", "host", "oplog", "protocol", "restore", "store",
        ],
    ),
    ("service", &["model", "actors", "cluster", "host", "protocol"]),
    (
        "simulation",
        &[
            "model", "actors", "agent", "cluster", "head", "host", "oplog", "protocol", "restore", "store",
        ],
    ),
    (
        "headwater",
        &[
            "actors", "agent", "cluster", "config", "host", "model", "protocol", "restore", "service", "store",
        ],
    ),
    ("tests", &["host", "model", "store", "xtask"]),
    ("xtask", &[]),
];

/// Frameworks, and the only rooms that may name them.
const FRAMEWORKS: [(&str, &[&str]); 17] = [
    ("actix", &["actors"]),
    ("actix-rt", &["actors", "headwater"]),
    ("actix-web", &["service", "headwater"]),
    ("actix-http", &["service"]),
    ("actix-server", &["service"]),
    ("actix-service", &["service"]),
    ("openraft", &["cluster"]),
    ("bincode", &["cluster"]),
    ("sled", &["host"]),
    ("mongodb", &["agent", "restore", "store", "tests"]),
    ("object_store", &["store"]),
    ("ring", &["store", "tests"]),
    ("rustls", &["host"]),
    ("tokio-rustls", &["host"]),
    ("clap", &["headwater", "xtask"]),
    ("anyhow", &["headwater", "tests", "xtask"]),
    ("indicatif", &["headwater"]),
];

/// Rooms that are pure: no runtime, no files.
const WITHOUT_TOKIO: [&str; 4] = ["model", "oplog", "protocol", "config"];

const LONGEST_FILE: usize = 700;

#[test]
fn rooms_use_only_the_rooms_below_them() -> Result<()> {
    let allowed: BTreeMap<_, _> = ROOMS.into_iter().collect();
    let mut wrong = Vec::new();
    for (room, uses) in dependencies()? {
        let allowed = allowed
            .get(room.as_str())
            .with_context(|| format!("{room} is not in the table of rooms"))?;
        let rooms = uses.iter().filter(|name| ROOMS.iter().any(|(room, _)| room == name));
        wrong.extend(
            rooms
                .filter(|name| !allowed.contains(&name.as_str()))
                .map(|name| format!("{room} uses {name}")),
        );
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

#[test]
fn every_framework_is_named_in_its_own_rooms_only() -> Result<()> {
    let mut wrong = Vec::new();
    for (room, uses) in dependencies()? {
        for (framework, rooms) in FRAMEWORKS {
            if uses.contains(framework) && !rooms.contains(&room.as_str()) {
                wrong.push(format!("{room} uses {framework}"));
            }
        }
        if uses.contains("tokio") && WITHOUT_TOKIO.contains(&room.as_str()) {
            wrong.push(format!("{room} uses tokio"));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

#[test]
fn no_file_is_longer_than_one_can_read() -> Result<()> {
    let long = files(&["rs"])?.into_iter().filter_map(|(path, text)| {
        let lines = text.lines().count();
        (lines > LONGEST_FILE).then(|| format!("{path}: {lines} lines, {LONGEST_FILE} at most: split it by idea"))
    });
    none(long)
}

#[test]
fn no_file_has_a_name_that_says_nothing() -> Result<()> {
    let empty_names = ["util", "utils", "common", "helper", "helpers", "manager", "misc"];
    let named = files(&["rs"])?.into_iter().filter_map(|(path, _)| {
        let bad = Path::new(&path).components().any(|part| {
            let part = part.as_os_str().to_string_lossy();
            part.trim_end_matches(".rs")
                .split('_')
                .any(|word| empty_names.contains(&word))
        });
        bad.then(|| format!("{path}: say what it is about"))
    });
    none(named)
}

#[test]
fn nothing_is_left_to_be_done_in_the_code() -> Result<()> {
    // Put together here so that this file does not hold them.
    let words = [["TO", "DO"].concat(), ["FIX", "ME"].concat(), ["XX", "X"].concat()];
    none(lines_with(&["rs", "md", "toml"], |line| {
        line.split(|c: char| !c.is_alphanumeric())
            .any(|word| words.iter().any(|forbidden| forbidden == word))
    })?)
}

#[test]
fn nothing_names_a_place_of_one_machine() -> Result<()> {
    let places = ["work", "root", "home"].map(|place| format!("/{place}/"));
    none(lines_with(&["rs", "md", "toml", "yaml", "json"], |line| {
        places.iter().any(|place| {
            line.match_indices(place.as_str()).any(|(at, _)| {
                // A relative path such as `src/work/` goes on to the left.
                !line[..at].ends_with(|c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '*' | '}'))
            })
        })
    })?)
}

#[test]
fn a_page_has_one_title() -> Result<()> {
    let wrong = files(&["md"])?.into_iter().filter_map(|(path, text)| {
        let titles = text
            .split("```")
            .step_by(2)
            .flat_map(str::lines)
            .filter(|line| line.starts_with("# "))
            .count();
        (titles != 1).then(|| format!("{path}: {titles} titles"))
    });
    none(wrong)
}

fn none(found: impl IntoIterator<Item = String>) -> Result<()> {
    let found: Vec<String> = found.into_iter().collect();
    ensure!(found.is_empty(), "{}", found.join("\n"));
    Ok(())
}

fn lines_with(extensions: &[&str], is_wrong: impl Fn(&str) -> bool) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for (path, text) in files(extensions)? {
        let wrong = text.lines().enumerate().filter(|(_, line)| is_wrong(line));
        found.extend(wrong.map(|(number, line)| format!("{path}:{}: {}", number + 1, line.trim())));
    }
    Ok(found)
}

/// The workspace's own files of these kinds, as git knows them, with their text.
fn files(extensions: &[&str]) -> Result<Vec<(String, String)>> {
    let listed = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .context("cannot run git")?;
    ensure!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    let names = String::from_utf8(listed.stdout)?;
    let wanted = names.lines().filter(|name| {
        Path::new(name)
            .extension()
            .is_some_and(|found| extensions.iter().any(|extension| found == *extension))
    });
    // A file that was removed and not yet committed is still listed.
    let present = wanted.filter(|name| root().join(name).is_file());
    present
        .map(|name| Ok((name.to_owned(), std::fs::read_to_string(root().join(name))?)))
        .collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Every room with what its `[dependencies]` name, rooms by their short names.
fn dependencies() -> Result<BTreeMap<String, BTreeSet<String>>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .context("cannot run cargo")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    let packages = metadata["packages"].as_array().context("no packages")?;
    Ok(packages
        .iter()
        .map(|package| {
            let uses = package["dependencies"].as_array().into_iter().flatten();
            let uses = uses.filter(|dependency| dependency["kind"].is_null());
            (
                short(&package["name"]),
                uses.map(|dependency| short(&dependency["name"])).collect(),
            )
        })
        .collect())
}

fn short(name: &Value) -> String {
    let name = name.as_str().unwrap_or_default();
    name.strip_prefix("headwater-").unwrap_or(name).to_owned()
}
