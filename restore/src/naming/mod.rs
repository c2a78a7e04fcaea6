//! What is restored, and under which name. Pure.
//!
//! Users name collections as they see them: a time-series collection by its own name, its buckets follow; a view by
//! its name, what it reads is renamed within it. Internal collections are decided here, by the table of
//! `reference/oplog.md` §3.1, on the applied result.

mod choose;
mod pattern;
mod view;

use headwater_model::Namespace;
use headwater_protocol::admin::Rename;

pub use choose::{Chosen, Item, Kind, choose};
pub use pattern::{Pattern, Renaming};

/// Prefix of the collection behind a time-series collection.
pub const BUCKETS: &str = "system.buckets.";

/// Why names cannot be worked out as asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NamingFault {
    /// Not of the form of a pattern.
    #[error("{0:?} names no collection: write db.coll, db.* or *")]
    Malformed(String),
    /// A star on one side has no partner.
    #[error("{from:?} and {to:?} do not have equally many stars; a * stands for the same text on both sides")]
    StarsDiffer {
        /// Left side.
        from: String,
        /// Right side.
        to: String,
    },
    /// Probably a slip of the pen.
    #[error("{pattern:?} matches nothing that is restored; there are, among others: {known}")]
    NothingMatches {
        /// As written.
        pattern: String,
        /// A few names there are.
        known: String,
    },
    /// Two collections would become one.
    #[error("{first} and {second} would both become {to}; change the renames")]
    TwoToOne {
        /// One.
        first: Namespace,
        /// The other.
        second: Namespace,
        /// Their common name.
        to: Namespace,
    },
    /// A server takes database names that differ by case only for one.
    #[error("databases {first} and {second} differ by case only, which no server allows; change the renames")]
    CaseOnly {
        /// One.
        first: String,
        /// The other.
        second: String,
    },
    /// No collection can be called so.
    #[error("{to:?} cannot be the name of a restored collection: {why}")]
    Target {
        /// The name.
        to: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A view can only show what is in its own database.
    #[error("view {view} reads {reads}, which would land in database {db}; rename both into one database")]
    ViewTorn {
        /// The view, in the backup.
        view: Namespace,
        /// What it reads, in the backup.
        reads: Namespace,
        /// Where that goes.
        db: String,
    },
}

/// What the asker wants restored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    include: Vec<Pattern>,
    renames: Vec<Renaming>,
    with_users: bool,
}

impl Selection {
    /// Reads the patterns of a request. No include pattern means everything; of several renames for one name the first
    /// counts. Users and roles come only `with_users`, all of them, whatever the patterns say, and under their own names.
    pub fn new(include: &[String], renames: &[Rename], with_users: bool) -> Result<Self, NamingFault> {
        Ok(Selection {
            include: include.iter().map(|p| Pattern::new(p)).collect::<Result<_, _>>()?,
            renames: renames.iter().map(Renaming::new).collect::<Result<_, _>>()?,
            with_users,
        })
    }

    fn includes(&self, namespace: &Namespace) -> bool {
        self.include.is_empty() || self.include.iter().any(|p| p.matches(namespace))
    }

    fn renamed(&self, namespace: &Namespace) -> Result<Namespace, NamingFault> {
        self.renames
            .iter()
            .find_map(|r| r.apply(namespace))
            .unwrap_or_else(|| Ok(namespace.clone()))
    }
}
