//! A fallible walk over raw BSON, and a small writer. No copies, no recursion, no allocation while walking.
//!
//! A document is its bytes, from the length to the closing zero. Values are the bytes after the element's name, in
//! the form BSON stores them (a string with its length and closing zero, for example).

use headwater_model::limits;

/// The type bytes of BSON.
pub mod kind {
    #![allow(missing_docs)]
    pub const DOUBLE: u8 = 0x01;
    pub const STRING: u8 = 0x02;
    pub const DOCUMENT: u8 = 0x03;
    pub const ARRAY: u8 = 0x04;
    pub const BINARY: u8 = 0x05;
    pub const UNDEFINED: u8 = 0x06;
    pub const OBJECT_ID: u8 = 0x07;
    pub const BOOL: u8 = 0x08;
    pub const DATE: u8 = 0x09;
    pub const NULL: u8 = 0x0A;
    pub const REGEX: u8 = 0x0B;
    pub const DB_POINTER: u8 = 0x0C;
    pub const CODE: u8 = 0x0D;
    pub const SYMBOL: u8 = 0x0E;
    pub const CODE_WITH_SCOPE: u8 = 0x0F;
    pub const INT32: u8 = 0x10;
    pub const TIMESTAMP: u8 = 0x11;
    pub const INT64: u8 = 0x12;
    pub const DECIMAL128: u8 = 0x13;
    pub const MIN_KEY: u8 = 0xFF;
    pub const MAX_KEY: u8 = 0x7F;
}

/// Why bytes are no BSON document. The data or its transport is damaged: nothing can be made of it but a new copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BsonFault {
    /// The bytes end before the document does.
    #[error("BSON ends too early")]
    Truncated,
    /// A length that does not agree with the bytes around it.
    #[error("BSON length {0} does not fit its surroundings")]
    Length(i32),
    /// A type byte that does not exist.
    #[error("BSON type {0:#04x} does not exist")]
    Kind(u8),
    /// A document, string or name that does not end with a zero byte.
    #[error("BSON is not terminated")]
    Unterminated,
    /// Deeper than [`limits::BSON_MAX_DEPTH`].
    #[error("BSON nests deeper than {} levels", limits::BSON_MAX_DEPTH)]
    TooDeep,
    /// Longer than [`limits::BSON_MAX_BYTES`].
    #[error("BSON of {0} bytes is longer than {max} bytes", max = limits::BSON_MAX_BYTES)]
    TooLarge(usize),
    /// A boolean that is neither 0 nor 1.
    #[error("BSON boolean {0:#04x}")]
    Bool(u8),
    /// Text that must be UTF-8 and is not.
    #[error("BSON text is not UTF-8")]
    Text,
    /// A document without the field that was needed.
    #[error("the document has no {0:?}")]
    NoField(&'static str),
}

/// One field of a document, or one element of an array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Element<'a> {
    /// The type byte, see [`kind`].
    pub kind: u8,
    /// The name without its closing zero.
    pub name: &'a [u8],
    /// The bytes of the value.
    pub value: &'a [u8],
}

impl<'a> Element<'a> {
    /// The document, if it is one (arrays are not).
    pub fn document(&self) -> Option<&'a [u8]> {
        (self.kind == kind::DOCUMENT).then_some(self.value)
    }

    /// The array, if it is one.
    pub fn array(&self) -> Option<&'a [u8]> {
        (self.kind == kind::ARRAY).then_some(self.value)
    }

    /// The bytes of the text, if it is a string.
    pub fn text(&self) -> Option<&'a [u8]> {
        (self.kind == kind::STRING)
            .then(|| self.value.get(4..self.value.len().saturating_sub(1)))
            .flatten()
    }

    /// The text, if it is a string of UTF-8.
    pub fn str(&self) -> Option<&'a str> {
        std::str::from_utf8(self.text()?).ok()
    }

    /// The value of a boolean.
    pub fn bool(&self) -> Option<bool> {
        (self.kind == kind::BOOL).then(|| self.value.first() != Some(&0))
    }

    /// Whether the server would take the value for true: every number but 0, every boolean but false; nothing else.
    pub fn is_true(&self) -> bool {
        self.bool().or_else(|| self.number().map(|n| n != 0)).unwrap_or(false)
    }

    /// A whole number from int32, int64 or a double (cut off).
    pub fn number(&self) -> Option<i64> {
        match self.kind {
            kind::INT32 => Some(i64::from(i32::from_le_bytes(self.value.try_into().ok()?))),
            kind::INT64 => Some(i64::from_le_bytes(self.value.try_into().ok()?)),
            kind::DOUBLE => Some(f64::from_le_bytes(self.value.try_into().ok()?) as i64),
            _ => None,
        }
    }

    /// Seconds and ordinal of a timestamp as one number.
    pub fn timestamp(&self) -> Option<u64> {
        (self.kind == kind::TIMESTAMP)
            .then(|| self.value.try_into().ok().map(u64::from_le_bytes))
            .flatten()
    }

    /// The 16 bytes of a UUID (binary of subtype 4).
    pub fn uuid(&self) -> Option<[u8; 16]> {
        match self.value.split_first_chunk::<5>() {
            Some(([16, 0, 0, 0, 4], bytes)) if self.kind == kind::BINARY => bytes.try_into().ok(),
            _ => None,
        }
    }
}

/// Walks a document's elements in order. After a fault it ends.
#[derive(Clone, Debug)]
pub struct Elements<'a> {
    rest: &'a [u8],
    fault: Option<BsonFault>,
}

/// The elements of a document or array given as its whole bytes.
pub fn elements(document: &[u8]) -> Elements<'_> {
    match body(document) {
        Ok(rest) => Elements { rest, fault: None },
        Err(fault) => Elements {
            rest: &[],
            fault: Some(fault),
        },
    }
}

fn body(document: &[u8]) -> Result<&[u8], BsonFault> {
    let length = length_at(document, 0)?;
    if document.len() < 5 || usize::try_from(length) != Ok(document.len()) {
        return Err(BsonFault::Length(length));
    }
    match document.split_last() {
        Some((0, front)) => Ok(&front[4..]),
        _ => Err(BsonFault::Unterminated),
    }
}

impl<'a> Elements<'a> {
    #[inline]
    fn step(&mut self) -> Result<Element<'a>, BsonFault> {
        let (&kind, rest) = self.rest.split_first().ok_or(BsonFault::Truncated)?;
        let end = zero_in(rest).ok_or(BsonFault::Unterminated)?;
        let (name, rest) = (&rest[..end], &rest[end + 1..]);
        let length = value_length(kind, rest)?;
        if length > rest.len() {
            return Err(BsonFault::Truncated);
        }
        let (value, rest) = rest.split_at(length);
        self.rest = rest;
        Ok(Element { kind, name, value })
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = Result<Element<'a>, BsonFault>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if let Some(fault) = self.fault.take() {
            self.rest = &[];
            return Some(Err(fault));
        }
        if self.rest.is_empty() {
            return None;
        }
        let step = self.step();
        if step.is_err() {
            self.rest = &[];
        }
        Some(step)
    }
}

/// Where the first zero is. Eight bytes at a time: most names end within the first eight.
#[inline]
fn zero_in(bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = u64::MAX / 0xFF;
    let mut at = 0;
    while let Some(word) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let word = u64::from_le_bytes(*word);
        let zeros = word.wrapping_sub(ONES) & !word & (ONES << 7);
        if zeros != 0 {
            return Some(at + zeros.trailing_zeros() as usize / 8);
        }
        at += 8;
    }
    bytes[at..].iter().position(|&byte| byte == 0).map(|more| at + more)
}

/// How many bytes the value of this type takes at the beginning of `bytes`; may be more than there are.
pub(crate) fn value_length(kind: u8, bytes: &[u8]) -> Result<usize, BsonFault> {
    let counted = |least: i32, extra: usize| {
        let length = length_at(bytes, 0)?;
        if length < least {
            Err(BsonFault::Length(length))
        } else {
            Ok(length as usize + extra)
        }
    };
    match kind {
        kind::DOUBLE | kind::DATE | kind::TIMESTAMP | kind::INT64 => Ok(8),
        kind::STRING | kind::CODE | kind::SYMBOL => counted(1, 4),
        kind::DOCUMENT | kind::ARRAY => counted(5, 0),
        kind::CODE_WITH_SCOPE => counted(14, 0),
        kind::BINARY => counted(0, 5),
        kind::UNDEFINED | kind::NULL | kind::MIN_KEY | kind::MAX_KEY => Ok(0),
        kind::OBJECT_ID => Ok(12),
        kind::BOOL => Ok(1),
        kind::REGEX => {
            let mut zeros = bytes.iter().enumerate().filter(|(_, b)| **b == 0).map(|(at, _)| at);
            zeros.nth(1).map(|at| at + 1).ok_or(BsonFault::Unterminated)
        }
        kind::DB_POINTER => counted(1, 16),
        kind::INT32 => Ok(4),
        kind::DECIMAL128 => Ok(16),
        other => Err(BsonFault::Kind(other)),
    }
}

pub(crate) fn length_at(bytes: &[u8], at: usize) -> Result<i32, BsonFault> {
    let four = bytes
        .get(at..at + 4)
        .and_then(|b| b.try_into().ok())
        .ok_or(BsonFault::Truncated)?;
    Ok(i32::from_le_bytes(four))
}

/// The first element of that name.
pub fn find<'a>(document: &'a [u8], name: &str) -> Result<Option<Element<'a>>, BsonFault> {
    for element in elements(document) {
        let element = element?;
        if element.name == name.as_bytes() {
            return Ok(Some(element));
        }
    }
    Ok(None)
}

/// The `_id` of a document, wherever it stands.
pub fn id_of(document: &[u8]) -> Result<Element<'_>, BsonFault> {
    find(document, "_id")?.ok_or(BsonFault::NoField("_id"))
}

/// Splits bytes into the whole documents that follow one another in them, as slices are laid out.
pub fn split_document(bytes: &[u8]) -> Result<(&[u8], &[u8]), BsonFault> {
    let length = length_at(bytes, 0)?;
    match usize::try_from(length) {
        Ok(n) if n >= 5 => bytes.split_at_checked(n).ok_or(BsonFault::Truncated),
        _ => Err(BsonFault::Length(length)),
    }
}

/// A document with nothing in it.
pub const EMPTY_DOCUMENT: [u8; 5] = [5, 0, 0, 0, 0];

/// Writes one document or array at the end of a buffer. [`Writer::begin`] … elements … [`Writer::end`]; documents
/// nest by beginning another one after [`name`].
#[derive(Debug)]
#[must_use = "a document must be ended"]
pub struct Writer(usize);

impl Writer {
    /// Begins a document at the end of `out`.
    pub fn begin(out: &mut Vec<u8>) -> Self {
        let at = out.len();
        out.extend_from_slice(&[0; 4]);
        Writer(at)
    }

    /// Ends the document.
    pub fn end(self, out: &mut Vec<u8>) -> Result<(), BsonFault> {
        out.push(0);
        let length = out.len() - self.0;
        if length > limits::BSON_MAX_BYTES {
            return Err(BsonFault::TooLarge(length));
        }
        out[self.0..self.0 + 4].copy_from_slice(&(length as u32).to_le_bytes());
        Ok(())
    }
}

/// Writes type and name; the value must follow.
pub fn name(out: &mut Vec<u8>, kind: u8, name: &[u8]) {
    out.push(kind);
    out.extend_from_slice(name);
    out.push(0);
}

/// Writes an element.
pub fn element(out: &mut Vec<u8>, element: Element<'_>) {
    name(out, element.kind, element.name);
    out.extend_from_slice(element.value);
}

/// Writes type and name of the element of an array.
pub fn index(out: &mut Vec<u8>, kind: u8, index: usize) {
    let mut digits = [0u8; 20];
    name(out, kind, decimal(index, &mut digits));
}

/// The decimal digits of a number, without allocating.
pub(crate) fn decimal(mut number: usize, digits: &mut [u8; 20]) -> &[u8] {
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return &digits[at..];
        }
    }
}

/// A copy of the document with only those elements `keep` likes.
pub fn filtered(document: &[u8], mut keep: impl FnMut(&Element<'_>) -> bool) -> Result<Vec<u8>, BsonFault> {
    let mut out = Vec::with_capacity(document.len());
    let writer = Writer::begin(&mut out);
    for each in elements(document) {
        let each = each?;
        if keep(&each) {
            element(&mut out, each);
        }
    }
    writer.end(&mut out)?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_walked_without_copies() {
        let document = bson::doc! {"a": 1, "b": "text", "c": {"d": true}};
        let raw = bson::RawDocumentBuf::try_from(&document).unwrap();
        let seen: Vec<_> = elements(raw.as_bytes()).map(|e| e.unwrap().name.to_vec()).collect();
        assert_eq!(seen, [b"a", b"b", b"c"]);
        let text = find(raw.as_bytes(), "b").unwrap().unwrap();
        assert_eq!(text.str(), Some("text"));
    }

    #[test]
    fn what_is_no_document_ends_the_walk_with_a_fault() {
        for wrong in [
            &b""[..],
            b"\x05\0\0\0",
            b"\x05\0\0\0\x01",
            b"\x06\0\0\0\0",
            b"\x08\0\0\0\x10a\0\0",
        ] {
            let faults: Vec<_> = elements(wrong).collect();
            assert!(matches!(faults.last(), Some(Err(_))), "{wrong:?}");
        }
        assert!(elements(&EMPTY_DOCUMENT).next().is_none());
    }
}
