//! What one layer knows of one document, and how two layers' knowledge becomes one.
//!
//! [`Record::compose`] is associative, so layers may be merged in any grouping: this is what lets writes go on without
//! reading what lies below them.
//!
//! | older ∘ newer | `Document` | `Deleted` | `Changes` |
//! |---|---|---|---|
//! | `Document` | the newer, at the older's place | `Deleted` | the changed document |
//! | `Deleted` | the newer, at a fresh place | `Deleted` | begun anew at the first upsert, else `Deleted` |
//! | `Changes` | the newer | `Deleted` | one after the other |

mod layout;

use bytes::Bytes;

use crate::diff::{DiffFault, NameOrder, v1, v2};
use crate::raw::{self, BsonFault, Writer};

pub use layout::RecordFault;

/// What is known of one document in one layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// The whole document.
    Document {
        /// Its BSON.
        doc: Bytes,
        /// Where it stands in a capped collection.
        place: Place,
    },
    /// There is none.
    Deleted,
    /// Pending updates, oldest first; what they apply to lies below.
    Changes(Vec<Change>),
}

/// Where a document stands in a capped collection, whose order is data. All records of one collection have places, or
/// none has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Not in a capped collection.
    None,
    /// A document that exists below keeps its place; otherwise this one is taken.
    Keep(u64),
    /// This one is taken: what existed below was deleted in between.
    Fresh(u64),
}

impl Place {
    /// The number; 0 without.
    pub fn number(self) -> u64 {
        match self {
            Place::None => 0,
            Place::Keep(place) | Place::Fresh(place) => place,
        }
    }

    fn fresh(self) -> Place {
        match self {
            Place::Keep(place) => Place::Fresh(place),
            other => other,
        }
    }
}

/// One pending update.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What to do to the document.
    pub body: ChangeBody,
    /// When there is no document: start from this one, `{_id: …}`. `None`: then there is nothing to do.
    pub upsert: Option<Bytes>,
    /// The place a document begun by `upsert` takes in a capped collection ([`Place::Keep`]).
    pub place: Place,
}

/// The ways to update.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChangeBody {
    /// A delta of a server from 5.0 on: the `diff` document.
    V2(Bytes),
    /// `$set` and `$unset` of a server up to 4.4, or of a user's applyOps.
    V1 {
        /// The document with the modifiers; `$v` in it is no matter.
        modifiers: Bytes,
        /// As the server visits names.
        order: NameOrder,
    },
    /// A whole document without `_id`: the old `_id` stays, in front.
    ReplaceKeepingId(Bytes),
}

/// What a record says when nothing lies below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settled {
    /// The document, and its place (0 when the collection is not capped).
    Document {
        /// Its BSON.
        doc: Bytes,
        /// Its place.
        place: u64,
    },
    /// There is none.
    Absent,
    /// Updates of a document that was never seen: it has to be read from the source.
    Missing(Vec<Change>),
}

impl Change {
    /// The document after the update.
    pub fn apply(&self, document: &[u8]) -> Result<Bytes, DiffFault> {
        let after = match &self.body {
            ChangeBody::V2(diff) => v2::apply(document, diff)?,
            ChangeBody::V1 { modifiers, order } => v1::apply(document, modifiers, *order)?,
            ChangeBody::ReplaceKeepingId(body) => keeping_id(document, body)?,
        };
        Ok(after.into())
    }
}

fn keeping_id(document: &[u8], body: &[u8]) -> Result<Vec<u8>, BsonFault> {
    let id = raw::id_of(document)?;
    let mut out = Vec::with_capacity(body.len() + id.value.len() + 5);
    let writer = Writer::begin(&mut out);
    raw::element(&mut out, id);
    for field in raw::elements(body) {
        raw::element(&mut out, field?);
    }
    writer.end(&mut out)?;
    Ok(out)
}

impl Record {
    /// What both say together. Fails only when an update cannot be applied to the document it meets.
    pub fn compose(older: Record, newer: Record) -> Result<Record, DiffFault> {
        Ok(match (older, newer) {
            (_, Record::Deleted) => Record::Deleted,
            (Record::Document { doc, place }, Record::Changes(changes)) => Record::Document {
                doc: apply_all(doc, &changes)?,
                place,
            },
            (Record::Deleted, Record::Changes(changes)) => match begun(&changes)? {
                Some((doc, place)) => Record::Document {
                    doc,
                    place: place.fresh(),
                },
                None => Record::Deleted,
            },
            (Record::Changes(mut older), Record::Changes(newer)) => {
                older.extend(newer);
                Record::Changes(older)
            }
            (older, Record::Document { doc, place }) => Record::Document {
                doc,
                place: older.place_for(place),
            },
        })
    }

    /// Where a whole document stands that comes on top.
    fn place_for(&self, newer: Place) -> Place {
        match (self, newer) {
            (_, Place::Fresh(_)) => newer,
            (Record::Document { place, .. }, _) => *place,
            (Record::Deleted, _) => newer.fresh(),
            (Record::Changes(changes), _) => changes
                .iter()
                .find(|change| change.upsert.is_some())
                .map_or(newer, |upsert| upsert.place),
        }
    }

    /// What is there, when nothing lies below.
    pub fn settle(self) -> Result<Settled, DiffFault> {
        Ok(match self {
            Record::Document { doc, place } => Settled::Document {
                doc,
                place: place.number(),
            },
            Record::Deleted => Settled::Absent,
            Record::Changes(changes) if changes.first().is_some_and(|change| change.upsert.is_none()) => {
                Settled::Missing(changes)
            }
            Record::Changes(changes) => match begun(&changes)? {
                Some((doc, place)) => Settled::Document {
                    doc,
                    place: place.number(),
                },
                None => Settled::Absent,
            },
        })
    }

    /// About the bytes of memory it holds.
    pub fn weight(&self) -> usize {
        let held = match self {
            Record::Document { doc, .. } => doc.len(),
            Record::Deleted => 0,
            Record::Changes(changes) => changes.iter().map(Change::weight).sum(),
        };
        size_of::<Record>() + held
    }

    /// The same with buffers of its own, so that it keeps no larger buffer alive.
    pub fn detached(self) -> Record {
        let own = |bytes: Bytes| Bytes::copy_from_slice(&bytes);
        match self {
            Record::Document { doc, place } => Record::Document { doc: own(doc), place },
            Record::Deleted => Record::Deleted,
            Record::Changes(changes) => Record::Changes(changes.into_iter().map(Change::detached).collect()),
        }
    }
}

impl Change {
    fn bytes(&self) -> &Bytes {
        match &self.body {
            ChangeBody::V2(bytes) | ChangeBody::ReplaceKeepingId(bytes) => bytes,
            ChangeBody::V1 { modifiers, .. } => modifiers,
        }
    }

    /// About the bytes of memory it holds.
    pub fn weight(&self) -> usize {
        size_of::<Change>() + self.bytes().len() + self.upsert.as_ref().map_or(0, Bytes::len)
    }

    /// The same with buffers of its own.
    pub fn detached(self) -> Change {
        let own = |bytes: Bytes| Bytes::copy_from_slice(&bytes);
        let body = match self.body {
            ChangeBody::V2(diff) => ChangeBody::V2(own(diff)),
            ChangeBody::V1 { modifiers, order } => ChangeBody::V1 {
                modifiers: own(modifiers),
                order,
            },
            ChangeBody::ReplaceKeepingId(body) => ChangeBody::ReplaceKeepingId(own(body)),
        };
        Change {
            body,
            upsert: self.upsert.map(own),
            place: self.place,
        }
    }
}

fn apply_all(doc: Bytes, changes: &[Change]) -> Result<Bytes, DiffFault> {
    changes.iter().try_fold(doc, |doc, change| change.apply(&doc))
}

/// The document the changes make out of nothing: from the first upsert on.
fn begun(changes: &[Change]) -> Result<Option<(Bytes, Place)>, DiffFault> {
    for (at, change) in changes.iter().enumerate() {
        if let Some(start) = &change.upsert {
            return Ok(Some((apply_all(start.clone(), &changes[at..])?, change.place)));
        }
    }
    Ok(None)
}
