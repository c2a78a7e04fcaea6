//! Headers of what an agent ships. Each binds its slice to one replica set, incarnation and place in the stream, so
//! that a slice of another stream, or of another place, is recognised.

use headwater_model::{CollectionUuid, Incarnation, Optime, ReplicaSetId, Ts};
use serde::{Deserialize, Serialize};

/// Header of a frame of kind `OplogSlice`. Payload: oplog entries, raw BSON back to back, in order.
///
/// Slices are chained: `previous` is the optime of the last entry of the slice before, `previous_slice` its checksum.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OplogSliceHeader {
    /// Whose oplog.
    pub replica_set: ReplicaSetId,
    /// In which history.
    pub incarnation: Incarnation,
    /// The last entry shipped before; the stream's start optime for the first slice.
    #[serde(with = "optime_bson")]
    pub previous: Optime,
    /// Checksum of the slice before, in hexadecimal; empty for the first slice of an incarnation.
    pub previous_slice: String,
    /// The first entry of this slice.
    #[serde(with = "optime_bson")]
    pub first: Optime,
    /// The last entry of this slice.
    #[serde(with = "optime_bson")]
    pub last: Optime,
    /// How many entries.
    pub count: u32,
}

/// Header of a frame of kind `SyncSlice`. Payload: documents of one collection, raw BSON back to back, in the order
/// in which the scan met them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SyncSliceHeader {
    /// Whose data.
    pub replica_set: ReplicaSetId,
    /// In which history.
    pub incarnation: Incarnation,
    /// The collection.
    pub collection: CollectionUuid,
    /// Which part of the collection, from 0; parts are scanned independently and cover disjoint ranges.
    pub part: u32,
    /// Names the boundaries between the parts. The first slice of part 0 settles it for the collection: a scan that was planned
    /// anew in between must not leave a gap between a part of the one plan and a part of the other.
    pub plan: String,
    /// Counts the slices of a part from 0 without a gap.
    pub number: u32,
    /// How many documents; 0 only in the last slice of a part.
    pub count: u32,
    /// Where the scan of this part goes on after this slice; opaque to everyone but the agent.
    pub resume: bson::Document,
    /// Whether the part ends with this slice.
    pub last: bool,
}

/// Header of a frame of kind `Documents`: the answer, or a piece of it, to one [`crate::agent::FetchRequest`].
///
/// Pieces may come again after a failure, from the first one on; the last one closes the request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DocumentsHeader {
    /// Whose data.
    pub replica_set: ReplicaSetId,
    /// In which history.
    pub incarnation: Incarnation,
    /// The request answered.
    pub request: u64,
    /// The collection asked for.
    pub collection: CollectionUuid,
    /// A majority-committed position not before any of the reads: the head must pass it before an image is cut.
    #[serde(with = "optime_bson")]
    pub observed: Optime,
    /// How many this frame holds.
    pub count: u32,
    /// Whether another frame with documents for the same request follows.
    #[serde(default)]
    pub more: bool,
}

/// One part of a collection's scan, as far as the sync store knows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PartProgress {
    /// The collection.
    pub collection: CollectionUuid,
    /// The part.
    pub part: u32,
    /// The number the next slice must carry.
    pub next_number: u32,
    /// `resume` of the last slice.
    pub resume: bson::Document,
    /// Whether the part is complete.
    pub done: bool,
}

/// Writes an optime into BSON as `{ts: Timestamp, t: int64}`, as the server does.
pub mod optime_bson {
    use super::{Optime, Ts};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    struct Pair {
        ts: bson::Timestamp,
        t: i64,
    }

    /// See the module.
    pub fn serialize<S: Serializer>(value: &Optime, serializer: S) -> Result<S::Ok, S::Error> {
        Pair {
            ts: value.ts.into(),
            t: value.term,
        }
        .serialize(serializer)
    }

    /// See the module.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Optime, D::Error> {
        let pair = Pair::deserialize(deserializer)?;
        Ok(Optime::new(Ts::from(pair.ts), pair.t))
    }
}

/// Cuts a payload into its documents; checks lengths and terminators only, see `oplog::validate` for the rest.
pub fn documents(payload: &[u8]) -> Documents<'_> {
    Documents { rest: payload }
}

/// Iterator of [`documents`]. Ends after the first fault.
#[derive(Clone, Debug)]
pub struct Documents<'a> {
    rest: &'a [u8],
}

/// A payload that is not a row of BSON documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("payload does not divide into BSON documents, {0} bytes before its end")]
pub struct NotDocuments(pub usize);

impl<'a> Iterator for Documents<'a> {
    type Item = Result<&'a [u8], NotDocuments>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let len = self
            .rest
            .first_chunk::<4>()
            .map_or(0, |b| u32::from_le_bytes(*b) as usize);
        if len < 5 || len > self.rest.len() || self.rest[len - 1] != 0 {
            let fault = NotDocuments(self.rest.len());
            self.rest = &[];
            return Some(Err(fault));
        }
        let (document, rest) = self.rest.split_at(len);
        self.rest = rest;
        Some(Ok(document))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_divides_into_its_documents() {
        let two = [&[5, 0, 0, 0, 0][..], &[6, 0, 0, 0, 9, 0][..]].concat();
        assert_eq!(documents(&two).collect::<Result<Vec<_>, _>>().unwrap().len(), 2);
        for wrong in [
            &[5, 0, 0, 0][..],
            &[4, 0, 0, 0],
            &[5, 0, 0, 0, 1],
            &[255, 255, 255, 255, 0],
        ] {
            assert!(documents(wrong).any(|d| d.is_err()), "{wrong:?}");
        }
    }
}
