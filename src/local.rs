//! How the command line finds a service: told by flag or environment, else the quickstart of this machine's user.
//!
//! A quickstart leaves a pointer with its address and key file at `$XDG_STATE_HOME/headwater/local.json`
//! (`~/.local/state/headwater/local.json`).

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::exit::Exit;
use crate::failure::{Failure, Outcome, file_fault};
use crate::{keys, roots};

/// The pointer a quickstart leaves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Local {
    /// Where its service listens.
    pub url: String,
    /// Where its administrator's key lies.
    pub key_file: PathBuf,
}

/// A service to talk to.
#[derive(Clone, PartialEq, Eq)]
pub struct Access {
    /// Addresses, to be tried in turn.
    pub services: Vec<String>,
    /// The bearer key.
    pub key: String,
    /// Certificates, PEM, by which a service with `https` is believed; `None` for the system's.
    pub ca_pem: Option<Vec<u8>>,
}

/// Where the pointer lies; `None` without a home.
pub fn pointer_path(env: &dyn Fn(&str) -> Option<String>) -> Option<PathBuf> {
    Some(folder(env, "XDG_STATE_HOME", ".local/state")?.join("headwater/local.json"))
}

/// Where a quickstart keeps its data unless told otherwise.
pub fn data_dir(env: &dyn Fn(&str) -> Option<String>) -> PathBuf {
    folder(env, "XDG_DATA_HOME", ".local/share").map_or_else(|| "headwater-data".into(), |f| f.join("headwater"))
}

fn folder(env: &dyn Fn(&str) -> Option<String>, variable: &str, in_home: &str) -> Option<PathBuf> {
    let absolute = |name| env(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute(variable).or_else(|| Some(absolute("HOME")?.join(in_home)))
}

/// Leaves the pointer.
pub fn leave(path: &Path, local: &Local) -> Outcome {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(|e| file_fault("make the folder", folder, &e))?;
    }
    let text = serde_json::to_string_pretty(local).map_err(|e| Failure::new(Exit::Failed, e.to_string()))?;
    keys::write_private(path, &format!("{text}\n"))
}

fn find(env: &dyn Fn(&str) -> Option<String>) -> Option<Local> {
    let text = std::fs::read_to_string(pointer_path(env)?).ok()?;
    serde_json::from_str(&text).ok()
}

/// Which service, and with which key.
pub fn access(
    services: &[String],
    key_file: Option<&Path>,
    ca_file: Option<&Path>,
    env: &dyn Fn(&str) -> Option<String>,
) -> Outcome<Access> {
    let local = find(env);
    let asked = services
        .iter()
        .map(|url| checked_url(url))
        .collect::<Outcome<Vec<_>>>()?;
    let services = match (&local, asked.is_empty()) {
        (_, false) => asked,
        (Some(local), true) => vec![local.url.clone()],
        (None, true) => vec![format!("http://{}", headwater_config::settings::DEFAULT_LISTEN)],
    };
    // A key found by itself is only ever sent to the service it belongs to.
    let own = local
        .filter(|local| services.iter().all(|url| *url == local.url))
        .map(|local| local.key_file);
    match key_file.map(Path::to_owned).or(own) {
        Some(path) => Ok(Access {
            services,
            key: keys::read(&path)?,
            ca_pem: roots::read(ca_file)?,
        }),
        None => {
            let failure = Failure::new(Exit::Auth, "no key is known for this service");
            Err(failure.help("give --key-file or HEADWATER_KEY_FILE; it lies in admin.key in the daemon's folder"))
        }
    }
}

/// Checks an address of a service, and takes away a closing slash.
pub fn checked_url(text: &str) -> Outcome<String> {
    let trimmed = text.trim().trim_end_matches('/');
    let host = trimmed
        .strip_prefix("http://")
        .or(trimmed.strip_prefix("https://"))
        .filter(|host| !host.is_empty() && !host.contains(['/', '?', '#', '@']));
    match host {
        Some(_) => Ok(trimmed.to_owned()),
        None => {
            let failure = Failure::new(Exit::Usage, format!("{text:?} is no address of a service"));
            Err(failure.help("write http://HOST:PORT, or https://HOST:PORT for a service with TLS"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Place(tempfile::TempDir);

    impl Place {
        fn with_quickstart(url: &str) -> Self {
            let place = Place(tempfile::tempdir().unwrap());
            let key_file = place.0.path().join("admin.key");
            std::fs::write(&key_file, "own-key\n").unwrap();
            std::fs::write(place.0.path().join("other.key"), "other-key\n").unwrap();
            let path = pointer_path(&|name| place.env(name)).unwrap();
            leave(
                &path,
                &Local {
                    url: url.into(),
                    key_file,
                },
            )
            .unwrap();
            place
        }

        fn env(&self, name: &str) -> Option<String> {
            (name == "XDG_STATE_HOME").then(|| self.0.path().to_str().unwrap().to_owned())
        }

        fn access(&self, services: &[&str], key_file: Option<&str>) -> Outcome<Access> {
            let services: Vec<String> = services.iter().map(|s| (*s).to_owned()).collect();
            let key_file = key_file.map(|name| self.0.path().join(name));
            access(&services, key_file.as_deref(), None, &|name| self.env(name))
        }
    }

    #[test]
    fn a_local_quickstart_is_found_by_itself() {
        let found = Place::with_quickstart("http://127.0.0.1:9000")
            .access(&[], None)
            .ok()
            .unwrap();
        assert_eq!(
            (found.services[0].as_str(), found.key.as_str()),
            ("http://127.0.0.1:9000", "own-key")
        );
    }

    #[test]
    fn a_key_found_by_itself_is_not_sent_elsewhere() {
        let place = Place::with_quickstart("http://127.0.0.1:9000");
        assert_eq!(
            place.access(&["http://elsewhere:1"], None).err().unwrap().exit,
            Exit::Auth
        );
        let told = place.access(&["http://elsewhere:1"], Some("other.key")).ok().unwrap();
        assert_eq!(told.key, "other-key");
    }

    #[test]
    fn a_key_told_beats_one_found() {
        let place = Place::with_quickstart("http://127.0.0.1:9000");
        assert_eq!(place.access(&[], Some("other.key")).ok().unwrap().key, "other-key");
    }

    #[test]
    fn only_addresses_are_services() {
        assert_eq!(checked_url("http://h:1/").unwrap(), "http://h:1");
        assert_eq!(checked_url("https://h:1").unwrap(), "https://h:1");
        for wrong in [
            "",
            "h:1",
            "ftp://h",
            "http://",
            "https://",
            "http://u@h",
            "http://h/path",
        ] {
            assert_eq!(checked_url(wrong).unwrap_err().exit, Exit::Usage, "{wrong}");
        }
    }
}
