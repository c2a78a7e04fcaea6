//! Keys.

use headwater_cluster::{Command, Key, RefusalKind, Response, State, apply};
use headwater_model::KeyRole;

use crate::samples;

fn with(change: impl FnOnce(&mut Key)) -> Command {
    let Command::AddKey { id, mut key } = samples::add_key("ab") else {
        unreachable!()
    };
    change(&mut key);
    Command::AddKey { id, key }
}

#[test]
fn a_key_is_let_in_once_as_it_is() {
    let mut state = State::default();
    assert_eq!(apply(&mut state, &with(|_| ())), Response::Done);
    assert_eq!(apply(&mut state, &with(|key| key.created_ms = 9)), Response::Done);
    assert_eq!(state.keys["ab"].created_ms, 1);
    let changes: [fn(&mut Key); 3] = [
        |key| key.role = KeyRole::Admin,
        |key| key.scope.clear(),
        |key| key.hash = "cd".repeat(32),
    ];
    for change in changes {
        assert_eq!(apply(&mut state, &with(change)).refusal(), Some(RefusalKind::Conflict));
    }
    let remove = Command::RemoveKey { id: "ab".to_owned() };
    assert_eq!(apply(&mut state, &remove), Response::Done);
    assert_eq!(apply(&mut state, &remove).refusal(), Some(RefusalKind::NotFound));
}

#[test]
fn two_keys_never_have_one_name() {
    let mut state = State::default();
    samples::done(&mut state, &samples::add_key("ab"));
    let Command::AddKey { key, .. } = with(|key| key.hash = "cd".repeat(32)) else {
        unreachable!()
    };
    let id = "cd".to_owned();
    assert_eq!(
        apply(&mut state, &Command::AddKey { id, key }).refusal(),
        Some(RefusalKind::Conflict)
    );
}

#[test]
fn a_key_itself_is_never_taken_for_its_hash_or_its_id() {
    let mut state = State::default();
    for wrong in ["", "hw_ab_secret", &"AB".repeat(32), &"ab".repeat(33), &"zz".repeat(32)] {
        let by_hash = with(|key| wrong.clone_into(&mut key.hash));
        assert_eq!(
            apply(&mut state, &by_hash).refusal(),
            Some(RefusalKind::Limit),
            "{wrong}"
        );
        let Command::AddKey { key, .. } = with(|_| ()) else {
            unreachable!()
        };
        let by_id = Command::AddKey {
            id: wrong.to_owned(),
            key,
        };
        assert_eq!(apply(&mut state, &by_id).refusal(), Some(RefusalKind::Limit), "{wrong}");
    }
    assert!(state.keys.is_empty());
}
