//! Changes in memory: what is known of each document since the top layer, composed as it arrives.
//!
//! A table belongs to one collection. Being frozen makes it immutable; it then waits for its spill.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Bound;

use bytes::Bytes;
use headwater_model::limits;
use headwater_oplog::diff::DiffFault;
use headwater_oplog::record::{Place, Record};

use crate::sort_key::SortKey;

/// About what a record costs besides its own bytes: its node, its allocations.
const OVERHEAD: usize = 160;

/// See the module.
#[derive(Debug, Default)]
pub struct Table {
    records: BTreeMap<SortKey, Slot>,
    bytes: usize,
    oversized: bool,
}

#[derive(Debug)]
struct Slot {
    record: Record,
    /// Kept, because weighing a long list of changes anew at each change would be quadratic.
    weight: usize,
}

impl Table {
    /// Composes what is newly known with what is known already. The record should own its bytes.
    ///
    /// After an error the table is without the document's record: it must not be used on.
    pub fn put(&mut self, key: Bytes, newer: Record) -> Result<(), DiffFault> {
        match self.records.entry(SortKey::new(key)) {
            Entry::Vacant(vacant) => {
                let weight = newer.weight();
                self.bytes += weight + vacant.key().bytes().len() + OVERHEAD;
                self.oversized |= weight >= limits::PENDING_CHANGES_MAX_BYTES && matches!(newer, Record::Changes(_));
                vacant.insert(Slot { record: newer, weight });
            }
            Entry::Occupied(mut occupied) => {
                let slot = occupied.get_mut();
                let older = std::mem::replace(&mut slot.record, Record::Deleted);
                let both_changes = matches!((&older, &newer), (Record::Changes(_), Record::Changes(_)));
                let added = if both_changes { newer.weight() } else { 0 };
                slot.record = Record::compose(older, newer)?;
                let weight = if both_changes {
                    slot.weight + added
                } else {
                    slot.record.weight()
                };
                self.bytes = self.bytes + weight - slot.weight;
                self.oversized |= both_changes && weight >= limits::PENDING_CHANGES_MAX_BYTES;
                slot.weight = weight;
            }
        }
        Ok(())
    }

    /// What is known of a document.
    pub fn get(&self, key: &Bytes) -> Option<&Record> {
        self.records.get(&SortKey::new(key.clone())).map(|slot| &slot.record)
    }

    /// Everything from a key on, in order.
    pub fn from(&self, key: Option<&Bytes>) -> impl Iterator<Item = (&Bytes, &Record)> {
        let start = key.map_or(Bound::Unbounded, |key| Bound::Included(SortKey::new(key.clone())));
        self.records
            .range((start, Bound::Unbounded))
            .map(|(key, slot)| (key.bytes(), &slot.record))
    }

    /// How many documents something is known of.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// About the bytes of memory it holds.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether the pending changes of one document are as many as one record should hold.
    pub fn is_oversized(&self) -> bool {
        self.oversized
    }

    /// Whether there are only whole documents, as a bottom layer would hold them.
    pub fn is_plain(&self) -> bool {
        self.records.values().all(|slot| {
            matches!(
                slot.record,
                Record::Document {
                    place: Place::None | Place::Keep(_),
                    ..
                }
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use headwater_oplog::record::{Change, ChangeBody};

    fn change(len: usize) -> Record {
        let body = ChangeBody::V2(Bytes::from(vec![0; len]));
        Record::Changes(vec![Change {
            body,
            upsert: None,
            place: Place::None,
        }])
    }

    fn document(len: usize) -> Record {
        Record::Document {
            doc: Bytes::from(vec![0; len]),
            place: Place::None,
        }
    }

    #[test]
    fn keys_order_as_their_bytes_whatever_their_length() {
        let mut keys: Vec<Bytes> = [
            "",
            "\0",
            "\0\0",
            "a",
            "a\0",
            "aaaaaaaaaaaaaaaa",
            "aaaaaaaaaaaaaaaa\0",
            "aaaaaaaaaaaaaaaab",
        ]
        .map(|k| Bytes::from_static(k.as_bytes()))
        .to_vec();
        let mut table = Table::default();
        for key in keys.iter().rev() {
            table.put(key.clone(), document(1)).unwrap();
        }
        keys.sort();
        assert_eq!(table.from(None).map(|(key, _)| key.clone()).collect::<Vec<_>>(), keys);
        assert_eq!(table.from(Some(&keys[3])).count(), keys.len() - 3);
    }

    #[test]
    fn what_is_replaced_no_longer_counts() {
        let mut table = Table::default();
        let key = Bytes::from_static(b"k");
        table.put(key.clone(), document(1000)).unwrap();
        let one = table.bytes();
        for _ in 0..10 {
            table.put(key.clone(), document(1000)).unwrap();
        }
        assert_eq!(table.bytes(), one);
        table.put(key.clone(), Record::Deleted).unwrap();
        assert!(table.bytes() < one - 900);
        assert!(!table.is_plain());
    }

    #[test]
    fn many_pending_changes_of_one_document_are_noticed() {
        let mut table = Table::default();
        let key = Bytes::from_static(b"k");
        for n in 0.. {
            table.put(key.clone(), change(limits::MIB)).unwrap();
            if table.is_oversized() {
                assert_eq!(n, 7);
                break;
            }
        }
        assert!(table.bytes() >= 8 * limits::MIB);
    }
}
