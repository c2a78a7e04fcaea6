//! A whole cluster as one source, as its routers would show it.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::{BufMut, Bytes, BytesMut};
use headwater_model::CollectionUuid;

use super::{Owned, Place};
use crate::source::{CollectionAtT, Row, Rows, Source, SourceFault};

/// The shards' own documents, shard after shard, and of the config servers the users and roles.
///
/// The key of a row is the number of its source (u16, most significant byte first), then its key there.
pub struct Merged {
    /// The config servers, then the shards by name.
    sources: Vec<Arc<dyn Source>>,
    collections: BTreeMap<CollectionUuid, Part>,
}

struct Part {
    collection: CollectionAtT,
    /// Which sources hold documents of it.
    held_by: Vec<u16>,
}

/// Bytes of the number in a row's key.
const NUMBER: usize = 2;

impl Merged {
    /// `config` is everything that the config servers hold.
    pub fn new(config: Arc<dyn Source>, shards: Vec<Owned>) -> Merged {
        let mut collections = BTreeMap::new();
        for collection in config.collections() {
            if collection.namespace.db == "admin" {
                let held_by = vec![0];
                collections.insert(collection.uuid, Part { collection, held_by });
            }
        }
        let mut sources = vec![config];
        for shard in shards {
            let number = sources.len() as u16;
            for collection in shard.collections() {
                let counts = match shard.routing().place(&collection.namespace) {
                    Place::Everywhere => false,
                    _ => shard.routing().has_part_of(shard.shard(), &collection.namespace),
                };
                if counts {
                    add(&mut collections, collection, number);
                }
            }
            sources.push(Arc::new(shard));
        }
        Merged { sources, collections }
    }
}

fn add(collections: &mut BTreeMap<CollectionUuid, Part>, collection: CollectionAtT, number: u16) {
    match collections.get_mut(&collection.uuid) {
        Some(part) => {
            part.collection.documents += collection.documents;
            part.collection.bytes += collection.bytes;
            part.held_by.push(number);
        }
        None => {
            let held_by = vec![number];
            collections.insert(collection.uuid, Part { collection, held_by });
        }
    }
}

#[async_trait]
impl Source for Merged {
    fn collections(&self) -> Vec<CollectionAtT> {
        self.collections.values().map(|part| part.collection.clone()).collect()
    }

    async fn rows<'a>(&'a self, uuid: CollectionUuid, after: Option<Bytes>) -> Result<Box<dyn Rows + 'a>, SourceFault> {
        let part = self.collections.get(&uuid).ok_or(SourceFault::Unknown(uuid))?;
        let (first, after) = match after.as_ref().and_then(|key| Some((key.first_chunk::<NUMBER>()?, key))) {
            Some((number, key)) => (u16::from_be_bytes(*number), Some(key.slice(NUMBER..))),
            None => (0, None),
        };
        let left = part.held_by.iter().copied().filter(|number| *number >= first);
        let mut rows = MergedRows {
            merged: self,
            uuid,
            left: left.collect(),
            now: None,
        };
        let goes_on = rows.left.first() == Some(&first);
        rows.open_next(after.filter(|_| goes_on)).await?;
        Ok(Box::new(rows))
    }
}

struct MergedRows<'a> {
    merged: &'a Merged,
    uuid: CollectionUuid,
    left: Vec<u16>,
    now: Option<(u16, Box<dyn Rows + 'a>)>,
}

impl MergedRows<'_> {
    async fn open_next(&mut self, after: Option<Bytes>) -> Result<(), SourceFault> {
        self.now = None;
        if self.left.is_empty() {
            return Ok(());
        }
        let number = self.left.remove(0);
        if let Some(source) = self.merged.sources.get(usize::from(number)) {
            self.now = Some((number, source.rows(self.uuid, after).await?));
        }
        Ok(())
    }
}

#[async_trait]
impl Rows for MergedRows<'_> {
    async fn next_batch(&mut self) -> Result<Vec<Row>, SourceFault> {
        while let Some((number, rows)) = &mut self.now {
            let batch = rows.next_batch().await?;
            if !batch.is_empty() {
                let number = *number;
                return Ok(batch.into_iter().map(|row| numbered(number, row)).collect());
            }
            self.open_next(None).await?;
        }
        Ok(Vec::new())
    }
}

fn numbered(number: u16, row: Row) -> Row {
    let mut key = BytesMut::with_capacity(NUMBER + row.key.len());
    key.put_u16(number);
    key.put_slice(&row.key);
    Row {
        key: key.freeze(),
        ..row
    }
}
