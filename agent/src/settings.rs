//! What an operator decides about an agent.

use std::fmt;
use std::time::Duration;

use headwater_model::limits::{self, MIB};

/// Settings of one agent. [`AgentSettings::new`] fills in defaults that suit nearly everyone.
#[derive(Clone)]
pub struct AgentSettings {
    /// Base URLs of the service's nodes, as `http://host:port` or `https://…`; tried in turn.
    pub service: Vec<String>,
    /// Certificates, PEM, by which a service with `https` is believed; `None` for the system's.
    pub ca_pem: Option<Vec<u8>>,
    /// The agent key. Never logged.
    pub key: String,
    /// The agent's own id, made at its first start and kept.
    pub agent_id: String,
    /// Where it runs, for people.
    pub host_name: String,
    /// Its version, for people.
    pub version: String,
    /// How many collections, or parts of large ones, are scanned at once.
    pub scans_at_once: usize,
    /// A slice of a first copy is closed when it has so many bytes of BSON.
    pub slice_bytes: usize,
    /// A collection with more bytes of BSON than this is scanned in parts.
    pub split_over_bytes: u64,
    /// The most parts of one collection.
    pub split_max_parts: u32,
    /// How long one request to the service may take.
    pub request_timeout: Duration,
    /// How long the source may take to answer one command; selecting a server and connecting have their own, shorter limits.
    pub source_timeout: Duration,
    /// Time between two polls.
    pub poll_every: Duration,
    /// Time between two requests for orders.
    pub orders_every: Duration,
}

impl AgentSettings {
    /// Settings with every default.
    pub fn new(service: Vec<String>, key: impl Into<String>, agent_id: impl Into<String>) -> Self {
        AgentSettings {
            service,
            ca_pem: None,
            key: key.into(),
            agent_id: agent_id.into(),
            host_name: String::new(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            scans_at_once: 3,
            slice_bytes: limits::SYNC_SLICE_TARGET_BYTES,
            split_over_bytes: 1024 * MIB as u64,
            split_max_parts: 16,
            request_timeout: Duration::from_secs(60),
            source_timeout: Duration::from_secs(120),
            poll_every: Duration::from_millis(500),
            orders_every: Duration::from_secs(1),
        }
    }
}

impl fmt::Debug for AgentSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AgentSettings")
            .field("service", &self.service)
            .field("agent_id", &self.agent_id)
            .field("scans_at_once", &self.scans_at_once)
            .finish_non_exhaustive()
    }
}
