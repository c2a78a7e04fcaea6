//! Turns an archive stream into a dump directory.

use std::path::Path;

use super::archive::{Entry, EntryType};
use super::directory::{DirectoryFault, DirectoryWriter};
use super::parser::{ArchiveFault, ArchiveParser, Event};

/// The directory was not made; what there is of it still bears the name `<root>.partial`.
#[derive(Debug, thiserror::Error)]
pub enum ExtractFault {
    /// The stream is no whole archive.
    #[error(transparent)]
    Archive(#[from] ArchiveFault),
    /// The directory cannot be written.
    #[error(transparent)]
    Directory(#[from] DirectoryFault),
}

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extracted {
    /// Collections and views.
    pub namespaces: u64,
    /// Documents.
    pub documents: u64,
    /// Bytes of BSON.
    pub bytes: u64,
}

/// See the module.
pub struct ArchiveToDirectory {
    parser: ArchiveParser,
    writer: DirectoryWriter,
    entries: Vec<Entry>,
    done: Extracted,
}

impl ArchiveToDirectory {
    /// Begins, where [`check_root`](super::check_root) allows it.
    pub async fn create(root: &Path) -> Result<Self, ExtractFault> {
        Ok(ArchiveToDirectory {
            parser: ArchiveParser::default(),
            writer: DirectoryWriter::create(root).await?,
            entries: Vec::new(),
            done: Extracted::default(),
        })
    }

    /// Takes the next bytes of the stream.
    pub async fn write(&mut self, chunk: &[u8]) -> Result<(), ExtractFault> {
        self.parser.push(chunk);
        while let Some(event) = self.parser.next_event()? {
            self.take(event).await?;
        }
        Ok(())
    }

    /// What was written so far.
    pub fn done(&self) -> Extracted {
        self.done
    }

    /// The stream is over. Only now, and only if it was whole, the directory gets its name.
    pub async fn finish(self) -> Result<Extracted, ExtractFault> {
        self.parser.finish()?;
        self.writer.finish().await?;
        Ok(self.done)
    }

    async fn take(&mut self, event: Event) -> Result<(), ExtractFault> {
        match event {
            Event::Header { server_version } => self.writer.prelude(&server_version).await?,
            Event::Entry(entry) => {
                if !entry.metadata.is_empty() {
                    self.writer.metadata(&entry.namespace, &entry.metadata).await?;
                }
                self.entries.push(entry);
                self.done.namespaces += 1;
            }
            Event::Document(n, document) => {
                self.writer.documents(&self.entries[n].data_name(), &document).await?;
                self.done.documents += 1;
                self.done.bytes += document.len() as u64;
            }
            Event::End(n) if self.entries[n].kind == EntryType::View => {}
            Event::End(n) => {
                let name = self.entries[n].data_name();
                self.writer.documents(&name, &[]).await?;
                self.writer.end(&name).await?;
            }
        }
        Ok(())
    }
}
