//! The archive format: what writer and parser agree on. Layout in `reference/ecosystem.md` §2.2.

use crc::{CRC_64_XZ, Crc, Table};
use headwater_model::Namespace;

use crate::naming::{BUCKETS, Item, Kind};

/// First four bytes of an archive, as a little-endian number.
pub(super) const MAGIC: u32 = 0x8199_e26d;
/// Ends the prelude and every segment; no BSON document has this length.
pub(super) const TERMINATOR: [u8; 4] = [0xff; 4];
/// The format version every tool writes.
pub(super) const FORMAT: &str = "0.1";

/// Over all document bytes of a namespace.
pub(super) static CRC: Crc<u64, Table<16>> = Crc::<u64, Table<16>>::new(&CRC_64_XZ);

/// What the prelude says an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryType {
    /// Has documents under its own name.
    Collection,
    /// Has none.
    View,
    /// Has documents under the name of its buckets.
    TimeSeries,
}

impl EntryType {
    pub(super) fn of(item: &Item) -> Self {
        match item.kind {
            Kind::View(_) => EntryType::View,
            Kind::TimeSeries => EntryType::TimeSeries,
            _ => EntryType::Collection,
        }
    }

    /// As it is written.
    pub fn text(self) -> &'static str {
        match self {
            EntryType::Collection => "collection",
            EntryType::View => "view",
            EntryType::TimeSeries => "timeseries",
        }
    }

    /// Reads it; tools before types came up leave it empty.
    pub(super) fn parse(text: &str) -> Option<Self> {
        match text {
            "" | "collection" => Some(EntryType::Collection),
            "view" => Some(EntryType::View),
            "timeseries" => Some(EntryType::TimeSeries),
            _ => None,
        }
    }
}

/// One namespace of a prelude.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// As users see it.
    pub namespace: Namespace,
    /// The text of its metadata file; empty if it has none.
    pub metadata: String,
    /// What it is.
    pub kind: EntryType,
}

impl Entry {
    /// The name its documents go under.
    pub fn data_name(&self) -> Namespace {
        match self.kind {
            EntryType::TimeSeries => Namespace::new(&self.namespace.db, format!("{BUCKETS}{}", self.namespace.coll)),
            _ => self.namespace.clone(),
        }
    }
}
