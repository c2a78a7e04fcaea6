//! How far a load is, in a form that its asker keeps and gives back after an interruption. Pure.

use std::collections::BTreeMap;

use bytes::Bytes;
use headwater_model::Namespace;
use serde::{Deserialize, Serialize};

/// How far one collection is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// It was not there, or may be dropped. A beginning of ours holds no documents.
    Claimed,
    /// It was created with its options, and everything up to `after` is at the target, durably.
    Documents {
        /// Key of the last row, in hexadecimal; `None` before the first batch.
        after: Option<String>,
        /// Documents up to there.
        documents: u64,
        /// Bytes of BSON up to there.
        bytes: u64,
        /// What the target calls the collection we made, in hexadecimal; kept before the first document is written.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        uuid: Option<String>,
    },
    /// All documents are there and were counted.
    Counted {
        /// How many.
        documents: u64,
        /// Bytes of BSON.
        bytes: u64,
        /// As in `Documents`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        uuid: Option<String>,
    },
    /// Indexes and all else are there too.
    Done {
        /// How many documents.
        documents: u64,
        /// Bytes of BSON.
        bytes: u64,
    },
}

impl Stage {
    /// Documents and bytes at the target.
    pub fn amount(&self) -> (u64, u64) {
        match *self {
            Stage::Claimed => (0, 0),
            Stage::Documents { documents, bytes, .. }
            | Stage::Counted { documents, bytes, .. }
            | Stage::Done { documents, bytes } => (documents, bytes),
        }
    }
}

/// Progress of all collections by their name at the target. Belongs to one plan: with another one it means nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    stages: BTreeMap<String, Stage>,
    /// Of a sharded cluster that is made anew: the cursors of its shards.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    shards: BTreeMap<String, Cursor>,
}

impl Cursor {
    /// How far a collection is; `None` if it was not begun.
    pub fn stage(&self, to: &Namespace) -> Option<&Stage> {
        self.stages.get(&to.to_string())
    }

    pub(super) fn set(&mut self, to: &Namespace, stage: Stage) {
        self.stages.insert(to.to_string(), stage);
    }

    /// The cursor of a shard; empty if it was not begun.
    pub(crate) fn of_shard(&self, shard: &str) -> Cursor {
        self.shards.get(shard).cloned().unwrap_or_default()
    }

    pub(crate) fn set_shard(&mut self, shard: &str, cursor: Cursor) {
        self.shards.insert(shard.to_owned(), cursor);
    }

    /// Documents and bytes at the target.
    pub fn amount(&self) -> (u64, u64) {
        let stages = self.stages.values().map(Stage::amount);
        let shards = self.shards.values().map(Cursor::amount);
        stages
            .chain(shards)
            .fold((0, 0), |(d, b), (documents, bytes)| (d + documents, b + bytes))
    }
}

/// A batch that arrived at the target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Arrived {
    pub number: u64,
    pub last_key: Bytes,
    pub documents: u64,
    pub bytes: u64,
}

/// Batches arrive in any order; the row of documents is safe up to the first one that is still under way.
#[derive(Debug)]
pub(super) struct Watermark {
    next: u64,
    ahead: BTreeMap<u64, Arrived>,
    after: Option<Bytes>,
    documents: u64,
    bytes: u64,
    uuid: Option<String>,
}

impl Watermark {
    pub fn new(after: Option<Bytes>, documents: u64, bytes: u64, uuid: Option<String>) -> Self {
        Watermark {
            next: 0,
            ahead: BTreeMap::new(),
            after,
            documents,
            bytes,
            uuid,
        }
    }

    pub fn arrive(&mut self, batch: Arrived) {
        self.ahead.insert(batch.number, batch);
        while let Some(batch) = self.ahead.remove(&self.next) {
            self.next += 1;
            self.documents += batch.documents;
            self.bytes += batch.bytes;
            self.after = Some(batch.last_key);
        }
    }

    pub fn stage(&self) -> Stage {
        Stage::Documents {
            after: self.after.as_ref().map(hex::encode),
            documents: self.documents,
            bytes: self.bytes,
            uuid: self.uuid.clone(),
        }
    }

    pub fn amount(&self) -> (u64, u64) {
        (self.documents, self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_arrived_without_a_gap_counts() {
        let batch = |number: u64| Arrived {
            number,
            last_key: Bytes::from(vec![number as u8]),
            documents: 10,
            bytes: 100,
        };
        let mut watermark = Watermark::new(Some(Bytes::from_static(b"\xee")), 5, 50, Some("1f".into()));
        let at = |w: &Watermark| match w.stage() {
            Stage::Documents {
                after,
                documents,
                bytes,
                uuid,
            } => {
                assert_eq!(uuid.as_deref(), Some("1f"));
                (after.unwrap(), documents, bytes)
            }
            other => panic!("{other:?}"),
        };
        watermark.arrive(batch(1));
        watermark.arrive(batch(3));
        assert_eq!(at(&watermark), ("ee".into(), 5, 50));
        watermark.arrive(batch(0));
        assert_eq!(at(&watermark), ("01".into(), 25, 250));
        watermark.arrive(batch(2));
        assert_eq!(at(&watermark), ("03".into(), 45, 450));
    }

    #[test]
    fn a_cursor_reads_back_what_it_wrote() {
        let mut cursor = Cursor::default();
        let stage = Stage::Documents {
            after: Some("0a".into()),
            documents: 3,
            bytes: 4,
            uuid: None,
        };
        cursor.set(&Namespace::new("a", "b"), stage);
        cursor.set(&Namespace::new("a", "c"), Stage::Done { documents: 1, bytes: 2 });
        let json = serde_json::to_string(&cursor).unwrap();
        assert_eq!(
            json,
            r#"{"stages":{"a.b":{"documents":{"after":"0a","documents":3,"bytes":4}},"a.c":{"done":{"documents":1,"bytes":2}}}}"#
        );
        assert_eq!(serde_json::from_str::<Cursor>(&json).unwrap(), cursor);
        assert_eq!(cursor.amount(), (4, 6));
        let mut whole = Cursor::default();
        whole.set_shard("sh0", cursor.clone());
        whole.set_shard("sh1", cursor.clone());
        let json = serde_json::to_string(&whole).unwrap();
        assert_eq!(serde_json::from_str::<Cursor>(&json).unwrap(), whole);
        assert_eq!((whole.amount(), whole.of_shard("sh1")), ((8, 12), cursor));
    }
}
