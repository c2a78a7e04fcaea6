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
    /// The section in the file.
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
    meaning: "where backups rest: file:PATH, mongodb://HOSTS/DATABASE or s3://BUCKET/PREFIX",
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
/// All of them, in the order of the example file.
pub const KEYS: [Key; 11] = [
    NODE_DIR,
    NET_LISTEN,
    NET_ADVERTISE,
    CLUSTER_JOIN,
    CLUSTER_KEY,
    STORE_URI,
    STORE_OPLOG_URI,
    STORE_SYNC_URI,
    SNAPSHOTS_INTERVAL,
    HEAD_MEMTABLE_BUDGET,
    HEAD_BLOCK_CACHE,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_the_environment_follow_from_the_path() {
        assert_eq!(HEAD_MEMTABLE_BUDGET.variable(), "HEADWATER_HEAD_MEMTABLE_BUDGET");
        assert_eq!(NODE_DIR.variable(), "HEADWATER_NODE_DIR");
        assert_eq!(NODE_DIR.section(), "node");
    }
}
