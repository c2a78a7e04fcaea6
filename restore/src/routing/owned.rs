//! What a shard owns of what it holds.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use headwater_model::{CollectionUuid, Namespace};

use super::{Place, Routing, Table};
use crate::source::{CollectionAtT, Rows, Source, SourceFault};

/// One shard of a cluster without the documents it does not own, and without collections that no router would look for on it.
pub struct Owned {
    shard: String,
    source: Arc<dyn Source>,
    routing: Arc<Routing>,
}

impl Owned {
    /// `source` is everything that the shard of that name holds.
    pub fn new(shard: &str, source: Arc<dyn Source>, routing: Arc<Routing>) -> Owned {
        Owned {
            shard: shard.to_owned(),
            source,
            routing,
        }
    }

    /// Its name.
    pub fn shard(&self) -> &str {
        &self.shard
    }

    /// By which tables.
    pub fn routing(&self) -> &Routing {
        &self.routing
    }
}

#[async_trait]
impl Source for Owned {
    fn collections(&self) -> Vec<CollectionAtT> {
        let mut collections = self.source.collections();
        // What a shard has in `config` is its own bookkeeping, which a new one begins anew.
        collections.retain(|c| c.namespace.db != "config" && self.routing.has_collection(&self.shard, &c.namespace));
        collections
    }

    async fn rows<'a>(&'a self, uuid: CollectionUuid, after: Option<Bytes>) -> Result<Box<dyn Rows + 'a>, SourceFault> {
        let collections = self.source.collections();
        let namespace = collections.into_iter().find(|c| c.uuid == uuid).map(|c| c.namespace);
        let namespace = namespace.ok_or(SourceFault::Unknown(uuid))?;
        let rows = self.source.rows(uuid, after).await?;
        Ok(match self.routing.place(&namespace) {
            Place::Sharded(table) => Box::new(OwnedRows {
                rows,
                table,
                shard: &self.shard,
                namespace,
            }),
            _ => rows,
        })
    }
}

struct OwnedRows<'a> {
    rows: Box<dyn Rows + 'a>,
    table: Arc<Table>,
    shard: &'a str,
    namespace: Namespace,
}

#[async_trait]
impl Rows for OwnedRows<'_> {
    async fn next_batch(&mut self) -> Result<Vec<crate::source::Row>, SourceFault> {
        loop {
            let batch = self.rows.next_batch().await?;
            if batch.is_empty() {
                return Ok(batch);
            }
            let mut own = Vec::with_capacity(batch.len());
            for row in batch {
                let owner = self.table.owner(&row.doc).map_err(|e| SourceFault::Document {
                    namespace: self.namespace.clone(),
                    detail: e.to_string(),
                })?;
                if owner == Some(self.shard) {
                    own.push(row);
                }
            }
            if !own.is_empty() {
                return Ok(own);
            }
        }
    }
}
