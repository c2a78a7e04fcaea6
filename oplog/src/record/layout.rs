//! The bytes of a record in a leaf of a tree.
//!
//! ```text
//! record   := 01 BSON                          Document, not capped
//!           | 02 place(u64 LE) BSON            Document, Keep
//!           | 03 place(u64 LE) BSON            Document, Fresh
//!           | 04                               Deleted
//!           | 05 count(u32 LE) change*         Changes
//! change   := flags BSON [place(u64 LE)] [BSON upsert]
//! flags    bits 0-1: 0 V2, 1 V1 bytewise, 2 V1 numeric, 3 replacement keeping _id; bit 2: place; bit 3: upsert
//! ```
//!
//! BSON tells its own length. The layout is part of every stored layer: a new tag may be added, none may change.

use bytes::Bytes;

use super::{Change, ChangeBody, Place, Record};
use crate::diff::NameOrder;
use crate::raw::{self, BsonFault};

const DOCUMENT: u8 = 1;
const DOCUMENT_KEEP: u8 = 2;
const DOCUMENT_FRESH: u8 = 3;
const DELETED: u8 = 4;
const CHANGES: u8 = 5;

const BODY: u8 = 0b0011;
const HAS_PLACE: u8 = 0b0100;
const HAS_UPSERT: u8 = 0b1000;

/// Bytes that are no record. The block they came from passed its checksum, so a newer version wrote them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordFault {
    /// A tag or flag that does not exist.
    #[error("unknown record tag {0:#04x}: the store was written by a newer version")]
    Tag(u8),
    /// Too few or too many bytes.
    #[error("a record of {0} bytes has another length than it says")]
    Length(usize),
    /// A document within is broken.
    #[error("a record holds no document: {0}")]
    Bson(#[from] BsonFault),
}

impl Record {
    /// Writes the record at the end of `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Record::Document { doc, place } => {
                match place {
                    Place::None => out.push(DOCUMENT),
                    Place::Keep(_) => out.push(DOCUMENT_KEEP),
                    Place::Fresh(_) => out.push(DOCUMENT_FRESH),
                }
                if *place != Place::None {
                    out.extend_from_slice(&place.number().to_le_bytes());
                }
                out.extend_from_slice(doc);
            }
            Record::Deleted => out.push(DELETED),
            Record::Changes(changes) => {
                out.push(CHANGES);
                out.extend_from_slice(&(changes.len() as u32).to_le_bytes());
                changes.iter().for_each(|change| change.encode(out));
            }
        }
    }

    /// Reads a record; its documents are copies.
    pub fn decode(bytes: &[u8]) -> Result<Record, RecordFault> {
        Record::decode_shared(&Bytes::copy_from_slice(bytes))
    }

    /// Reads a record; its documents are slices of `bytes` and keep them alive.
    pub fn decode_shared(bytes: &Bytes) -> Result<Record, RecordFault> {
        let mut rest = Reader { all: bytes, at: 0 };
        let record = match rest.byte()? {
            DOCUMENT => Record::Document {
                place: Place::None,
                doc: rest.document()?,
            },
            DOCUMENT_KEEP => Record::Document {
                place: Place::Keep(rest.u64()?),
                doc: rest.document()?,
            },
            DOCUMENT_FRESH => Record::Document {
                place: Place::Fresh(rest.u64()?),
                doc: rest.document()?,
            },
            DELETED => Record::Deleted,
            CHANGES => {
                let count = rest.u32()?;
                Record::Changes(
                    (0..count)
                        .map(|_| Change::decode(&mut rest))
                        .collect::<Result<_, _>>()?,
                )
            }
            tag => return Err(RecordFault::Tag(tag)),
        };
        if rest.at == bytes.len() {
            Ok(record)
        } else {
            Err(RecordFault::Length(bytes.len()))
        }
    }
}

impl Change {
    fn encode(&self, out: &mut Vec<u8>) {
        let body = match &self.body {
            ChangeBody::V2(_) => 0,
            ChangeBody::V1 {
                order: NameOrder::Bytewise,
                ..
            } => 1,
            ChangeBody::V1 {
                order: NameOrder::Numeric,
                ..
            } => 2,
            ChangeBody::ReplaceKeepingId(_) => 3,
        };
        let place = if self.place == Place::None { 0 } else { HAS_PLACE };
        let upsert = if self.upsert.is_none() { 0 } else { HAS_UPSERT };
        out.push(body | place | upsert);
        out.extend_from_slice(self.bytes());
        if place != 0 {
            out.extend_from_slice(&self.place.number().to_le_bytes());
        }
        out.extend_from_slice(self.upsert.as_deref().unwrap_or(&[]));
    }

    fn decode(rest: &mut Reader<'_>) -> Result<Change, RecordFault> {
        let flags = rest.byte()?;
        if flags & !(BODY | HAS_PLACE | HAS_UPSERT) != 0 {
            return Err(RecordFault::Tag(flags));
        }
        let document = rest.document()?;
        let body = match flags & BODY {
            0 => ChangeBody::V2(document),
            1 => ChangeBody::V1 {
                modifiers: document,
                order: NameOrder::Bytewise,
            },
            2 => ChangeBody::V1 {
                modifiers: document,
                order: NameOrder::Numeric,
            },
            _ => ChangeBody::ReplaceKeepingId(document),
        };
        let place = if flags & HAS_PLACE != 0 {
            Place::Keep(rest.u64()?)
        } else {
            Place::None
        };
        let upsert = (flags & HAS_UPSERT != 0).then(|| rest.document()).transpose()?;
        Ok(Change { body, upsert, place })
    }
}

struct Reader<'a> {
    all: &'a Bytes,
    at: usize,
}

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], RecordFault> {
        let taken = self
            .all
            .get(self.at..self.at + N)
            .and_then(|bytes| bytes.try_into().ok());
        self.at += N;
        taken.ok_or(RecordFault::Length(self.all.len()))
    }

    fn byte(&mut self) -> Result<u8, RecordFault> {
        self.take().map(|[byte]| byte)
    }

    fn u32(&mut self) -> Result<u32, RecordFault> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, RecordFault> {
        self.take().map(u64::from_le_bytes)
    }

    fn document(&mut self) -> Result<Bytes, RecordFault> {
        let (document, _) = raw::split_document(&self.all[self.at..])?;
        let start = self.at;
        self.at += document.len();
        Ok(self.all.slice(start..self.at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raw::EMPTY_DOCUMENT;

    const EMPTY: Bytes = Bytes::from_static(&EMPTY_DOCUMENT);

    fn bytes_of(record: &Record) -> Vec<u8> {
        let mut out = Vec::new();
        record.encode(&mut out);
        assert_eq!(Record::decode(&out).as_ref(), Ok(record));
        out
    }

    #[test]
    fn the_layout_never_changes() {
        let golden = |record: Record, hex: &str| {
            let written: String = bytes_of(&record).iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(written, hex);
        };
        golden(
            Record::Document {
                doc: EMPTY,
                place: Place::None,
            },
            "010500000000",
        );
        golden(
            Record::Document {
                doc: EMPTY,
                place: Place::Keep(258),
            },
            "0202010000000000000500000000",
        );
        golden(
            Record::Document {
                doc: EMPTY,
                place: Place::Fresh(1),
            },
            "0301000000000000000500000000",
        );
        golden(Record::Deleted, "04");
        let change = |body, upsert, place| Change { body, upsert, place };
        golden(
            Record::Changes(vec![
                change(ChangeBody::V2(EMPTY), None, Place::None),
                change(
                    ChangeBody::V1 {
                        modifiers: EMPTY,
                        order: NameOrder::Bytewise,
                    },
                    None,
                    Place::None,
                ),
                change(
                    ChangeBody::V1 {
                        modifiers: EMPTY,
                        order: NameOrder::Numeric,
                    },
                    Some(EMPTY),
                    Place::None,
                ),
                change(ChangeBody::ReplaceKeepingId(EMPTY), Some(EMPTY), Place::Keep(7)),
            ]),
            "0504000000\
             000500000000\
             010500000000\
             0a05000000000500000000\
             0f050000000007000000000000000500000000",
        );
    }

    #[test]
    fn what_was_not_written_here_is_refused() {
        for wrong in [
            &b""[..],
            b"\x09",
            b"\x04\0",
            b"\x01\x05\0\0",
            b"\x02\0",
            b"\x05\x01\0\0\0\x10\x05\0\0\0\0",
            b"\x05\xff\xff\xff\xff",
        ] {
            assert!(Record::decode(wrong).is_err(), "{wrong:?}");
        }
    }
}
