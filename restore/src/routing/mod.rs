//! Which shard owns what, by the routing tables of the config servers at one instant.
//!
//! | collection of `config` | read of it |
//! |---|---|
//! | `shards` | `_id` the name, `host` |
//! | `databases` | `_id`, `primary`: the shard that holds what is not sharded |
//! | `collections` | `_id` the namespace, `uuid`, `key`; `dropped` before 5.0 |
//! | `chunks` | `uuid` (before 5.0 `ns`), `min`, `shard` |
//!
//! A shard also holds documents that it does not own: of chunks that are on their way to it, and of those it gave away and
//! has not deleted yet. No router ever shows them; [`Owned`] leaves them out.

mod hash;
mod merged;
mod owned;
mod shard_key;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bson::{Bson, Document};
use bytes::Bytes;
use headwater_model::{Namespace, limits};
use headwater_oplog::raw::BsonFault;

use crate::source::{Source, SourceFault};

pub use merged::Merged;
pub use owned::Owned;
pub use shard_key::ShardKey;

/// The routing tables cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RoutingFault {
    /// They cannot be read.
    #[error(transparent)]
    Source(#[from] SourceFault),
    /// A document of them is not what it should be.
    #[error("{collection} of the config servers holds a document that cannot be understood: {document}")]
    Document {
        /// `config.…`.
        collection: &'static str,
        /// In JSON.
        document: String,
    },
    /// More chunks than are held in memory.
    #[error(
        "the cluster has more than {} chunks; restore its members one by one",
        limits::CHUNKS_MAX
    )]
    TooMany,
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routing {
    shards: BTreeMap<String, String>,
    databases: BTreeMap<String, String>,
    tables: BTreeMap<Namespace, Arc<Table>>,
}

/// The chunks of one sharded collection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    key: ShardKey,
    /// Where each chunk begins, and whose it is; a chunk ends where the next begins.
    chunks: BTreeMap<Vec<u8>, Arc<str>>,
}

impl Table {
    /// The shard that owns a document.
    pub fn owner(&self, document: &[u8]) -> Result<Option<&str>, BsonFault> {
        let key = self.key.of_document(document)?;
        Ok(self.chunks.range(..=key).next_back().map(|(_, shard)| &**shard))
    }

    fn has_chunk_on(&self, shard: &str) -> bool {
        self.chunks.values().any(|owner| &**owner == shard)
    }
}

/// Where a collection is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Each member has its own.
    Everywhere,
    /// On one shard.
    On(String),
    /// Over shards, by chunks.
    Sharded(Arc<Table>),
    /// No router knows it.
    Unknown,
}

impl Routing {
    /// Reads the tables of the config servers.
    pub async fn read(config: &dyn Source) -> Result<Routing, RoutingFault> {
        let mut routing = Routing::default();
        for shard in documents(config, "shards").await? {
            let (name, host) = (
                text(&shard, "_id", "config.shards")?,
                text(&shard, "host", "config.shards")?,
            );
            routing.shards.insert(name, host);
        }
        for database in documents(config, "databases").await? {
            let name = text(&database, "_id", "config.databases")?;
            let primary = text(&database, "primary", "config.databases")?;
            routing.databases.insert(name, primary);
        }
        let mut shards = BTreeSet::new();
        let mut chunks = chunks(config, &mut shards).await?;
        for collection in documents(config, "collections").await? {
            if collection.get_bool("dropped").unwrap_or(false) {
                continue;
            }
            let name = text(&collection, "_id", "config.collections")?;
            let understood = Namespace::parse(&name).zip(collection.get_document("key").ok().and_then(ShardKey::read));
            let (namespace, key) = understood.ok_or_else(|| misunderstood("config.collections", &collection))?;
            let uuid = collection.get("uuid").map(identity);
            let own = uuid.and_then(|uuid| chunks.remove(&uuid));
            let own = own.or_else(|| chunks.remove(&name)).unwrap_or_default();
            let own: Result<BTreeMap<_, _>, _> = own
                .into_iter()
                .map(|(min, shard)| key.of_bound(&min).map(|min| (min, shard)))
                .collect();
            let chunks = own.map_err(|_| misunderstood("config.chunks", &collection))?;
            routing.tables.insert(namespace, Arc::new(Table { key, chunks }));
        }
        Ok(routing)
    }

    /// Names of the shards, and how the routers reached them.
    pub fn shards(&self) -> &BTreeMap<String, String> {
        &self.shards
    }

    /// Where a collection is.
    pub fn place(&self, namespace: &Namespace) -> Place {
        if let Some(table) = self.tables.get(namespace) {
            return Place::Sharded(table.clone());
        }
        match namespace.db.as_str() {
            "admin" | "config" | "local" => Place::Everywhere,
            db => match self.databases.get(db) {
                Some(primary) => Place::On(primary.clone()),
                None => Place::Unknown,
            },
        }
    }

    /// Whether a shard holds what counts of a collection: chunks of it, or all of it.
    pub fn has_part_of(&self, shard: &str, namespace: &Namespace) -> bool {
        match self.place(namespace) {
            Place::Everywhere => true,
            Place::On(primary) => primary == shard,
            Place::Sharded(table) => table.has_chunk_on(shard),
            Place::Unknown => false,
        }
    }

    /// Whether a collection is known to a shard as the servers want it: the primary shard of a database has each of its
    /// collections, if only empty.
    pub fn has_collection(&self, shard: &str, namespace: &Namespace) -> bool {
        let is_primary = self
            .databases
            .get(&namespace.db)
            .is_some_and(|primary| primary == shard);
        self.has_part_of(shard, namespace) || is_primary && self.tables.contains_key(namespace)
    }
}

fn misunderstood(collection: &'static str, document: &Document) -> RoutingFault {
    RoutingFault::Document {
        collection,
        document: document.to_string(),
    }
}

fn text(document: &Document, field: &str, collection: &'static str) -> Result<String, RoutingFault> {
    let text = document.get_str(field).map(str::to_owned);
    text.map_err(|_| misunderstood(collection, document))
}

/// What chunks and their collection have in common: the UUID, or the name.
fn identity(value: &Bson) -> String {
    match value {
        Bson::String(name) => name.clone(),
        uuid => uuid.to_string(),
    }
}

type Chunks = BTreeMap<String, Vec<(Vec<u8>, Arc<str>)>>;

/// The lower bounds and owners of all chunks, by collection.
async fn chunks(config: &dyn Source, shards: &mut BTreeSet<Arc<str>>) -> Result<Chunks, RoutingFault> {
    let mut chunks = Chunks::new();
    let mut count = 0;
    each(config, "chunks", |chunk| {
        count += 1;
        if count > limits::CHUNKS_MAX {
            return Err(RoutingFault::TooMany);
        }
        let of = chunk.get("uuid").or_else(|| chunk.get("ns")).map(identity);
        let min = chunk.get_document("min").ok();
        let min = min.and_then(|min| bson::serialize_to_vec(min).ok());
        let (Some(of), Some(min), Ok(shard)) = (of, min, chunk.get_str("shard")) else {
            return Err(misunderstood("config.chunks", &chunk));
        };
        let shard = match shards.get(shard) {
            Some(known) => known.clone(),
            None => {
                let new: Arc<str> = shard.into();
                shards.insert(new.clone());
                new
            }
        };
        chunks.entry(of).or_default().push((min, shard));
        Ok(())
    })
    .await?;
    Ok(chunks)
}

/// All documents of a collection of `config`; none where it is not there.
pub(crate) async fn documents(config: &dyn Source, collection: &'static str) -> Result<Vec<Document>, RoutingFault> {
    let mut documents = Vec::new();
    each(config, collection, |document| {
        documents.push(document);
        Ok(())
    })
    .await?;
    Ok(documents)
}

/// The same, one by one.
async fn each(
    config: &dyn Source,
    collection: &'static str,
    mut take: impl FnMut(Document) -> Result<(), RoutingFault> + Send,
) -> Result<(), RoutingFault> {
    let namespace = Namespace::new("config", collection);
    let Some(found) = config.collections().into_iter().find(|c| c.namespace == namespace) else {
        return Ok(());
    };
    let mut rows = config.rows(found.uuid, None).await?;
    loop {
        let batch = rows.next_batch().await?;
        if batch.is_empty() {
            return Ok(());
        }
        for row in batch {
            take(read(&row.doc, &namespace)?)?;
        }
    }
}

fn read(document: &Bytes, namespace: &Namespace) -> Result<Document, SourceFault> {
    bson::deserialize_from_slice(document).map_err(|e| SourceFault::Document {
        namespace: namespace.clone(),
        detail: e.to_string(),
    })
}

#[cfg(test)]
mod tests;
