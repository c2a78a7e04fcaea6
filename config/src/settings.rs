//! The settings a node and an agent run with.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use headwater_model::limits::{self, MIB};
use headwater_model::{MasterKeyId, StoreUri};

use crate::file::{self, FileValue};
use crate::keys::{self, Key};
use crate::quantity::{bytes, milliseconds};

/// Where the service listens unless told otherwise: this machine only.
pub const DEFAULT_LISTEN: &str = "127.0.0.1:7480";
/// A node's folder unless told otherwise.
pub const DEFAULT_DIR: &str = "/var/lib/headwater";
/// Seconds between snapshots unless told otherwise.
pub const DEFAULT_SNAPSHOT_INTERVAL_SECONDS: u64 = 6 * 3600;

/// Settings that passed every check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The node's own folder.
    pub dir: PathBuf,
    /// Where the service listens.
    pub listen: SocketAddr,
    /// Where other nodes reach this one, `host:port`; `None` for where it listens.
    pub advertise: Option<String>,
    /// How connections are secured; `None` for not at all.
    pub tls: Option<Tls>,
    /// Nodes of the cluster to join, `host:port`; empty to begin one.
    pub join: Vec<String>,
    /// Where the cluster's key lies; `None` for the node's own folder.
    pub cluster_key: Option<PathBuf>,
    /// Where backups rest.
    pub store: StoreUri,
    /// Where oplog slices rest; `None` for the same place.
    pub oplog_store: Option<StoreUri>,
    /// Where sync slices rest; `None` for the same place.
    pub sync_store: Option<StoreUri>,
    /// Where master keys come from; `None` for nowhere.
    pub master_keys: Option<MasterKeySource>,
    /// Whether a deployment is encrypted that was added without a word about it.
    pub encrypt: bool,
    /// Seconds between snapshots of a deployment that does not say otherwise.
    pub snapshot_interval_seconds: u64,
    /// Bytes of changes a head holds in memory.
    pub memtable_budget_bytes: usize,
    /// Bytes of blocks held in memory.
    pub block_cache_bytes: usize,
    /// Days in which everything at rest is read once; 0 for never.
    pub check_pass_days: u64,
    /// Bytes a second that are read for it.
    pub check_bytes_per_second: u64,
    /// Seconds between proof restores; 0 for none.
    pub proof_interval_seconds: u64,
    /// Where alerts go.
    pub webhook: Option<String>,
    /// Age of the newest oplog entry that raises an alert, in seconds.
    pub alert_oplog_behind_seconds: u64,
    /// Silence of a deployment's agents that raises an alert, in seconds.
    pub alert_agent_down_seconds: u64,
    /// Silence of a node that raises an alert, in seconds.
    pub alert_node_down_seconds: u64,
}

/// How a node proves who it is, and whom it believes. PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// The chain of its certificate.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The certificates by which it believes others; `None` for the system's.
    pub ca: Option<PathBuf>,
}

/// Where master keys come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MasterKeySource {
    /// A file of them.
    File(PathBuf),
    /// A command that prints the one it is asked for.
    Command {
        /// Program and arguments, white space between.
        command: String,
        /// The one that wraps new data keys.
        current: MasterKeyId,
    },
}

/// Settings that cannot be used; says where the fault stands.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// The file is no YAML of sections with values.
    #[error("{file}: not a settings file of sections with values: {fault}")]
    Syntax {
        /// Which file.
        file: String,
        /// The reader's words.
        fault: String,
    },
    /// A key that does not exist.
    #[error("{origin}: unknown setting {key}; {}", match meant {
        Some(meant) => format!("did you mean {meant}?"),
        None => "the example file shows every key".to_owned(),
    })]
    UnknownKey {
        /// Where.
        origin: String,
        /// As typed.
        key: String,
        /// The nearest known one.
        meant: Option<String>,
    },
    /// A value that does not fit its key.
    #[error("{origin}: {key} ({meaning}): {fault}")]
    Value {
        /// Where.
        origin: String,
        /// The key.
        key: &'static str,
        /// What the key means.
        meaning: &'static str,
        /// Why it does not fit, and what would.
        fault: String,
    },
}

/// What the program read, nearest first.
pub struct Sources<'a> {
    /// Flags that were given: key, flag as typed, value.
    pub flags: Vec<(Key, &'static str, String)>,
    /// The environment.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// Name and text of the settings file.
    pub file: Option<(&'a str, &'a str)>,
}

impl Settings {
    /// Puts the settings together and checks each.
    ///
    /// ```
    /// # use headwater_config::{Settings, Sources};
    /// let file = Some(("headwater.yaml", "snapshots:\n  interval: 2h\n"));
    /// let settings = Settings::resolve(&Sources { flags: vec![], env: &|_| None, file }).unwrap();
    /// assert_eq!(settings.snapshot_interval_seconds, 7200);
    /// ```
    pub fn resolve(sources: &Sources<'_>) -> Result<Settings, SettingsError> {
        let lookup = Lookup::new(sources)?;
        let dir = lookup.get(keys::NODE_DIR, DEFAULT_DIR.into(), folder)?;
        Ok(Settings {
            listen: lookup.get(keys::NET_LISTEN, SocketAddr::from(([127, 0, 0, 1], 7480)), address)?,
            advertise: lookup.get(keys::NET_ADVERTISE, None, |text| Ok(peers(text)?.into_iter().next()))?,
            tls: tls(&lookup)?,
            join: lookup.get(keys::CLUSTER_JOIN, Vec::new(), peers)?,
            cluster_key: lookup.get(keys::CLUSTER_KEY, None, path_if_any)?,
            store: lookup.get(keys::STORE_URI, StoreUri::File(dir.join("store")), StoreUri::from_str)?,
            oplog_store: lookup.get(keys::STORE_OPLOG_URI, None, place_if_any)?,
            sync_store: lookup.get(keys::STORE_SYNC_URI, None, place_if_any)?,
            master_keys: master_keys(&lookup)?,
            encrypt: lookup.get(keys::ENCRYPTION_DEPLOYMENTS, false, on_or_off)?,
            snapshot_interval_seconds: lookup.get(
                keys::SNAPSHOTS_INTERVAL,
                DEFAULT_SNAPSHOT_INTERVAL_SECONDS,
                |text| Ok(time_between(text, "1m", "52w")? / 1000),
            )?,
            memtable_budget_bytes: lookup.get(keys::HEAD_MEMTABLE_BUDGET, limits::MEMTABLE_BUDGET_BYTES, |text| {
                size_between(text, MIB, 64 << 30)
            })?,
            block_cache_bytes: lookup.get(keys::HEAD_BLOCK_CACHE, limits::BLOCK_CACHE_BYTES, |text| {
                size_between(text, MIB, 64 << 30)
            })?,
            check_pass_days: lookup.get(keys::CHECKS_PASS, 7, |text| {
                Ok(time_between(text, "0s", "52w")?.div_ceil(86_400_000))
            })?,
            check_bytes_per_second: lookup.get(keys::CHECKS_READ_RATE, 64 << 20, |text| {
                Ok(size_between(text, MIB, 64 << 30)? as u64)
            })?,
            proof_interval_seconds: seconds(&lookup, keys::CHECKS_PROOF_INTERVAL, 86_400, "0s")?,
            webhook: lookup.get(keys::ALERTS_WEBHOOK, None, webhook)?,
            alert_oplog_behind_seconds: seconds(&lookup, keys::ALERTS_OPLOG_BEHIND, 75 * 60, "1m")?,
            alert_agent_down_seconds: seconds(&lookup, keys::ALERTS_AGENT_DOWN, 3600, "10s")?,
            alert_node_down_seconds: seconds(&lookup, keys::ALERTS_NODE_DOWN, 15 * 60, "10s")?,
            dir,
        })
    }
}

struct Lookup<'a> {
    sources: &'a Sources<'a>,
    file: std::collections::BTreeMap<&'static str, FileValue>,
}

impl<'a> Lookup<'a> {
    fn new(sources: &'a Sources<'a>) -> Result<Self, SettingsError> {
        let file = sources
            .file
            .map(|(name, text)| file::parse(name, text))
            .transpose()?
            .unwrap_or_default();
        Ok(Lookup { sources, file })
    }

    /// The nearest text for a key, with where it stands.
    fn nearest(&self, key: Key) -> Option<(String, String)> {
        let flag = self.sources.flags.iter().find(|(k, ..)| *k == key);
        if let Some((_, flag, text)) = flag {
            return Some(((*flag).to_owned(), text.clone()));
        }
        let variable = key.variable();
        if let Some(text) = (self.sources.env)(&variable).filter(|text| !text.is_empty()) {
            return Some((variable, text));
        }
        let name = self.sources.file.map_or("", |(name, _)| name);
        self.file
            .get(key.path)
            .map(|value| (format!("{name}:{}", value.line), value.text.clone()))
    }

    fn get<T>(&self, key: Key, default: T, read: impl Fn(&str) -> Result<T, String>) -> Result<T, SettingsError> {
        let Some((origin, text)) = self.nearest(key) else {
            return Ok(default);
        };
        read(&text).map_err(|fault| SettingsError::Value {
            origin,
            key: key.path,
            meaning: key.meaning,
            fault,
        })
    }
}

fn path_if_any(text: &str) -> Result<Option<PathBuf>, String> {
    Ok((!text.is_empty()).then(|| PathBuf::from(text)))
}

fn tls(lookup: &Lookup<'_>) -> Result<Option<Tls>, SettingsError> {
    let cert = lookup.get(keys::NET_TLS_CERT_FILE, None, path_if_any)?;
    let ca = lookup.get(keys::NET_TLS_CA_FILE, None, |text| match (path_if_any(text)?, &cert) {
        (Some(_), None) => Err("it is of use only with a certFile".to_owned()),
        (ca, _) => Ok(ca),
    })?;
    let key = lookup.get(keys::NET_TLS_KEY_FILE, None, |text| match (path_if_any(text)?, &cert) {
        (Some(_), None) => Err("there is no certFile to it".to_owned()),
        (key, _) => Ok(key),
    })?;
    // Said of the certificate, since the key is said nowhere.
    lookup.get(keys::NET_TLS_CERT_FILE, None, |text| match (path_if_any(text)?, &key) {
        (None, _) => Ok(None),
        (Some(_), None) => Err("there is no keyFile to it".to_owned()),
        (Some(cert), Some(key)) => Ok(Some(Tls {
            cert,
            key: key.clone(),
            ca: ca.clone(),
        })),
    })
}

fn place_if_any(text: &str) -> Result<Option<StoreUri>, String> {
    (!text.is_empty()).then(|| text.parse()).transpose()
}

fn folder(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() {
        Err("the path is empty".to_owned())
    } else {
        Ok(text.into())
    }
}

/// Addresses with ports, commas between. A leading `http://` or `https://` is what people paste.
fn peers(text: &str) -> Result<Vec<String>, String> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    parts
        .map(|part| {
            let bare = part
                .strip_prefix("http://")
                .or(part.strip_prefix("https://"))
                .unwrap_or(part)
                .trim_end_matches('/');
            let fits = bare.rsplit_once(':').is_some_and(|(host, port)| {
                !host.is_empty() && !host.contains(['/', '@', ' ']) && port.parse::<u16>().is_ok_and(|port| port > 0)
            });
            match fits {
                true => Ok(bare.to_owned()),
                false => Err(format!("{part:?} is no HOST:PORT; write for example backup1:7480")),
            }
        })
        .collect()
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse()
        .map_err(|_| format!("{text:?} is no address with a port; write for example {DEFAULT_LISTEN}"))
}

fn time_between(text: &str, least: &str, most: &str) -> Result<u64, String> {
    let read = |text| milliseconds(text).map_err(|e| e.to_string());
    let (value, from, to) = (read(text)?, read(least)?, read(most)?);
    if (from..=to).contains(&value) {
        Ok(value)
    } else {
        Err(format!("{text} is outside {least} to {most}"))
    }
}

fn seconds(lookup: &Lookup<'_>, key: Key, default: u64, least: &str) -> Result<u64, SettingsError> {
    lookup.get(key, default, |text| Ok(time_between(text, least, "52w")? / 1000))
}

fn on_or_off(text: &str) -> Result<bool, String> {
    match text {
        "on" | "true" => Ok(true),
        "off" | "false" => Ok(false),
        _ => Err(format!("{text:?} is neither on nor off")),
    }
}

fn master_keys(lookup: &Lookup<'_>) -> Result<Option<MasterKeySource>, SettingsError> {
    let some = |text: &str| Ok((!text.trim().is_empty()).then(|| text.trim().to_owned()));
    let current = lookup.get(keys::ENCRYPTION_MASTER_KEY, None, |text| {
        let name = (!text.is_empty()).then(|| MasterKeyId::new(text)).transpose();
        name.map_err(|e| e.to_string())
    })?;
    let file = lookup.get(keys::ENCRYPTION_MASTER_KEY_FILE, None, some)?;
    lookup.get(
        keys::ENCRYPTION_MASTER_KEY_COMMAND,
        file.clone().map(|file| MasterKeySource::File(file.into())),
        |text| match (some(text)?, &file, &current) {
            (None, file, _) => Ok(file.clone().map(|file| MasterKeySource::File(file.into()))),
            (Some(_), Some(_), _) => Err("there is a masterKeyFile too; take one of them".to_owned()),
            (Some(_), None, None) => Err("say with masterKey which one is the current".to_owned()),
            (Some(command), None, Some(current)) => Ok(Some(MasterKeySource::Command {
                command,
                current: current.clone(),
            })),
        },
    )
}

/// The address may carry a secret: it is not repeated.
fn webhook(text: &str) -> Result<Option<String>, String> {
    match text.strip_prefix("http://").or(text.strip_prefix("https://")) {
        _ if text.is_empty() => Ok(None),
        Some(rest) if !rest.is_empty() && !rest.contains(char::is_whitespace) => Ok(Some(text.to_owned())),
        _ => Err("it must begin with http:// or https://, without blanks".to_owned()),
    }
}

fn size_between(text: &str, least: usize, most: usize) -> Result<usize, String> {
    let value = bytes(text).map_err(|e| e.to_string())?;
    let fits = usize::try_from(value).ok().filter(|v| (least..=most).contains(v));
    fits.ok_or_else(|| format!("{text} is outside {} to {} KiB", least >> 10, most >> 10))
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../headwater.example.yaml");

    fn none(_: &str) -> Option<String> {
        None
    }

    fn from_file(text: &str) -> Result<Settings, SettingsError> {
        Settings::resolve(&Sources {
            flags: vec![],
            env: &none,
            file: Some(("headwater.yaml", text)),
        })
    }

    #[test]
    fn the_example_file_shows_every_key_at_its_default() {
        let defaults = Settings::resolve(&Sources {
            flags: vec![],
            env: &none,
            file: None,
        })
        .unwrap();
        assert_eq!(from_file(EXAMPLE).unwrap(), defaults);
        let shown = file::parse("example", EXAMPLE).unwrap();
        for key in keys::KEYS {
            assert!(
                shown.contains_key(key.path),
                "{} is missing from the example file",
                key.path
            );
            assert!(
                EXAMPLE.contains(key.meaning),
                "{} is not explained in the example file",
                key.path
            );
        }
    }

    #[test]
    fn a_flag_beats_the_environment_which_beats_the_file_which_beats_the_default() {
        let env = |name: &str| (name == "HEADWATER_NET_LISTEN").then(|| "127.0.0.1:2".to_owned());
        let file = Some(("f", "net:\n  listen: 127.0.0.1:3\n"));
        let port = |sources: Sources<'_>| Settings::resolve(&sources).unwrap().listen.port();
        let flag = vec![(keys::NET_LISTEN, "--listen", "127.0.0.1:1".to_owned())];
        assert_eq!(
            port(Sources {
                flags: flag,
                env: &env,
                file
            }),
            1
        );
        assert_eq!(
            port(Sources {
                flags: vec![],
                env: &env,
                file
            }),
            2
        );
        assert_eq!(
            port(Sources {
                flags: vec![],
                env: &none,
                file
            }),
            3
        );
        assert_eq!(
            port(Sources {
                flags: vec![],
                env: &none,
                file: None
            }),
            7480
        );
    }

    #[test]
    fn the_store_lies_in_the_nodes_folder_unless_told_otherwise() {
        assert_eq!(
            from_file("node:\n  dir: /a\n").unwrap().store,
            StoreUri::File("/a/store".into())
        );
        let apart = from_file("node:\n  dir: /a\nstore:\n  uri: file:///b\n").unwrap();
        assert_eq!(apart.store.to_string(), "file:/b");
    }

    #[test]
    fn the_stores_may_be_apart() {
        let settings = from_file("store:\n  uri: s3://b/p\n  oplogUri: mongodb://h/oplog\n").unwrap();
        assert_eq!(settings.store.to_string(), "s3://b/p");
        assert_eq!(
            settings.oplog_store.map(|uri| uri.to_string()),
            Some("mongodb://h/oplog".to_owned())
        );
        assert_eq!(settings.sync_store, None);
    }

    #[test]
    fn values_that_do_not_fit_are_refused_with_place_and_cure() {
        for (text, message) in [
            (
                "net:\n  listen: x\n",
                "headwater.yaml:2: net.listen (address and port of the service): \"x\" is no address",
            ),
            ("store:\n  uri: ftp://b\n", "write file:/path/to/folder, mongodb://"),
            ("snapshots:\n  interval: 1s\n", "1s is outside 1m to 52w"),
            ("cluster:\n  join: backup1\n", "\"backup1\" is no HOST:PORT"),
            (
                "alerts:\n  webhook: ftp://x\n",
                "it must begin with http:// or https://",
            ),
            (
                "alerts:\n  webhook: https://\n",
                "it must begin with http:// or https://",
            ),
            ("net:\n  tls:\n    certFile: a\n", "headwater.yaml:3: net.tls.certFile"),
            ("net:\n  tls:\n    certFile: a\n", "there is no keyFile to it"),
            ("net:\n  tls:\n    keyFile: a\n", "there is no certFile to it"),
            ("net:\n  tls:\n    caFile: a\n", "of use only with a certFile"),
            ("checks:\n  proofInterval: 99w\n", "99w is outside 0s to 52w"),
            ("head:\n  blockCache: 1KiB\n", "1KiB is outside 1024 to"),
            ("head:\n  memtableBudget: many\n", "\"many\" is no byte count"),
        ] {
            let error = from_file(text).unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
    }

    #[test]
    fn a_fault_in_the_environment_names_the_variable() {
        let env = |name: &str| (name == "HEADWATER_HEAD_BLOCK_CACHE").then(|| "1h".to_owned());
        let error = Settings::resolve(&Sources {
            flags: vec![],
            env: &env,
            file: None,
        })
        .unwrap_err()
        .to_string();
        assert!(
            error.starts_with("HEADWATER_HEAD_BLOCK_CACHE: head.blockCache"),
            "{error}"
        );
    }
}
