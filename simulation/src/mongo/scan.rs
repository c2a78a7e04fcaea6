//! Scans of a collection: in natural order, with places to go on from, and by ranges of `_id`.

use std::cmp::Ordering;

use bson::{Bson, Document, RawDocumentBuf, doc};
use headwater_agent::source::SourceError;
use headwater_model::CollectionUuid;

use super::connect::of_server;
use super::history::Count;
use super::server::{Refused, collection, reply};
use super::set::Mongo;
use crate::planted::{self, Bug};
use crate::trace;

/// An open cursor.
pub struct Scan {
    uuid: CollectionUuid,
    way: Way,
    /// From where on the first copy that it is for surely has the oplog.
    began: Count,
    ended: bool,
}

enum Way {
    /// After this number.
    Natural(Numbers, i64),
    /// By ids.
    Range(Box<Range>),
}

struct Range {
    /// The lower boundary, which belongs to it.
    from: Option<Bson>,
    /// The last one sent.
    sent: Option<Bson>,
    /// The upper boundary, which does not.
    below: Option<Bson>,
}

impl Scan {
    /// Opens one on a member.
    pub fn open(mongo: &Mongo, at: usize, command: &Document) -> Result<Scan, SourceError> {
        let uuid = collection(command.get("find")).unwrap_or(CollectionUuid([0; 16]));
        let view = mongo.view(at, command);
        if mongo.history.meta(uuid, view).is_none() {
            return Err(gone(26, "NamespaceNotFound", "no such collection"));
        }
        let by_id = command.get_document("hint").is_ok_and(|hint| hint.contains_key("_id"));
        let bound = |name: &str| command.get_document(name).ok()?.get("_id").cloned();
        let way = if by_id {
            trace::mark("source: a range of ids scanned");
            Way::Range(Box::new(Range {
                from: bound("min"),
                sent: None,
                below: bound("max"),
            }))
        } else {
            let other = u64::from(planted::strikes(Bug::ProcessesBearOneName, 2));
            let numbers = Numbers::of(at, mongo.members[at].boot + other);
            let after = match command.get_document("$_resumeAfter") {
                Ok(token) => token.get_i64("$recordId").unwrap_or(0),
                Err(_) => 0,
            };
            if after > 0 {
                trace::mark("source: a scan went on at a token");
                if mongo.history.document(uuid, numbers.record(after), view).is_none() {
                    return Err(gone(211, "KeyNotFound", "the resume token's record is gone"));
                }
            }
            Way::Natural(numbers, after)
        };
        Ok(Scan {
            uuid,
            way,
            began: mongo.listed,
            ended: false,
        })
    }

    /// The next batch; `None` at the end.
    pub fn step(&mut self, mongo: &Mongo, view: Count) -> Result<Option<RawDocumentBuf>, SourceError> {
        if self.ended {
            return Ok(None);
        }
        if matches!(self.way, Way::Natural(..)) && planted::strikes(Bug::ProcessesBearOneName, 5) {
            return Err(SourceError::Lost("the cursor broke".to_owned()));
        }
        let history = &mongo.history;
        if history.meta(self.uuid, view).is_none() {
            return Err(gone(175, "QueryPlanKilled", "the collection was dropped"));
        }
        let view = if planted::is(Bug::ScanReadsStale) {
            view / 2
        } else {
            view
        };
        let most = mongo.draw.batch;
        let mut found = match &self.way {
            Way::Natural(numbers, after) => {
                numbers.after(*after, most, |from| history.documents(self.uuid, view, from))
            }
            Way::Range(range) => range.next(history.documents(self.uuid, view, 0), most),
        };
        self.ended = found.len() < most;
        let token = match (&mut self.way, found.last()) {
            (Way::Natural(numbers, after), last) => {
                *after = last.map_or(*after, |(record, _)| numbers.number(*record));
                (*after > 0).then(|| doc! { "$recordId": *after })
            }
            (Way::Range(range), last) => {
                let last = last.and_then(|(_, document)| document.get("_id").cloned());
                range.sent = last.or(range.sent.take());
                None
            }
        };
        if mongo.draw.scan_misses && token.is_some() {
            // As with a document that moves before the cursor. Whoever applies the change later finds nothing to change.
            let before = found.len();
            found.retain(|(record, _)| record % 2 != 0 || !history.was_changed(self.uuid, *record, self.began, view));
            if found.len() < before {
                trace::mark("source: a scan missed a document");
            }
        }
        if found.len() > 2 && planted::is(Bug::ScanSkipsDocument) {
            found.remove(1);
        }
        let documents = found.iter().filter_map(|(_, d)| RawDocumentBuf::try_from(*d).ok());
        Ok(Some(reply(documents.collect(), token)))
    }
}

fn gone(code: i32, name: &'static str, words: &str) -> SourceError {
    of_server(Refused {
        code: (code, name),
        words: words.to_owned(),
    })
}

impl Range {
    /// The next documents in the order of their ids.
    fn next<'a>(&self, all: impl Iterator<Item = (i64, &'a Document)>, most: usize) -> Vec<(i64, &'a Document)> {
        let id = |document: &'a Document| document.get("_id").unwrap_or(&Bson::Null);
        let is_next = |id: &Bson| {
            let is = |bound: &Option<Bson>, wanted: &[Ordering]| {
                bound.as_ref().is_none_or(|bound| wanted.contains(&by_order(id, bound)))
            };
            is(&self.from, &[Ordering::Equal, Ordering::Greater])
                && is(&self.sent, &[Ordering::Greater])
                && is(&self.below, &[Ordering::Less])
        };
        let mut found: Vec<_> = all.filter(|(_, document)| is_next(id(document))).collect();
        found.sort_by(|(_, a), (_, b)| by_order(id(a), id(b)));
        found.truncate(most);
        found
    }
}

/// The order of ids in their index, of the kinds that the workload makes.
pub fn by_order(a: &Bson, b: &Bson) -> Ordering {
    let class = |value: &Bson| match value {
        Bson::Int32(_) | Bson::Int64(_) | Bson::Double(_) => 1,
        Bson::String(_) => 2,
        Bson::Document(_) => 3,
        _ => 4,
    };
    match (a, b) {
        (Bson::String(a), Bson::String(b)) => a.cmp(b),
        (Bson::Document(a), Bson::Document(b)) => {
            let fields = a
                .iter()
                .zip(b.iter())
                .map(|((m, a), (n, b))| by_order(a, b).then_with(|| m.cmp(n)));
            fields.fold(Ordering::Equal, Ordering::then)
        }
        _ if class(a) == 1 && class(b) == 1 => worth(a).total_cmp(&worth(b)),
        _ => class(a).cmp(&class(b)),
    }
}

/// Numbers here are all exact as doubles.
fn worth(number: &Bson) -> f64 {
    match number {
        Bson::Int32(n) => f64::from(*n),
        Bson::Int64(n) => *n as f64,
        Bson::Double(n) => *n,
        _ => 0.0,
    }
}

/// The numbers under which a process keeps documents. In every second one they run backwards within each eight: two servers
/// apply the same entries in another order, and so does one that was restarted.
#[derive(Clone, Copy)]
struct Numbers {
    turned: i64,
}

/// How many numbers run backwards together.
const RUN: i64 = 8;

impl Numbers {
    fn of(at: usize, boot: u64) -> Numbers {
        let turns = (at as u64 + boot) % 2 == 1;
        Numbers {
            turned: if turns { RUN - 1 } else { 0 },
        }
    }

    fn number(self, record: i64) -> i64 {
        (record + RUN) ^ self.turned
    }

    fn record(self, number: i64) -> i64 {
        (number ^ self.turned) - RUN
    }

    /// The next documents after a number, by their records, in the order of their numbers.
    fn after<'a, I>(self, after: i64, most: usize, from: impl Fn(i64) -> I) -> Vec<(i64, &'a Document)>
    where
        I: Iterator<Item = (i64, &'a Document)>,
    {
        // From the beginning of its run, with a run in excess at either end.
        let run = (after & !(RUN - 1)) - RUN;
        let near = from(run - 1).take(most + 2 * RUN as usize);
        let mut found: Vec<_> = near.filter(|(record, _)| self.number(*record) > after).collect();
        found.sort_by_key(|(record, _)| self.number(*record));
        found.truncate(most);
        found
    }
}
