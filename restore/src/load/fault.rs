//! Why a load ends before its end, in words for people.

use headwater_model::Namespace;

use crate::source::SourceFault;

/// Why a load ended. Given its cursor, it can be tried again.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LoadFault {
    /// Not a connection string.
    #[error("the target's connection string cannot be used: {detail}")]
    Uri {
        /// Without secrets.
        detail: String,
    },
    /// Nobody there for half a minute, or too few members to confirm a write.
    #[error(
        "the target {target} cannot be written to: {detail}; what was written stays, resume the restore when it is back"
    )]
    Unreachable {
        /// Without secrets.
        target: String,
        /// The driver's words.
        detail: String,
    },
    /// Not allowed.
    #[error(
        "the target does not allow {what}: {detail}; grant the user the roles restore and readWriteAnyDatabase on admin"
    )]
    Unauthorized {
        /// The command.
        what: String,
        /// The server's words.
        detail: String,
    },
    /// A server we do not write to.
    #[error("the target {target} cannot take a restore: {why}")]
    Unfit {
        /// Without secrets.
        target: String,
        /// What is wrong with it, and the cure.
        why: String,
    },
    /// Names are taken.
    #[error("{} at the target already: {}; restore under other names with --ns-rename, or drop them with --drop", count(.names), cite(.names))]
    Exists {
        /// Taken names.
        names: Vec<Namespace>,
    },
    /// A name was taken while we were at it.
    #[error(
        "{what}: it appeared at the target meanwhile and is left as it is; restore under other names with --ns-rename, or \
         stop who writes there and restore again with --drop"
    )]
    Taken {
        /// The command and the collection.
        what: String,
    },
    /// The server says no for good.
    #[error("the target refused {what}: {detail}")]
    Refused {
        /// The command or the collection.
        what: String,
        /// The server's words.
        detail: String,
    },
    /// Another number of documents than was sent.
    #[error(
        "{to} holds {found} documents, {expected} were written: somebody else writes to the target; stop that and restore again with --drop"
    )]
    Count {
        /// The collection.
        to: Namespace,
        /// Written.
        expected: u64,
        /// Counted.
        found: u64,
    },
    /// An index is not there after it was built.
    #[error(
        "{to} lacks the indexes {missing}: somebody else changes the target; create them or restore again with --drop"
    )]
    Indexes {
        /// The collection.
        to: Namespace,
        /// Their names.
        missing: String,
    },
    /// The backup cannot be read.
    #[error(transparent)]
    Source(#[from] SourceFault),
    /// The cursor could not be kept.
    #[error("progress of the restore could not be kept: {0}")]
    Keep(String),
}

fn count(names: &[Namespace]) -> String {
    if names.len() == 1 {
        "1 collection is".to_owned()
    } else {
        format!("{} collections are", names.len())
    }
}

fn cite(names: &[Namespace]) -> String {
    let cited: Vec<_> = names.iter().take(5).map(Namespace::to_string).collect();
    if names.len() > cited.len() {
        format!("{}, …", cited.join(", "))
    } else {
        cited.join(", ")
    }
}
