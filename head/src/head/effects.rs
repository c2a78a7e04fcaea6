//! Effects applied: catalog changes at once, document changes to the active table.
//!
//! What concerns an unknown collection is passed over: it was dropped later, or never was part of the copy.

use bytes::Bytes;
use headwater_model::{CollectionUuid, Optime};
use headwater_oplog::collection as definitions;
use headwater_oplog::diff::DiffFault;
use headwater_oplog::effect::Effect;
use headwater_oplog::record::{Place, Record};

use super::Head;
use crate::collection::Definition;
use crate::error::HeadFault;

impl Head {
    /// Applies the effects of one entry. A fault breaks the head: part of the entry may be applied.
    pub(super) fn apply_effects(&mut self, at: Optime, effects: &mut Vec<Effect>) -> Result<(), HeadFault> {
        for effect in effects.drain(..) {
            let collection = subject(&effect);
            self.apply_effect(effect).map_err(|fault| {
                self.broken = true;
                HeadFault::Effect { at, collection, fault }
            })?;
        }
        Ok(())
    }

    fn apply_effect(&mut self, effect: Effect) -> Result<(), DiffFault> {
        match effect {
            Effect::Put { collection, key, doc } => {
                if let Some(collection) = self.collections.get_mut(&collection) {
                    let place = collection.take_place();
                    let record = Record::Document {
                        doc: Bytes::copy_from_slice(&doc),
                        place,
                    };
                    let grown = collection.put(key.0, record)?;
                    self.memory = self.memory.saturating_add_signed(grown);
                }
            }
            Effect::Change {
                collection,
                key,
                change,
            } => {
                if let Some(collection) = self.collections.get_mut(&collection) {
                    let mut change = change.detached();
                    change.place = if change.upsert.is_some() {
                        collection.take_place()
                    } else {
                        Place::None
                    };
                    let grown = collection.put(key.0, Record::Changes(vec![change]))?;
                    self.memory = self.memory.saturating_add_signed(grown);
                }
            }
            Effect::Delete { collection, key } => {
                if let Some(collection) = self.collections.get_mut(&collection) {
                    let grown = collection.put(key.0, Record::Deleted)?;
                    self.memory = self.memory.saturating_add_signed(grown);
                }
            }
            Effect::Drop { collection } => self.drop_collection(collection),
            Effect::Clear { collection } => {
                let generation = self.new_generation();
                if let Some(collection) = self.collections.get_mut(&collection) {
                    self.memory -= collection.memory();
                    collection.clear(generation);
                }
            }
            other => self.apply_definition(other)?,
        }
        Ok(())
    }

    fn apply_definition(&mut self, effect: Effect) -> Result<(), DiffFault> {
        match effect {
            Effect::Create {
                collection,
                namespace,
                options,
                id_index,
            } => {
                if !self.collections.contains_key(&collection) {
                    let indexes = definitions::initial_indexes(&options, id_index.as_deref())?;
                    let options = Bytes::copy_from_slice(&options);
                    self.insert(Definition {
                        uuid: collection,
                        namespace,
                        options,
                        indexes,
                        next_place: 0,
                        layers: Vec::new(),
                    });
                }
            }
            Effect::Rename {
                collection,
                to,
                drop_target,
                stay_temp,
            } => {
                if let Some(target) = drop_target.filter(|target| *target != collection) {
                    self.drop_collection(target);
                }
                if let Some(collection) = self.collections.get_mut(&collection) {
                    collection.options = definitions::renamed(&collection.options, stay_temp)?;
                    collection.namespace = to;
                }
            }
            Effect::CreateIndexes { collection, specs } => {
                if let Some(collection) = self.collections.get_mut(&collection) {
                    definitions::add_indexes(&mut collection.indexes, &specs)?;
                }
            }
            Effect::DropIndex { collection, name } => {
                if let Some(collection) = self.collections.get_mut(&collection) {
                    definitions::drop_index(&mut collection.indexes, &name)?;
                }
            }
            Effect::CollMod { collection, body } => {
                let version = self.interpreter.version();
                if let Some(collection) = self.collections.get_mut(&collection) {
                    let after = definitions::modified(version, &collection.options, &collection.indexes, &body)?;
                    (collection.options, collection.indexes) = (after.options, after.indexes);
                }
            }
            Effect::Put { .. }
            | Effect::Change { .. }
            | Effect::Delete { .. }
            | Effect::Drop { .. }
            | Effect::Clear { .. } => {}
        }
        Ok(())
    }
}

fn subject(effect: &Effect) -> CollectionUuid {
    match effect {
        Effect::Put { collection, .. }
        | Effect::Change { collection, .. }
        | Effect::Delete { collection, .. }
        | Effect::Create { collection, .. }
        | Effect::Drop { collection }
        | Effect::Rename { collection, .. }
        | Effect::CreateIndexes { collection, .. }
        | Effect::DropIndex { collection, .. }
        | Effect::CollMod { collection, .. }
        | Effect::Clear { collection } => *collection,
    }
}
