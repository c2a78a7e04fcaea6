//! The laws of the record algebra.

use bytes::Bytes;
use headwater_oplog::diff::NameOrder;
use headwater_oplog::{Change, ChangeBody, Place, Record, Settled};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::vectors::extended;

const NAMES: [&str; 4] = ["a", "b", "c", "2"];

fn values() -> impl Strategy<Value = Value> {
    prop_oneof![
        (0..5).prop_map(Value::from),
        Just(json!({"x": 1, "y": 2})),
        Just(json!([1, 2, 3])),
        Just(Value::Null),
    ]
}

fn documents() -> impl Strategy<Value = Bytes> {
    prop::collection::vec((prop::sample::select(&NAMES[..]), values()), 0..4).prop_map(|fields| {
        let mut document = json!({"_id": 1});
        fields.into_iter().for_each(|(name, value)| document[name] = value);
        extended(&document)
    })
}

fn bodies() -> impl Strategy<Value = ChangeBody> {
    let name = || prop::sample::select(&NAMES[..]);
    let modifiers = |operator: &'static str, path: String, value: Value| {
        let mut body = json!({"$v": 1});
        body[operator] = json!({ path: value });
        extended(&body)
    };
    prop_oneof![
        (name(), values()).prop_map(|(name, value)| ChangeBody::V2(extended(&json!({"u": {name: value}})))),
        (name(), values()).prop_map(|(name, value)| ChangeBody::V2(extended(&json!({"i": {name: value}})))),
        name().prop_map(|name| ChangeBody::V2(extended(&json!({"d": {name: false}})))),
        name().prop_map(|name| ChangeBody::V2(extended(&json!({format!("s{name}"): {"i": {"z": 1}}})))),
        name().prop_map(|name| ChangeBody::V2(extended(&json!({format!("s{name}"): {"a": true, "u1": 7}})))),
        (
            name(),
            prop::sample::select(vec!["", ".x", ".1", ".q.r"]),
            values(),
            any::<bool>()
        )
            .prop_map(move |(name, rest, value, numeric)| ChangeBody::V1 {
                modifiers: modifiers("$set", format!("{name}{rest}"), value),
                order: if numeric {
                    NameOrder::Numeric
                } else {
                    NameOrder::Bytewise
                },
            }),
        name().prop_map(move |name| ChangeBody::V1 {
            modifiers: modifiers("$unset", name.to_owned(), json!(true)),
            order: NameOrder::Bytewise,
        }),
        (name(), values()).prop_map(|(name, value)| ChangeBody::ReplaceKeepingId(extended(&json!({name: value})))),
    ]
}

/// One step of one document's history, with the place it would take.
#[derive(Clone, Debug)]
enum Step {
    Put(Bytes),
    Delete,
    Change(ChangeBody, bool),
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => documents().prop_map(Step::Put),
        2 => Just(Step::Delete),
        5 => (bodies(), any::<bool>()).prop_map(|(body, upsert)| Step::Change(body, upsert)),
    ]
}

/// The record of one step, the `at`th of its collection.
fn record(step: &Step, capped: bool, at: u64) -> Record {
    let place = if capped { Place::Keep(at) } else { Place::None };
    match step {
        Step::Put(doc) => Record::Document {
            doc: doc.clone(),
            place,
        },
        Step::Delete => Record::Deleted,
        Step::Change(body, upsert) => {
            let upsert = upsert.then(|| extended(&json!({"_id": 1})));
            Record::Changes(vec![Change {
                body: body.clone(),
                upsert,
                place,
            }])
        }
    }
}

/// What a store that reads before every write would hold: the document and its place.
fn one_by_one(start: Option<(Bytes, u64)>, steps: &[Step], capped: bool, first: u64) -> Option<(Bytes, u64)> {
    let mut held = start;
    for (step, at) in steps.iter().zip(first..) {
        let place = if capped { at } else { 0 };
        held = match step {
            Step::Put(doc) => Some((doc.clone(), held.map_or(place, |(_, place)| place))),
            Step::Delete => None,
            Step::Change(body, upsert) => {
                let begun = upsert.then(|| (extended(&json!({"_id": 1})), place));
                held.or(begun).map(|(doc, place)| {
                    let change = Change {
                        body: body.clone(),
                        upsert: None,
                        place: Place::None,
                    };
                    (change.apply(&doc).unwrap(), place)
                })
            }
        };
    }
    held
}

fn compose(older: Record, newer: Record) -> Record {
    Record::compose(older, newer).unwrap()
}

/// Composes neighbours in the order the numbers say until one is left.
fn in_any_grouping(mut records: Vec<Record>, choices: &[usize]) -> Record {
    let mut choices = choices.iter().cycle();
    while records.len() > 1 {
        let at = choices.next().unwrap() % (records.len() - 1);
        let newer = records.remove(at + 1);
        let older = std::mem::replace(&mut records[at], Record::Deleted);
        records[at] = compose(older, newer);
    }
    records.remove(0)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn composition_is_associative(
        steps in prop::collection::vec(steps(), 3..9), cuts in (0..8usize, 0..8usize), capped: bool,
    ) {
        let all: Vec<_> = steps.iter().zip(1..).map(|(step, at)| record(step, capped, at)).collect();
        let first = 1 + cuts.0 % (all.len() - 2);
        let second = first + 1 + cuts.1 % (all.len() - first - 1);
        let whole = |part: &[Record]| part.iter().cloned().reduce(compose).unwrap();
        let (a, b, c) = (whole(&all[..first]), whole(&all[first..second]), whole(&all[second..]));
        let left = compose(compose(a.clone(), b.clone()), c.clone());
        prop_assert_eq!(left, compose(a, compose(b, c)));
    }

    #[test]
    fn composing_then_settling_equals_applying_one_by_one(
        base in prop::option::of(documents()),
        steps in prop::collection::vec(steps(), 1..10),
        choices in prop::collection::vec(any::<usize>(), 10),
        capped: bool,
    ) {
        let place = if capped { Place::Keep(1) } else { Place::None };
        let below = base.clone().map_or(Record::Deleted, |doc| Record::Document { doc, place });
        let mut records = vec![below];
        records.extend(steps.iter().zip(2..).map(|(step, at)| record(step, capped, at)));
        let expected = one_by_one(base.map(|doc| (doc, place.number())), &steps, capped, 2);
        let expected = expected.map_or(Settled::Absent, |(doc, place)| Settled::Document { doc, place });
        prop_assert_eq!(in_any_grouping(records, &choices).settle().unwrap(), expected);
    }

    #[test]
    fn a_record_comes_back_as_it_was_written(
        steps in prop::collection::vec(steps(), 1..6), capped: bool,
    ) {
        let records = steps.iter().zip(1..).map(|(step, at)| record(step, capped, at));
        let whole = records.reduce(compose).unwrap();
        let mut bytes = Vec::new();
        whole.encode(&mut bytes);
        prop_assert_eq!(Record::decode(&bytes).unwrap(), whole.clone());
        prop_assert_eq!(whole.clone().detached(), whole);
        for short in 0..bytes.len() {
            prop_assert!(Record::decode(&bytes[..short]).is_err());
        }
    }
}

#[test]
fn updates_of_a_document_never_seen_are_told_as_missing() {
    let change = |upsert: bool| Change {
        body: ChangeBody::V2(extended(&json!({"u": {"a": 1}}))),
        upsert: upsert.then(|| extended(&json!({"_id": 1}))),
        place: Place::None,
    };
    let missing = Record::Changes(vec![change(false), change(true)]);
    assert!(matches!(missing.settle(), Ok(Settled::Missing(changes)) if changes.len() == 2));
    let begun = Record::Changes(vec![change(true), change(false)]);
    let doc = extended(&json!({"_id": 1, "a": 1}));
    assert_eq!(begun.settle(), Ok(Settled::Document { doc, place: 0 }));
}
