//! Update bodies applied to documents, byte for byte as the server does it.

pub mod v1;
pub mod v2;

pub use v1::NameOrder;

use crate::raw::BsonFault;

/// An update body that cannot be applied. It did not come from a server that applied it: the copy must be renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DiffFault {
    /// The diff or the document is no BSON, or the result would be larger than any document may be.
    #[error(transparent)]
    Bson(#[from] BsonFault),
    /// The diff breaks the grammar.
    #[error("malformed update: {0}")]
    Grammar(&'static str),
    /// An operator that does not say what the outcome is (`$inc` in an applyOps of a user, for example).
    #[error("the update cannot be replayed: it holds an operator other than $set and $unset")]
    NotReplayable,
    /// The update would turn the document into one with another `_id`.
    #[error("the update changes _id")]
    Id,
}
