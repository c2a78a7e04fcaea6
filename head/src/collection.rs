//! A collection as the head has it: what it is called, what it is like, and its stack of knowledge.
//!
//! The stack from bottom to top: layers (trees of records), frozen tables (waiting for their spill), the active table.
//! What is higher is newer.

use std::sync::Arc;

use bytes::Bytes;
use headwater_model::{CollectionUuid, Namespace};
use headwater_oplog::diff::DiffFault;
use headwater_oplog::raw;
use headwater_oplog::record::Record;

use crate::memtable::Table;
use crate::tree::Root;

/// A tree of records of one collection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// The tree.
    pub root: Root,
    /// Whether all its records are whole documents, as the bottom of a stack holds them. A *settled* stack is one plain
    /// layer, or none.
    pub plain: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Collection {
    uuid: CollectionUuid,
    pub(crate) namespace: Namespace,
    pub(crate) options: Bytes,
    pub(crate) indexes: Vec<Bytes>,
    capped: bool,
    pub(crate) next_place: u64,
    pub(crate) layers: Vec<Layer>,
    pub(crate) frozen: Vec<Arc<Table>>,
    pub(crate) active: Table,
    /// Told apart from all others of the head, also from the same collection before it was cleared: what a job brings
    /// back for another generation is void.
    pub(crate) generation: u64,
    /// How many layers the last survey of a fold found too costly to fold; 0 for none.
    pub(crate) surveyed: usize,
}

/// A collection's definition and layers, without what is in memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Definition {
    /// Its identity.
    pub uuid: CollectionUuid,
    /// Its name.
    pub namespace: Namespace,
    /// Its options, one BSON document.
    pub options: Bytes,
    /// Its indexes, one BSON document each.
    pub indexes: Vec<Bytes>,
    /// In a capped collection, the place of the next new document.
    pub next_place: u64,
    /// Its layers, bottom first.
    pub layers: Vec<Layer>,
}

impl Collection {
    pub(crate) fn new(definition: Definition, generation: u64) -> Self {
        let Definition {
            uuid,
            namespace,
            options,
            indexes,
            next_place,
            layers,
        } = definition;
        Collection {
            capped: is_capped(&options),
            uuid,
            namespace,
            options,
            indexes,
            next_place,
            layers,
            frozen: Vec::new(),
            active: Table::default(),
            generation,
            surveyed: 0,
        }
    }

    pub(crate) fn definition(&self) -> Definition {
        Definition {
            uuid: self.uuid,
            namespace: self.namespace.clone(),
            options: self.options.clone(),
            indexes: self.indexes.clone(),
            next_place: self.next_place,
            layers: self.layers.clone(),
        }
    }

    /// Its identity.
    pub fn uuid(&self) -> CollectionUuid {
        self.uuid
    }

    /// Its name. Two collections may have one name while a first copy catches up.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Its options, one BSON document, as listCollections gives them.
    pub fn options(&self) -> &Bytes {
        &self.options
    }

    /// Its indexes, one BSON document each, as listIndexes gives them.
    pub fn indexes(&self) -> &[Bytes] {
        &self.indexes
    }

    /// Whether the order of its documents is data.
    pub fn is_capped(&self) -> bool {
        self.capped
    }

    /// Whether it is one plain layer: then [`Collection::documents`] and [`Collection::bytes`] are exact.
    pub fn is_settled(&self) -> bool {
        self.frozen.is_empty() && self.active.is_empty() && stack_is_settled(&self.layers)
    }

    /// Documents in the bottom layer.
    pub fn documents(&self) -> u64 {
        self.layers.first().map_or(0, |layer| layer.root.records)
    }

    /// Bytes of BSON in the bottom layer.
    pub fn bytes(&self) -> u64 {
        document_bytes(self.layers.first(), self.capped)
    }

    /// Its layers, bottom first.
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// Adds to what is known of a document; by how many bytes its memory grew.
    pub(crate) fn put(&mut self, key: Bytes, record: Record) -> Result<isize, DiffFault> {
        let before = self.active.bytes();
        self.active.put(key, record)?;
        let grown = self.active.bytes() as isize - before as isize;
        if self.active.is_oversized() {
            self.freeze();
        }
        Ok(grown)
    }

    /// About the bytes of memory in its tables.
    pub(crate) fn memory(&self) -> usize {
        self.active.bytes() + self.frozen.iter().map(|table| table.bytes()).sum::<usize>()
    }

    /// Moves the active table among the frozen.
    pub(crate) fn freeze(&mut self) {
        if !self.active.is_empty() {
            self.frozen.push(Arc::new(std::mem::take(&mut self.active)));
        }
    }

    /// Takes all documents away.
    pub(crate) fn clear(&mut self, generation: u64) {
        self.layers.clear();
        self.frozen.clear();
        self.active = Table::default();
        self.generation = generation;
        self.surveyed = 0;
    }

    /// The place of a new document.
    pub(crate) fn take_place(&mut self) -> headwater_oplog::record::Place {
        if !self.capped {
            return headwater_oplog::record::Place::None;
        }
        self.next_place += 1;
        headwater_oplog::record::Place::Keep(self.next_place - 1)
    }
}

/// Whether a stack of layers needs no merging to be read.
pub(crate) fn stack_is_settled(layers: &[Layer]) -> bool {
    match layers {
        [] => true,
        [only] => only.plain,
        _ => false,
    }
}

/// Bytes of BSON in a plain layer: values without what the record's layout adds to a document.
pub(crate) fn document_bytes(layer: Option<&Layer>, capped: bool) -> u64 {
    let added = if capped { 9 } else { 1 };
    layer.map_or(0, |layer| layer.root.bytes.saturating_sub(layer.root.records * added))
}

/// Whether the options say `capped`.
pub(crate) fn is_capped(options: &[u8]) -> bool {
    raw::find(options, "capped")
        .ok()
        .flatten()
        .is_some_and(|element| element.is_true())
}
