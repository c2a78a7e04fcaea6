//! Where the documents of a collection are, by the chunks of the config servers. Shard keys are one field with integers.

use anyhow::{Context, Result};
use bson::oid::ObjectId;
use bson::{Bson, Document, Timestamp, doc};

/// The routing table of one sharded collection.
#[derive(Clone, Debug)]
pub(super) struct Table {
    pub field: String,
    pub epoch: ObjectId,
    pub timestamp: Timestamp,
    pub chunks: Vec<Chunk>,
}

#[derive(Clone, Debug)]
pub(super) struct Chunk {
    pub min: Document,
    pub max: Document,
    pub shard: String,
    pub version: Timestamp,
    from: i128,
    to: i128,
}

impl Table {
    /// Reads `config.collections` and `config.chunks`.
    pub fn new(collection: &Document, chunks: &[Document]) -> Result<Table> {
        let key = collection.get_document("key")?;
        let field = key.keys().next().context("a shard key without a field")?.clone();
        let chunk = |chunk: &Document| {
            let (min, max) = (chunk.get_document("min")?, chunk.get_document("max")?);
            Ok::<_, anyhow::Error>(Chunk {
                from: bound(min, &field)?,
                to: bound(max, &field)?,
                min: min.clone(),
                max: max.clone(),
                shard: chunk.get_str("shard")?.to_owned(),
                version: chunk.get_timestamp("lastmod")?,
            })
        };
        Ok(Table {
            epoch: collection.get_object_id("lastmodEpoch")?,
            timestamp: collection.get_timestamp("timestamp")?,
            chunks: chunks.iter().map(chunk).collect::<Result<_>>()?,
            field,
        })
    }

    /// The chunk that holds a value of the shard key.
    pub fn chunk(&self, value: i64) -> Result<&Chunk> {
        let holds = |chunk: &&Chunk| (chunk.from..chunk.to).contains(&i128::from(value));
        self.chunks.iter().find(holds).context("a hole between chunks")
    }

    /// What a command to a shard carries, so that the shard can tell whether the router knows the present chunks.
    pub fn shard_version(&self, shard: &str) -> Document {
        let versions = self.chunks.iter().filter(|chunk| chunk.shard == shard);
        let newest = versions.map(|chunk| chunk.version).max();
        doc! { "t": self.timestamp, "e": self.epoch, "v": newest.unwrap_or(ZERO) }
    }
}

pub(super) const ZERO: Timestamp = Timestamp { time: 0, increment: 0 };

/// What a command on a collection that is not sharded carries.
pub(super) fn unsharded() -> Document {
    doc! { "t": ZERO, "e": ObjectId::from_bytes([0; 12]), "v": ZERO }
}

fn bound(at: &Document, field: &str) -> Result<i128> {
    Ok(match at.get(field) {
        Some(Bson::MinKey) => i128::MIN,
        Some(Bson::MaxKey) => i128::MAX,
        Some(Bson::Int32(value)) => i128::from(*value),
        Some(Bson::Int64(value)) => i128::from(*value),
        other => anyhow::bail!("a chunk begins or ends at {other:?}"),
    })
}
