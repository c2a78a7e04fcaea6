//! Keys.

use headwater_cluster::{Command, KeyRole, RefusalKind, Response, State, apply};

#[test]
fn a_key_is_let_in_once_with_one_role() {
    let mut state = State::default();
    let add = |role| Command::AddKey { hash: "ab".repeat(32), role };
    assert_eq!(apply(&mut state, &add(KeyRole::Agent)), Response::Done);
    assert_eq!(apply(&mut state, &add(KeyRole::Agent)), Response::Done);
    assert_eq!(apply(&mut state, &add(KeyRole::Admin)).refusal(), Some(RefusalKind::Conflict));
    let remove = Command::RemoveKey { hash: "ab".repeat(32) };
    assert_eq!(apply(&mut state, &remove), Response::Done);
    assert_eq!(apply(&mut state, &remove).refusal(), Some(RefusalKind::NotFound));
}

#[test]
fn a_key_itself_is_never_taken_for_its_hash() {
    let mut state = State::default();
    for wrong in ["", "secret", &"AB".repeat(32), &"ab".repeat(33), &"zz".repeat(32)] {
        let add = Command::AddKey { hash: wrong.to_owned(), role: KeyRole::Admin };
        assert_eq!(apply(&mut state, &add).refusal(), Some(RefusalKind::Limit), "{wrong}");
    }
    assert!(state.keys.is_empty());
}
