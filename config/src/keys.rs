//! The table of keys: one row per setting, the single place where its name and meaning are written.

/// A setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// `section.name`, as in the file.
    pub path: &'static str,
    /// What it means, for people.
    pub meaning: &'static str,
}

impl Key {
    /// The outermost section in the file.
    pub fn section(&self) -> &'static str {
        self.path.split_once('.').map_or("", |(section, _)| section)
    }

    /// Its name in the environment: `head.memtableBudget` is `HEADWATER_HEAD_MEMTABLE_BUDGET`.
    pub fn variable(&self) -> String {
        let mut out = String::from("HEADWATER_");
        for c in self.path.chars() {
            match c {
                '.' => out.push('_'),
                c if c.is_ascii_uppercase() => out.extend(['_', c]),
                c => out.push(c.to_ascii_uppercase()),
            }
        }
        out
    }
}

/// The node's own folder.
pub const NODE_DIR: Key = Key {
    path: "node.dir",
    meaning: "folder of this node: control state, cache, keys",
};
/// Where the service listens.
pub const NET_LISTEN: Key = Key {
    path: "net.listen",
    meaning: "address and port of the service",
};
/// Where other nodes reach this one.
pub const NET_ADVERTISE: Key = Key {
    path: "net.advertise",
    meaning: "HOST:PORT at which other nodes reach this one; empty for net.listen",
};
/// Who the service proves to be.
pub const NET_TLS_CERT_FILE: Key = Key {
    path: "net.tls.certFile",
    meaning: "file with the certificate chain of this node, PEM; empty for no TLS",
};
/// What it proves it with.
pub const NET_TLS_KEY_FILE: Key = Key {
    path: "net.tls.keyFile",
    meaning: "file with its private key, PEM",
};
/// Whom it believes.
pub const NET_TLS_CA_FILE: Key = Key {
    path: "net.tls.caFile",
    meaning: "file with the certificates by which other nodes are believed, PEM; empty for the system's",
};
/// Which cluster to join.
pub const CLUSTER_JOIN: Key = Key {
    path: "cluster.join",
    meaning: "HOST:PORT of nodes to join, commas between; empty to begin a cluster",
};
/// Where the cluster's key lies.
pub const CLUSTER_KEY: Key = Key {
    path: "cluster.keyFile",
    meaning: "file with the cluster's key; empty for cluster.key in node.dir",
};
/// Where backups rest.
pub const STORE_URI: Key = Key {
    path: "store.uri",
    meaning: "where backups rest: file:PATH, mongodb://HOSTS/DATABASE, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX",
};
/// Where oplog slices rest.
pub const STORE_OPLOG_URI: Key = Key {
    path: "store.oplogUri",
    meaning: "where oplog slices rest; empty for store.uri",
};
/// Where sync slices rest.
pub const STORE_SYNC_URI: Key = Key {
    path: "store.syncUri",
    meaning: "where sync slices rest; empty for store.uri",
};
/// How often snapshots are taken.
pub const SNAPSHOTS_INTERVAL: Key = Key {
    path: "snapshots.interval",
    meaning: "time between snapshots, unless a deployment says otherwise",
};
/// Changes held in memory.
pub const HEAD_MEMTABLE_BUDGET: Key = Key {
    path: "head.memtableBudget",
    meaning: "changes held in memory before they are spilled",
};
/// Blocks held in memory.
pub const HEAD_BLOCK_CACHE: Key = Key {
    path: "head.blockCache",
    meaning: "blocks held in memory",
};
/// How quickly everything at rest is read.
pub const CHECKS_PASS: Key = Key {
    path: "checks.pass",
    meaning: "time in which everything at rest is read and verified once, a share a day; 0s for never",
};
/// How fast it is read.
pub const CHECKS_READ_RATE: Key = Key {
    path: "checks.readRate",
    meaning: "bytes a second that are read for it at the most",
};
/// How often restores are proven.
pub const CHECKS_PROOF_INTERVAL: Key = Key {
    path: "checks.proofInterval",
    meaning: "time between proof restores; 0s for none by itself",
};
/// Who is told of alerts.
pub const ALERTS_WEBHOOK: Key = Key {
    path: "alerts.webhook",
    meaning: "http://… or https://… that gets every begin and end of an alert as JSON; empty for none",
};
/// When oplog is late.
pub const ALERTS_OPLOG_BEHIND: Key = Key {
    path: "alerts.oplogBehind",
    meaning: "age of the newest oplog entry that raises an alert",
};
/// When an agent is missed.
pub const ALERTS_AGENT_DOWN: Key = Key {
    path: "alerts.agentDown",
    meaning: "silence of a deployment's agents that raises an alert",
};
/// When a node is missed.
pub const ALERTS_NODE_DOWN: Key = Key {
    path: "alerts.nodeDown",
    meaning: "silence of a node that raises an alert",
};
/// Where master keys lie.
pub const ENCRYPTION_MASTER_KEY_FILE: Key = Key {
    path: "encryption.masterKeyFile",
    meaning: "file with master keys, the current one first; empty for none",
};
/// Who gives master keys out.
pub const ENCRYPTION_MASTER_KEY_COMMAND: Key = Key {
    path: "encryption.masterKeyCommand",
    meaning: "command that prints the master key named in HEADWATER_MASTER_KEY_NAME; empty for none",
};
/// Which master key of the command is the current one.
pub const ENCRYPTION_MASTER_KEY: Key = Key {
    path: "encryption.masterKey",
    meaning: "name of the master key for new data keys, with masterKeyCommand",
};
/// Whether new deployments are encrypted.
pub const ENCRYPTION_DEPLOYMENTS: Key = Key {
    path: "encryption.deployments",
    meaning: "on or off: whether deployments are encrypted that are added without a word about it",
};
/// All of them, in the order of the example file.
pub const KEYS: [Key; 25] = [
    NODE_DIR,
    NET_LISTEN,
    NET_ADVERTISE,
    NET_TLS_CERT_FILE,
    NET_TLS_KEY_FILE,
    NET_TLS_CA_FILE,
    CLUSTER_JOIN,
    CLUSTER_KEY,
    STORE_URI,
    STORE_OPLOG_URI,
    STORE_SYNC_URI,
    ENCRYPTION_MASTER_KEY_FILE,
    ENCRYPTION_MASTER_KEY_COMMAND,
    ENCRYPTION_MASTER_KEY,
    ENCRYPTION_DEPLOYMENTS,
    SNAPSHOTS_INTERVAL,
    HEAD_MEMTABLE_BUDGET,
    HEAD_BLOCK_CACHE,
    CHECKS_PASS,
    CHECKS_READ_RATE,
    CHECKS_PROOF_INTERVAL,
    ALERTS_WEBHOOK,
    ALERTS_OPLOG_BEHIND,
    ALERTS_AGENT_DOWN,
    ALERTS_NODE_DOWN,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_the_environment_follow_from_the_path() {
        assert_eq!(HEAD_MEMTABLE_BUDGET.variable(), "HEADWATER_HEAD_MEMTABLE_BUDGET");
        assert_eq!(NODE_DIR.variable(), "HEADWATER_NODE_DIR");
        assert_eq!(NODE_DIR.section(), "node");
        assert_eq!(NET_TLS_CA_FILE.variable(), "HEADWATER_NET_TLS_CA_FILE");
    }
}
