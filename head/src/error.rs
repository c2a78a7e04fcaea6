//! What can go wrong in a head.

use headwater_model::{BlockId, CollectionUuid, Optime};
use headwater_oplog::diff::DiffFault;
use headwater_oplog::interpret::EntryFault;
use headwater_oplog::key::DocumentKey;
use headwater_oplog::raw::BsonFault;
use headwater_oplog::record::RecordFault;
use headwater_oplog::version::InvalidVersion;
use headwater_store::objects::StoreError;

use crate::tree::NodeFault;

/// Reading or writing a head failed. The head itself is as it was before the call.
#[derive(Debug, thiserror::Error)]
pub enum HeadError {
    /// The blockstore failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A block is intact but is no node of a tree: it was written by something else, or by a fault of ours.
    #[error("block {id} is no tree node: {fault}; restore from another image and report this")]
    Node {
        /// The block.
        id: BlockId,
        /// What does not fit.
        fault: NodeFault,
    },
    /// A node and what is above it disagree about how many records there are.
    #[error(
        "block {id} leads to {found} records where {expected} are counted; restore from another image and report this"
    )]
    Count {
        /// The block.
        id: BlockId,
        /// What the node above, or the catalog, says.
        expected: u64,
        /// What is below.
        found: u64,
    },
    /// A node's value does not decode.
    #[error("a record of collection {collection} does not decode: {fault}; restore from another image and report this")]
    Record {
        /// The collection.
        collection: CollectionUuid,
        /// What does not fit.
        fault: RecordFault,
    },
    /// A pending change cannot be applied to the document it belongs to: the copy of this collection is not what the
    /// source had.
    #[error("a change of {key:?} in collection {collection} cannot be applied: {fault}; sync the replica set anew")]
    Change {
        /// The collection.
        collection: CollectionUuid,
        /// The document.
        key: DocumentKey,
        /// What does not fit.
        fault: DiffFault,
    },
    /// The version of the source is none.
    #[error(transparent)]
    Version(#[from] InvalidVersion),
    /// An open transaction of the image cannot be resumed.
    #[error("the image's open transactions cannot be resumed: {0}")]
    Transactions(#[from] EntryFault),
    /// An entry failed half-way in this head: what it holds is no longer of one optime.
    #[error("this head failed while it applied an entry: open it again from its last image")]
    Broken,
    /// Records were to be written out of order: a fault of ours, stopped before it reached a block.
    #[error("records reached a tree out of order; report this")]
    Order,
    /// One record is larger than a block may be.
    #[error("a record of {0} bytes does not fit a block")]
    TooLarge(usize),
    /// The catalog of an image does not decode.
    #[error("the catalog of the image cannot be read: {0}; restore from another image and report this")]
    Catalog(String),
    /// The image manifest does not decode, or is of another format.
    #[error("the image cannot be read: {0}")]
    Image(String),
    /// The head has no such collection.
    #[error("collection {0} is not in this head")]
    UnknownCollection(CollectionUuid),
    /// A document of a first copy or a fetch has no usable `_id`.
    #[error("a document for collection {collection} cannot be taken: {detail}")]
    Document {
        /// The collection.
        collection: CollectionUuid,
        /// What does not fit.
        detail: String,
    },
}

/// An entry was not applied.
#[derive(Debug, thiserror::Error)]
pub enum HeadFault {
    /// The entry cannot be followed. The head is unchanged.
    #[error(transparent)]
    Entry(#[from] EntryFault),
    /// The entry is no BSON, or has no position. The head is unchanged.
    #[error("an oplog entry cannot be read: {0}")]
    Unreadable(BsonFault),
    /// An effect of the entry does not fit what the head has. The head is broken: open it again from its last image.
    #[error("the oplog entry at {at} does not fit collection {collection}: {fault}; sync the replica set anew")]
    Effect {
        /// The entry.
        at: Optime,
        /// The collection.
        collection: CollectionUuid,
        /// What does not fit.
        fault: DiffFault,
    },
    /// The head failed at an earlier entry: open it again from its last image.
    #[error("this head failed while it applied an entry: open it again from its last image")]
    Broken,
    /// The entry has the place of one applied before, but is of another term: another history. The head is unchanged.
    #[error("entry {found} is of another history than the one applied, {applied}: start a new incarnation")]
    History {
        /// The last entry applied.
        applied: Optime,
        /// The entry offered.
        found: Optime,
    },
}
