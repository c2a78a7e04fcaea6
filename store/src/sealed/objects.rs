//! A backing store behind a seal: what is written is sealed under its name, what is read is opened. Names and lengths stay
//! to be seen; lengths are given as they are without the seal.
//!
//! To open a part of an object one must know where its last chunk ends, so lengths are remembered as they are listed and
//! written; one that is not known, or does not fit any more, is asked for.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use headwater_host::Entropy;

use super::format::{self, CHUNK, SALT, SealFault, Span};
use super::secret::DataKey;
use crate::naming::BlockNaming;
use crate::objects::{ObjectMeta, Objects, Put, StoreError, check_key};

/// Lengths remembered at the most, in about 40 bytes each; then they are forgotten and asked for again.
const LENGTHS_MAX: usize = 1 << 20;

/// See the module.
pub struct SealedObjects {
    objects: Arc<dyn Objects>,
    key: Arc<DataKey>,
    entropy: Arc<dyn Entropy>,
    /// Lengths at rest of objects with several chunks, by a hash of their names.
    lengths: Mutex<HashMap<u128, u64>>,
}

fn hash(name: &str) -> u128 {
    let hash = blake3::hash(name.as_bytes());
    hash.as_bytes().first_chunk().map_or(0, |b| u128::from_le_bytes(*b))
}

impl SealedObjects {
    /// Objects that are sealed with `key`.
    pub fn new(objects: Arc<dyn Objects>, key: Arc<DataKey>, entropy: Arc<dyn Entropy>) -> SealedObjects {
        SealedObjects {
            objects,
            key,
            entropy,
            lengths: Mutex::default(),
        }
    }

    fn seal(&self, name: &str, plain: &[u8]) -> Result<Bytes, StoreError> {
        let mut salt = [0; SALT];
        self.entropy.fill(&mut salt);
        format::seal(&self.key, name, &salt, plain).map_err(|fault| StoreError::refused(name, fault))
    }

    fn lengths(&self) -> MutexGuard<'_, HashMap<u128, u64>> {
        self.lengths.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember(&self, name: &str, sealed: u64) {
        if sealed <= CHUNK as u64 {
            return;
        }
        let mut lengths = self.lengths();
        if lengths.len() >= LENGTHS_MAX {
            lengths.clear();
        }
        lengths.insert(hash(name), sealed);
    }

    fn remembered(&self, name: &str) -> Option<u64> {
        self.lengths().get(&hash(name)).copied()
    }

    /// The length at rest, as it is now.
    async fn length(&self, name: &str) -> Result<u64, StoreError> {
        let listed = self.objects.list(name).await?;
        let found = listed.into_iter().find(|object| object.key == name);
        let sealed = found.ok_or_else(|| StoreError::NotFound(name.to_owned()))?.size;
        self.remember(name, sealed);
        Ok(sealed)
    }

    async fn part(&self, name: &str, range: Range<u64>, sealed: u64) -> Result<Bytes, StoreError> {
        let plain = format::plain_len(sealed).ok_or_else(|| StoreError::damaged(name, SealFault::Broken))?;
        if range.start > range.end || range.end > plain {
            let detail = format!("bytes {} to {} of {plain} were asked for", range.start, range.end);
            return Err(StoreError::damaged(name, detail));
        }
        let span = Span::of(range, plain);
        let bytes = self.objects.get_range(name, span.at.clone()).await?;
        span.open(&self.key, name, &bytes)
            .map_err(|fault| StoreError::damaged(name, fault))
    }
}

#[async_trait]
impl Objects for SealedObjects {
    async fn put_new(&self, key: &str, bytes: Bytes) -> Result<Put, StoreError> {
        let sealed = self.seal(key, &bytes)?;
        let len = sealed.len() as u64;
        let put = self.objects.put_new(key, sealed).await?;
        if put == Put::Created {
            self.remember(key, len);
        }
        Ok(put)
    }

    async fn put(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
        let sealed = self.seal(key, &bytes)?;
        let len = sealed.len() as u64;
        self.lengths().remove(&hash(key));
        self.objects.put(key, sealed).await?;
        self.remember(key, len);
        Ok(())
    }

    async fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        let sealed = self.objects.get(key).await?;
        format::open(&self.key, key, &sealed).map_err(|fault| StoreError::damaged(key, fault))
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        check_key(key)?;
        if let Some(sealed) = self.remembered(key) {
            match self.part(key, range.clone(), sealed).await {
                // Perhaps another object has this name now.
                Err(error @ StoreError::Damaged { .. }) => match self.length(key).await? {
                    found if found == sealed => return Err(error),
                    found => return self.part(key, range, found).await,
                },
                answer => return answer,
            }
        }
        let sealed = self.length(key).await?;
        self.part(key, range, sealed).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectMeta>, StoreError> {
        let mut listed = self.objects.list(prefix).await?;
        for object in &mut listed {
            self.remember(&object.key, object.size);
            // What cannot be a sealed object holds nothing; whoever reads it is told that it is damaged.
            object.size = format::plain_len(object.size).unwrap_or(0);
        }
        Ok(listed)
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.lengths().remove(&hash(key));
        self.objects.delete(key).await
    }

    fn naming(&self) -> BlockNaming {
        BlockNaming::keyed(self.key.block_ids())
    }
}
