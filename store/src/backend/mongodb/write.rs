//! Writing.
//!
//! Order for bytes apart: entry in `pending` → chunks → transaction {object in, entry out}, each step by a majority
//! before the next. Reversed, a crash would leave an object without its bytes, or bytes that nobody finds again.

use std::time::Duration;

use bson::{Document, RawDocumentBuf, doc, rawdoc};
use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use mongodb::error::{Error, UNKNOWN_TRANSACTION_COMMIT_RESULT};
use mongodb::{ClientSession, Collection};

use super::read::binary;
use super::{Apart, CHUNK_BYTES, INLINE_BYTES, MongodbObjects, failure};
use crate::objects::{Put, StoreError};

/// Chunks that travel in one command…
const CHUNKS_PER_INSERT: usize = 16;
/// …and commands on their way at once.
const INSERTS_AT_ONCE: usize = 4;
/// How often something is tried that others or an election get in the way of.
const TRIES: usize = 40;
const PAUSE: Duration = Duration::from_millis(250);

/// Why a transaction did nothing.
enum Halt {
    /// What it rested on is not so.
    Lost,
    Driver(Error),
}

impl From<Error> for Halt {
    fn from(error: Error) -> Self {
        Halt::Driver(error)
    }
}

fn inline(key: &str, bytes: &[u8]) -> RawDocumentBuf {
    rawdoc! { "_id": key, "size": bytes.len() as i64, "data": binary(bytes) }
}

fn named(key: &str, size: usize, apart: Apart) -> RawDocumentBuf {
    rawdoc! { "_id": key, "size": size as i64, "chunks": binary(&apart.0) }
}

impl MongodbObjects {
    pub(super) async fn write_new(&self, key: &str, bytes: &Bytes) -> Result<Put, StoreError> {
        for _ in 0..TRIES {
            let written = match bytes.len() {
                0..=INLINE_BYTES => self.insert_inline(key, bytes).await?,
                _ => self.insert_apart(key, bytes).await?,
            };
            // That the key is taken counts only once it is so for the majority; it may be taken back before.
            if written == Put::Created || self.is_there(key).await? {
                return Ok(written);
            }
        }
        Err(StoreError::unavailable(key, "others write and remove it all the time"))
    }

    async fn insert_inline(&self, key: &str, bytes: &Bytes) -> Result<Put, StoreError> {
        match self.objects.insert_one(inline(key, bytes)).await {
            Ok(_) => Ok(Put::Created),
            Err(error) if failure::is_taken(&error) => Ok(Put::Exists),
            Err(error) => Err(failure::of(key, &error)),
        }
    }

    async fn insert_apart(&self, key: &str, bytes: &Bytes) -> Result<Put, StoreError> {
        if self.is_there(key).await? {
            return Ok(Put::Exists);
        }
        let apart = self.write_chunks(key, bytes).await?;
        let object = named(key, bytes.len(), apart);
        for _ in 0..TRIES {
            let mut session = self.session(key).await?;
            let inserted = async {
                session.start_transaction().await?;
                self.objects.insert_one(&object).session(&mut session).await?;
                self.take_entry(apart, &mut session).await?;
                commit(&mut session).await
            };
            match inserted.await {
                Ok(()) => return Ok(Put::Created),
                Err(Halt::Driver(error)) if failure::is_taken(&error) => {
                    // By ourselves, in an earlier try whose answer was lost?
                    if self.apart(key).await? == Some(apart) {
                        return Ok(Put::Created);
                    }
                    self.drop_chunks(key, apart).await?;
                    return Ok(Put::Exists);
                }
                Err(halt) => self.judged(key, halt).await?,
            }
        }
        Err(StoreError::unavailable(key, "the backing set takes no transactions"))
    }

    pub(super) async fn replace(&self, key: &str, bytes: &Bytes) -> Result<(), StoreError> {
        if bytes.len() <= INLINE_BYTES {
            // An object whose bytes are apart does not match, and its key is then found taken.
            let alike = doc! { "_id": key, "chunks": { "$exists": false } };
            let replaced = self.objects.replace_one(alike, inline(key, bytes)).upsert(true).await;
            match replaced {
                Ok(_) => return Ok(()),
                Err(error) if failure::is_taken(&error) => {}
                Err(error) => return Err(failure::of(key, &error)),
            }
            return self.exchange(key, Some(inline(key, bytes)), None).await;
        }
        let apart = self.write_chunks(key, bytes).await?;
        self.exchange(key, Some(named(key, bytes.len(), apart)), Some(apart))
            .await
    }

    pub(super) async fn remove(&self, key: &str) -> Result<(), StoreError> {
        let alike = doc! { "_id": key, "chunks": { "$exists": false } };
        let deleted = self.objects.delete_one(alike).await;
        if deleted.map_err(|e| failure::of(key, &e))?.deleted_count > 0 || !self.is_there(key).await? {
            return Ok(());
        }
        self.exchange(key, None, None).await
    }

    /// Puts a document in the place of what the key has, or removes it; bytes apart of the old one go to `pending`, and
    /// the entry of the new one leaves it.
    async fn exchange(&self, key: &str, new: Option<RawDocumentBuf>, apart: Option<Apart>) -> Result<(), StoreError> {
        for _ in 0..TRIES {
            let old = self.apart(key).await?;
            if apart.is_some() && old == apart {
                // An earlier try took effect, and its answer was lost.
                return Ok(());
            }
            let present = match old {
                Some(old) => doc! { "_id": key, "chunks": binary(&old.0) },
                None => doc! { "_id": key, "chunks": { "$exists": false } },
            };
            let mut session = self.session(key).await?;
            let exchanged = async {
                session.start_transaction().await?;
                match &new {
                    Some(new) => {
                        let replace = self.objects.replace_one(present, new).upsert(old.is_none());
                        let replaced = replace.session(&mut session).await?;
                        if replaced.matched_count == 0 && replaced.upserted_id.is_none() {
                            return Err(Halt::Lost);
                        }
                    }
                    None => _ = self.objects.delete_one(present).session(&mut session).await?,
                }
                if let Some(old) = old {
                    let dropped = rawdoc! { "_id": binary(&old.0), "dropped": true };
                    self.pending.insert_one(dropped).session(&mut session).await?;
                }
                if let Some(apart) = apart {
                    self.take_entry(apart, &mut session).await?;
                }
                commit(&mut session).await
            };
            match exchanged.await {
                Ok(()) => {
                    if let Some(old) = old {
                        // Done already in all that matters; what fails here is removed at the next start.
                        let _ = self.drop_chunks(key, old).await;
                    }
                    return Ok(());
                }
                // Somebody else replaced or removed it since we looked.
                Err(Halt::Lost) => {}
                Err(Halt::Driver(error)) if failure::is_taken(&error) => {}
                Err(halt) => self.judged(key, halt).await?,
            }
        }
        Err(StoreError::unavailable(key, "the backing set takes no transactions"))
    }

    /// Waits if it is worth while; else fails.
    async fn judged(&self, key: &str, halt: Halt) -> Result<(), StoreError> {
        match halt {
            Halt::Driver(error) if failure::is_passing(&error) => {
                tokio::time::sleep(PAUSE).await;
                Ok(())
            }
            Halt::Driver(error) => Err(failure::of(key, &error)),
            Halt::Lost => Err(StoreError::unavailable(
                key,
                "writing it took so long that it was given up; try again",
            )),
        }
    }

    async fn session(&self, key: &str) -> Result<ClientSession, StoreError> {
        self.client.start_session().await.map_err(|e| failure::of(key, &e))
    }

    /// Takes the entry of bytes apart out, within a transaction.
    async fn take_entry(&self, apart: Apart, session: &mut ClientSession) -> Result<(), Halt> {
        let entry = doc! { "_id": binary(&apart.0), "dropped": { "$exists": false } };
        match self.pending.delete_one(entry).session(session).await?.deleted_count {
            1 => Ok(()),
            _ => Err(Halt::Lost),
        }
    }

    /// Writes bytes that no object names yet.
    async fn write_chunks(&self, key: &str, bytes: &Bytes) -> Result<Apart, StoreError> {
        let apart = Apart::new(&self.host);
        let entry = rawdoc! { "_id": binary(&apart.0) };
        self.pending.insert_one(entry).await.map_err(|e| failure::of(key, &e))?;
        let (mut inserts, mut rest) = (Vec::new(), bytes.clone());
        while !rest.is_empty() {
            let number = (inserts.len() * CHUNKS_PER_INSERT) as u32;
            let batch = rest.split_to(rest.len().min(CHUNK_BYTES * CHUNKS_PER_INSERT));
            inserts.push(insert_chunks(self.chunks.clone(), apart, number, batch));
        }
        let inserted = stream::iter(inserts)
            .buffer_unordered(INSERTS_AT_ONCE)
            .try_collect::<()>();
        inserted.await.map_err(|e| failure::of(key, &e))?;
        Ok(apart)
    }

    /// Removes bytes that no object names any more, and then their entry. Without an entry they became an object since the
    /// caller looked, or are gone already.
    pub(super) async fn drop_chunks(&self, key: &str, apart: Apart) -> Result<(), StoreError> {
        let failed = |error: Error| failure::of(key, &error);
        let entry = doc! { "_id": binary(&apart.0) };
        let ids = doc! { "$gte": binary(&apart.chunk(0)), "$lte": binary(&apart.chunk(u32::MAX)) };
        // From here on no transaction can make an object of them.
        let dropped = doc! { "$set": { "dropped": true } };
        let marked = self.pending.update_one(entry.clone(), dropped).await.map_err(failed)?;
        if marked.matched_count == 0 {
            return Ok(());
        }
        delete_all(&self.chunks, doc! { "_id": ids }).await.map_err(failed)?;
        self.pending.delete_one(entry).await.map(drop).map_err(failed)
    }
}

/// Inserts the chunks from `first` on.
async fn insert_chunks(
    collection: Collection<RawDocumentBuf>,
    apart: Apart,
    first: u32,
    bytes: Bytes,
) -> Result<(), Error> {
    let chunks = (first..).zip(bytes.chunks(CHUNK_BYTES));
    let chunks = chunks.map(|(number, bytes)| rawdoc! { "_id": binary(&apart.chunk(number)), "d": binary(bytes) });
    collection.insert_many(chunks).await.map(drop)
}

/// The driver does not repeat this one by itself.
async fn delete_all(collection: &Collection<RawDocumentBuf>, filter: Document) -> Result<(), Error> {
    for _ in 0..TRIES {
        match collection.delete_many(filter.clone()).await {
            Err(error) if failure::is_passing(&error) => tokio::time::sleep(PAUSE).await,
            deleted => return deleted.map(drop),
        }
    }
    collection.delete_many(filter).await.map(drop)
}

/// Commits; asks again while it is unknown whether that took place.
async fn commit(session: &mut ClientSession) -> Result<(), Halt> {
    for _ in 0..TRIES {
        match session.commit_transaction().await {
            Err(error) if error.contains_label(UNKNOWN_TRANSACTION_COMMIT_RESULT) => tokio::time::sleep(PAUSE).await,
            committed => return Ok(committed?),
        }
    }
    Ok(session.commit_transaction().await?)
}
