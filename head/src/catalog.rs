//! The catalog at rest: a tree from collection UUID to what the collection is and which layers it has.
//!
//! A collection that did not change since the last image has the same record, so most blocks of a large catalog are
//! shared from image to image. The record is a BSON document:
//!
//! `{db, coll, options: {…}, indexes: [{…}], nextPlace: int64, layers: [{id: Binary(32), level: int32, records: int64,
//! bytes: int64, last: Binary, plain: bool}]}`, layers bottom first.

use std::sync::Arc;

use bytes::Bytes;
use headwater_model::{BlockId, CollectionUuid, Namespace, limits};
use headwater_store::blocks::Blocks;
use serde::{Deserialize, Serialize};

use crate::collection::{Definition, Layer};
use crate::error::HeadError;
use crate::tree::{Cursor, Root, TreeWriter};

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct StoredCollection {
    db: String,
    coll: String,
    options: bson::RawDocumentBuf,
    indexes: Vec<bson::RawDocumentBuf>,
    next_place: i64,
    layers: Vec<StoredLayer>,
}

#[derive(Serialize, Deserialize)]
struct StoredLayer {
    #[serde(flatten)]
    root: StoredRoot,
    plain: bool,
}

/// A [`Root`] in BSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct StoredRoot {
    id: bson::Binary,
    level: i32,
    records: i64,
    bytes: i64,
    last: bson::Binary,
}

impl From<&Root> for StoredRoot {
    fn from(root: &Root) -> Self {
        let binary = |bytes: &[u8]| bson::Binary {
            subtype: bson::spec::BinarySubtype::Generic,
            bytes: bytes.to_vec(),
        };
        StoredRoot {
            id: binary(&root.id.0),
            level: root.level.into(),
            records: root.records as i64,
            bytes: root.bytes as i64,
            last: binary(&root.last),
        }
    }
}

impl TryFrom<StoredRoot> for Root {
    type Error = String;

    fn try_from(stored: StoredRoot) -> Result<Self, String> {
        let whole = |n: i64| u64::try_from(n).map_err(|_| format!("the count {n} is negative"));
        Ok(Root {
            id: BlockId(
                stored.id.bytes[..]
                    .try_into()
                    .map_err(|_| "a block id has not 32 bytes".to_owned())?,
            ),
            level: u8::try_from(stored.level)
                .ok()
                .filter(|level| (*level as usize) < limits::TREE_MAX_LEVELS)
                .ok_or_else(|| format!("the level {} is none", stored.level))?,
            records: whole(stored.records)?,
            bytes: whole(stored.bytes)?,
            last: stored.last.bytes.into(),
        })
    }
}

fn encode(definition: &Definition) -> Result<Vec<u8>, String> {
    let document = |bytes: &Bytes| bson::RawDocumentBuf::from_bytes(bytes.to_vec()).map_err(|e| e.to_string());
    let stored = StoredCollection {
        db: definition.namespace.db.clone(),
        coll: definition.namespace.coll.clone(),
        options: document(&definition.options)?,
        indexes: definition.indexes.iter().map(document).collect::<Result<_, _>>()?,
        next_place: definition.next_place as i64,
        layers: definition
            .layers
            .iter()
            .map(|layer| StoredLayer {
                root: (&layer.root).into(),
                plain: layer.plain,
            })
            .collect(),
    };
    bson::serialize_to_vec(&stored).map_err(|e| e.to_string())
}

fn decode(key: &[u8], value: &[u8]) -> Result<Definition, String> {
    let uuid = CollectionUuid(
        key.try_into()
            .map_err(|_| "a collection UUID has not 16 bytes".to_owned())?,
    );
    let stored: StoredCollection = bson::deserialize_from_slice(value).map_err(|e| format!("{uuid}: {e}"))?;
    let layer = |layer: StoredLayer| {
        Ok::<_, String>(Layer {
            root: layer.root.try_into()?,
            plain: layer.plain,
        })
    };
    Ok(Definition {
        uuid,
        namespace: Namespace::new(stored.db, stored.coll),
        options: stored.options.into_bytes().into(),
        indexes: stored
            .indexes
            .into_iter()
            .map(|index| index.into_bytes().into())
            .collect(),
        next_place: u64::try_from(stored.next_place).map_err(|_| format!("{uuid}: a place is negative"))?,
        layers: stored.layers.into_iter().map(layer).collect::<Result<_, _>>()?,
    })
}

/// Writes a catalog; the definitions must be in the order of their UUIDs.
pub(crate) async fn write(blocks: &Arc<dyn Blocks>, definitions: &[Definition]) -> Result<Option<Root>, HeadError> {
    let mut writer = TreeWriter::new(blocks.clone());
    for definition in definitions {
        let value = encode(definition).map_err(HeadError::Catalog)?;
        writer.add(Bytes::copy_from_slice(&definition.uuid.0), &value).await?;
    }
    writer.finish().await
}

/// Reads a whole catalog.
pub(crate) async fn read(blocks: &Arc<dyn Blocks>, root: Option<&Root>) -> Result<Vec<Definition>, HeadError> {
    let mut cursor = Cursor::new(blocks.clone(), root, None);
    let mut definitions = Vec::new();
    loop {
        cursor.descend().await?;
        let Some((key, value)) = cursor.record() else {
            return Ok(definitions);
        };
        definitions.push(decode(&key, &value).map_err(HeadError::Catalog)?);
        cursor.skip();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::block_on;
    use headwater_store::memory_blocks::MemoryBlocks;

    fn definition(n: u16) -> Definition {
        let mut uuid = [0; 16];
        uuid[..2].copy_from_slice(&n.to_be_bytes());
        let layer = Layer {
            root: Root {
                id: BlockId([n as u8; 32]),
                level: 2,
                records: 7 + u64::from(n),
                bytes: 8,
                last: Bytes::from_static(b"last"),
            },
            plain: n.is_multiple_of(2),
        };
        Definition {
            uuid: CollectionUuid(uuid),
            namespace: Namespace::new("db", format!("c{n}")),
            options: bson::serialize_to_vec(&bson::doc! { "capped": true, "size": 4096 })
                .unwrap()
                .into(),
            indexes: vec![
                bson::serialize_to_vec(&bson::doc! { "v": 2, "key": { "_id": 1 }, "name": "_id_" })
                    .unwrap()
                    .into(),
            ],
            next_place: 5,
            layers: vec![layer],
        }
    }

    #[test]
    fn ten_thousand_collections_are_read_as_they_were_written_and_one_change_costs_few_blocks() {
        let memory = Arc::new(MemoryBlocks::new());
        let blocks: Arc<dyn Blocks> = memory.clone();
        block_on(async {
            let mut definitions: Vec<_> = (0..10_000).map(definition).collect();
            let root = write(&blocks, &definitions).await.unwrap();
            assert_eq!(read(&blocks, root.as_ref()).await.unwrap(), definitions);
            let before = memory.traffic().new_blocks;
            definitions[5000].namespace.coll = "renamed".into();
            write(&blocks, &definitions).await.unwrap();
            assert!(memory.traffic().new_blocks - before <= 4);
            assert_eq!(write(&blocks, &[]).await.unwrap(), None);
            assert_eq!(read(&blocks, None).await.unwrap(), []);
        });
    }

    #[test]
    fn the_layout_at_rest_does_not_change() {
        let encoded = encode(&definition(1)).unwrap();
        assert_eq!(decode(&definition(1).uuid.0, &encoded).unwrap(), definition(1));
        let binary = |bytes: Vec<u8>| bson::Binary {
            subtype: bson::spec::BinarySubtype::Generic,
            bytes,
        };
        let expected = bson::doc! {
            "db": "db", "coll": "c1", "options": { "capped": true, "size": 4096 },
            "indexes": [{ "v": 2, "key": { "_id": 1 }, "name": "_id_" }], "nextPlace": 5i64,
            "layers": [{
                "id": binary(vec![1; 32]), "level": 2, "records": 8i64, "bytes": 8i64,
                "last": binary(b"last".to_vec()), "plain": false,
            }],
        };
        assert_eq!(
            bson::deserialize_from_slice::<bson::Document>(&encoded).unwrap(),
            expected
        );
    }

    #[test]
    fn a_record_that_is_no_collection_is_an_error() {
        assert!(decode(&[0; 15], &encode(&definition(1)).unwrap()).is_err());
        assert!(decode(&[0; 16], &[5, 0, 0, 0, 0]).is_err());
        let bad = bson::doc! { "db": "a", "coll": "b", "options": {}, "indexes": [], "nextPlace": -1i64, "layers": [] };
        assert!(decode(&[0; 16], &bson::serialize_to_vec(&bad).unwrap()).is_err());
        for level in [-1, 48, 255, 1 << 20] {
            let root = StoredRoot {
                level,
                ..StoredRoot::from(&definition(1).layers[0].root)
            };
            assert!(Root::try_from(root).is_err(), "{level}");
        }
    }
}
