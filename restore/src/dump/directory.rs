//! Writes a dump directory. Everything goes into `<root>.partial` first, which becomes `<root>` once all files are on
//! disk: a directory of that name is complete.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use headwater_model::Namespace;
use tokio::fs::{self, File, OpenOptions};
use tokio::io::{AsyncWriteExt, BufWriter};

use super::file_name::file_name;

/// Files open at once; archives have a few collections under way at a time.
const OPEN_MAX: usize = 16;
/// Buffered bytes of an open file.
const BUFFER: usize = 256 << 10;

/// The directory cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryFault {
    /// Something is there already.
    #[error("{0} exists already: choose another name, or remove it")]
    Exists(PathBuf),
    /// A new directory cannot take its place.
    #[error("{path} is {what}: name a new directory inside it, such as {}", path.join("dump").display())]
    Fixed {
        /// Which.
        path: PathBuf,
        /// Why.
        what: &'static str,
    },
    /// No such database can be a folder.
    #[error("{0:?} cannot be a folder's name; rename the database")]
    Database(String),
    /// The file system failed.
    #[error("{path} cannot be written: {source}")]
    Io {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> DirectoryFault + '_ {
    |source| DirectoryFault::Io {
        path: path.to_owned(),
        source,
    }
}

/// Whether a new directory may get the name `root`: nothing has it yet, or an empty directory that can be replaced.
pub fn check_root(root: &Path) -> Result<(), DirectoryFault> {
    let fixed = |what| DirectoryFault::Fixed {
        path: root.to_owned(),
        what,
    };
    // Of ".", ".." and "/" nobody can say what lies beside them under another name.
    if root.file_name().is_none() {
        return Err(fixed("a directory in use"));
    }
    let Ok(there) = root.symlink_metadata() else {
        return Ok(());
    };
    if !there.is_dir() {
        return Err(DirectoryFault::Exists(root.to_owned()));
    }
    if std::fs::read_dir(root).map_err(io(root))?.next().is_some() {
        return Err(DirectoryFault::Exists(root.to_owned()));
    }
    match std::fs::metadata(parent(root)) {
        Ok(parent) if parent.dev() != there.dev() => Err(fixed("a mount point")),
        _ => Ok(()),
    }
}

fn parent(path: &Path) -> &Path {
    path.parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

/// See the module.
pub struct DirectoryWriter {
    root: PathBuf,
    partial: PathBuf,
    open: BTreeMap<PathBuf, BufWriter<File>>,
}

impl DirectoryWriter {
    /// Begins, where [`check_root`] allows it.
    pub async fn create(root: &Path) -> Result<Self, DirectoryFault> {
        check_root(root)?;
        let mut name = root.file_name().unwrap_or_default().to_owned();
        name.push(".partial");
        let partial = root.with_file_name(name);
        fs::create_dir_all(parent(&partial))
            .await
            .map_err(io(parent(&partial)))?;
        match fs::create_dir(&partial).await {
            Ok(()) => Ok(DirectoryWriter {
                root: root.to_owned(),
                partial,
                open: BTreeMap::new(),
            }),
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Err(DirectoryFault::Exists(partial)),
            Err(e) => Err(io(&partial)(e)),
        }
    }

    /// Writes `prelude.json`, by which newer tools learn the version of the source.
    pub async fn prelude(&mut self, server_version: &str) -> Result<(), DirectoryFault> {
        let text = serde_json::json!({
            "ServerVersion": server_version,
            "ToolVersion": concat!("headwater ", env!("CARGO_PKG_VERSION")),
        });
        let path = self.partial.join("prelude.json");
        self.append_to(path.clone(), text.to_string().as_bytes()).await?;
        self.close_file(path).await
    }

    /// Writes the metadata file of a collection or view.
    pub async fn metadata(&mut self, namespace: &Namespace, text: &str) -> Result<(), DirectoryFault> {
        let path = self.path(namespace, ".metadata.json")?;
        self.append_to(path.clone(), text.as_bytes()).await?;
        self.close_file(path).await
    }

    /// Appends documents; no bytes make an empty file.
    pub async fn documents(&mut self, namespace: &Namespace, bytes: &[u8]) -> Result<(), DirectoryFault> {
        let path = self.path(namespace, ".bson")?;
        self.append_to(path, bytes).await
    }

    /// All documents of the collection are there.
    pub async fn end(&mut self, namespace: &Namespace) -> Result<(), DirectoryFault> {
        let path = self.path(namespace, ".bson")?;
        self.close_file(path).await
    }

    /// Makes everything durable and gives the directory its name.
    pub async fn finish(mut self) -> Result<(), DirectoryFault> {
        while let Some(path) = self.open.keys().next().cloned() {
            self.close_file(path).await?;
        }
        let mut entries = fs::read_dir(&self.partial).await.map_err(io(&self.partial))?;
        while let Some(entry) = entries.next_entry().await.map_err(io(&self.partial))? {
            if entry.path().is_dir() {
                sync_directory(&entry.path()).await?;
            }
        }
        sync_directory(&self.partial).await?;
        fs::rename(&self.partial, &self.root).await.map_err(io(&self.root))?;
        sync_directory(parent(&self.root)).await
    }

    /// Names come from a stream: none may lead out of the directory.
    fn path(&self, namespace: &Namespace, ending: &str) -> Result<PathBuf, DirectoryFault> {
        let db = namespace.db.as_str();
        if db.is_empty() || db == "." || db == ".." || db.contains(['/', '\\', '\0']) {
            return Err(DirectoryFault::Database(db.to_owned()));
        }
        Ok(self
            .partial
            .join(db)
            .join(format!("{}{ending}", file_name(&namespace.coll))))
    }

    async fn append_to(&mut self, path: PathBuf, bytes: &[u8]) -> Result<(), DirectoryFault> {
        if !self.open.contains_key(&path) {
            if self.open.len() >= OPEN_MAX
                && let Some(other) = self.open.keys().next().cloned()
            {
                self.close_file(other).await?;
            }
            if let Some(folder) = path.parent() {
                fs::create_dir_all(folder).await.map_err(io(folder))?;
            }
            let file = OpenOptions::new()
                .append(true)
                .create(true)
                .open(&path)
                .await
                .map_err(io(&path))?;
            self.open.insert(path.clone(), BufWriter::with_capacity(BUFFER, file));
        }
        match self.open.get_mut(&path) {
            Some(file) => file.write_all(bytes).await.map_err(io(&path)),
            None => Ok(()),
        }
    }

    async fn close_file(&mut self, path: PathBuf) -> Result<(), DirectoryFault> {
        let Some(mut file) = self.open.remove(&path) else {
            return Ok(());
        };
        file.flush().await.map_err(io(&path))?;
        file.into_inner().sync_all().await.map_err(io(&path))
    }
}

async fn sync_directory(path: &Path) -> Result<(), DirectoryFault> {
    File::open(path)
        .await
        .map_err(io(path))?
        .sync_all()
        .await
        .map_err(io(path))
}
