//! Keys in files: made once, readable by their owner only.

use std::io::Write;
use std::path::{Path, PathBuf};

use rand::RngCore;
use rand::rngs::OsRng;

use crate::exit::Exit;
use crate::failure::{Failure, Outcome, file_fault};

/// The longest file that may be a key.
const KEY_FILE_MAX_BYTES: u64 = 4096;

/// The keys of a node, as its users and agents send them.
#[derive(Clone)]
pub struct Keys {
    /// Opens the user's API.
    pub admin: String,
    /// Opens the agent's API.
    pub agent: String,
}

/// Where a node's folder holds the administrator's key.
pub fn admin_file(dir: &Path) -> PathBuf {
    dir.join("admin.key")
}

/// Where a node's folder holds the agent's key.
pub fn agent_file(dir: &Path) -> PathBuf {
    dir.join("agent.key")
}

/// Where a node's folder holds what all daemons of its cluster share.
pub fn cluster_file(dir: &Path) -> PathBuf {
    dir.join("cluster.key")
}

/// The cluster's key: from `file` if one is named, else from the node's folder. Only a node that begins a cluster makes
/// one.
pub fn of_cluster(dir: &Path, file: Option<&Path>, joins: bool) -> Outcome<String> {
    let path = file.map_or_else(|| cluster_file(dir), Path::to_owned);
    match path.exists() || joins || file.is_some() {
        false => make(&path),
        true => read(&path).map_err(|failure| {
            let at = cluster_file(dir);
            failure.help(format!(
                "copy cluster.key from the folder of a node of the cluster to {}, or name it with --cluster-key",
                at.display()
            ))
        }),
    }
}

/// The keys of a node's folder; missing ones are made.
pub fn of_node(dir: &Path) -> Outcome<Keys> {
    std::fs::create_dir_all(dir).map_err(|e| file_fault("make the folder", dir, &e))?;
    Ok(Keys {
        admin: read_or_make(&admin_file(dir))?,
        agent: read_or_make(&agent_file(dir))?,
    })
}

fn read_or_make(path: &Path) -> Outcome<String> {
    if !path.exists() {
        return make_api_key(path);
    }
    let key = read(path)?;
    match headwater_protocol::access::key_id(&key) {
        Some(_) => Ok(key),
        None => {
            let failure = Failure::new(Exit::Auth, format!("{} holds no API key", path.display()));
            Err(failure.help("remove the file: the daemon makes a new one; the former key opens nothing any more"))
        }
    }
}

fn make_api_key(path: &Path) -> Outcome<String> {
    let (mut id, mut secret) = ([0; 4], [0; 32]);
    OsRng.fill_bytes(&mut id);
    OsRng.fill_bytes(&mut secret);
    keep(path, headwater_protocol::access::key_text(id, secret))
}

/// Reads a key file; white space around the key is not part of it.
pub fn read(path: &Path) -> Outcome<String> {
    let fault = |e| file_fault("read the key file", path, &e);
    let size = std::fs::metadata(path).map_err(fault)?.len();
    let text = if size > KEY_FILE_MAX_BYTES {
        String::new()
    } else {
        std::fs::read_to_string(path).map_err(fault)?
    };
    let key = text.trim();
    if key.is_empty() || key.contains(|c: char| c.is_whitespace() || c.is_control()) {
        let failure = Failure::new(Exit::Auth, format!("{} does not hold a key", path.display()));
        return Err(failure.help("a key file holds one key on one line"));
    }
    Ok(key.to_owned())
}

/// The id of an agent: made at its first start, kept in a file.
pub fn agent_id(path: &Path) -> Outcome<String> {
    if path.exists() {
        read(path)
    } else {
        keep(path, random_hex(8))
    }
}

fn make(path: &Path) -> Outcome<String> {
    keep(path, random_hex(32))
}

fn keep(path: &Path, text: String) -> Outcome<String> {
    write_private(path, &format!("{text}\n"))?;
    Ok(text)
}

fn random_hex(len: usize) -> String {
    let mut bytes = vec![0_u8; len];
    OsRng.fill_bytes(&mut bytes);
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Writes a file that only its owner can read, whole or not at all.
pub fn write_private(path: &Path, text: &str) -> Outcome {
    use std::os::unix::fs::OpenOptionsExt;
    let fault = |e| file_fault("write", path, &e);
    let aside = path.with_extension(format!("new-{}", std::process::id()));
    let write = || {
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&aside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&aside, path)
    };
    write().map_err(fault)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_nodes_keys_are_made_once_and_are_its_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let node = dir.path().join("node");
        let first = of_node(&node).unwrap();
        assert_ne!(first.admin, first.agent);
        assert!(first.admin.starts_with("hw_") && first.agent.starts_with("hw_"));
        assert_eq!(of_node(&node).unwrap().admin, first.admin);
        let mode = std::fs::metadata(admin_file(&node)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_key_of_another_form_is_refused_with_the_cure() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(admin_file(dir.path()), "ab".repeat(32)).unwrap();
        let failure = of_node(dir.path()).err().unwrap();
        assert_eq!(failure.exit, Exit::Auth);
        assert!(failure.help.unwrap().contains("remove the file"));
    }

    #[test]
    fn what_is_no_key_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("k");
        assert_eq!(read(&path).unwrap_err().exit, Exit::Failed);
        for wrong in ["", "\n", "two keys\n", "a\nb\n", &"x".repeat(5000)] {
            std::fs::write(&path, wrong).unwrap();
            assert_eq!(read(&path).unwrap_err().exit, Exit::Auth);
        }
    }
}
