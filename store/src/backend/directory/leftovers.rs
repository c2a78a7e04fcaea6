//! Temporary files: each process writes into a folder of its own below `.tmp`, which it holds locked. The folders of
//! processes that have ended are not locked any more, and are removed.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// The folder for temporary files of this process.
pub struct Scratch {
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
        let process = std::process::id();
        for number in 0_u64.. {
            let folder = all.join(format!("{process}-{number}"));
            match fs::create_dir(&folder) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                made => made?,
            }
            let lock = File::create_new(folder.join("lock"))?;
            lock.lock()?;
            return Ok(Scratch { folder, _lock: lock });
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    /// A path in the folder.
    pub fn path(&self, number: u64) -> PathBuf {
        self.folder.join(format!("{number:x}"))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // The next opener removes what stays.
        let _ = remove(&self.folder);
    }
}

fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
