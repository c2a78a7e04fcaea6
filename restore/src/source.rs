//! Collections at one instant, as dumps and loads read them.

use async_trait::async_trait;
use bson::{Bson, Document};
use bytes::Bytes;
use headwater_model::{CollectionUuid, Namespace};

/// One collection of the backup at the instant that is restored.
#[derive(Clone, Debug, PartialEq)]
pub struct CollectionAtT {
    /// Its name in the backup.
    pub namespace: Namespace,
    /// Its identity in the backup; not kept at a target.
    pub uuid: CollectionUuid,
    /// `options` as listCollections gives them.
    pub options: Document,
    /// Index specifications as listIndexes gives them, `_id_` or the clustered index included.
    pub indexes: Vec<Document>,
    /// Documents, an estimate: exact for an image, before the oplog on top of it.
    pub documents: u64,
    /// Bytes of BSON, an estimate likewise.
    pub bytes: u64,
}

impl CollectionAtT {
    /// Whether the order of its documents is part of its data.
    pub fn is_capped(&self) -> bool {
        truthy(&self.options, "capped")
    }

    /// Whether the server may drop it at any start: not restored.
    pub fn is_temporary(&self) -> bool {
        truthy(&self.options, "temp")
    }

    /// Whether documents are stored by `_id` itself.
    pub fn is_clustered(&self) -> bool {
        self.options.contains_key("clusteredIndex")
    }
}

/// A boolean as the server reads it: numbers count too.
fn truthy(options: &Document, name: &str) -> bool {
    match options.get(name) {
        Some(Bson::Boolean(b)) => *b,
        Some(Bson::Int32(n)) => *n != 0,
        Some(Bson::Int64(n)) => *n != 0,
        Some(Bson::Double(n)) => *n != 0.0,
        _ => false,
    }
}

/// A view, from a document of `system.views`.
#[derive(Clone, Debug, PartialEq)]
pub struct ViewAtT {
    /// Its name.
    pub namespace: Namespace,
    /// The collection or view it shows, in the same database.
    pub view_on: String,
    /// What it does with it.
    pub pipeline: Vec<Bson>,
    /// Its collation, if it has one.
    pub collation: Option<Document>,
}

impl ViewAtT {
    /// Reads a document of `system.views`; `None` if it is none.
    pub fn read(document: &Document) -> Option<Self> {
        Some(ViewAtT {
            namespace: Namespace::parse(document.get_str("_id").ok()?)?,
            view_on: document.get_str("viewOn").ok()?.to_owned(),
            pipeline: document.get_array("pipeline").ok()?.clone(),
            collation: document.get_document("collation").ok().cloned(),
        })
    }
}

/// One document on its way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its place in the row of documents: what [`Source::rows`] takes to go on after it. Opaque.
    pub key: Bytes,
    /// The raw document.
    pub doc: Bytes,
}

/// The data cannot be read.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SourceFault {
    /// The collection is not in the backup at this instant.
    #[error("collection {0} is not in the backup at this instant")]
    Unknown(CollectionUuid),
    /// A stored document is not what it should be.
    #[error("{namespace} holds a document that cannot be read: {detail}; run `headwater check`")]
    Document {
        /// Where.
        namespace: Namespace,
        /// What does not fit.
        detail: String,
    },
    /// The store does not answer or has no room: reading goes on when it does.
    #[error("the backup cannot be read at present: {0}")]
    Away(String),
    /// The store or the head failed.
    #[error("the backup cannot be read: {0}")]
    Backup(String),
}

/// Documents of one collection, batch by batch.
#[async_trait]
pub trait Rows: Send {
    /// The next documents; empty at the end, and only there.
    async fn next_batch(&mut self) -> Result<Vec<Row>, SourceFault>;
}

/// Everything there is at one instant.
///
/// Promises: the same instant gives the same rows in the same order every time; a capped collection gives its documents
/// in the order of insertion, any other by key.
#[async_trait]
pub trait Source: Send + Sync {
    /// All collections, internal ones included; views are documents in `system.views`.
    fn collections(&self) -> Vec<CollectionAtT>;

    /// The documents of a collection after the given key, or from the first.
    async fn rows<'a>(&'a self, uuid: CollectionUuid, after: Option<Bytes>) -> Result<Box<dyn Rows + 'a>, SourceFault>;
}

/// The most views read; each is a document of some hundred bytes.
const VIEWS_MAX: usize = 100_000;

/// Reads the views of all databases.
pub async fn views(source: &dyn Source) -> Result<Vec<ViewAtT>, SourceFault> {
    let mut views = Vec::new();
    for collection in source
        .collections()
        .iter()
        .filter(|c| c.namespace.coll == "system.views")
    {
        let damaged = |detail: String| SourceFault::Document {
            namespace: collection.namespace.clone(),
            detail,
        };
        let mut rows = source.rows(collection.uuid, None).await?;
        loop {
            let batch = rows.next_batch().await?;
            if batch.is_empty() {
                break;
            }
            for row in batch {
                let document: Document = bson::deserialize_from_slice(&row.doc).map_err(|e| damaged(e.to_string()))?;
                views.push(ViewAtT::read(&document).ok_or_else(|| damaged("it is no view".to_owned()))?);
            }
            if views.len() > VIEWS_MAX {
                return Err(damaged(format!("there are more than {VIEWS_MAX} views")));
            }
        }
    }
    Ok(views)
}

/// Collections that are at hand in memory: small ones, read from a file or made by hand.
#[derive(Clone, Debug, Default)]
pub struct Held {
    collections: Vec<(CollectionAtT, Vec<Bytes>)>,
}

impl Held {
    const BATCH: usize = 100;

    /// Adds a collection with its documents in their order.
    pub fn with(mut self, mut collection: CollectionAtT, documents: Vec<Bytes>) -> Self {
        collection.documents = documents.len() as u64;
        collection.bytes = documents.iter().map(|d| d.len() as u64).sum();
        self.collections.push((collection, documents));
        self
    }
}

struct HeldRows<'a> {
    documents: &'a [Bytes],
    next: usize,
}

#[async_trait]
impl Rows for HeldRows<'_> {
    async fn next_batch(&mut self) -> Result<Vec<Row>, SourceFault> {
        let end = self.documents.len().min(self.next + Held::BATCH);
        let batch = (self.next..end)
            .map(|n| Row {
                key: Bytes::copy_from_slice(&(n as u64).to_be_bytes()),
                doc: self.documents[n].clone(),
            })
            .collect();
        self.next = end;
        Ok(batch)
    }
}

#[async_trait]
impl Source for Held {
    fn collections(&self) -> Vec<CollectionAtT> {
        self.collections.iter().map(|(c, _)| c.clone()).collect()
    }

    async fn rows<'a>(&'a self, uuid: CollectionUuid, after: Option<Bytes>) -> Result<Box<dyn Rows + 'a>, SourceFault> {
        let (_, documents) = self
            .collections
            .iter()
            .find(|(c, _)| c.uuid == uuid)
            .ok_or(SourceFault::Unknown(uuid))?;
        let next = match after.as_deref().and_then(|k| k.first_chunk::<8>()) {
            Some(key) => u64::from_be_bytes(*key) as usize + 1,
            None => 0,
        };
        Ok(Box::new(HeldRows {
            documents,
            next: next.min(documents.len()),
        }))
    }
}
