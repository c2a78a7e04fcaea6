//! The blocking half of the directory backend.
//!
//! Write order: bytes into a temporary file → fsync of the file → link or rename to its name → fsync of the folder →
//! `Ok`. The name never shows half of an object, and what was answered survives a power loss. Of several links to one
//! name the file system lets one succeed.
//!
//! A folder whose fsync failed once may have lost what the kernel had of it; asking again would answer `Ok` and
//! prove nothing. So after such a failure this store takes no more writes until the process is started again.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;

use super::leftovers::Scratch;
use crate::objects::{ObjectMeta, Put, StoreError, check_key};

/// See the module.
pub struct Disk {
    root: PathBuf,
    scratch: Scratch,
    written: AtomicU64,
    sync_failed: AtomicBool,
    /// Folders whose own names are known to be durable.
    durable: Mutex<BTreeSet<PathBuf>>,
}

fn write_error(key: &str, error: &io::Error) -> StoreError {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => StoreError::Full(key.to_owned()),
        ErrorKind::NotADirectory | ErrorKind::IsADirectory => {
            StoreError::refused(key, "a key cannot be a folder of another key")
        }
        _ => StoreError::unavailable(key, error),
    }
}

fn read_error(key: &str, error: &io::Error) -> StoreError {
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::IsADirectory => {
            StoreError::NotFound(key.to_owned())
        }
        ErrorKind::UnexpectedEof => StoreError::damaged(key, "it is shorter than it was"),
        // EIO has no kind of its own. On reading it means that the medium has lost the bytes.
        _ if error.raw_os_error() == Some(EIO) => StoreError::damaged(key, error),
        _ => StoreError::unavailable(key, error),
    }
}

const EIO: i32 = 5;

impl Disk {
    /// Opens or makes the directory.
    pub fn open(root: &Path) -> Result<Disk, StoreError> {
        let failed = |error: io::Error| write_error(&root.display().to_string(), &error);
        fs::create_dir_all(root).map_err(failed)?;
        let root = root.canonicalize().map_err(failed)?;
        if let Some(parent) = root.parent() {
            File::open(parent)
                .and_then(|folder| folder.sync_all())
                .map_err(failed)?;
        }
        Ok(Disk {
            scratch: Scratch::open(&root).map_err(failed)?,
            written: AtomicU64::new(0),
            sync_failed: AtomicBool::new(false),
            durable: Mutex::new(BTreeSet::from([root.clone()])),
            root,
        })
    }

    /// See [`crate::objects::Objects::put_new`].
    pub fn put_new(&self, key: &str, bytes: &[u8]) -> Result<Put, StoreError> {
        let target = self.root.join(key);
        let folder = self.folder_of(key, &target)?;
        let put = if self.is_object(key, &target)? {
            Put::Exists
        } else {
            let temporary = self.write_temporary(key, bytes)?;
            let linked = fs::hard_link(&temporary, &target);
            let _ = fs::remove_file(&temporary);
            match linked {
                Ok(()) => Put::Created,
                Err(error) if error.kind() == ErrorKind::AlreadyExists => Put::Exists,
                Err(error) => return Err(write_error(key, &error)),
            }
        };
        // Who finds the object must be sure of it, too: its writer may not have come to this point yet.
        self.sync_folder(key, &folder)?;
        Ok(put)
    }

    /// See [`crate::objects::Objects::put`].
    pub fn put(&self, key: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let target = self.root.join(key);
        let folder = self.folder_of(key, &target)?;
        let temporary = self.write_temporary(key, bytes)?;
        if let Err(error) = fs::rename(&temporary, &target) {
            let _ = fs::remove_file(&temporary);
            return Err(write_error(key, &error));
        }
        self.sync_folder(key, &folder)
    }

    /// See [`crate::objects::Objects::delete`].
    pub fn delete(&self, key: &str) -> Result<(), StoreError> {
        let target = self.root.join(key);
        match fs::remove_file(&target) {
            Ok(()) => {}
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(()),
            Err(error) => return Err(write_error(key, &error)),
        }
        target.parent().map_or(Ok(()), |folder| self.sync_folder(key, folder))
    }

    /// See [`crate::objects::Objects::get`].
    pub fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        fs::read(self.root.join(key))
            .map(Bytes::from)
            .map_err(|error| read_error(key, &error))
    }

    /// See [`crate::objects::Objects::get_range`].
    pub fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        let failed = |error: io::Error| read_error(key, &error);
        let mut file = File::open(self.root.join(key)).map_err(failed)?;
        let size = file.metadata().map_err(failed)?.len();
        if range.start > range.end || range.end > size {
            return Err(StoreError::damaged(
                key,
                format!("{range:?} is outside of its {size} bytes"),
            ));
        }
        let mut bytes = vec![0; (range.end - range.start) as usize];
        file.seek(SeekFrom::Start(range.start)).map_err(failed)?;
        file.read_exact(&mut bytes).map_err(failed)?;
        Ok(bytes.into())
    }

    /// See [`crate::objects::Objects::list`].
    pub fn list(&self, prefix: &str) -> Result<Vec<ObjectMeta>, StoreError> {
        let failed = |error: io::Error| match read_error(prefix, &error) {
            StoreError::Damaged { key, detail } => StoreError::Unavailable { key, detail },
            other => other,
        };
        let above = prefix.rfind('/').map_or("", |slash| &prefix[..slash]);
        let mut folders = vec![above.to_owned()];
        let mut objects = Vec::new();
        while let Some(folder) = folders.pop() {
            let entries = match fs::read_dir(self.root.join(&folder)) {
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => continue,
                entries => entries.map_err(failed)?,
            };
            for entry in entries {
                let entry = entry.map_err(failed)?;
                let Some(name) = entry.file_name().to_str().map(str::to_owned) else {
                    continue;
                };
                let key = if folder.is_empty() {
                    name
                } else {
                    format!("{folder}/{name}")
                };
                // What begins with a dot is no object; among the rest, only what can lead to the prefix.
                if check_key(&key).is_err() || !(key.starts_with(prefix) || prefix.starts_with(&format!("{key}/"))) {
                    continue;
                }
                if entry.file_type().map_err(failed)?.is_dir() {
                    folders.push(key);
                    continue;
                }
                match entry.metadata() {
                    Ok(metadata) => objects.push(ObjectMeta {
                        key,
                        size: metadata.len(),
                    }),
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    Err(error) => return Err(failed(error)),
                }
            }
        }
        objects.retain(|object| object.key.starts_with(prefix));
        objects.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(objects)
    }

    fn is_object(&self, key: &str, target: &Path) -> Result<bool, StoreError> {
        match fs::metadata(target) {
            Ok(metadata) if metadata.is_file() => Ok(true),
            Ok(_) => Err(write_error(key, &ErrorKind::IsADirectory.into())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(write_error(key, &error)),
        }
    }

    fn write_temporary(&self, key: &str, bytes: &[u8]) -> Result<PathBuf, StoreError> {
        match self.write_scratch(bytes) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                tracing::warn!("the store's folder for temporary files was removed by somebody else; it is made again");
                self.scratch.renew().and_then(|()| self.write_scratch(bytes))
            }
            written => written,
        }
        .map_err(|error| write_error(key, &error))
    }

    fn write_scratch(&self, bytes: &[u8]) -> io::Result<PathBuf> {
        let path = self.scratch.path(self.written.fetch_add(1, Ordering::Relaxed));
        let written = File::create_new(&path).and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        });
        if written.is_err() {
            let _ = fs::remove_file(&path);
        }
        written.map(|()| path)
    }

    /// The folder of an object, made if needed, with its own name durable.
    fn folder_of(&self, key: &str, target: &Path) -> Result<PathBuf, StoreError> {
        let folder = target.parent().unwrap_or(&self.root).to_owned();
        self.make_durable(key, &folder)?;
        Ok(folder)
    }

    fn make_durable(&self, key: &str, folder: &Path) -> Result<(), StoreError> {
        if self
            .durable
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(folder)
        {
            return Ok(());
        }
        let above = folder.parent().unwrap_or(&self.root);
        self.make_durable(key, above)?;
        match fs::create_dir(folder) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            made => made.map_err(|error| write_error(key, &error))?,
        }
        self.sync_folder(key, above)?;
        self.durable
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(folder.to_owned());
        Ok(())
    }

    fn sync_folder(&self, key: &str, folder: &Path) -> Result<(), StoreError> {
        if self.sync_failed.load(Ordering::SeqCst) {
            let detail = "an fsync of a folder failed before; see to the disk, then start this process again";
            return Err(StoreError::unavailable(key, detail));
        }
        File::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(|error| {
                self.sync_failed.store(true, Ordering::SeqCst);
                tracing::error!(%error, folder = %folder.display(), "fsync failed; no more writes until restart");
                write_error(key, &error)
            })
    }
}
