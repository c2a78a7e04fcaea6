//! A small copy of a replica set: effects, records and catalog functions put together, in memory.

use std::collections::BTreeMap;

use bytes::Bytes;
use headwater_model::{CollectionUuid, Namespace};
use headwater_oplog::collection::{self, Capped};
use headwater_oplog::{DocumentKey, Effect, Place, Record, Settled, SourceVersion};

use crate::vectors::Catalogued;

/// How records of several layers are put together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Grouping {
    OldestFirst,
    NewestFirst,
}

pub struct Copy {
    version: SourceVersion,
    pub collections: BTreeMap<CollectionUuid, Collection>,
}

type Layer = BTreeMap<DocumentKey, Record>;

pub struct Collection {
    pub namespace: Namespace,
    pub options: Bytes,
    pub indexes: Vec<Bytes>,
    /// Oldest first; effects go to the last.
    layers: Vec<Layer>,
    places: u64,
}

impl Copy {
    pub fn of(version: SourceVersion, state: &[Catalogued]) -> Self {
        let mut copy = Copy {
            version,
            collections: BTreeMap::new(),
        };
        for found in state {
            let mut collection = Collection::new(found.namespace.clone(), found.options.clone(), found.indexes.clone());
            for doc in &found.docs {
                collection.put(DocumentKey::of_document(doc).unwrap(), doc.clone());
            }
            copy.collections.insert(found.uuid, collection);
        }
        copy
    }

    /// From here on effects go to a new layer.
    pub fn begin_layer(&mut self) {
        self.collections
            .values_mut()
            .for_each(|collection| collection.layers.push(Layer::new()));
    }

    pub fn apply(&mut self, effect: Effect) {
        let version = self.version;
        match effect {
            Effect::Create {
                collection,
                namespace,
                options,
                id_index,
            } => {
                self.collections.entry(collection).or_insert_with(|| {
                    let indexes = collection::initial_indexes(&options, id_index.as_deref()).unwrap();
                    Collection::new(namespace, options, indexes)
                });
            }
            Effect::Drop { collection } => {
                self.collections.remove(&collection);
            }
            Effect::Rename {
                collection,
                to,
                drop_target,
                stay_temp,
            } => {
                if let Some(target) = drop_target {
                    self.collections.remove(&target);
                }
                self.with(collection, |found| {
                    found.namespace = to;
                    found.options = collection::renamed(&found.options, stay_temp).unwrap();
                });
            }
            Effect::CreateIndexes { collection, specs } => {
                self.with(collection, |found| {
                    collection::add_indexes(&mut found.indexes, &specs).unwrap()
                });
            }
            Effect::DropIndex { collection, name } => {
                self.with(collection, |found| {
                    collection::drop_index(&mut found.indexes, &name).unwrap()
                });
            }
            Effect::CollMod { collection, body } => self.with(collection, |found| {
                let after = collection::modified(version, &found.options, &found.indexes, &body).unwrap();
                (found.options, found.indexes) = (after.options, after.indexes);
            }),
            Effect::Clear { collection } => {
                self.with(collection, |found| found.layers.iter_mut().for_each(Layer::clear));
            }
            Effect::Put { collection, key, doc } => self.with(collection, |found| {
                found.put(key, doc);
                found.trim(version);
            }),
            Effect::Delete { collection, key } => self.with(collection, |found| found.add(key, Record::Deleted)),
            Effect::Change {
                collection,
                key,
                mut change,
            } => self.with(collection, |found| {
                change.place = found.next_place();
                found.add(key, Record::Changes(vec![change]));
                found.trim(version);
            }),
        }
    }

    /// CRUD and DDL of collections that are not known is skipped.
    fn with(&mut self, uuid: CollectionUuid, change: impl FnOnce(&mut Collection)) {
        if let Some(collection) = self.collections.get_mut(&uuid) {
            change(collection);
        }
    }
}

impl Collection {
    fn new(namespace: Namespace, options: Bytes, indexes: Vec<Bytes>) -> Self {
        Collection {
            namespace,
            options,
            indexes,
            layers: vec![Layer::new()],
            places: 0,
        }
    }

    pub fn capped(&self) -> Option<Capped> {
        Capped::of(&self.options).unwrap()
    }

    fn next_place(&mut self) -> Place {
        self.places += 1;
        if self.capped().is_some() {
            Place::Keep(self.places)
        } else {
            Place::None
        }
    }

    fn put(&mut self, key: DocumentKey, doc: Bytes) {
        let place = self.next_place();
        self.add(key, Record::Document { doc, place });
    }

    fn add(&mut self, key: DocumentKey, newer: Record) {
        let layer = self.layers.last_mut().unwrap();
        let record = match layer.remove(&key) {
            Some(older) => Record::compose(older, newer).unwrap(),
            None => newer,
        };
        layer.insert(key, record);
    }

    /// Servers before 5.0 let the oldest documents fall out unlogged.
    fn trim(&mut self, version: SourceVersion) {
        let Some(capped) = self.capped().filter(|_| !version.logs_capped_overflow()) else {
            return;
        };
        let mut present: Vec<_> = self.settled(Grouping::OldestFirst).into_iter().collect();
        present.sort_by_key(|(_, (_, place))| *place);
        let overflow = capped.overflow(present.iter().rev().map(|(_, (doc, _))| doc.len() as u64));
        for (key, _) in present.into_iter().take(overflow as usize) {
            self.add(key, Record::Deleted);
        }
    }

    /// What is there: bytes and place by key.
    pub fn settled(&self, grouping: Grouping) -> BTreeMap<DocumentKey, (Bytes, u64)> {
        let mut histories: BTreeMap<&DocumentKey, Vec<Record>> = BTreeMap::new();
        for (key, record) in self.layers.iter().flatten() {
            histories.entry(key).or_default().push(stored(record));
        }
        let mut documents = BTreeMap::new();
        for (key, records) in histories {
            let whole = match grouping {
                Grouping::OldestFirst => records
                    .into_iter()
                    .reduce(|older, newer| Record::compose(older, newer).unwrap()),
                Grouping::NewestFirst => records
                    .into_iter()
                    .rev()
                    .reduce(|newer, older| Record::compose(older, newer).unwrap()),
            };
            match whole.unwrap().settle().unwrap() {
                Settled::Document { doc, place } => {
                    assert_eq!(DocumentKey::of_document(&doc).as_ref(), Ok(key));
                    documents.insert(key.clone(), (doc, place));
                }
                Settled::Absent => {}
                Settled::Missing(changes) => panic!("{key:?} is missing in {}: {changes:?}", self.namespace),
            }
        }
        documents
    }
}

/// As it comes back from a layer's bytes.
fn stored(record: &Record) -> Record {
    let mut bytes = Vec::new();
    record.encode(&mut bytes);
    let read = Record::decode_shared(&bytes.into()).unwrap();
    assert_eq!(&read, record);
    read
}
