//! What can go wrong in a head.

use headwater_model::{BlockId, CollectionUuid};
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
