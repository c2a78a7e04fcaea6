//! Temporary files: each process writes into a folder of its own below `.tmp`, which it holds locked. The folders of
//! processes that have ended are not locked any more, and are removed. A folder that somebody removes from outside is made
//! again.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The folder for temporary files of this process.
pub struct Scratch {
    root: PathBuf,
    /// Device and inode of the root.
    identity: (u64, u64),
    own: Mutex<Own>,
}

struct Own {
    folder: PathBuf,
    /// Held for as long as the folder is in use.
    _lock: File,
}

impl Scratch {
    /// Removes what processes that have ended left behind, and makes a folder.
    pub fn open(root: &Path) -> io::Result<Scratch> {
        let all = root.join(".tmp");
        fs::create_dir_all(&all)?;
        for entry in fs::read_dir(&all)? {
            let folder = entry?.path();
            // A folder whose lock is not even there yet is being made this instant.
            if let Ok(lock) = File::open(folder.join("lock"))
                && lock.try_lock().is_ok()
            {
                remove(&folder)?;
            }
        }
        Ok(Scratch {
            own: Mutex::new(make_own(&all)?),
            identity: identity(root)?,
            root: root.to_owned(),
        })
    }

    /// A path in the folder.
    pub fn path(&self, number: u64) -> PathBuf {
        self.own().folder.join(format!("{number:x}"))
    }

    /// Makes a new folder if the present one is gone. Not in another root that stands in the place of ours, such as the bare
    /// mount point of a file system that is gone: what is written there would not be in the store.
    pub fn renew(&self) -> io::Result<()> {
        let mut own = self.own();
        if own.folder.join("lock").exists() {
            return Ok(());
        }
        if identity(&self.root)? != self.identity {
            return Err(io::Error::other(
                "the store's directory is another one than at the start",
            ));
        }
        let all = self.root.join(".tmp");
        match fs::create_dir(&all) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        *own = make_own(&all)?;
        Ok(())
    }

    fn own(&self) -> MutexGuard<'_, Own> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // The next opener removes what stays.
        let _ = remove(&self.own().folder);
    }
}

fn identity(root: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::metadata(root)?;
    Ok((metadata.dev(), metadata.ino()))
}

fn make_own(all: &Path) -> io::Result<Own> {
    let process = std::process::id();
    for number in 0_u64.. {
        let folder = all.join(format!("{process}-{number}"));
        match fs::create_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            made => made?,
        }
        let held = folder.join("lock");
        // Whoever opens the store between the next two steps takes the folder for a leftover.
        let locked = File::create_new(&held).and_then(|lock| lock.lock().map(|()| lock));
        match locked {
            Ok(lock) if held.exists() => return Ok(Own { folder, _lock: lock }),
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
