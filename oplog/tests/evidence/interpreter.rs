//! The interpreter beside the captures: what is refused, what is held, what is let go.

use bytes::Bytes;
use headwater_model::{Optime, Ts};
use headwater_oplog::diff::DiffFault;
use headwater_oplog::{Effect, EntryFault, EntryProblem, Interpreter};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::vectors::{extended, histories};

fn interpreter() -> Interpreter {
    Interpreter::new("6.0.5".parse().unwrap())
}

fn envelope(at: u32, term: i64, rest: Value) -> Bytes {
    let uuid = json!({"$binary": {"base64": "rxIZCCncSeKWEinS+3ljXg==", "subType": "04"}});
    let mut entry = json!({"ns": "db.c", "ui": uuid, "ts": {"$timestamp": {"t": 1, "i": at}}, "t": {"$numberLong": term.to_string()}});
    rest.as_object()
        .unwrap()
        .iter()
        .for_each(|(name, value)| entry[name] = value.clone());
    extended(&entry)
}

fn insert(id: i32) -> Value {
    let uuid = json!({"$binary": {"base64": "rxIZCCncSeKWEinS+3ljXg==", "subType": "04"}});
    json!({"op": "i", "ns": "db.c", "ui": uuid, "o": {"_id": id}})
}

/// A part of transaction 1 of session `s`.
fn part(at: u32, term: i64, previous: u32, o: Value) -> Bytes {
    let previous =
        json!({"ts": {"$timestamp": {"t": u32::from(previous > 0), "i": previous}}, "t": {"$numberLong": "1"}});
    envelope(
        at,
        term,
        json!({"op": "c", "o": o, "lsid": {"id": "s"}, "txnNumber": {"$numberLong": "1"}, "prevOpTime": previous}),
    )
}

fn run(interpreter: &mut Interpreter, entry: &Bytes) -> Result<Vec<Effect>, EntryFault> {
    let mut effects = Vec::new();
    let done = interpreter.interpret(entry, &mut effects);
    assert!(done.is_ok() || effects.is_empty(), "a fault leaves nothing behind");
    done.map(|_| effects)
}

fn at(ordinal: u32) -> Optime {
    Optime::new(Ts::new(1, ordinal), 1)
}

#[test]
fn what_is_not_known_stops_the_stream_at_that_entry() {
    let command = run(
        &mut interpreter(),
        &envelope(7, 1, json!({"op": "c", "o": {"fly": "c"}})),
    );
    assert_eq!(
        command,
        Err(EntryFault {
            at: at(7),
            what: EntryProblem::UnknownCommand("fly".into())
        })
    );
    let operation = run(&mut interpreter(), &envelope(7, 1, json!({"op": "x", "o": {}})));
    assert_eq!(
        operation,
        Err(EntryFault {
            at: at(7),
            what: EntryProblem::UnknownOperation
        })
    );
    let import = run(
        &mut interpreter(),
        &envelope(7, 1, json!({"op": "c", "o": {"importCollection": "db.c"}})),
    );
    assert!(matches!(
        import,
        Err(EntryFault {
            what: EntryProblem::OutsideData(_),
            ..
        })
    ));
    let commit = run(&mut interpreter(), &part(7, 1, 6, json!({"commitTransaction": 1})));
    assert_eq!(
        commit,
        Err(EntryFault {
            at: at(7),
            what: EntryProblem::UnknownTransaction
        })
    );
    let unreadable = run(&mut interpreter(), &Bytes::from_static(b"no bson"));
    assert_eq!(unreadable.map_err(|fault| fault.at), Err(Optime::ZERO));
}

#[test]
fn an_apply_ops_that_fails_half_way_has_no_effect_at_all() {
    let push = json!({"op": "u", "ui": insert(1)["ui"], "o2": {"_id": 1}, "o": {"$push": {"a": 1}}});
    let entry = envelope(7, 1, json!({"op": "c", "o": {"applyOps": [insert(1), push]}}));
    let mut effects = Vec::new();
    let fault = interpreter().interpret(&entry, &mut effects).unwrap_err();
    assert_eq!(fault.what, EntryProblem::Update(DiffFault::NotReplayable));
    assert_eq!(effects, []);
}

#[test]
fn a_chain_takes_effect_with_its_last_entry() {
    let mut interpreter = interpreter();
    let first = part(1, 1, 0, json!({"applyOps": [insert(1)], "partialTxn": true}));
    assert_eq!(run(&mut interpreter, &first), Ok(vec![]));
    assert_eq!(
        (interpreter.oldest_open(), interpreter.open_entries()),
        (Some(at(1)), vec![first])
    );
    let last = part(2, 1, 1, json!({"applyOps": [insert(2)], "count": 2}));
    assert_eq!(run(&mut interpreter, &last).map(|effects| effects.len()), Ok(2));
    assert_eq!((interpreter.oldest_open(), interpreter.open_entries()), (None, vec![]));
}

#[test]
fn a_prepared_transaction_outlives_an_election_and_a_cut_chain_does_not() {
    let mut interpreter = interpreter();
    let elected = |at| envelope(at, 2, json!({"op": "n", "ns": "", "o": {"msg": "new primary"}}));
    run(
        &mut interpreter,
        &part(1, 1, 0, json!({"applyOps": [insert(1)], "partialTxn": true})),
    )
    .unwrap();
    run(&mut interpreter, &elected(2)).unwrap();
    assert_eq!(interpreter.oldest_open(), None);

    let mut interpreter = self::interpreter();
    run(
        &mut interpreter,
        &part(1, 1, 0, json!({"applyOps": [insert(1)], "prepare": true})),
    )
    .unwrap();
    run(&mut interpreter, &elected(2)).unwrap();
    let commit = part(3, 2, 1, json!({"commitTransaction": 1}));
    assert_eq!(run(&mut interpreter, &commit).map(|effects| effects.len()), Ok(1));
    assert_eq!(interpreter.oldest_open(), None);
}

#[test]
fn of_remembered_entries_only_transactions_that_commit_later_matter() {
    let mut interpreter = interpreter();
    interpreter.remember(&envelope(1, 1, insert(9))).unwrap();
    interpreter
        .remember(&part(2, 1, 0, json!({"applyOps": [insert(1)], "prepare": true})))
        .unwrap();
    assert_eq!(interpreter.oldest_open(), Some(at(2)));
    let mut committed = interpreter.clone();
    let commit = part(3, 1, 2, json!({"commitTransaction": 1}));
    assert_eq!(run(&mut committed, &commit).map(|effects| effects.len()), Ok(1));
    interpreter.remember(&commit).unwrap();
    assert_eq!(interpreter.oldest_open(), None);
}

#[test]
fn the_middle_of_a_chain_may_be_remembered_but_not_committed() {
    let mut interpreter = interpreter();
    interpreter
        .remember(&part(5, 1, 4, json!({"applyOps": [insert(1)], "partialTxn": true})))
        .unwrap();
    let last = part(6, 1, 5, json!({"applyOps": [insert(2)], "count": 3}));
    assert_eq!(
        run(&mut interpreter, &last).map_err(|fault| fault.what),
        Err(EntryProblem::UnknownTransaction)
    );
}

#[test]
fn inner_updates_are_upserts_only_outside_transactions_and_unless_said_otherwise() {
    let update = |b: Option<bool>| {
        let mut update = json!({"op": "u", "ui": insert(1)["ui"], "o2": {"k": 3, "_id": 1}, "o": {"$v": 2, "diff": {"u": {"a": 1}}}});
        b.into_iter().for_each(|b| update["b"] = b.into());
        update
    };
    let upsert = |entry: Bytes| match &run(&mut interpreter(), &entry).unwrap()[..] {
        [Effect::Change { change, .. }] => change.upsert.clone(),
        other => panic!("{other:?}"),
    };
    let alone = |b| envelope(1, 1, json!({"op": "c", "o": {"applyOps": [update(b)], "$db": "admin"}}));
    let start = Some(extended(&json!({"_id": 1})));
    assert_eq!(upsert(alone(None)), start);
    assert_eq!(upsert(alone(Some(false))), None);
    let never = envelope(
        1,
        1,
        json!({"op": "c", "o": {"applyOps": [update(None)], "alwaysUpsert": false}}),
    );
    assert_eq!(upsert(never), None);
    assert_eq!(upsert(part(1, 1, 0, json!({"applyOps": [update(None)]}))), None);
}

#[test]
fn vectored_inserts_of_newer_servers_do_not_wait_for_an_end() {
    let mut entry = json!({"op": "c", "o": {"applyOps": [insert(1)]}, "lsid": {"id": "s"}, "multiOpType": 1});
    entry["txnNumber"] = json!({"$numberLong": "1"});
    entry["prevOpTime"] = json!({"ts": {"$timestamp": {"t": 1, "i": 3}}, "t": {"$numberLong": "1"}});
    assert_eq!(
        run(&mut interpreter(), &envelope(4, 1, entry)).map(|effects| effects.len()),
        Ok(1)
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_damage_to_an_entry_makes_the_interpreter_panic(
        which in any::<prop::sample::Index>(), hits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        thread_local! {
            static ENTRIES: Vec<Bytes> = histories("6.0.5.jsonl").into_iter().flat_map(|history| history.oplog).collect();
        }
        let mut entry = ENTRIES.with(|entries| entries[which.index(entries.len())].to_vec());
        for (at, byte) in hits {
            let at = at.index(entry.len());
            entry[at] = byte;
        }
        let entry = Bytes::from(entry);
        let _ = headwater_oplog::validate::document(&entry);
        let _ = run(&mut interpreter(), &entry);
        let _ = interpreter().remember(&entry);
    }
}
