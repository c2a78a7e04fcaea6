//! `$v: 2` deltas: the update form of servers from 5.0 on (`reference/oplog.md` §1.5).
//!
//! ```text
//! diff      := { ["d": {name: any, …}], ["u": {name: value, …}], ["i": {name: value, …}], ["b": {name: binary diff, …}],
//!                ("s"+name : subdiff)* }
//! subdiff   := diff | arraydiff                       told apart by the first name: "a" is an arraydiff
//! arraydiff := { "a": true, ["l": int32], ("u"+index : value | "s"+index : subdiff)* }
//! ```

mod array;
mod document;

use headwater_model::limits;

use super::DiffFault;
use crate::raw::{self, BsonFault, Element, kind};

use array::{ArrayEdit, ArrayEdits};
use document::{Action, Edits};

/// Applies a delta to a document and gives the new one.
pub fn apply(document: &[u8], diff: &[u8]) -> Result<Vec<u8>, DiffFault> {
    let mut out = Vec::with_capacity(document.len() + diff.len());
    Edits::read(diff)?.apply(&mut out, document, 0)?;
    Ok(out)
}

/// Whether the delta keeps to the grammar: then [`apply`] can fail only by size, on a damaged document, or by a
/// change of `_id`.
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

/// A sub-diff, told apart by its first name.
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

    /// Writes the element with its new value; null when the old one is missing or has not the fitting type.
    fn apply(self, out: &mut Vec<u8>, name: &[u8], old: Option<Element<'_>>, depth: usize) -> Result<(), DiffFault> {
        match (self, old.map(|old| (old.kind, old.value))) {
            (Sub::Document(diff), Some((kind::DOCUMENT, value))) => {
                raw::name(out, kind::DOCUMENT, name);
                Edits::read(diff)?.apply(out, value, depth)
            }
            (Sub::Array(diff), Some((kind::ARRAY, value))) => {
                raw::name(out, kind::ARRAY, name);
                array::apply(out, value, diff, depth)
            }
            _ => {
                raw::name(out, kind::NULL, name);
                Ok(())
            }
        }
    }
}
