//! Where an archive stream goes: standard output, a file, or a directory in mongodump's format.
//!
//! A file or directory gets its name only when the stream arrived whole *and* the service calls the restore finished;
//! until then it lies beside under another name, and vanishes when the command fails.

use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::StreamExt;
use headwater_protocol::admin::RestoreView;
use headwater_restore::dump::{ArchiveToDirectory, check_root};
use tokio::io::AsyncWriteExt;

use crate::cli::progress::Progress;
use crate::cli::{restore, restores};
use crate::client::Client;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome, file_fault};
use crate::stop;

/// How long after the stream's end the service may take to call the restore finished.
const LAST_WORD: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Where to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sink {
    /// Standard output.
    Stdout,
    /// A file that does not exist yet.
    File(PathBuf),
    /// A directory that does not exist yet, or is empty.
    Directory(PathBuf),
}

impl Sink {
    /// Refuses before anything is started what would be refused at the end.
    pub fn check(&self) -> Outcome {
        match self {
            Sink::File(path) if path.symlink_metadata().is_ok() => {
                let failure = Failure::new(Exit::Conflict, format!("{} exists already", path.display()));
                Err(failure.help("choose another name, or remove what is there"))
            }
            Sink::Stdout | Sink::File(_) => Ok(()),
            Sink::Directory(path) => check_root(path).map_err(|e| Failure::new(Exit::Conflict, e.to_string())),
        }
    }

    /// Starts the stream of a restore and takes it in.
    pub async fn receive(&self, client: &Client, started: &RestoreView) -> Outcome<RestoreView> {
        let mut progress = Progress::start();
        let outcome = tokio::select! {
            outcome = self.take(client, started, &mut progress) => outcome,
            () = stop::wished() => Err(Failure::new(Exit::Interrupted, "interrupted; nothing of the archive was kept")),
        };
        progress.end();
        outcome
    }

    async fn take(&self, client: &Client, started: &RestoreView, progress: &mut Progress) -> Outcome<RestoreView> {
        let mut stream = client
            .stream(&format!("/api/v1/restores/{}/archive", started.id))
            .await?
            .bytes_stream();
        let mut writing = Writing::begin(self).await?;
        let mut received = 0;
        while let Some(piece) = stream.next().await {
            let Ok(piece) = piece else {
                return Err(cut(client, started.id).await);
            };
            writing.write(&piece).await?;
            received += piece.len() as u64;
            progress.show("receiving", received, started.bytes_total);
        }
        writing.durable().await?;
        let done = last_word(client, started.id).await?;
        writing.keep().await?;
        Ok(done)
    }
}

/// A cut stream in the words of the daemon, which knows why.
async fn cut(client: &Client, id: u64) -> Failure {
    let why = restores::of(client, id).await.ok().and_then(|view| view.error);
    let why = why.unwrap_or_else(|| "the connection broke".to_owned());
    Failure::new(Exit::Failed, format!("the archive stream was cut: {why}"))
        .help("what arrived is not a whole backup and was not kept; run the command again")
}

async fn last_word(client: &Client, id: u64) -> Outcome<RestoreView> {
    let said = async {
        loop {
            if let Some(end) = restore::ended(restores::of(client, id).await?) {
                return end;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    let silent = || {
        Failure::new(
            Exit::Failed,
            "the stream ended, but the service does not call the restore finished",
        )
    };
    tokio::time::timeout(LAST_WORD, said)
        .await
        .unwrap_or_else(|_| Err(silent().help("run the command again")))
}

enum Writing {
    Stdout(tokio::io::Stdout),
    File {
        file: tokio::io::BufWriter<tokio::fs::File>,
        aside: Aside,
    },
    Directory {
        extraction: Box<ArchiveToDirectory>,
        path: PathBuf,
        _partial: Partial,
    },
}

impl Writing {
    async fn begin(sink: &Sink) -> Outcome<Self> {
        match sink {
            Sink::Stdout => Ok(Writing::Stdout(tokio::io::stdout())),
            Sink::File(path) => {
                let aside = Aside::of(path);
                let made = tokio::fs::OpenOptions::new()
                    .write(true)
                    .create_new(true)
                    .open(&aside.path)
                    .await;
                let file = made.map_err(|e| file_fault("make", &aside.path, &e))?;
                Ok(Writing::File {
                    file: tokio::io::BufWriter::with_capacity(1 << 20, file),
                    aside,
                })
            }
            Sink::Directory(path) => {
                let extraction = ArchiveToDirectory::create(path)
                    .await
                    .map_err(|e| extraction_fault(path, &e))?;
                Ok(Writing::Directory {
                    extraction: Box::new(extraction),
                    path: path.clone(),
                    _partial: Partial::of(path),
                })
            }
        }
    }

    async fn write(&mut self, piece: &[u8]) -> Outcome {
        match self {
            Writing::Stdout(out) => out.write_all(piece).await.map_err(|e| stdout_fault(&e)),
            Writing::File { file, aside } => file
                .write_all(piece)
                .await
                .map_err(|e| file_fault("write", &aside.path, &e)),
            Writing::Directory { extraction, path, .. } => {
                extraction.write(piece).await.map_err(|e| extraction_fault(path, &e))
            }
        }
    }

    async fn durable(&mut self) -> Outcome {
        match self {
            Writing::Stdout(out) => out.flush().await.map_err(|e| stdout_fault(&e)),
            Writing::File { file, aside } => {
                let fault = |e| file_fault("write", &aside.path, &e);
                file.flush().await.map_err(fault)?;
                file.get_ref().sync_all().await.map_err(fault)
            }
            Writing::Directory { .. } => Ok(()),
        }
    }

    async fn keep(self) -> Outcome {
        match self {
            Writing::Stdout(_) => Ok(()),
            Writing::File { aside, .. } => aside.keep(),
            Writing::Directory { extraction, path, .. } => extraction
                .finish()
                .await
                .map(drop)
                .map_err(|e| extraction_fault(&path, &e)),
        }
    }
}

fn stdout_fault(error: &std::io::Error) -> Failure {
    Failure::new(
        Exit::Failed,
        format!("cannot write the archive to standard output: {error}"),
    )
}

fn extraction_fault(path: &Path, error: &dyn std::fmt::Display) -> Failure {
    Failure::new(
        Exit::Failed,
        format!("cannot make the dump {}: {error}", path.display()),
    )
}

/// A file under a name of its own until it is kept; removed otherwise.
struct Aside {
    path: PathBuf,
    target: PathBuf,
}

impl Aside {
    fn of(target: &Path) -> Self {
        let mut name = target.file_name().unwrap_or_default().to_owned();
        name.push(format!(".part-{}", std::process::id()));
        Aside {
            path: target.with_file_name(name),
            target: target.to_owned(),
        }
    }

    fn keep(self) -> Outcome {
        // A link, unlike a rename, never replaces a file that appeared meanwhile.
        let named = match std::fs::hard_link(&self.path, &self.target) {
            // Some file systems have no links, such as those of removable disks and many network shares.
            Err(_) if self.target.symlink_metadata().is_err() => std::fs::rename(&self.path, &self.target),
            named => named,
        };
        named.map_err(|e| file_fault("name", &self.target, &e))?;
        let folder = self
            .target
            .parent()
            .filter(|p| !p.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        let synced = std::fs::File::open(folder).and_then(|folder| folder.sync_all());
        synced.map_err(|e| file_fault("sync", folder, &e))
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        // Nothing better can be done with a file that cannot be removed.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// The directory an extraction works in until it is whole; what is left of it at the end is of no use.
struct Partial(PathBuf);

impl Partial {
    fn of(target: &Path) -> Self {
        let mut name = target.file_name().unwrap_or_default().to_owned();
        name.push(".partial");
        Partial(target.with_file_name(name))
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // It is gone already when the extraction came to its end.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_exists_is_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.archive");
        assert_eq!(Sink::File(file.clone()).check(), Ok(()));
        assert_eq!(Sink::Directory(dir.path().to_owned()).check(), Ok(()));
        assert_eq!(Sink::Directory(".".into()).check().unwrap_err().exit, Exit::Conflict);
        std::fs::write(&file, "x").unwrap();
        assert_eq!(Sink::File(file).check().unwrap_err().exit, Exit::Conflict);
        assert_eq!(
            Sink::Directory(dir.path().to_owned()).check().unwrap_err().exit,
            Exit::Conflict
        );
    }

    #[tokio::test]
    async fn a_file_gets_its_name_only_when_it_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("a.archive");
        let names = || std::fs::read_dir(dir.path()).unwrap().count();
        let mut writing = Writing::begin(&Sink::File(target.clone())).await.unwrap();
        writing.write(b"half").await.unwrap();
        drop(writing);
        assert_eq!(names(), 0);
        let mut writing = Writing::begin(&Sink::File(target.clone())).await.unwrap();
        writing.write(b"whole").await.unwrap();
        writing.durable().await.unwrap();
        writing.keep().await.unwrap();
        assert_eq!(names(), 1);
        assert_eq!(std::fs::read(&target).unwrap(), b"whole");
    }
}
