//! Takes an archive apart, chunk by chunk, and believes nothing: names, order, checksums and the end are verified.
//! Pure: bytes in, events out.

use std::collections::BTreeMap;

use bson::{RawBsonRef, RawDocument};
use bytes::{Buf, Bytes, BytesMut};
use headwater_model::{Namespace, limits};

use super::archive::{CRC, Entry, EntryType, FORMAT, MAGIC, TERMINATOR};

/// The most bytes of a prelude.
const PRELUDE_MAX: usize = 256 * limits::MIB;

/// What an archive says next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The first event.
    Header {
        /// Version of the server the data come from.
        server_version: String,
    },
    /// One for each namespace, before any document.
    Entry(Entry),
    /// A document of the entry of that number, counted from 0.
    Document(usize, Bytes),
    /// The entry of that number is complete and its checksum right.
    End(usize),
}

/// Not an archive, a damaged or an incomplete one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArchiveFault {
    /// Other bytes.
    #[error("this is no mongodump archive (a compressed one must be unpacked first)")]
    Magic,
    /// Something that does not belong there.
    #[error("the archive is damaged {at} bytes from its beginning: {detail}")]
    Malformed {
        /// Where, counted in bytes of the stream.
        at: u64,
        /// What does not fit.
        detail: String,
    },
    /// Documents were changed on the way.
    #[error("checksum of {namespace} does not match: the archive was damaged; take it anew")]
    Checksum {
        /// Whose.
        namespace: Namespace,
    },
    /// It breaks off.
    #[error("the archive breaks off after {at} bytes, {open} of {all} namespaces are incomplete; take it anew")]
    CutOff {
        /// Bytes there are.
        at: u64,
        /// Namespaces without their end.
        open: usize,
        /// All namespaces.
        all: usize,
    },
}

enum State {
    Magic,
    Header,
    Prelude,
    /// A header of a segment or of an end is due.
    Between,
    /// Documents of an entry, up to the terminator.
    Segment(usize),
    /// The terminator after an end is due.
    Ending(usize),
    Finished,
}

struct Progress {
    crc: crc::Digest<'static, u64, crc::Table<16>>,
    ended: bool,
}

/// See the module. Feed it with [`ArchiveParser::push`], then call [`ArchiveParser::next_event`] until it wants more;
/// at the end of the stream [`ArchiveParser::finish`]. Holds one document and one chunk at the most.
pub struct ArchiveParser {
    state: State,
    buffer: BytesMut,
    consumed: u64,
    entries: Vec<Progress>,
    /// By the name their documents go under.
    by_name: BTreeMap<Namespace, usize>,
    open: usize,
}

impl Default for ArchiveParser {
    fn default() -> Self {
        ArchiveParser {
            state: State::Magic,
            buffer: BytesMut::new(),
            consumed: 0,
            entries: Vec::new(),
            by_name: BTreeMap::new(),
            open: 0,
        }
    }
}

impl ArchiveParser {
    /// Takes the next bytes of the stream.
    pub fn push(&mut self, chunk: &[u8]) {
        self.buffer.extend_from_slice(chunk);
    }

    /// The next event; `None` when more bytes are needed. After a fault the archive is of no use.
    pub fn next_event(&mut self) -> Result<Option<Event>, ArchiveFault> {
        loop {
            match self.state {
                State::Magic => {
                    if self.buffer.len() < 4 {
                        return Ok(None);
                    }
                    if self.buffer[..4] != MAGIC.to_le_bytes() {
                        return Err(ArchiveFault::Magic);
                    }
                    self.advance(4);
                    self.state = State::Header;
                }
                State::Header => {
                    let Some(document) = self.document(limits::MIB)? else {
                        return Ok(None);
                    };
                    let server_version = self.header(&document)?;
                    self.state = State::Prelude;
                    return Ok(Some(Event::Header { server_version }));
                }
                State::Prelude => {
                    if self.terminator() {
                        self.open = self.entries.len();
                        self.state = if self.open == 0 {
                            State::Finished
                        } else {
                            State::Between
                        };
                        continue;
                    }
                    let Some(document) = self.document(limits::DOCUMENT_MAX_BYTES)? else {
                        return Ok(None);
                    };
                    let entry = self.entry(&document)?;
                    return Ok(Some(Event::Entry(entry)));
                }
                State::Between => {
                    let Some(document) = self.document(limits::MIB)? else {
                        return Ok(None);
                    };
                    self.state = self.segment(&document)?;
                }
                State::Segment(n) => {
                    if self.terminator() {
                        self.state = State::Between;
                        continue;
                    }
                    let Some(document) = self.document(limits::DOCUMENT_MAX_BYTES)? else {
                        return Ok(None);
                    };
                    self.entries[n].crc.update(&document);
                    return Ok(Some(Event::Document(n, document)));
                }
                State::Ending(n) => {
                    if self.buffer.len() < TERMINATOR.len() {
                        return Ok(None);
                    }
                    if !self.terminator() {
                        return Err(self.malformed("the end of a namespace is not terminated"));
                    }
                    self.open -= 1;
                    self.state = if self.open == 0 {
                        State::Finished
                    } else {
                        State::Between
                    };
                    return Ok(Some(Event::End(n)));
                }
                State::Finished => {
                    return if self.buffer.is_empty() {
                        Ok(None)
                    } else {
                        Err(self.malformed("there is more after the last namespace"))
                    };
                }
            }
        }
    }

    /// To be called at the end of the stream, after all events: says whether it was the end of the archive.
    pub fn finish(&self) -> Result<(), ArchiveFault> {
        match self.state {
            State::Finished if self.buffer.is_empty() => Ok(()),
            State::Finished => Err(self.malformed("there is more after the last namespace")),
            _ => Err(ArchiveFault::CutOff {
                at: self.consumed + self.buffer.len() as u64,
                open: self.entries.iter().filter(|e| !e.ended).count(),
                all: self.entries.len(),
            }),
        }
    }

    fn malformed(&self, detail: impl Into<String>) -> ArchiveFault {
        ArchiveFault::Malformed {
            at: self.consumed,
            detail: detail.into(),
        }
    }

    fn advance(&mut self, bytes: usize) {
        self.buffer.advance(bytes);
        self.consumed += bytes as u64;
    }

    fn terminator(&mut self) -> bool {
        let there = self.buffer.starts_with(&TERMINATOR);
        if there {
            self.advance(TERMINATOR.len());
        }
        there
    }

    /// A whole document off the buffer, its outer length and last byte verified.
    fn document(&mut self, max: usize) -> Result<Option<Bytes>, ArchiveFault> {
        let Some(len) = self.buffer.first_chunk::<4>().map(|b| u32::from_le_bytes(*b) as usize) else {
            return Ok(None);
        };
        if !(5..=max).contains(&len) {
            return Err(self.malformed(format!("a length of {len} bytes where 5 to {max} may be")));
        }
        if self.buffer.len() < len {
            return Ok(None);
        }
        if self.buffer[len - 1] != 0 {
            return Err(self.malformed("a document does not end where it says"));
        }
        let document = self.buffer.split_to(len).freeze();
        self.consumed += len as u64;
        Ok(Some(document))
    }

    fn header(&self, document: &[u8]) -> Result<String, ArchiveFault> {
        let fields = ["concurrent_collections", "version", "server_version", "tool_version"];
        let [_, version, server_version, _] = self.fields(document, fields)?;
        match version.as_str() {
            Some(FORMAT) => Ok(self.text(server_version)?.to_owned()),
            _ => Err(self.malformed("the format version is not 0.1")),
        }
    }

    fn entry(&mut self, document: &[u8]) -> Result<Entry, ArchiveFault> {
        let fields = ["db", "collection", "metadata", "size", "type"];
        let [db, collection, metadata, _, kind] = self.fields(document, fields)?;
        let entry = Entry {
            namespace: Namespace::new(self.text(db)?, self.text(collection)?),
            metadata: self.text(metadata)?.to_owned(),
            kind: EntryType::parse(self.text(kind)?)
                .ok_or_else(|| self.malformed("a namespace is of an unknown type"))?,
        };
        if self.by_name.insert(entry.data_name(), self.entries.len()).is_some() {
            return Err(self.malformed(format!("{} is named twice", entry.namespace)));
        }
        if self.consumed > PRELUDE_MAX as u64 {
            return Err(self.malformed("the list of namespaces is too long"));
        }
        self.entries.push(Progress {
            crc: CRC.digest(),
            ended: false,
        });
        Ok(entry)
    }

    fn segment(&mut self, document: &[u8]) -> Result<State, ArchiveFault> {
        let [db, collection, end, crc] = self.fields(document, ["db", "collection", "EOF", "CRC"])?;
        let name = Namespace::new(self.text(db)?, self.text(collection)?);
        let n = self.by_name.get(&name).copied();
        let n = n.ok_or_else(|| self.malformed(format!("{name} was not announced")))?;
        if self.entries[n].ended {
            return Err(self.malformed(format!("{name} goes on after its end")));
        }
        match (end, crc) {
            (RawBsonRef::Boolean(false), RawBsonRef::Int64(_)) => Ok(State::Segment(n)),
            (RawBsonRef::Boolean(true), RawBsonRef::Int64(crc)) => {
                let progress = &mut self.entries[n];
                if progress.crc.clone().finalize() as i64 != crc {
                    return Err(ArchiveFault::Checksum { namespace: name });
                }
                progress.ended = true;
                Ok(State::Ending(n))
            }
            _ => Err(self.malformed("a segment's header has values of wrong types")),
        }
    }

    /// The values of exactly these fields in exactly this order.
    fn fields<'d, const N: usize>(
        &self,
        document: &'d [u8],
        names: [&str; N],
    ) -> Result<[RawBsonRef<'d>; N], ArchiveFault> {
        let wrong = || self.malformed(format!("fields other than {}", names.join(", ")));
        let document = RawDocument::from_bytes(document).map_err(|e| self.malformed(e.to_string()))?;
        let mut values = [RawBsonRef::Null; N];
        let mut elements = document.iter();
        for (value, expected) in values.iter_mut().zip(names) {
            let (name, found) = elements
                .next()
                .ok_or_else(wrong)?
                .map_err(|e| self.malformed(e.to_string()))?;
            if name.as_str() != expected {
                return Err(wrong());
            }
            *value = found;
        }
        if elements.next().is_some() {
            Err(wrong())
        } else {
            Ok(values)
        }
    }

    fn text<'d>(&self, value: RawBsonRef<'d>) -> Result<&'d str, ArchiveFault> {
        value.as_str().ok_or_else(|| self.malformed("a value is no string"))
    }
}
