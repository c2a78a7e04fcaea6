//! Database and collection names.

use std::fmt;

use serde::{Deserialize, Serialize};

/// `database.collection`, split at the first dot as the server does; collection names may hold dots themselves.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Namespace {
    /// The database.
    pub db: String,
    /// The collection within it, possibly with dots.
    pub coll: String,
}

impl Namespace {
    /// Puts the two halves together.
    pub fn new(db: impl Into<String>, coll: impl Into<String>) -> Self {
        Namespace {
            db: db.into(),
            coll: coll.into(),
        }
    }

    /// Splits `db.coll`; `None` without a dot, or when a half is empty.
    pub fn parse(text: &str) -> Option<Self> {
        let (db, coll) = text.split_once('.')?;
        (!db.is_empty() && !coll.is_empty()).then(|| Namespace::new(db, coll))
    }

    /// Whether a backup keeps this namespace's documents, by the table of `reference/oplog.md` §3.1 for a replica set.
    ///
    /// Asked of the applied result, never of an entry: a temporary collection becomes a user's by a rename.
    pub fn is_kept(&self) -> bool {
        match self.db.as_str() {
            "local" => false,
            "admin" => !matches!(self.coll.as_str(), "system.keys") && !self.coll.starts_with("system.drop."),
            "config" => {
                const RUNTIME: [&str; 12] = [
                    "transactions",
                    "image_collection",
                    "system.sessions",
                    "system.indexBuilds",
                    "system.preimages",
                    "external_validation_keys",
                    "user_writes_critical_sections",
                    "vectorClock",
                    "collection_critical_sections",
                    "rangeDeletions",
                    "migrationCoordinators",
                    "migrationRecipients",
                ];
                !RUNTIME.contains(&self.coll.as_str())
                    && !self.coll.starts_with("cache.")
                    && !self.coll.starts_with("tenantMigration")
                    && !self.coll.starts_with("localReshardingOperations")
                    && !self.coll.starts_with("localMigration")
                    && !self.coll.starts_with("system.drop.")
            }
            _ => self.coll != "system.profile" && !self.coll.starts_with("system.drop."),
        }
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.db, self.coll)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_splits_at_the_first_dot() {
        assert_eq!(Namespace::parse("a.b.c"), Some(Namespace::new("a", "b.c")));
        assert_eq!(Namespace::parse("a"), None);
        assert_eq!(Namespace::parse(".a"), None);
        assert_eq!(Namespace::parse("a."), None);
    }

    #[test]
    fn secrets_and_runtime_state_are_left_out() {
        for (text, kept) in [
            ("shop.orders", true),
            ("shop.system.views", true),
            ("shop.system.buckets.ts", true),
            ("shop.system.profile", false),
            ("local.oplog.rs", false),
            ("admin.system.users", true),
            ("admin.system.keys", false),
            ("config.settings", true),
            ("config.transactions", false),
            ("config.cache.chunks.a.b", false),
        ] {
            assert_eq!(Namespace::parse(text).unwrap().is_kept(), kept, "{text}");
        }
    }
}
