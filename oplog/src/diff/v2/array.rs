//! The edits of an array.

use headwater_model::limits;

use super::{DiffFault, Sub, deeper};
use crate::raw::{self, BsonFault, Element, Writer, kind};

/// What happens to one element.
pub enum ArrayEdit<'a> {
    Value(Element<'a>),
    Sub(Sub<'a>),
}

/// The edits of an array, in ascending order of the index.
pub struct ArrayEdits<'a> {
    length: Option<usize>,
    rest: raw::Elements<'a>,
    peeked: Option<Element<'a>>,
    least: usize,
}

impl<'a> ArrayEdits<'a> {
    /// Reads the head of an array diff.
    pub fn read(diff: &'a [u8]) -> Result<Self, DiffFault> {
        let mut rest = raw::elements(diff);
        let head = rest.next().transpose()?;
        if head.and_then(|head| head.bool()) != Some(true) {
            return Err(DiffFault::Grammar("an array diff must begin with a: true"));
        }
        let mut peeked = rest.next().transpose()?;
        let mut length = None;
        if let Some(Element { name: b"l", kind, .. }) = peeked {
            let given = peeked.filter(|_| kind == kind::INT32).and_then(|l| l.number());
            let given = given.and_then(|l| usize::try_from(l).ok());
            length = Some(given.ok_or(DiffFault::Grammar("the length of an array must be a natural int32"))?);
            peeked = rest.next().transpose()?;
        }
        Ok(ArrayEdits {
            length,
            rest,
            peeked,
            least: 0,
        })
    }

    /// The next edit and its index.
    pub fn next(&mut self) -> Result<Option<(usize, ArrayEdit<'a>)>, DiffFault> {
        let Some(element) = self.peeked.take() else {
            return Ok(None);
        };
        self.peeked = self.rest.next().transpose()?;
        let (&letter, digits) = element
            .name
            .split_first()
            .ok_or(DiffFault::Grammar("an array edit without name"))?;
        let edit = match letter {
            b'u' => ArrayEdit::Value(element),
            b's' => ArrayEdit::Sub(Sub::read(&element)?),
            _ => return Err(DiffFault::Grammar("an unknown array edit")),
        };
        let index = decimal(digits);
        let index = index.ok_or(DiffFault::Grammar("an array index that is none"))?;
        if index < self.least || self.length.is_some_and(|length| index >= length) {
            return Err(DiffFault::Grammar("array indexes out of order or beyond the length"));
        }
        self.least = index + 1;
        Ok(Some((index, edit)))
    }
}

/// Digits as the server reads them here, leading zeros and all; `None` from 2^31 on.
fn decimal(digits: &[u8]) -> Option<usize> {
    let number: i32 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    digits[0].is_ascii_digit().then_some(number as usize)
}

/// Writes the changed array.
pub fn apply(out: &mut Vec<u8>, array: &[u8], diff: &[u8], depth: usize) -> Result<(), DiffFault> {
    let inner = deeper(depth)?;
    let mut edits = ArrayEdits::read(diff)?;
    let length = edits.length;
    let mut edit = edits.next()?;
    let mut old = raw::elements(array);
    let writer = Writer::begin(out);
    for at in 0.. {
        let current = old.next().transpose()?;
        let within = length.map_or(current.is_some() || edit.is_some(), |length| at < length);
        if !within {
            break;
        }
        if out.len() > limits::BSON_MAX_BYTES {
            return Err(BsonFault::TooLarge(out.len()).into());
        }
        let value = match &edit {
            Some((index, ArrayEdit::Value(value))) if *index == at => Some(*value),
            Some((index, ArrayEdit::Sub(sub))) if *index == at => {
                sub.apply(out, raw::decimal(at, &mut [0; 20]), current, inner)?;
                edit = edits.next()?;
                continue;
            }
            _ => None,
        };
        if value.is_some() {
            edit = edits.next()?;
        }
        match value.or(current) {
            Some(value) => {
                raw::index(out, value.kind, at);
                out.extend_from_slice(value.value);
            }
            None => raw::index(out, kind::NULL, at),
        }
    }
    Ok(writer.end(out)?)
}
