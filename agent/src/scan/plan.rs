//! Plans a scan: which parts a collection has, and where each goes on. Pure.
//!
//! All an interrupted scan knows is the `resume` document of the last slice of each part that the service has stored. It
//! therefore holds everything: the boundaries of all parts, the place in this one, and how much was counted. Values of the
//! source stand in it as hexadecimal of raw BSON: on its way back it travels as JSON, which would change their types.

use std::collections::BTreeMap;

use bson::{Bson, Document, RawDocumentBuf, doc};
use headwater_model::CollectionUuid;
use headwater_protocol::slices::PartProgress;

use crate::source::SourceError;

/// How the documents of a collection are read.
#[derive(Clone, Debug, PartialEq)]
pub enum Method {
    /// In natural order, as one part.
    Natural,
    /// By `_id`, in parts between these boundaries, each a document `{_id: …}`.
    Ranges(Vec<RawDocumentBuf>),
}

impl Method {
    /// The name of the plan: the same for the same boundaries.
    pub fn name(&self) -> String {
        match self {
            Method::Natural => "natural".to_owned(),
            Method::Ranges(bounds) => {
                let mut hasher = blake3::Hasher::new();
                for bound in bounds {
                    hasher.update(bound.as_bytes());
                }
                hasher.finalize().to_hex()[..32].to_owned()
            }
        }
    }
}

/// Where a part goes on.
#[derive(Clone, Debug, PartialEq)]
pub enum Place {
    /// In natural order, after this resume token; from the start without one.
    Natural(Option<Token>),
    /// From this `{_id: …}` on, which was read already; from the lower boundary without one.
    Range(Option<RawDocumentBuf>),
}

/// A place in natural order. It names a document by the number under which one server keeps it (`$recordId`). Other
/// members keep it under other numbers, and the same one too once it was restarted: what it had not made part of a
/// checkpoint, it then applies again from its oplog, several entries at once. There the token would be a place as well, and
/// documents that belong behind it would lie before it.
#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    /// As the server gave it.
    pub token: RawDocumentBuf,
    /// The process that gave it.
    pub process: String,
}

/// One part to scan.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// Its collection.
    pub collection: CollectionUuid,
    /// Its index.
    pub part: u32,
    /// The number of its next slice.
    pub number: u32,
    /// How it is read.
    pub method: Method,
    /// Where it goes on.
    pub place: Place,
    /// What earlier slices hold.
    pub counted: Counted,
}

/// Documents and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Documents.
    pub documents: u64,
    /// Bytes of BSON.
    pub bytes: u64,
}

/// What is left of a collection.
#[derive(Clone, Debug, PartialEq)]
pub enum Left {
    /// Not begun: the method may still be chosen.
    Everything,
    /// These parts; none when it is complete.
    Parts(Vec<Part>),
}

impl Part {
    /// Lower and upper boundary of a range.
    pub fn bounds(&self) -> (Option<&RawDocumentBuf>, Option<&RawDocumentBuf>) {
        match &self.method {
            Method::Natural => (None, None),
            Method::Ranges(bounds) => {
                let below = (self.part as usize).checked_sub(1).and_then(|at| bounds.get(at));
                (below, bounds.get(self.part as usize))
            }
        }
    }

    /// What the last slice must carry so that the part can go on at `place`.
    pub fn resume(&self, place: &Place, counted: Counted) -> Document {
        let mut resume = doc! { "documents": counted.documents as i64, "bytes": counted.bytes as i64 };
        match (&self.method, place) {
            (Method::Ranges(bounds), Place::Range(after)) => {
                resume.insert("bounds", bounds.iter().map(written).collect::<Vec<_>>());
                if let Some(after) = after {
                    resume.insert("after", written(after));
                }
            }
            (_, Place::Natural(Some(token))) => {
                resume.insert("token", written(&token.token));
                resume.insert("process", &token.process);
            }
            _ => {}
        }
        resume
    }
}

/// The parts of a collection that was not begun.
pub fn fresh(collection: CollectionUuid, method: Method) -> Vec<Part> {
    let (parts, place) = match &method {
        Method::Natural => (1, Place::Natural(None)),
        Method::Ranges(bounds) => (bounds.len() as u32 + 1, Place::Range(None)),
    };
    let part = |part| Part {
        collection,
        part,
        number: 0,
        method: method.clone(),
        place: place.clone(),
        counted: Counted::default(),
    };
    (0..parts).map(part).collect()
}

/// What is left to scan of a collection, by what the service has of it.
pub fn left(collection: CollectionUuid, progress: &[PartProgress]) -> Result<Left, SourceError> {
    let known: BTreeMap<u32, &PartProgress> = progress.iter().map(|part| (part.part, part)).collect();
    let Some(any) = known.values().next() else {
        return Ok(Left::Everything);
    };
    let method = match any.resume.get_array("bounds") {
        Ok(bounds) => Method::Ranges(bounds.iter().map(read).collect::<Result<_, _>>()?),
        Err(_) => Method::Natural,
    };
    let mut parts = fresh(collection, method);
    for part in &mut parts {
        if let Some(progress) = known.get(&part.part) {
            part.number = progress.next_number;
            part.place = place(&part.method, &progress.resume)?;
            part.counted = counted(&progress.resume);
        }
    }
    parts.retain(|part| !known.get(&part.part).is_some_and(|progress| progress.done));
    Ok(Left::Parts(parts))
}

fn place(method: &Method, resume: &Document) -> Result<Place, SourceError> {
    let value = |name| resume.get(name).map(read).transpose();
    Ok(match method {
        Method::Ranges(_) => Place::Range(value("after")?),
        Method::Natural => Place::Natural(value("token")?.and_then(|token| {
            let process = resume.get_str("process").ok()?.to_owned();
            Some(Token { token, process })
        })),
    })
}

/// What a `resume` document says was counted up to it.
pub fn counted(resume: &Document) -> Counted {
    Counted {
        documents: number(resume, "documents"),
        bytes: number(resume, "bytes"),
    }
}

fn written(document: &RawDocumentBuf) -> String {
    hex::encode(document.as_bytes())
}

fn read(value: &Bson) -> Result<RawDocumentBuf, SourceError> {
    let bytes = value.as_str().and_then(|text| hex::decode(text).ok());
    bytes
        .and_then(|bytes| RawDocumentBuf::from_bytes(bytes).ok())
        .ok_or_else(|| SourceError::Answer("a place stored with a slice is not one of this agent's".to_owned()))
}

/// JSON on the way does not keep the width of a number.
fn number(resume: &Document, name: &str) -> u64 {
    let value = resume.get(name);
    let wide = value.and_then(|value| value.as_i64().or_else(|| value.as_i32().map(i64::from)));
    wide.and_then(|number| u64::try_from(number).ok()).unwrap_or(0)
}

/// How many parts a collection of so many bytes shall have.
pub fn parts_wanted(bytes: u64, split_over: u64, most: u32) -> u32 {
    if bytes <= split_over {
        return 1;
    }
    let half = (split_over / 2).max(1);
    u32::try_from(bytes.div_ceil(half))
        .unwrap_or(most)
        .clamp(1, most.max(1))
}

/// The longest boundary, in bytes: every slice of every part carries all of them in its header.
pub const BOUNDARY_MAX_BYTES: usize = 8 << 10;

/// Boundaries for `parts` parts out of a sample of `{_id: …}` in the order of the index.
pub fn boundaries(sample: &[RawDocumentBuf], parts: u32) -> Vec<RawDocumentBuf> {
    let parts = parts.max(1) as usize;
    let picked = (1..parts).filter_map(|at| sample.get(at * sample.len() / parts));
    let mut bounds: Vec<RawDocumentBuf> = picked
        .filter(|id| id.as_bytes().len() <= BOUNDARY_MAX_BYTES)
        .cloned()
        .collect();
    bounds.dedup();
    bounds
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::{RawBson, rawdoc};

    fn id(value: impl Into<RawBson>) -> RawDocumentBuf {
        let value: RawBson = value.into();
        rawdoc! { "_id": value }
    }

    fn token() -> Token {
        Token {
            token: rawdoc! { "$recordId": 70_i64 },
            process: "a process".to_owned(),
        }
    }

    const C: CollectionUuid = CollectionUuid([7; 16]);

    fn progress(part: u32, next_number: u32, resume: Document, done: bool) -> PartProgress {
        PartProgress {
            collection: C,
            part,
            next_number,
            resume,
            done,
        }
    }

    #[test]
    fn a_collection_nothing_is_stored_of_is_planned_anew() {
        assert_eq!(left(C, &[]).unwrap(), Left::Everything);
    }

    #[test]
    fn a_part_goes_on_exactly_where_its_last_stored_slice_says() {
        let natural = fresh(C, Method::Natural).remove(0);
        let place = Place::Natural(Some(token()));
        let counted = Counted {
            documents: 9,
            bytes: 900,
        };
        let resume = natural.resume(&place, counted);
        let Left::Parts(parts) = left(C, &[progress(0, 3, resume, false)]).unwrap() else {
            panic!()
        };
        assert_eq!(
            parts,
            [Part {
                number: 3,
                place,
                counted,
                ..natural
            }]
        );
    }

    #[test]
    fn a_place_survives_the_way_through_json() {
        let part = fresh(C, Method::Natural).remove(0);
        let place = Place::Natural(Some(token()));
        let counted = Counted {
            documents: 9,
            bytes: 1 << 40,
        };
        let stored = progress(0, 1, part.resume(&place, counted), false);
        let back: PartProgress = serde_json::from_str(&serde_json::to_string(&stored).unwrap()).unwrap();
        let Left::Parts(parts) = left(C, &[back]).unwrap() else {
            panic!()
        };
        assert_eq!((&parts[0].place, parts[0].counted), (&place, counted));
    }

    #[test]
    fn a_token_that_does_not_say_which_process_gave_it_is_no_place() {
        let mut resume = fresh(C, Method::Natural)[0].resume(&Place::Natural(Some(token())), Counted::default());
        resume.remove("process");
        let Left::Parts(parts) = left(C, &[progress(0, 3, resume, false)]).unwrap() else {
            panic!()
        };
        assert_eq!((parts[0].number, &parts[0].place), (3, &Place::Natural(None)));
    }

    #[test]
    fn the_boundaries_of_all_parts_are_known_from_any_one_stored_slice() {
        let planned = fresh(C, Method::Ranges(vec![id(10), id("m")]));
        let stored = planned[1].resume(&Place::Range(Some(id(12_i64))), Counted::default());
        let Left::Parts(parts) = left(C, &[progress(1, 1, stored.clone(), false)]).unwrap() else {
            panic!()
        };
        assert_eq!(parts.len(), 3);
        assert_eq!(parts[0], planned[0]);
        assert_eq!(parts[1].place, Place::Range(Some(id(12_i64))));
        assert_eq!(parts[2].bounds(), (Some(&id("m")), None));

        let Left::Parts(parts) = left(C, &[progress(1, 2, stored, true)]).unwrap() else {
            panic!()
        };
        assert_eq!(parts.iter().map(|part| part.part).collect::<Vec<_>>(), [0, 2]);
    }

    #[test]
    fn a_plan_is_named_by_its_boundaries() {
        let ranges = |bounds: &[i32]| Method::Ranges(bounds.iter().map(|at| id(*at)).collect()).name();
        assert_eq!(ranges(&[1, 2]), ranges(&[1, 2]));
        let names = [ranges(&[1, 2]), ranges(&[1, 3]), ranges(&[1]), Method::Natural.name()];
        let different: std::collections::BTreeSet<_> = names.iter().collect();
        assert_eq!(different.len(), names.len());
    }

    #[test]
    fn ranges_touch_each_other_and_are_open_at_both_ends() {
        let parts = fresh(C, Method::Ranges(vec![id(1), id(2)]));
        let bounds: Vec<_> = parts.iter().map(Part::bounds).collect();
        assert_eq!(bounds[0], (None, Some(&id(1))));
        assert_eq!(bounds[1], (Some(&id(1)), Some(&id(2))));
        assert_eq!(bounds[2], (Some(&id(2)), None));
        assert_eq!(fresh(C, Method::Natural)[0].bounds(), (None, None));
    }

    #[test]
    fn large_collections_get_more_parts_up_to_the_limit() {
        assert_eq!(parts_wanted(100, 100, 16), 1);
        assert_eq!(parts_wanted(101, 100, 16), 3);
        assert_eq!(parts_wanted(u64::MAX, 100, 16), 16);
        let sample: Vec<RawDocumentBuf> = (0..100).map(id).collect();
        assert_eq!(boundaries(&sample, 4), [id(25), id(50), id(75)]);
        assert_eq!(boundaries(&[], 4), Vec::<RawDocumentBuf>::new());
        assert_eq!(boundaries(&[id(1)], 4), [id(1)], "equal boundaries are one");
    }
}
