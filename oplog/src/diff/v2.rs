//! `$v: 2` deltas: the update form of servers from 5.0 on (`reference/oplog.md` §1.5).
//!
//! ```text
//! diff      := { ["d": {name: any, …}], ["u": {name: value, …}], ["i": {name: value, …}], ["b": {name: binary diff, …}],
//!                ("s"+name : subdiff)* }
//! subdiff   := diff | arraydiff                       told apart by the first name: "a" is an arraydiff
//! arraydiff := { "a": true, ["l": int32], ("u"+index : value | "s"+index : subdiff)* }
//! ```

use std::cell::Cell;

use headwater_model::limits;

use super::DiffFault;
use crate::key::DocumentKey;
use crate::raw::{self, BsonFault, Element, Writer, kind};

/// Applies a delta to a document and gives the new one.
pub fn apply(document: &[u8], diff: &[u8]) -> Result<Vec<u8>, DiffFault> {
    let mut out = Vec::with_capacity(document.len() + diff.len());
    Edits::read(diff)?.apply(&mut out, document, 0)?;
    Ok(out)
}

/// Whether the delta keeps to the grammar: then [`apply`] can fail only by size or on a damaged document.
pub fn check(diff: &[u8]) -> Result<(), DiffFault> {
    check_at(diff, 0)
}

fn check_at(diff: &[u8], depth: usize) -> Result<(), DiffFault> {
    let depth = deeper(depth)?;
    for edit in &Edits::read(diff)?.all {
        match edit.action {
            Action::Sub(Sub::Document(inner)) => check_at(inner, depth)?,
            Action::Sub(Sub::Array(inner)) => check_array(inner, depth)?,
            _ => {}
        }
    }
    Ok(())
}

fn check_array(diff: &[u8], depth: usize) -> Result<(), DiffFault> {
    let depth = deeper(depth)?;
    let mut steps = ArrayEdits::read(diff)?;
    while let Some((_, edit)) = steps.next()? {
        match edit {
            ArrayEdit::Sub(Sub::Document(inner)) => check_at(inner, depth)?,
            ArrayEdit::Sub(Sub::Array(inner)) => check_array(inner, depth)?,
            ArrayEdit::Value(_) => {}
        }
    }
    Ok(())
}

fn deeper(depth: usize) -> Result<usize, BsonFault> {
    if depth >= limits::BSON_MAX_DEPTH {
        Err(BsonFault::TooDeep)
    } else {
        Ok(depth + 1)
    }
}

#[derive(Clone, Copy)]
enum Sub<'a> {
    Document(&'a [u8]),
    Array(&'a [u8]),
}

impl<'a> Sub<'a> {
    fn read(element: &Element<'a>) -> Result<Self, DiffFault> {
        let inner = element
            .document()
            .ok_or(DiffFault::Grammar("a sub-diff is no object"))?;
        let first = raw::elements(inner)
            .next()
            .ok_or(DiffFault::Grammar("an empty sub-diff"))??;
        Ok(if first.name == b"a" {
            Sub::Array(inner)
        } else {
            Sub::Document(inner)
        })
    }

    /// The new value for an old one; null when the types do not fit.
    fn apply(self, out: &mut Vec<u8>, old: Option<Element<'_>>, depth: usize) -> Result<u8, DiffFault> {
        match (self, old) {
            (
                Sub::Document(diff),
                Some(Element {
                    kind: kind::DOCUMENT,
                    value,
                    ..
                }),
            ) => {
                Edits::read(diff)?.apply(out, value, depth)?;
                Ok(kind::DOCUMENT)
            }
            (
                Sub::Array(diff),
                Some(Element {
                    kind: kind::ARRAY,
                    value,
                    ..
                }),
            ) => {
                apply_array(out, value, diff, depth)?;
                Ok(kind::ARRAY)
            }
            _ => Ok(kind::NULL),
        }
    }

    fn fits(self, old: Option<Element<'_>>) -> u8 {
        match (self, old.map(|old| old.kind)) {
            (Sub::Document(_), Some(kind::DOCUMENT)) => kind::DOCUMENT,
            (Sub::Array(_), Some(kind::ARRAY)) => kind::ARRAY,
            _ => kind::NULL,
        }
    }
}

#[derive(Clone, Copy)]
enum Action<'a> {
    Delete,
    Update(Element<'a>),
    Insert(Element<'a>),
    Binary(&'a [u8]),
    Sub(Sub<'a>),
}

struct Edit<'a> {
    name: &'a [u8],
    action: Action<'a>,
    /// Set once an update found its field; the others are appended.
    found: Cell<bool>,
}

/// The edits of one level, in the order of the diff.
struct Edits<'a> {
    all: Vec<Edit<'a>>,
    /// Positions in `all` by name; empty while there are few enough to look through.
    by_name: Vec<u32>,
}

/// Up to this many edits a look through beats a search.
const FEW: usize = 12;

impl<'a> Edits<'a> {
    fn read(diff: &'a [u8]) -> Result<Self, DiffFault> {
        let mut all = Vec::new();
        let mut next_rank = 0;
        for section in raw::elements(diff) {
            let section = section?;
            let rank = match section.name {
                b"d" => 0,
                b"u" => 1,
                b"i" => 2,
                b"b" => 3,
                [b's', ..] => 4,
                _ => return Err(DiffFault::Grammar("an unknown section")),
            };
            if rank < next_rank {
                return Err(DiffFault::Grammar("sections out of order"));
            }
            next_rank = if rank == 4 { 4 } else { rank + 1 };
            if rank == 4 {
                let action = Action::Sub(Sub::read(&section)?);
                all.push(Edit {
                    name: &section.name[1..],
                    action,
                    found: Cell::new(false),
                });
                continue;
            }
            let fields = section.document().ok_or(DiffFault::Grammar("a section is no object"))?;
            for field in raw::elements(fields) {
                let field = field?;
                let action = match rank {
                    0 => Action::Delete,
                    1 => Action::Update(field),
                    2 => Action::Insert(field),
                    _ => Action::Binary(
                        field
                            .document()
                            .ok_or(DiffFault::Grammar("a binary diff is no object"))?,
                    ),
                };
                all.push(Edit {
                    name: field.name,
                    action,
                    found: Cell::new(false),
                });
            }
        }
        if next_rank == 0 {
            return Err(DiffFault::Grammar("no section"));
        }
        Edits {
            all,
            by_name: Vec::new(),
        }
        .indexed()
    }

    fn indexed(mut self) -> Result<Self, DiffFault> {
        let twice = if self.all.len() <= FEW {
            let names = |(at, edit): (usize, &Edit<'_>)| self.all[..at].iter().any(|other| other.name == edit.name);
            self.all.iter().enumerate().any(names)
        } else {
            self.by_name = (0..self.all.len() as u32).collect();
            self.by_name.sort_unstable_by_key(|&at| self.all[at as usize].name);
            self.by_name
                .windows(2)
                .any(|pair| self.all[pair[0] as usize].name == self.all[pair[1] as usize].name)
        };
        if twice {
            Err(DiffFault::Grammar("one name twice"))
        } else {
            Ok(self)
        }
    }

    fn find(&self, name: &[u8]) -> Option<&Edit<'a>> {
        if self.by_name.is_empty() {
            return self.all.iter().find(|edit| edit.name == name);
        }
        let at = self
            .by_name
            .binary_search_by_key(&name, |&at| self.all[at as usize].name)
            .ok()?;
        Some(&self.all[self.by_name[at] as usize])
    }

    fn apply(&self, out: &mut Vec<u8>, document: &[u8], depth: usize) -> Result<(), DiffFault> {
        let inner = deeper(depth)?;
        let writer = Writer::begin(out);
        for field in raw::elements(document) {
            let field = field?;
            match self.find(field.name) {
                None => raw::element(out, field),
                Some(edit) => edit.apply(out, field, inner)?,
            }
        }
        for edit in &self.all {
            match edit.action {
                Action::Update(field) if !edit.found.get() => raw::element(out, field),
                Action::Insert(field) => raw::element(out, field),
                _ => {}
            }
        }
        Ok(writer.end(out)?)
    }
}

impl Edit<'_> {
    fn apply(&self, out: &mut Vec<u8>, old: Element<'_>, depth: usize) -> Result<(), DiffFault> {
        // The server takes back a lost _id and refuses a changed one; depth 1 is the document itself.
        let is_id = depth == 1 && old.name == b"_id";
        match self.action {
            Action::Delete if is_id => raw::element(out, old),
            Action::Delete | Action::Insert(_) => {}
            Action::Update(field) => {
                if is_id && DocumentKey::of_id(field.kind, field.value)? != DocumentKey::of_id(old.kind, old.value)? {
                    return Err(DiffFault::Id);
                }
                raw::element(out, field);
                self.found.set(true);
            }
            Action::Binary(diff) => binary(out, old, diff)?,
            Action::Sub(sub) => {
                raw::name(out, sub.fits(Some(old)), old.name);
                sub.apply(out, Some(old), depth)?;
            }
        }
        Ok(())
    }
}

/// `{o: offset, d: BinData}`: the first `o` bytes stay, `d` follows. What does not fit becomes null, as with sub-diffs.
fn binary(out: &mut Vec<u8>, old: Element<'_>, diff: &[u8]) -> Result<(), DiffFault> {
    const SHAPE: DiffFault = DiffFault::Grammar("a binary diff without offset or data");
    let offset = raw::find(diff, "o")?.and_then(|o| o.number()).ok_or(SHAPE)?;
    let data = raw::find(diff, "d")?.filter(|d| d.kind == kind::BINARY).ok_or(SHAPE)?;
    let kept = usize::try_from(offset)
        .ok()
        .and_then(|offset| old.value.get(5..)?.get(..offset));
    let Some(kept) = kept.filter(|_| old.kind == kind::BINARY) else {
        raw::name(out, kind::NULL, old.name);
        return Ok(());
    };
    raw::name(out, kind::BINARY, old.name);
    out.extend_from_slice(&((kept.len() + data.value.len() - 5) as u32).to_le_bytes());
    out.push(old.value[4]);
    out.extend_from_slice(kept);
    out.extend_from_slice(&data.value[5..]);
    Ok(())
}

enum ArrayEdit<'a> {
    Value(Element<'a>),
    Sub(Sub<'a>),
}

/// The edits of an array, in ascending order of the index.
struct ArrayEdits<'a> {
    length: Option<usize>,
    rest: raw::Elements<'a>,
    peeked: Option<Element<'a>>,
    least: usize,
}

impl<'a> ArrayEdits<'a> {
    fn read(diff: &'a [u8]) -> Result<Self, DiffFault> {
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

    fn next(&mut self) -> Result<Option<(usize, ArrayEdit<'a>)>, DiffFault> {
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

fn apply_array(out: &mut Vec<u8>, array: &[u8], diff: &[u8], depth: usize) -> Result<(), DiffFault> {
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
                raw::index(out, sub.fits(current), at);
                sub.apply(out, current, inner)?;
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
