//! The head itself: collections, the interpreter of entries, and how far it is.

mod effects;
mod jobs;
#[cfg(test)]
mod tests;
mod trim;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use headwater_model::{CollectionUuid, Optime, Ts};
use headwater_oplog::effect::Effect;
use headwater_oplog::entry;
use headwater_oplog::interpret::{Interpreter, Outlook};
use headwater_oplog::key::DocumentKey;
use headwater_oplog::record::{Record, Settled};
use headwater_oplog::version::SourceVersion;
use headwater_protocol::agent::CollectionMeta;
use headwater_store::blocks::Blocks;

use crate::audit::{self, Audited};
use crate::build::Built;
use crate::catalog;
use crate::collection::{Collection, Definition};
use crate::error::{HeadError, HeadFault};
use crate::image::{self, Image};
use crate::scan::{self, Digest, Scan};
use crate::stack;

/// The living copy of a replica set at one optime.
///
/// Applying is synchronous and reads nothing but memory. Everything slow is a job: given out by the head, run beside it,
/// handed back. Jobs that no longer fit when they come back are void, never wrong.
///
/// Sources before 5.0 do not log what falls out of a capped collection: [`Head::trim_capped`] makes up for it.
pub struct Head {
    blocks: Arc<dyn Blocks>,
    source_version: String,
    interpreter: Interpreter,
    begin_applying: Optime,
    applied: Optime,
    consistent_from: Option<Optime>,
    collections: BTreeMap<CollectionUuid, Collection>,
    /// The memory of all tables together; see [`Head::memtable_bytes`].
    memory: usize,
    next_generation: u64,
    broken: bool,
    /// The effects of the entry at hand; kept for its capacity.
    effects: Vec<Effect>,
}

/// Where a head begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Begin {
    /// The tail starts with the first entry after this one.
    pub tail_after: Optime,
    /// Entries up to here are in what the scan reads; only transactions that commit later matter in them.
    pub begin_applying: Optime,
}

impl Head {
    /// A head without collections. They come from the first copy, by [`Head::add_collection`], or from the oplog.
    pub fn new(blocks: Arc<dyn Blocks>, source_version: &str, begin: Begin) -> Result<Head, HeadError> {
        let version: SourceVersion = source_version.parse()?;
        Ok(Head {
            blocks,
            source_version: source_version.to_owned(),
            interpreter: Interpreter::new(version),
            begin_applying: begin.begin_applying,
            applied: begin.tail_after,
            consistent_from: None,
            collections: BTreeMap::new(),
            memory: 0,
            next_generation: 0,
            broken: false,
            effects: Vec::new(),
        })
    }

    /// The head of an image; it goes on with the first entry after `image.applied`.
    pub async fn open(blocks: Arc<dyn Blocks>, image: Image) -> Result<Head, HeadError> {
        let begin = Begin {
            tail_after: image.applied,
            begin_applying: image.begin_applying,
        };
        let mut head = Head::new(blocks, &image.source_version, begin)?;
        head.consistent_from = image.consistent_from;
        let open_entries = image::read_entries(&head.blocks, image.open_transactions.as_ref()).await?;
        head.interpreter = Interpreter::resume(head.interpreter.version(), open_entries)?;
        for definition in catalog::read(&head.blocks, image.catalog.as_ref()).await? {
            head.insert(definition);
        }
        Ok(head)
    }

    /// Takes in a collection of the first copy.
    pub fn add_collection(&mut self, meta: &CollectionMeta, built: Built) {
        let raw = |document: &bson::RawDocumentBuf| Bytes::copy_from_slice(document.as_bytes());
        self.insert(Definition {
            uuid: meta.uuid,
            namespace: headwater_model::Namespace::new(&meta.db, &meta.name),
            options: raw(&meta.options),
            indexes: meta.indexes.iter().map(raw).collect(),
            next_place: built.next_place,
            layers: built.layer.into_iter().collect(),
        });
    }

    fn insert(&mut self, definition: Definition) {
        let generation = self.new_generation();
        self.drop_collection(definition.uuid);
        self.collections
            .insert(definition.uuid, Collection::new(definition, generation));
    }

    fn new_generation(&mut self) -> u64 {
        self.next_generation += 1;
        self.next_generation
    }

    /// Forgets a collection: one that was dropped while it was scanned.
    pub fn drop_collection(&mut self, collection: CollectionUuid) {
        if let Some(gone) = self.collections.remove(&collection) {
            self.memory -= gone.memory();
        }
    }

    /// Applies the next entry of the oplog. Entries at or before [`Head::applied`] are passed over, so a stream may
    /// begin early; a gap is not noticed here.
    pub fn apply(&mut self, entry: Bytes) -> Result<Optime, HeadFault> {
        if self.broken {
            return Err(HeadFault::Broken);
        }
        let at = entry::position(&entry).map_err(HeadFault::Unreadable)?;
        if at.ts <= self.applied.ts {
            let same_history = at.ts != self.applied.ts || at.term == self.applied.term;
            return if same_history {
                Ok(at)
            } else {
                Err(HeadFault::History {
                    applied: self.applied,
                    found: at,
                })
            };
        }
        if at.ts <= self.begin_applying.ts {
            self.interpreter.remember(&entry)?;
        } else {
            let mut effects = std::mem::take(&mut self.effects);
            let interpreted = self.interpreter.interpret(&entry, &mut effects);
            let applied = interpreted
                .map_err(HeadFault::from)
                .and_then(|_| self.apply_effects(at, &mut effects));
            effects.clear();
            self.effects = effects;
            applied?;
        }
        self.applied = at;
        Ok(at)
    }

    /// What must be seen of the entries after this cluster time to know which of the transactions that are prepared now
    /// belong to it. The head has applied everything up to there.
    pub fn outlook(&self, cut: Ts) -> Outlook {
        self.interpreter.outlook(cut)
    }

    /// Lets commits take effect that lie after [`Head::applied`] and belong to a cut before them; when their turn comes they
    /// do nothing. Until then the head shows that cut, and [`Head::is_ahead`].
    pub fn commit_early(&mut self, commits: &[Bytes]) -> Result<(), HeadFault> {
        if self.broken {
            return Err(HeadFault::Broken);
        }
        for entry in commits {
            let mut effects = Vec::new();
            self.interpreter.commit_early(entry, &mut effects)?;
            self.apply_effects(self.applied, &mut effects)?;
        }
        Ok(())
    }

    /// Whether commits took effect whose turn has not come: the head then shows a cluster time after [`Head::applied`].
    pub fn is_ahead(&self) -> bool {
        self.interpreter.is_ahead()
    }

    /// The last entry applied.
    pub fn applied(&self) -> Optime {
        self.applied
    }

    /// The oldest entry of an undecided transaction, or the last entry applied.
    pub fn replay_from(&self) -> Optime {
        self.interpreter.oldest_open().unwrap_or(self.applied)
    }

    /// From where on images are consistent; see [`Image::consistent_from`].
    pub fn consistent_from(&self) -> Option<Optime> {
        self.consistent_from
    }

    /// Says from where on images are consistent.
    pub fn set_consistent_from(&mut self, at: Optime) {
        self.consistent_from = Some(at);
    }

    /// About the bytes of memory that [`Head::begin_spill`] could move out: active and frozen tables.
    pub fn memtable_bytes(&self) -> usize {
        self.memory
    }

    /// All collections, by UUID.
    pub fn collections(&self) -> impl Iterator<Item = &Collection> {
        self.collections.values()
    }

    /// One collection.
    pub fn collection(&self, uuid: CollectionUuid) -> Option<&Collection> {
        self.collections.get(&uuid)
    }

    fn known(&self, uuid: CollectionUuid) -> Result<&Collection, HeadError> {
        self.collections.get(&uuid).ok_or(HeadError::UnknownCollection(uuid))
    }

    /// Reads a collection in the order of keys, from a key on, as it is now.
    pub fn scan(&self, uuid: CollectionUuid, from: Option<DocumentKey>) -> Result<Scan, HeadError> {
        Ok(Scan::new(&self.blocks, self.known(uuid)?, from))
    }

    /// Counts and hashes a collection.
    pub async fn digest(&self, uuid: CollectionUuid) -> Result<Digest, HeadError> {
        self.scan(uuid, None)?.digest().await
    }

    /// Proves that the collection's layers are whole in the blockstore: every interior node is read, every leaf known to
    /// be there, one in `one_in` leaves read. What is in memory is not looked at.
    pub async fn audit(&self, uuid: CollectionUuid, one_in: u64) -> Result<Audited, HeadError> {
        let mut audited = Audited::default();
        for layer in self.known(uuid)?.layers() {
            audited += audit::layer(&self.blocks, layer, one_in).await?;
        }
        Ok(audited)
    }

    /// One document.
    pub async fn get(&self, uuid: CollectionUuid, key: &DocumentKey) -> Result<Option<Bytes>, HeadError> {
        let Some(record) = scan::known(&self.blocks, self.known(uuid)?, key).await? else {
            return Ok(None);
        };
        Ok(match stack::settled(uuid, &key.0, record)? {
            Settled::Document { doc, .. } => Some(doc),
            Settled::Absent | Settled::Missing(_) => None,
        })
    }

    /// Puts a document that was read from the source because it was missing; whether it was put.
    ///
    /// What the oplog said since the fold that missed it stays on top: changes are applied to it, a later document or
    /// delete makes it void. The head is consistent once it has applied the position at which the document was read. A
    /// collection that is gone needs nothing.
    pub async fn put_document(&mut self, uuid: CollectionUuid, doc: Bytes) -> Result<bool, HeadError> {
        let unusable = |fault: headwater_oplog::raw::BsonFault| HeadError::Document {
            collection: uuid,
            detail: fault.to_string(),
        };
        let key = DocumentKey::of_document(&doc).map_err(unusable)?;
        let Some(collection) = self.collections.get_mut(&uuid) else {
            return Ok(false);
        };
        let pending = match scan::known(&self.blocks, collection, &key).await? {
            Some(Record::Document { .. } | Record::Deleted) => return Ok(false),
            pending => pending,
        };
        let mut record = Record::Document {
            doc: Bytes::copy_from_slice(&doc),
            place: collection.take_place(),
        };
        if let Some(changes) = pending {
            record = stack::compose(uuid, &key.0, record, changes)?;
        }
        let put = collection.put(key.0.clone(), record);
        let grown = put.map_err(|fault| HeadError::Change {
            collection: uuid,
            key,
            fault,
        })?;
        self.memory = self.memory.saturating_add_signed(grown);
        Ok(true)
    }
}
