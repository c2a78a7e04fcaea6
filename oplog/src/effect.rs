//! What an oplog entry does to a copy, resolved to collection UUIDs and document keys.

use bytes::Bytes;
use headwater_model::{CollectionUuid, Namespace};

use crate::key::DocumentKey;
use crate::record::Change;

/// One step of the copy. Bytes are slices of the entry they came from, so an effect kept for long keeps the entry's
/// buffer alive: copy what is to stay.
///
/// CRUD on a collection that is not known is to be skipped: it was dropped later, or never was part of the copy.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// The document is there, with exactly these bytes; one of the same key is replaced (in a capped collection at its
    /// place).
    Put {
        /// Where.
        collection: CollectionUuid,
        /// Of the document's `_id`.
        key: DocumentKey,
        /// The whole document.
        doc: Bytes,
    },
    /// The document is changed; its [`Change::place`] is left for the receiver to give.
    Change {
        /// Where.
        collection: CollectionUuid,
        /// Which document.
        key: DocumentKey,
        /// How.
        change: Change,
    },
    /// The document is gone; one that is missing already is no error.
    Delete {
        /// Where.
        collection: CollectionUuid,
        /// Which document.
        key: DocumentKey,
    },
    /// A collection comes to be. One whose UUID is known already stays as it is. Two collections may have one name for
    /// a while, until the copy is consistent.
    Create {
        /// Its identity.
        collection: CollectionUuid,
        /// Its name.
        namespace: Namespace,
        /// Its options, as listCollections gives them.
        options: Bytes,
        /// The spec of the `_id` index, if the entry has one; see [`crate::collection::initial_indexes`].
        id_index: Option<Bytes>,
    },
    /// The collection is gone, if it was known.
    Drop {
        /// Which.
        collection: CollectionUuid,
    },
    /// The collection has a new name. `drop_target` is to be dropped first, even when `collection` is not known.
    Rename {
        /// Which.
        collection: CollectionUuid,
        /// Its new name.
        to: Namespace,
        /// The collection that had the name.
        drop_target: Option<CollectionUuid>,
        /// Whether the option `temp` stays; see [`crate::collection::renamed`].
        stay_temp: bool,
    },
    /// Finished indexes; a name that is taken already keeps its spec. See [`crate::collection::add_indexes`].
    CreateIndexes {
        /// Of which collection.
        collection: CollectionUuid,
        /// The specs, without `ns`.
        specs: Vec<Bytes>,
    },
    /// An index is gone. See [`crate::collection::drop_index`].
    DropIndex {
        /// Of which collection.
        collection: CollectionUuid,
        /// The index's name.
        name: String,
    },
    /// Options or indexes change: `body` is the whole command, for [`crate::collection::modified`].
    CollMod {
        /// Which collection.
        collection: CollectionUuid,
        /// The command.
        body: Bytes,
    },
    /// All documents are gone, options and indexes stay (`emptycapped`).
    Clear {
        /// Which collection.
        collection: CollectionUuid,
    },
}
