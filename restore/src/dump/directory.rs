//! Writes a dump directory. Everything goes into `<root>.partial` first, which becomes `<root>` once all files are on
//! disk: a directory of that name is complete.

use std::collections::BTreeMap;
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

/// See the module.
pub struct DirectoryWriter {
    root: PathBuf,
    partial: PathBuf,
    open: BTreeMap<PathBuf, BufWriter<File>>,
}

impl DirectoryWriter {
    /// Begins. `root` must not exist, or be an empty directory.
    pub async fn create(root: &Path) -> Result<Self, DirectoryFault> {
        let mut name = root.file_name().unwrap_or_default().to_owned();
        name.push(".partial");
        let partial = root.with_file_name(name);
        if let Ok(mut entries) = fs::read_dir(root).await {
            if entries.next_entry().await.map_err(io(root))?.is_some() {
                return Err(DirectoryFault::Exists(root.to_owned()));
            }
        } else if fs::symlink_metadata(root).await.is_ok() {
            return Err(DirectoryFault::Exists(root.to_owned()));
        }
        if let Some(parent) = partial.parent().filter(|p| !p.as_os_str().is_empty()) {
            fs::create_dir_all(parent).await.map_err(io(parent))?;
        }
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
        match self.root.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => sync_directory(parent).await,
            _ => sync_directory(Path::new(".")).await,
        }
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
