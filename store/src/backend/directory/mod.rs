//! Objects as files of one directory tree: the embedded default. A key is a path below the root.
//!
//! An acknowledged write is durable: file and folders are fsynced before a method answers `Ok`. We have found no crate
//! for object stores that promises this of local files, hence our own. The file system must know hard links.

mod disk;
mod leftovers;

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use headwater_host::{Blocking, blocking};

use crate::objects::{ObjectMeta, Objects, Put, StoreError, check_key, check_prefix};
use disk::Disk;

/// A directory. Several processes may use it at once.
pub struct DirectoryObjects {
    disk: Arc<Disk>,
    blocking: Arc<dyn Blocking>,
}

impl DirectoryObjects {
    /// Opens the directory, making it if needed, and removes unfinished writes of processes that have ended. All file
    /// work goes through `blocking`.
    pub async fn open(root: &Path, blocking: Arc<dyn Blocking>) -> Result<DirectoryObjects, StoreError> {
        let root = root.to_owned();
        let disk = blocking::run(blocking.as_ref(), move || Disk::open(&root)).await?;
        Ok(DirectoryObjects {
            disk: Arc::new(disk),
            blocking,
        })
    }

    async fn run<T: Send + 'static>(
        &self,
        key: &str,
        work: impl FnOnce(&Disk, &str) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        check_key(key)?;
        let (disk, key) = (self.disk.clone(), key.to_owned());
        blocking::run(self.blocking.as_ref(), move || work(&disk, &key)).await
    }
}

#[async_trait]
impl Objects for DirectoryObjects {
    async fn put_new(&self, key: &str, bytes: Bytes) -> Result<Put, StoreError> {
        self.run(key, move |disk, key| disk.put_new(key, &bytes)).await
    }

    async fn put(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
        self.run(key, move |disk, key| disk.put(key, &bytes)).await
    }

    async fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        self.run(key, |disk, key| disk.get(key)).await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.run(key, move |disk, key| disk.get_range(key, range)).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectMeta>, StoreError> {
        check_prefix(prefix)?;
        let (disk, prefix) = (self.disk.clone(), prefix.to_owned());
        blocking::run(self.blocking.as_ref(), move || disk.list(&prefix)).await
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.run(key, |disk, key| disk.delete(key)).await
    }
}
