//! Writes documents element by element at the end of a buffer.

use headwater_model::limits;

use super::{BsonFault, Element, elements};

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
pub fn decimal(mut number: usize, digits: &mut [u8; 20]) -> &[u8] {
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
