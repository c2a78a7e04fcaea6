//! Reading: see the module above for what a read waits for.

use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use bson::spec::BinarySubtype;
use bson::{Binary, Bson, Document, RawDocumentBuf, doc};
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt, stream};

use super::{Apart, CHUNK_BYTES, Found, MongodbObjects, Where, failure};
use crate::objects::{ObjectMeta, StoreError};

/// How long the server waits for its newest entry to be committed.
const COMMIT_WAIT_MS: i64 = 20_000;
/// How long a read waits before each further try while the backing set elects.
const PAUSES_MS: [u64; 6] = [100, 200, 500, 1_000, 2_000, 4_000];
/// How often a read begins anew whose object is replaced under it.
const REPLACED: usize = 8;

/// Just below what fits into one answer of a server, 16 MiB.
const CHUNKS_PER_READ: u32 = 60;
/// So that the server reads while we copy.
const READS_AT_ONCE: usize = 2;

/// What a read must see.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sees {
    /// What is known to be committed.
    Committed,
    /// Everything that was acknowledged before.
    Everything,
}

pub(super) fn binary(bytes: &[u8]) -> Binary {
    Binary {
        subtype: BinarySubtype::Generic,
        bytes: bytes.to_vec(),
    }
}

impl MongodbObjects {
    pub(super) async fn read(&self, key: &str) -> Result<Bytes, StoreError> {
        for _ in 0..REPLACED {
            let found = self.find(key, Sees::Everything).await?;
            let found = found.ok_or_else(|| StoreError::NotFound(key.to_owned()))?;
            match found.bytes {
                Where::Inline(bytes) => return Ok(bytes),
                Where::Apart(apart) => {
                    if let Some(bytes) = self.read_apart(key, apart, 0..found.size, found.size).await? {
                        return Ok(bytes);
                    }
                    self.must_be_replaced(key, apart).await?;
                }
            }
        }
        Err(StoreError::unavailable(key, "it is replaced all the time"))
    }

    pub(super) async fn read_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        let mut sees = Sees::Committed;
        for _ in 0..REPLACED {
            let found = match self.find(key, sees).await? {
                None if sees == Sees::Everything => return Err(StoreError::NotFound(key.to_owned())),
                None => {
                    sees = Sees::Everything;
                    continue;
                }
                Some(found) => found,
            };
            if range.start > range.end || range.end > found.size {
                let detail = format!("{range:?} is outside of its {} bytes", found.size);
                return Err(StoreError::damaged(key, detail));
            }
            match found.bytes {
                Where::Inline(bytes) => return Ok(bytes.slice(range.start as usize..range.end as usize)),
                Where::Apart(apart) => {
                    if let Some(bytes) = self.read_apart(key, apart, range.clone(), found.size).await? {
                        return Ok(bytes);
                    }
                    self.must_be_replaced(key, apart).await?;
                    sees = Sees::Everything;
                }
            }
        }
        Err(StoreError::unavailable(key, "it is replaced all the time"))
    }

    pub(super) async fn list_prefix(&self, prefix: &str) -> Result<Vec<ObjectMeta>, StoreError> {
        let mut range = doc! { "$gte": prefix };
        if !prefix.is_empty() {
            // Above every byte that a key may hold.
            range.insert("$lt", format!("{prefix}\u{7f}"));
        }
        let command = doc! {
            "find": "objects",
            "filter": { "_id": range },
            "projection": { "_id": 1, "size": 1 },
            "sort": { "_id": 1 },
            "hint": "listing",
            "batchSize": 10_000,
        };
        let listed = self.command(prefix, command, Sees::Everything).await?;
        let meta = |document: RawDocumentBuf| {
            let key = document.get_str("_id").ok()?.to_owned();
            let size = document.get_i64("size").ok()? as u64;
            Some(ObjectMeta { key, size })
        };
        let listed: Option<Vec<_>> = listed.into_iter().map(meta).collect();
        listed.ok_or_else(|| StoreError::damaged(prefix, "the collection holds what is no object"))
    }

    /// The document of an object.
    async fn find(&self, key: &str, sees: Sees) -> Result<Option<Found>, StoreError> {
        let command = doc! { "find": "objects", "filter": { "_id": key }, "limit": 1, "singleBatch": true };
        let Some(document) = self.command(key, command, sees).await?.pop() else {
            return Ok(None);
        };
        let read = || {
            let size = document.get_i64("size").ok()? as u64;
            let bytes = match document.get_binary("chunks") {
                Ok(name) => Where::Apart(Apart(name.bytes.try_into().ok()?)),
                Err(_) => Where::Inline(Bytes::copy_from_slice(document.get_binary("data").ok()?.bytes)),
            };
            Some(Found { size, bytes })
        };
        let found = read().ok_or_else(|| StoreError::damaged(key, "its document is not as we write it"))?;
        match &found.bytes {
            Where::Inline(bytes) if bytes.len() as u64 != found.size => {
                Err(StoreError::damaged(key, "its size is not that of its bytes"))
            }
            _ => Ok(Some(found)),
        }
    }

    /// Which bytes are apart for a key at present; for writers.
    pub(super) async fn apart(&self, key: &str) -> Result<Option<Apart>, StoreError> {
        let found = self.find(key, Sees::Everything).await?;
        Ok(found.and_then(|found| match found.bytes {
            Where::Apart(apart) => Some(apart),
            Where::Inline(_) => None,
        }))
    }

    /// Whether the key is taken, and that for sure.
    pub(super) async fn is_there(&self, key: &str) -> Result<bool, StoreError> {
        let command = doc! {
            "find": "objects",
            "filter": { "_id": key },
            "projection": { "_id": 1 },
            "limit": 1,
            "singleBatch": true,
        };
        Ok(!self.command(key, command, Sees::Everything).await?.is_empty())
    }

    /// Bytes out of chunks; `None` when a chunk is gone.
    async fn read_apart(
        &self,
        key: &str,
        apart: Apart,
        range: Range<u64>,
        size: u64,
    ) -> Result<Option<Bytes>, StoreError> {
        if range.is_empty() {
            return Ok(Some(Bytes::new()));
        }
        let chunk = CHUNK_BYTES as u64;
        let (first, last) = ((range.start / chunk) as u32, ((range.end - 1) / chunk) as u32);
        let parts = (first..=last).step_by(CHUNKS_PER_READ as usize).map(|part| {
            let until = last.min(part + CHUNKS_PER_READ - 1);
            async move { Ok::<_, StoreError>((part, until, self.chunks(key, apart, part..=until).await?)) }
        });
        let mut parts = stream::iter(parts).buffered(READS_AT_ONCE);
        let mut bytes = BytesMut::with_capacity((range.end - range.start) as usize);
        while let Some((part, until, found)) = parts.try_next().await? {
            if found.len() as u64 != u64::from(until - part) + 1 {
                return Ok(None);
            }
            for (number, document) in (part..).zip(&found) {
                let begins = u64::from(number) * chunk;
                let due = chunk.min(size - begins);
                let data = document.get_binary("d").map_or(&[][..], |d| d.bytes);
                let id = document.get_binary("_id").map_or(&[][..], |id| id.bytes);
                if data.len() as u64 != due || id != apart.chunk(number) {
                    let detail = format!("its chunk {number} is not as it was written");
                    return Err(StoreError::damaged(key, detail));
                }
                let from = range.start.saturating_sub(begins) as usize;
                let to = due.min(range.end - begins) as usize;
                bytes.extend_from_slice(&data[from..to]);
            }
        }
        Ok(Some(bytes.freeze()))
    }

    async fn chunks(
        &self,
        key: &str,
        apart: Apart,
        numbers: RangeInclusive<u32>,
    ) -> Result<Vec<RawDocumentBuf>, StoreError> {
        let ids = doc! { "$gte": binary(&apart.chunk(*numbers.start())), "$lte": binary(&apart.chunk(*numbers.end())) };
        let command = doc! {
            "find": "chunks",
            "filter": { "_id": ids },
            "sort": { "_id": 1 },
            "batchSize": i64::from(CHUNKS_PER_READ),
        };
        self.command(key, command, Sees::Committed).await
    }

    /// A chunk was gone: fine if the object has been replaced or removed meanwhile.
    async fn must_be_replaced(&self, key: &str, apart: Apart) -> Result<(), StoreError> {
        match self.apart(key).await? {
            Some(still) if still == apart => Err(StoreError::damaged(key, "chunks of it are missing")),
            _ => Ok(()),
        }
    }

    /// Runs a command that finds, at the primary; again when there is just no primary.
    async fn command(&self, key: &str, command: Document, sees: Sees) -> Result<Vec<RawDocumentBuf>, StoreError> {
        let mut pauses = PAUSES_MS.iter();
        loop {
            let error = match self.command_once(command.clone(), sees).await {
                Ok(found) => return Ok(found),
                Err(error) => error,
            };
            match pauses.next() {
                Some(pause) if failure::is_passing(&error) => tokio::time::sleep(Duration::from_millis(*pause)).await,
                _ => return Err(failure::of(key, &error)),
            }
        }
    }

    async fn command_once(&self, mut command: Document, sees: Sees) -> mongodb::error::Result<Vec<RawDocumentBuf>> {
        let mut concern = doc! { "level": "majority" };
        if sees == Sees::Everything {
            let hello = self.database.run_command(doc! { "hello": 1 }).await?;
            if let Some(newest) = newest(&hello) {
                concern.insert("afterClusterTime", newest);
            }
        }
        command.insert("readConcern", concern);
        command.insert("maxTimeMS", COMMIT_WAIT_MS);
        let cursor = self.database.run_cursor_command(command).await?;
        cursor.with_type::<RawDocumentBuf>().try_collect().await
    }
}

/// The primary's newest entry.
fn newest(hello: &Document) -> Option<Bson> {
    let optime = hello.get_document("lastWrite").ok()?.get_document("opTime").ok()?;
    optime.get("ts").cloned()
}
