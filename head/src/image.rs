//! An image: everything of a head at one optime, so that [`crate::Head::open`] goes on exactly there.
//!
//! An image is small: it names the catalog's tree and the tree of open transaction entries (numbered from 0 in
//! big-endian keys), and says what it is of. All else is in blocks, which are flushed before the image exists.

use std::sync::Arc;

use bytes::Bytes;
use headwater_model::{Incarnation, Optime, ReplicaSetId};
use headwater_protocol::slices::optime_bson;
use headwater_store::blocks::Blocks;
use serde::{Deserialize, Serialize};

use crate::catalog::{self, StoredRoot};
use crate::collection::{Definition, document_bytes, is_capped};
use crate::error::HeadError;
use crate::spill::{SpillDone, SpillJob};
use crate::tree::{Cursor, Root, TreeWriter};

const FORMAT: i32 = 1;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Whose data.
    pub replica_set: ReplicaSetId,
    /// In which history.
    pub incarnation: Incarnation,
    /// Everything up to and including this entry is in it.
    pub applied: Optime,
    /// The oldest entry of a transaction that was undecided then, or `applied`. The image holds the entries from here
    /// that it needs; who has none of them must replay from here.
    pub replay_from: Optime,
    /// Entries up to here were in what the first copy read.
    pub begin_applying: Optime,
    /// The data is consistent from this optime on: the position of the last fetch of missing documents, or the end of
    /// the scan. `None`: not known; such an image must not be restored.
    pub consistent_from: Option<Optime>,
    /// Version of the source, as `buildInfo` has it.
    pub source_version: String,
    /// What it holds.
    pub totals: Totals,
    /// The tree of collections.
    pub catalog: Option<Root>,
    /// The tree of open transaction entries.
    pub open_transactions: Option<Root>,
}

/// What an image holds. Exact for collections whose stack is settled; of others the bottom layer is counted, and what
/// was changed since is not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Collections.
    pub collections: u64,
    /// Documents.
    pub documents: u64,
    /// Bytes of BSON.
    pub bytes: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct StoredImage {
    format: i32,
    replica_set: ReplicaSetId,
    incarnation: i64,
    #[serde(with = "optime_bson")]
    applied: Optime,
    #[serde(with = "optime_bson")]
    replay_from: Optime,
    #[serde(with = "optime_bson")]
    begin_applying: Optime,
    consistent: bool,
    #[serde(with = "optime_bson")]
    consistent_from: Optime,
    source_version: String,
    totals: Totals,
    catalog: Option<StoredRoot>,
    open_transactions: Option<StoredRoot>,
}

impl Image {
    /// The image as one BSON document.
    pub fn encode(&self) -> Result<Vec<u8>, HeadError> {
        let stored = StoredImage {
            format: FORMAT,
            replica_set: self.replica_set.clone(),
            incarnation: self.incarnation.0 as i64,
            applied: self.applied,
            replay_from: self.replay_from,
            begin_applying: self.begin_applying,
            consistent: self.consistent_from.is_some(),
            consistent_from: self.consistent_from.unwrap_or(Optime::ZERO),
            source_version: self.source_version.clone(),
            totals: self.totals,
            catalog: self.catalog.as_ref().map(StoredRoot::from),
            open_transactions: self.open_transactions.as_ref().map(StoredRoot::from),
        };
        bson::serialize_to_vec(&stored).map_err(|e| HeadError::Image(e.to_string()))
    }

    /// Reads an image.
    pub fn decode(bytes: &[u8]) -> Result<Image, HeadError> {
        let fault = |e: bson::error::Error| HeadError::Image(e.to_string());
        let document = bson::RawDocument::from_bytes(bytes).map_err(fault)?;
        match document.get_i32("format") {
            Ok(FORMAT) => {}
            Ok(other) => {
                return Err(HeadError::Image(format!(
                    "format {other} is of another version of this program"
                )));
            }
            Err(_) => return Err(HeadError::Image("it has no format number".to_owned())),
        }
        let stored: StoredImage = bson::deserialize_from_slice(bytes).map_err(fault)?;
        let root = |stored: Option<StoredRoot>| stored.map(Root::try_from).transpose().map_err(HeadError::Image);
        Ok(Image {
            replica_set: stored.replica_set,
            incarnation: Incarnation(stored.incarnation as u64),
            applied: stored.applied,
            replay_from: stored.replay_from,
            begin_applying: stored.begin_applying,
            consistent_from: stored.consistent.then_some(stored.consistent_from),
            source_version: stored.source_version,
            totals: stored.totals,
            catalog: root(stored.catalog)?,
            open_transactions: root(stored.open_transactions)?,
        })
    }
}

/// An image to write. Holds no part of the head, so it may run while entries are applied; it shows the instant at which
/// it was begun.
pub struct ImageJob {
    pub(crate) spill: SpillJob,
    /// In the order of UUIDs, without the tables to be spilled.
    pub(crate) definitions: Vec<Definition>,
    pub(crate) open_entries: Vec<Bytes>,
    /// All but totals and roots.
    pub(crate) image: Image,
}

impl ImageJob {
    /// Writes layers, catalog and open transactions, and flushes the blocks. The spill goes back to
    /// [`crate::Head::finish_spill`].
    pub async fn run(self, blocks: Arc<dyn Blocks>) -> Result<(Image, SpillDone), HeadError> {
        let ImageJob {
            spill,
            mut definitions,
            open_entries,
            mut image,
        } = self;
        let spilled = spill.run(blocks.clone()).await?;
        for (frozen, layer) in &spilled.layers {
            if let Ok(at) = definitions.binary_search_by_key(&frozen.collection, |definition| definition.uuid) {
                definitions[at].layers.extend(layer.clone());
            }
        }
        image.totals = totals(&definitions);
        image.catalog = catalog::write(&blocks, &definitions).await?;
        image.open_transactions = write_entries(&blocks, &open_entries).await?;
        blocks.flush().await?;
        Ok((image, spilled))
    }
}

pub(crate) fn totals(definitions: &[Definition]) -> Totals {
    definitions.iter().fold(Totals::default(), |totals, definition| {
        let bottom = definition.layers.first();
        Totals {
            collections: totals.collections + 1,
            documents: totals.documents + bottom.map_or(0, |layer| layer.root.records),
            bytes: totals.bytes + document_bytes(bottom, is_capped(&definition.options)),
        }
    })
}

async fn write_entries(blocks: &Arc<dyn Blocks>, entries: &[Bytes]) -> Result<Option<Root>, HeadError> {
    let mut writer = TreeWriter::new(blocks.clone());
    for (number, entry) in (0u64..).zip(entries) {
        writer.add(Bytes::copy_from_slice(&number.to_be_bytes()), entry).await?;
    }
    writer.finish().await
}

/// The open transaction entries of an image, in their order.
pub(crate) async fn read_entries(blocks: &Arc<dyn Blocks>, root: Option<&Root>) -> Result<Vec<Bytes>, HeadError> {
    let mut cursor = Cursor::new(blocks.clone(), root, None);
    let mut entries = Vec::new();
    loop {
        cursor.descend().await?;
        let Some((_, entry)) = cursor.record() else {
            return Ok(entries);
        };
        entries.push(Bytes::copy_from_slice(&entry));
        cursor.skip();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use headwater_model::{BlockId, Ts};

    fn sample() -> Image {
        let at = |n| Optime::new(Ts::new(1_795_343_068, n), 3);
        Image {
            replica_set: "shop/rs0".parse().unwrap(),
            incarnation: Incarnation(2),
            applied: at(9),
            replay_from: at(4),
            begin_applying: at(1),
            consistent_from: Some(at(7)),
            source_version: "6.0.5".into(),
            totals: Totals {
                collections: 1,
                documents: 2,
                bytes: 3,
            },
            catalog: Some(Root {
                id: BlockId([9; 32]),
                level: 0,
                records: 1,
                bytes: 10,
                last: Bytes::from_static(b"last"),
            }),
            open_transactions: None,
        }
    }

    #[test]
    fn an_image_reads_back_what_it_writes() {
        for consistent_from in [None, sample().consistent_from] {
            let image = Image {
                consistent_from,
                ..sample()
            };
            assert_eq!(Image::decode(&image.encode().unwrap()).unwrap(), image);
        }
    }

    #[test]
    fn the_layout_at_rest_does_not_change() {
        let document: bson::Document = bson::deserialize_from_slice(&sample().encode().unwrap()).unwrap();
        let binary = |bytes: Vec<u8>| bson::Binary {
            subtype: bson::spec::BinarySubtype::Generic,
            bytes,
        };
        let at = |n| bson::doc! { "ts": bson::Timestamp { time: 1_795_343_068, increment: n }, "t": 3i64 };
        let expected = bson::doc! {
            "format": 1, "replicaSet": "shop/rs0", "incarnation": 2i64, "applied": at(9), "replayFrom": at(4),
            "beginApplying": at(1), "consistent": true, "consistentFrom": at(7), "sourceVersion": "6.0.5",
            "totals": { "collections": 1i64, "documents": 2i64, "bytes": 3i64 },
            "catalog": {
                "id": binary(vec![9; 32]), "level": 0, "records": 1i64, "bytes": 10i64,
                "last": binary(b"last".to_vec()),
            },
            "openTransactions": bson::Bson::Null,
        };
        assert_eq!(document, expected);
    }

    #[test]
    fn an_image_of_another_format_or_no_image_is_refused() {
        let mut document: bson::Document = bson::deserialize_from_slice(&sample().encode().unwrap()).unwrap();
        document.insert("format", 2);
        let other = bson::serialize_to_vec(&document).unwrap();
        assert!(Image::decode(&other).unwrap_err().to_string().contains("format 2"));
        document.insert("format", 1);
        document.insert("applied", "yesterday");
        assert!(Image::decode(&bson::serialize_to_vec(&document).unwrap()).is_err());
        assert!(Image::decode(b"").is_err());
        assert!(Image::decode(&[5, 0, 0, 0, 0]).is_err());
    }
}
