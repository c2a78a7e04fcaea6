//! Exports that genuine mongorestore reads: an archive stream, or a directory made from one.
//!
//! The data are those of the instant itself, with all oplog applied: there is no `oplog.bson` in them. The formats are
//! written down in `reference/ecosystem.md` §2.1 and §2.2; mongorestore 100.5.3 or newer takes every kind of
//! collection, 100.3.1 all but clustered and time-series ones.

mod archive;
mod directory;
mod file_name;
mod json;
mod metadata;
mod parser;
mod to_directory;
mod writer;

use headwater_model::Namespace;

pub use archive::{Entry, EntryType};
pub use directory::{DirectoryFault, DirectoryWriter, check_root};
pub use file_name::file_name;
pub use parser::{ArchiveFault, ArchiveParser, Event};
pub use to_directory::{ArchiveToDirectory, ExtractFault, Extracted};
pub use writer::archive;
pub(crate) use writer::is_given;

use crate::source::SourceFault;

/// The export cannot be made. What was written of it is no export.
#[derive(Clone, Debug, thiserror::Error)]
pub enum DumpFault {
    /// The backup cannot be read.
    #[error(transparent)]
    Source(#[from] SourceFault),
    /// No reader of archives takes such a document.
    #[error(
        "{namespace} holds a document of {bytes} bytes, over the 16 MiB an archive may hold; leave the collection out or restore with --to-uri"
    )]
    DocumentTooLarge {
        /// Where.
        namespace: Namespace,
        /// How large.
        bytes: usize,
    },
    /// A collection's options or indexes cannot be written.
    #[error("options of {namespace} cannot be written: {detail}")]
    Metadata {
        /// Whose.
        namespace: Namespace,
        /// What is in the way.
        detail: String,
    },
}

#[cfg(test)]
mod tests;
