//! Objects in a bucket of Amazon S3 and its kin, of Google Cloud Storage, or in a container of Azure Blob Storage, through the
//! crate `object_store`; the only folder that names it.
//!
//! What the promises of [`Objects`] rest on here: the service acknowledges only what is durable, reads and listings see every
//! acknowledged write, and a condition (`If-None-Match: *`; Google's `x-goog-if-generation-match: 0`) lets one of several
//! writers win. The last is not so everywhere, which is why [`super::probe`] looks at it when a store is opened.
//!
//! The client repeats requests by itself (throttled, refused for a moment, cut off). A repeated `put_new` whose first
//! try had its effect answers `Exists`, as it does to a caller who repeats it; nobody's bytes are ever replaced.

mod connect;
mod credentials;

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, TryStreamExt};
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutPayload, WriteMultipart};

pub use connect::{amazon, azure, google};

use crate::objects::{ObjectMeta, Objects, Put, StoreError, check_key, check_prefix};

/// How often a `put_new` is tried again that met another writer of the same key, who then did not write after all.
const CONFLICTS: usize = 5;
/// Pauses before an answer that broke off is asked for again.
const PAUSES: [Duration; 3] = [
    Duration::from_millis(50),
    Duration::from_millis(200),
    Duration::from_millis(800),
];
/// Objects above this are put in parts, several at once.
const MULTIPART_FROM_BYTES: usize = 64 << 20;
const PART_BYTES: usize = 16 << 20;
const PARTS_AT_ONCE: usize = 4;
/// So much of a service's words is passed on.
const WORDS: usize = 400;

/// A bucket, or what lies below a prefix of it.
pub struct BucketObjects {
    store: Arc<dyn ObjectStore>,
    /// Empty, or with a `/` at its end.
    prefix: String,
}

impl BucketObjects {
    fn path(&self, key: &str) -> Result<Path, StoreError> {
        check_key(key)?;
        Path::parse(format!("{}{key}", self.prefix)).map_err(|e| StoreError::refused(key, e))
    }

    async fn put_in_parts(&self, path: &Path, bytes: Bytes) -> Result<(), Error> {
        let upload = self.store.put_multipart(path).await?;
        let mut writing = WriteMultipart::new_with_chunk_size(upload, PART_BYTES);
        let mut rest = bytes;
        while !rest.is_empty() {
            if let Err(error) = writing.wait_for_capacity(PARTS_AT_ONCE).await {
                // What stays of it is not an object, and the bucket's own rules remove it in time.
                let _ = writing.abort().await;
                return Err(error);
            }
            writing.put(rest.split_to(PART_BYTES.min(rest.len())));
        }
        writing.finish().await.map(drop)
    }

    async fn read(&self, key: &str, path: &Path) -> Result<Bytes, StoreError> {
        let found = self.store.get(path).await.map_err(|e| failure(key, &e))?;
        let size = found.meta.size;
        let bytes = found.bytes().await.map_err(|e| failure(key, &e))?;
        if bytes.len() as u64 == size {
            return Ok(bytes);
        }
        let detail = format!("{} of its {size} bytes came", bytes.len());
        Err(StoreError::unavailable(key, detail))
    }

    async fn read_range(&self, key: &str, path: &Path, range: Range<u64>) -> Result<Bytes, StoreError> {
        if range.start >= range.end {
            let size = self.size(key, path).await?;
            return match range.start == range.end && range.end <= size {
                true => Ok(Bytes::new()),
                false => Err(outside(key, &range, size)),
            };
        }
        let error = match self.store.get_range(path, range.clone()).await {
            Ok(bytes) if bytes.len() as u64 == range.end - range.start => return Ok(bytes),
            Ok(bytes) => StoreError::unavailable(key, format!("{} bytes came for {range:?}", bytes.len())),
            Err(error) => failure(key, &error),
        };
        if matches!(error, StoreError::NotFound(_)) {
            return Err(error);
        }
        // Services word it differently that a range is not there, and some give what there is.
        match self.size(key, path).await? {
            size if range.end > size => Err(outside(key, &range, size)),
            _ => Err(error),
        }
    }

    async fn list_prefix(&self, prefix: &str) -> Result<Vec<ObjectMeta>, StoreError> {
        // The crate lists whole folders; what else is in this one is passed over.
        let folder = prefix.rsplit_once('/').map_or("", |(folder, _)| folder);
        let folder = Path::parse(format!("{}{folder}", self.prefix)).map_err(|e| StoreError::refused(prefix, e))?;
        let listed = self.store.list(Some(&folder)).try_filter_map(|meta| {
            let key = meta.location.as_ref().strip_prefix(self.prefix.as_str());
            let key = key.filter(|key| key.starts_with(prefix)).map(str::to_owned);
            std::future::ready(Ok(key.map(|key| ObjectMeta { key, size: meta.size })))
        });
        let mut listed: Vec<_> = listed.try_collect().await.map_err(|e| match failure(prefix, &e) {
            StoreError::NotFound(key) => StoreError::unavailable(&key, "the bucket cannot be listed"),
            other => other,
        })?;
        listed.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(listed)
    }

    async fn size(&self, key: &str, path: &Path) -> Result<u64, StoreError> {
        Ok(self.store.head(path).await.map_err(|e| failure(key, &e))?.size)
    }
}

/// Reads again what broke off: the client repeats requests that fail, not answers that end early.
async fn again<'a, T>(read: impl Fn() -> BoxFuture<'a, Result<T, StoreError>>) -> Result<T, StoreError> {
    for pause in PAUSES {
        match read().await {
            Err(StoreError::Unavailable { key, detail }) => tracing::debug!(key, detail, "reading again"),
            other => return other,
        }
        tokio::time::sleep(pause).await;
    }
    read().await
}

fn failure(key: &str, error: &Error) -> StoreError {
    let words = error.to_string();
    let has = |words_of_full: [&str; 4]| words_of_full.iter().any(|full| words.contains(full));
    match error {
        Error::NotFound { .. } if words.contains("NoSuchBucket") => {
            StoreError::unavailable(key, "the bucket does not exist: create it, or correct the store's URI")
        }
        Error::NotFound { .. } => StoreError::NotFound(key.to_owned()),
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => {
            let detail = format!("our credentials do not allow this: {}", shortened(&words));
            StoreError::unavailable(key, detail)
        }
        _ if has(["QuotaExceeded", "StorageFull", "InsufficientStorage", "EntityTooLarge"]) => {
            StoreError::Full(key.to_owned())
        }
        _ => StoreError::unavailable(key, shortened(&words)),
    }
}

fn shortened(words: &str) -> String {
    words.chars().filter(|c| !c.is_control()).take(WORDS).collect()
}

fn outside(key: &str, range: &Range<u64>, size: u64) -> StoreError {
    StoreError::damaged(key, format!("{range:?} is outside of its {size} bytes"))
}

#[async_trait]
impl Objects for BucketObjects {
    async fn put_new(&self, key: &str, bytes: Bytes) -> Result<Put, StoreError> {
        let path = self.path(key)?;
        for _ in 0..CONFLICTS {
            let payload = PutPayload::from_bytes(bytes.clone());
            match self.store.put_opts(&path, payload, PutMode::Create.into()).await {
                Ok(_) => return Ok(Put::Created),
                Err(Error::AlreadyExists { .. }) => {}
                Err(error) => return Err(failure(key, &error)),
            }
            // The service may have meant only that somebody else is about to write: look whether they did.
            match self.size(key, &path).await {
                Ok(_) => return Ok(Put::Exists),
                Err(StoreError::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Err(StoreError::unavailable(key, "others write and remove it all the time"))
    }

    async fn put(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
        let path = self.path(key)?;
        let put = match bytes.len() {
            0..=MULTIPART_FROM_BYTES => self.store.put(&path, PutPayload::from_bytes(bytes)).await.map(drop),
            _ => self.put_in_parts(&path, bytes).await,
        };
        put.map_err(|e| failure(key, &e))
    }

    async fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        let path = self.path(key)?;
        again(|| self.read(key, &path).boxed()).await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        let path = self.path(key)?;
        again(|| self.read_range(key, &path, range.clone()).boxed()).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectMeta>, StoreError> {
        check_prefix(prefix)?;
        again(|| self.list_prefix(prefix).boxed()).await
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        match self.store.delete(&self.path(key)?).await {
            Err(Error::NotFound { .. }) | Ok(()) => Ok(()),
            Err(error) => Err(failure(key, &error)),
        }
    }
}
