//! Inserts, updates and deletes.

use bytes::Bytes;

use super::EntryProblem;
use crate::diff::{NameOrder, v1, v2};
use crate::effect::Effect;
use crate::entry::{Entry, Op};
use crate::key::DocumentKey;
use crate::raw::{self, BsonFault, Element, Writer};
use crate::record::{Change, ChangeBody, Place};

/// How an operation is to be read.
pub struct Rules {
    /// The order of names in `$v: 1` updates.
    pub order: NameOrder,
    /// Whether an update of a missing document makes it.
    pub upsert: bool,
    /// Whether documents fall out of capped collections unlogged: one that is inserted may still be there in the copy,
    /// at a place it no longer has.
    pub forgets_in_silence: bool,
}

/// Appends the effect of the operation, whose fields are slices of `bytes`.
pub fn interpret(
    rules: &Rules,
    bytes: &Bytes,
    operation: &Entry<'_>,
    effects: &mut Vec<Effect>,
) -> Result<(), EntryProblem> {
    if operation.op == Op::Unknown {
        return Err(EntryProblem::UnknownOperation);
    }
    let collection = operation.collection.ok_or(EntryProblem::NoUuid)?;
    if operation.op == Op::Insert && rules.forgets_in_silence {
        effects.push(Effect::Delete {
            collection,
            key: DocumentKey::of_document(operation.o)?,
        });
    }
    effects.push(match operation.op {
        Op::Insert => Effect::Put {
            collection,
            key: DocumentKey::of_document(operation.o)?,
            doc: bytes.slice_ref(operation.o),
        },
        Op::Delete => Effect::Delete {
            collection,
            key: DocumentKey::of_document(operation.o)?,
        },
        _ => {
            let id = raw::id_of(operation.o2.ok_or(BsonFault::NoField("o2"))?)?;
            let key = DocumentKey::of_id(id.kind, id.value)?;
            match update(rules, bytes, operation.o, id)? {
                Update::Whole(new_key) if new_key != key => return Err(crate::diff::DiffFault::Id.into()),
                Update::Whole(key) => Effect::Put {
                    collection,
                    key,
                    doc: bytes.slice_ref(operation.o),
                },
                Update::Part(body) => {
                    let upsert = rules.upsert.then(|| only(id)).transpose()?;
                    Effect::Change {
                        collection,
                        key,
                        change: Change {
                            body,
                            upsert,
                            place: Place::None,
                        },
                    }
                }
            }
        }
    });
    Ok(())
}

enum Update {
    /// The body is the new document, of that key.
    Whole(DocumentKey),
    Part(ChangeBody),
}

fn update(rules: &Rules, bytes: &Bytes, body: &[u8], id: Element<'_>) -> Result<Update, EntryProblem> {
    let first = raw::elements(body).next().transpose()?;
    // The first field whenever a server wrote a delta, but a user's applyOps may have it anywhere.
    let version = raw::find(body, "$v")?;
    match version.and_then(|v| v.number()) {
        Some(2) => {
            let diff = raw::find(body, "diff")?
                .and_then(|diff| diff.document())
                .ok_or(BsonFault::NoField("diff"))?;
            v2::check(diff)?;
            return Ok(Update::Part(ChangeBody::V2(bytes.slice_ref(diff))));
        }
        Some(1) => return modifiers(rules, bytes, body),
        _ if first.is_some_and(|first| first.name.starts_with(b"$")) => return modifiers(rules, bytes, body),
        _ => {}
    }
    match raw::find(body, "_id")? {
        None => Ok(Update::Part(ChangeBody::ReplaceKeepingId(bytes.slice_ref(body)))),
        Some(new) if new == id => Ok(Update::Whole(DocumentKey::of_id(id.kind, id.value)?)),
        Some(new) => Ok(Update::Whole(DocumentKey::of_id(new.kind, new.value)?)),
    }
}

fn modifiers(rules: &Rules, bytes: &Bytes, body: &[u8]) -> Result<Update, EntryProblem> {
    v1::check(body, rules.order)?;
    Ok(Update::Part(ChangeBody::V1 {
        modifiers: bytes.slice_ref(body),
        order: rules.order,
    }))
}

/// `{_id: …}`
fn only(id: Element<'_>) -> Result<Bytes, BsonFault> {
    let mut out = Vec::with_capacity(id.value.len() + 10);
    let writer = Writer::begin(&mut out);
    raw::element(&mut out, id);
    writer.end(&mut out)?;
    Ok(out.into())
}
