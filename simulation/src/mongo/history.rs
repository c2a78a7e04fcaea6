//! The oplog and the state it makes, at every point of it.

use std::collections::{BTreeMap, BTreeSet};

use bson::{Binary, Document, RawDocumentBuf, Timestamp, doc, spec::BinarySubtype};
use headwater_model::{CollectionUuid, Optime, Ts};

use crate::planted::{self, Bug};

/// How many entries of the oplog have been applied. State and members are named by it.
pub type Count = usize;

/// An entry as it stands in the oplog.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Where.
    pub at: Optime,
    /// What.
    pub bytes: RawDocumentBuf,
}

/// What is known of a collection besides its documents.
#[derive(Clone, Debug, PartialEq)]
pub struct Meta {
    /// Its database.
    pub db: String,
    /// Its name there.
    pub name: String,
    /// Options as given to `create`.
    pub options: Document,
    /// Finished indexes, `_id_` first.
    pub indexes: Vec<Document>,
}

/// What an entry does to the state.
#[derive(Clone, Debug)]
pub enum Effect {
    /// A document is written under a record's number.
    Put(CollectionUuid, i64, Document),
    /// A document is deleted.
    Remove(CollectionUuid, i64),
    /// A collection is created, changed or dropped.
    Meta(CollectionUuid, Option<Meta>),
}

/// Values by the count from which on they hold; `None` for gone.
#[derive(Clone, Debug)]
struct Versions<T>(Vec<(Count, Option<T>)>);

impl<T> Versions<T> {
    fn at(&self, count: Count) -> Option<&T> {
        self.0.iter().rev().find(|(from, _)| *from <= count)?.1.as_ref()
    }

    fn set(&mut self, count: Count, value: Option<T>) {
        self.0.push((count, value));
    }

    fn truncate(&mut self, count: Count) {
        self.0.retain(|(from, _)| *from <= count);
    }
}

impl<T> Default for Versions<T> {
    fn default() -> Self {
        Versions(Vec::new())
    }
}

#[derive(Clone, Debug, Default)]
struct Collection {
    meta: Versions<Meta>,
    records: BTreeMap<i64, Versions<Document>>,
    next_record: i64,
}

/// A transaction that leaves more than one entry.
#[derive(Clone, Debug)]
pub struct Transaction {
    /// The session and the number in it.
    pub session: (Document, i64),
    /// Count and position of its first entry.
    pub first: (Count, Optime),
    /// Count and position of its newest entry.
    pub last: (Count, Optime),
    /// Whether it is prepared.
    pub prepared: bool,
    /// What it will do.
    pub effects: Vec<Effect>,
    /// The count at which it was decided.
    pub decided: Option<Count>,
    /// The cluster time it is committed at; `None` while it is not decided, and when it was aborted.
    pub commit: Option<Ts>,
    /// Whether several shards take part, so that somebody else decides.
    pub is_shared: bool,
}

/// What became of a transaction that was prepared at or before a cluster time and decided after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// It belongs to that time, though its commit's entry lies after it.
    Committed,
    /// It belongs to a later time.
    CommittedLater,
    /// It never was.
    Aborted,
    /// Nobody knows yet.
    Undecided,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct History {
    entries: Vec<Entry>,
    /// Entries up to here have left the oplog.
    pub truncated: Count,
    collections: BTreeMap<CollectionUuid, Collection>,
    /// Transactions of several entries, decided ones included.
    pub transactions: Vec<Transaction>,
}

impl History {
    /// How many entries there are.
    pub fn count(&self) -> Count {
        self.entries.len()
    }

    /// The entry that brings the state from `count - 1` to `count`.
    pub fn entry(&self, count: Count) -> Option<&Entry> {
        self.entries.get(count.checked_sub(1)?)
    }

    /// The position of a count.
    pub fn position(&self, count: Count) -> Optime {
        self.entry(count).map_or(Optime::ZERO, |entry| entry.at)
    }

    /// The newest count at or before `ts`.
    pub fn count_at(&self, ts: Ts) -> Count {
        self.entries.partition_point(|entry| entry.at.ts <= ts)
    }

    /// Appends an entry after the cluster time `after`; gives the new count. `fields` are those after `ts` and `t`.
    pub fn push(&mut self, seconds: u32, after: Ts, term: i64, fields: Document, effects: Vec<Effect>) -> Count {
        let last = self.entries.last().map_or(Ts::ZERO, |entry| entry.at.ts).max(after);
        let ts = Ts::new(seconds, 1).max(Ts::new(last.seconds(), last.ordinal() + 1));
        let mut entry = fields;
        entry.insert("ts", Timestamp::from(ts));
        entry.insert("t", term);
        entry.insert("v", 2_i64);
        entry.insert("wall", bson::DateTime::from_millis(i64::from(ts.seconds()) * 1000));
        let bytes = RawDocumentBuf::try_from(&entry).unwrap_or_default();
        self.entries.push(Entry {
            at: Optime::new(ts, term),
            bytes,
        });
        let count = self.entries.len();
        self.apply(count, effects);
        count
    }

    fn apply(&mut self, count: Count, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Put(uuid, record, document) => {
                    let records = &mut self.collections.entry(uuid).or_default().records;
                    records.entry(record).or_default().set(count, Some(document));
                }
                Effect::Remove(uuid, record) => {
                    let records = &mut self.collections.entry(uuid).or_default().records;
                    records.entry(record).or_default().set(count, None);
                }
                Effect::Meta(uuid, meta) => {
                    let gone = meta.is_none();
                    let collection = self.collections.entry(uuid).or_default();
                    collection.meta.set(count, meta);
                    if gone {
                        for record in collection.records.values_mut() {
                            record.set(count, None);
                        }
                    }
                }
            }
        }
    }

    /// Takes back everything after `count`.
    pub fn roll_back(&mut self, count: Count) {
        self.entries.truncate(count);
        for collection in self.collections.values_mut() {
            collection.meta.truncate(count);
            for record in collection.records.values_mut() {
                record.truncate(count);
            }
        }
        self.transactions.retain(|transaction| transaction.first.0 <= count);
        let positions: Vec<Optime> = self.entries.iter().map(|entry| entry.at).collect();
        for transaction in &mut self.transactions {
            if transaction.decided.is_some_and(|decided| decided > count) {
                (transaction.decided, transaction.commit) = (None, None);
            }
            if transaction.last.0 > count {
                // A part of a chain is gone, or the commit: what is left stands at the newest entry that stayed.
                transaction.last = (count, positions.last().copied().unwrap_or(Optime::ZERO));
            }
        }
    }

    /// A record's number that was never used in the collection.
    pub fn new_record(&mut self, uuid: CollectionUuid) -> i64 {
        let collection = self.collections.entry(uuid).or_default();
        collection.next_record += 1;
        collection.next_record
    }

    /// Collections at a count.
    pub fn collections(&self, count: Count) -> impl Iterator<Item = (CollectionUuid, &Meta)> {
        self.collections
            .iter()
            .filter_map(move |(uuid, collection)| Some((*uuid, collection.meta.at(count)?)))
    }

    /// A collection at a count.
    pub fn meta(&self, uuid: CollectionUuid, count: Count) -> Option<&Meta> {
        self.collections.get(&uuid)?.meta.at(count)
    }

    /// Whether a document was there all the while from `from` to `to`, and was changed meanwhile.
    pub fn was_changed(&self, uuid: CollectionUuid, record: i64, from: Count, to: Count) -> bool {
        let versions = self.collections.get(&uuid).and_then(|c| c.records.get(&record));
        versions.is_some_and(|versions| {
            let mut within = versions
                .0
                .iter()
                .filter(|(at, _)| (from + 1..=to).contains(at))
                .peekable();
            versions.at(from).is_some() && within.peek().is_some() && within.all(|(_, value)| value.is_some())
        })
    }

    /// Documents at a count, in natural order, with their numbers, those after `after` only.
    pub fn documents(&self, uuid: CollectionUuid, count: Count, after: i64) -> impl Iterator<Item = (i64, &Document)> {
        let collection = self.collections.get(&uuid);
        let alive = collection.is_some_and(|collection| collection.meta.at(count).is_some());
        let records = collection
            .filter(|_| alive)
            .map(|collection| collection.records.range(after + 1..));
        records
            .into_iter()
            .flatten()
            .filter_map(move |(record, versions)| Some((*record, versions.at(count)?)))
    }

    /// Transactions that were prepared at or before a cluster time and decided after it, and what became of them.
    pub fn prepared(&self, at: Ts) -> impl Iterator<Item = (&Transaction, Fate)> {
        let prepared = self.open(self.count_at(at)).filter(|transaction| transaction.prepared);
        prepared.map(move |transaction| {
            let fate = match (transaction.decided, transaction.commit) {
                (None, _) => Fate::Undecided,
                (Some(_), None) => Fate::Aborted,
                (Some(_), Some(commit)) if commit <= at => Fate::Committed,
                (Some(_), Some(_)) => Fate::CommittedLater,
            };
            (transaction, fate)
        })
    }

    /// Documents at a cluster time, by their numbers: plain entries up to it, and prepared transactions that are committed at
    /// or before it, wherever their commits lie.
    pub fn documents_at(&self, uuid: CollectionUuid, at: Ts) -> BTreeMap<i64, &Document> {
        let mut documents: BTreeMap<i64, &Document> = self.documents(uuid, self.count_at(at), 0).collect();
        let belongs = |fate: Fate| match fate {
            Fate::Committed => !planted::is(Bug::CutByCommitEntry),
            Fate::CommittedLater => planted::is(Bug::CutTakesPrepared),
            Fate::Aborted | Fate::Undecided => false,
        };
        for (transaction, _) in self.prepared(at).filter(|(_, fate)| belongs(*fate)) {
            for effect in &transaction.effects {
                match effect {
                    Effect::Put(of, record, document) if *of == uuid => _ = documents.insert(*record, document),
                    Effect::Remove(of, record) if *of == uuid => _ = documents.remove(record),
                    _ => {}
                }
            }
        }
        documents
    }

    /// A collection by its name at a count.
    pub fn named(&self, db: &str, name: &str, count: Count) -> Option<CollectionUuid> {
        let mut all = self.collections(count);
        all.find(|(_, meta)| meta.db == db && meta.name == name)
            .map(|(uuid, _)| uuid)
    }

    /// One document at a count.
    pub fn document(&self, uuid: CollectionUuid, record: i64, count: Count) -> Option<&Document> {
        self.collections.get(&uuid)?.records.get(&record)?.at(count)
    }

    /// Collections and records that an undecided transaction holds at a count.
    pub fn held(&self, count: Count) -> (BTreeSet<CollectionUuid>, BTreeSet<(CollectionUuid, i64)>) {
        let (mut collections, mut records) = (BTreeSet::new(), BTreeSet::new());
        for transaction in self.open(count) {
            for effect in &transaction.effects {
                if let Effect::Put(uuid, record, _) | Effect::Remove(uuid, record) = effect {
                    collections.insert(*uuid);
                    records.insert((*uuid, *record));
                }
            }
        }
        (collections, records)
    }

    /// Transactions that have left entries and are not decided at a count.
    pub fn open(&self, count: Count) -> impl Iterator<Item = &Transaction> {
        self.transactions.iter().filter(move |transaction| {
            transaction.first.0 <= count && transaction.decided.is_none_or(|decided| decided > count)
        })
    }
}

/// A UUID as a BSON value.
pub fn binary(uuid: CollectionUuid) -> Binary {
    Binary {
        subtype: BinarySubtype::Uuid,
        bytes: uuid.0.to_vec(),
    }
}

/// The index every collection has.
pub fn id_index() -> Document {
    doc! { "v": 2, "key": { "_id": 1 }, "name": "_id_" }
}
