//! Document keys: `_id` values in a form whose byte order is the server's index order and whose equality is that of
//! its unique index.
//!
//! ```text
//! key     := class byte, payload                every payload is self-delimiting
//! numbers    see [`number`]
//! text       00 written as 00 FF, end 00 00     string, symbol; code in its own class
//! object     (class, name, 00, payload)* 00     class outranks the name
//! array      (class, payload)* 00
//! binary     length (u32 BE), subtype, bytes
//! date       i64 BE with the sign bit turned;   timestamp: u64 BE
//! regex      pattern 00 flags 00
//! DBPointer  length (u32 BE), name, id;         code with scope: text, object payload
//! ```
//!
//! Numerically equal values have one key, so a document keeps its key when an update turns `5` into `5.0`; the
//! document itself keeps the exact bytes.

mod decimal;
mod number;

use std::fmt;

use bytes::Bytes;
use headwater_model::limits;

use crate::raw::{self, BsonFault, kind};

/// The key of a document within its collection. Compares as the server's `_id` index does.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DocumentKey(pub Bytes);

impl DocumentKey {
    /// The key of an `_id` of that type and value bytes.
    pub fn of_id(kind: u8, value: &[u8]) -> Result<Self, BsonFault> {
        if kind == kind::OBJECT_ID && value.len() == 12 {
            let mut bytes = [class(kind::OBJECT_ID); 13];
            bytes[1..].copy_from_slice(value);
            return Ok(DocumentKey(Bytes::copy_from_slice(&bytes)));
        }
        let mut out = Vec::with_capacity(value.len() + 12);
        value_key(&mut out, kind, value, 0)?;
        Ok(DocumentKey(Bytes::copy_from_slice(&out)))
    }

    /// The key of a document: of its `_id`, wherever that stands.
    pub fn of_document(document: &[u8]) -> Result<Self, BsonFault> {
        let id = raw::id_of(document)?;
        DocumentKey::of_id(id.kind, id.value)
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for DocumentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DocumentKey(")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str(")")
    }
}

/// The rank of a type among the others; the numeric types share one, and so do string and symbol.
const fn class(kind: u8) -> u8 {
    match kind {
        kind::MIN_KEY => 10,
        kind::UNDEFINED => 15,
        kind::NULL => 20,
        kind::DOUBLE | kind::INT32 | kind::INT64 | kind::DECIMAL128 => 30,
        kind::STRING | kind::SYMBOL => 60,
        kind::DOCUMENT => 70,
        kind::ARRAY => 80,
        kind::BINARY => 90,
        kind::OBJECT_ID => 100,
        kind::BOOL => 110,
        kind::DATE => 120,
        kind::TIMESTAMP => 130,
        kind::REGEX => 140,
        kind::DB_POINTER => 150,
        kind::CODE => 160,
        kind::CODE_WITH_SCOPE => 170,
        _ => 240,
    }
}

fn value_key(out: &mut Vec<u8>, kind: u8, value: &[u8], depth: usize) -> Result<(), BsonFault> {
    // The value's own length is checked here once, so that what follows may trust it.
    if raw::value_length(kind, value)? != value.len() {
        return Err(BsonFault::Truncated);
    }
    out.push(class(kind));
    payload(out, kind, value, depth)
}

fn payload(out: &mut Vec<u8>, kind: u8, value: &[u8], depth: usize) -> Result<(), BsonFault> {
    match kind {
        kind::DOUBLE | kind::INT32 | kind::INT64 | kind::DECIMAL128 => number::payload(out, kind, value)?,
        kind::STRING | kind::SYMBOL | kind::CODE => text(out, &value[4..value.len() - 1]),
        kind::DOCUMENT => members(out, value, true, depth)?,
        kind::ARRAY => members(out, value, false, depth)?,
        kind::BINARY => {
            out.extend_from_slice(&(value.len() as u32 - 5).to_be_bytes());
            out.extend_from_slice(&value[4..]);
        }
        kind::DATE => {
            let millis = i64::from_le_bytes(fixed(value)?);
            out.extend_from_slice(&((millis as u64) ^ (1 << 63)).to_be_bytes());
        }
        kind::TIMESTAMP => out.extend_from_slice(&u64::from_le_bytes(fixed(value)?).to_be_bytes()),
        kind::DB_POINTER => {
            out.extend_from_slice(&(value.len() as u32 - 16).to_be_bytes());
            out.extend_from_slice(&value[4..]);
        }
        kind::CODE_WITH_SCOPE => {
            let code = usize::try_from(raw::length_at(value, 4)?).map_err(|_| BsonFault::Truncated)?;
            let end = code.checked_add(8).ok_or(BsonFault::Truncated)?;
            text(out, value.get(8..end.saturating_sub(1)).ok_or(BsonFault::Truncated)?);
            members(out, value.get(end..).ok_or(BsonFault::Truncated)?, true, depth)?;
        }
        // ObjectId, bool and regex are their own order; minKey, undefined, null and maxKey are empty.
        _ => out.extend_from_slice(value),
    }
    Ok(())
}

fn members(out: &mut Vec<u8>, value: &[u8], named: bool, depth: usize) -> Result<(), BsonFault> {
    if depth >= limits::BSON_MAX_DEPTH {
        return Err(BsonFault::TooDeep);
    }
    for element in raw::elements(value) {
        let element = element?;
        out.push(class(element.kind));
        if named {
            out.extend_from_slice(element.name);
            out.push(0);
        }
        payload(out, element.kind, element.value, depth + 1)?;
    }
    out.push(0);
    Ok(())
}

fn text(out: &mut Vec<u8>, bytes: &[u8]) {
    for &byte in bytes {
        out.push(byte);
        if byte == 0 {
            out.push(0xFF);
        }
    }
    out.extend_from_slice(&[0, 0]);
}

fn fixed<const N: usize>(value: &[u8]) -> Result<[u8; N], BsonFault> {
    value.try_into().map_err(|_| BsonFault::Truncated)
}
