//! Every captured history: state before + oplog = state after, byte for byte.

use bson::{Bson, Document};
use headwater_oplog::{Effect, Interpreter, validate};

use crate::copy::{Collection, Copy, Grouping};
use crate::vectors::{self, Catalogued, History, document};

/// All histories, by file: none may be lost silently.
const COUNTS: [usize; 5] = [59, 65, 70, 80, 42];

struct Way {
    /// After so many entries a new layer begins.
    layer_every: usize,
    grouping: Grouping,
    /// Whether the interpreter is made anew from its open entries before every entry, as after a restart.
    resume: bool,
}

fn replay(history: &History, way: &Way) -> Copy {
    let mut copy = Copy::of(history.version, &history.pre);
    let mut interpreter = Interpreter::new(history.version);
    let mut effects = Vec::new();
    for (at, entry) in history.oplog.iter().enumerate() {
        if at % way.layer_every == 0 {
            copy.begin_layer();
        }
        if way.resume {
            interpreter = Interpreter::resume(history.version, interpreter.open_entries()).unwrap();
        }
        validate::document(entry).unwrap();
        let position = interpreter
            .interpret(entry, &mut effects)
            .unwrap_or_else(|fault| panic!("{}: {fault}", history.name));
        assert_eq!(headwater_oplog::entry::position(entry), Ok(position));
        effects.drain(..).for_each(|effect: Effect| copy.apply(effect));
    }
    copy
}

fn check(history: &History, copy: &Copy, grouping: Grouping) -> Vec<String> {
    let mut wrong = Vec::new();
    for after in history
        .post
        .iter()
        .filter(|after| after.namespace.coll != "system.profile")
    {
        match copy.collections.get(&after.uuid) {
            None => wrong.push(format!("{} is missing", after.namespace)),
            Some(ours) => wrong.extend(differences(history, ours, after, grouping)),
        }
    }
    for (uuid, ours) in &copy.collections {
        let known = history.post.iter().any(|after| after.uuid == *uuid);
        if !known && history.databases.contains(&ours.namespace.db) {
            wrong.push(format!("{} should not be there", ours.namespace));
        }
    }
    wrong
}

fn differences(history: &History, ours: &Collection, after: &Catalogued, grouping: Grouping) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut differ = |what: &str, same: bool| {
        if !same {
            wrong.push(format!("{}: {what} of {} differ", history.name, after.namespace));
        }
    };
    differ("names", ours.namespace == after.namespace);
    let theirs = Copy::of(history.version, std::slice::from_ref(after));
    let theirs = &theirs.collections[&after.uuid];
    let (our_docs, their_docs) = (ours.settled(grouping), theirs.settled(grouping));
    differ(
        "documents",
        our_docs
            .iter()
            .map(|(k, d)| (k, &d.0))
            .eq(their_docs.iter().map(|(k, d)| (k, &d.0))),
    );
    if theirs.capped().is_some() {
        let order = |docs: &std::collections::BTreeMap<_, (_, u64)>| {
            let mut keys: Vec<_> = docs.iter().map(|(key, (_, place))| (*place, key)).collect();
            keys.sort();
            keys.into_iter()
                .map(|(_, key): (u64, &headwater_oplog::DocumentKey)| key.clone())
                .collect::<Vec<_>>()
        };
        differ("places", order(&our_docs) == order(&their_docs));
    }
    differ(
        "options",
        same_fields(&document(&ours.options), &document(&after.options)),
    );
    let shown = |specs: &[bytes::Bytes]| {
        let mut shown: Vec<_> = specs
            .iter()
            .map(|spec| without_what_is_only_shown(document(spec)))
            .collect();
        shown.sort_by_key(|spec| spec.get_str("name").unwrap().to_owned());
        shown
    };
    let (our_indexes, their_indexes) = (shown(&ours.indexes), shown(&after.indexes));
    let alike = our_indexes.len() == their_indexes.len()
        && our_indexes
            .iter()
            .zip(&their_indexes)
            .all(|(ours, theirs)| same_fields(ours, theirs));
    differ("indexes", alike);
    wrong
}

/// What listIndexes adds to the spec of a clustered index.
fn without_what_is_only_shown(mut spec: Document) -> Document {
    if spec.remove("clustered").is_some() {
        spec.remove("expireAfterSeconds");
    }
    spec
}

/// Equal but for the order of fields at the top and the types of numbers: the server's catalog is as loose.
fn same_fields(ours: &Document, theirs: &Document) -> bool {
    ours.len() == theirs.len()
        && ours
            .iter()
            .all(|(name, value)| theirs.get(name).is_some_and(|other| same(value, other)))
}

fn same(ours: &Bson, theirs: &Bson) -> bool {
    match (ours, theirs) {
        (Bson::Document(ours), Bson::Document(theirs)) => {
            ours.len() == theirs.len() && ours.iter().zip(theirs).all(|((a, x), (b, y))| a == b && same(x, y))
        }
        (Bson::Array(ours), Bson::Array(theirs)) => {
            ours.len() == theirs.len() && ours.iter().zip(theirs).all(|(x, y)| same(x, y))
        }
        _ => ours == theirs || number(ours).is_some_and(|n| Some(n) == number(theirs)),
    }
}

fn number(value: &Bson) -> Option<f64> {
    match value {
        Bson::Int32(n) => Some(f64::from(*n)),
        Bson::Int64(n) => Some(*n as f64),
        Bson::Double(n) => Some(*n),
        _ => None,
    }
}

fn all_follow(way: &Way) {
    let mut wrong = Vec::new();
    let mut counts = [0; 5];
    for (file, count) in vectors::FILES.iter().zip(&mut counts) {
        for history in vectors::histories(file) {
            let copy = replay(&history, way);
            wrong.extend(check(&history, &copy, way.grouping));
            *count += 1;
        }
    }
    println!("{} histories: {counts:?}", counts.iter().sum::<usize>());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(counts, COUNTS);
}

#[test]
fn every_captured_history_is_followed_byte_for_byte() {
    all_follow(&Way {
        layer_every: usize::MAX,
        grouping: Grouping::OldestFirst,
        resume: false,
    });
}

#[test]
fn every_history_cut_into_layers_gives_the_same_in_any_grouping() {
    for layer_every in [1, 2, 5] {
        for grouping in [Grouping::OldestFirst, Grouping::NewestFirst] {
            all_follow(&Way {
                layer_every,
                grouping,
                resume: false,
            });
        }
    }
}

#[test]
fn a_restart_before_any_entry_changes_nothing() {
    all_follow(&Way {
        layer_every: usize::MAX,
        grouping: Grouping::OldestFirst,
        resume: true,
    });
}
