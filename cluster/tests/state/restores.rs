//! Restores.

use std::collections::BTreeMap;

use headwater_cluster::{Command, NodeId, RefusalKind, Response, RestoreState, apply};
use headwater_model::{Epoch, limits};

use crate::samples::*;

#[test]
fn a_restore_asked_for_twice_with_one_token_is_one_restore() {
    let mut state = routine();
    assert_eq!(done(&mut state, &restore(42)), Response::RestoreCreated { id: 1 });
    assert_eq!(done(&mut state, &restore(42)), Response::RestoreCreated { id: 1 });
    assert_eq!(done(&mut state, &restore(43)), Response::RestoreCreated { id: 2 });
    let set = "shop/rs0".parse().unwrap();
    let other = Command::CreateRestore {
        token: 42,
        set,
        request_json: "{}".to_owned(),
        created_ms: 0,
        uses: BTreeMap::new(),
    };
    assert_eq!(apply(&mut state, &other).refusal(), Some(RefusalKind::Conflict));
}

#[test]
fn an_ended_restore_stays_as_it_is() {
    let mut state = routine();
    done(&mut state, &restore(42));
    done(&mut state, &progress(1, RestoreState::Running));
    assert!(!state.restores[&1].cursor_json.is_empty());
    done(&mut state, &progress(1, RestoreState::Finished));
    assert!(state.restores[&1].cursor_json.is_empty(), "nobody goes on with it");
    assert_eq!(
        apply(&mut state, &progress(1, RestoreState::Running)).refusal(),
        Some(RefusalKind::OutOfOrder)
    );
    assert_eq!(
        apply(&mut state, &progress(1, RestoreState::Failed)).refusal(),
        Some(RefusalKind::OutOfOrder)
    );
    assert_eq!(apply(&mut state, &progress(1, RestoreState::Finished)), Response::Done);
}

#[test]
fn a_former_owner_cannot_report_on_a_restore() {
    let mut state = routine();
    done(&mut state, &restore(42));
    done(
        &mut state,
        &Command::Assign {
            set: set(),
            node: NodeId(2),
            expected: Epoch(1),
        },
    );
    assert_eq!(
        apply(&mut state, &progress(1, RestoreState::Finished)).refusal(),
        Some(RefusalKind::Stale)
    );
}

#[test]
fn running_restores_are_limited_and_old_ended_ones_are_forgotten() {
    let mut state = routine();
    for token in 0..limits::RESTORES_RUNNING_MAX as u64 {
        done(&mut state, &restore(token));
    }
    assert_eq!(apply(&mut state, &restore(9999)).refusal(), Some(RefusalKind::NotReady));
    for id in 2..=limits::RESTORES_RUNNING_MAX as u64 {
        done(&mut state, &progress(id, RestoreState::Finished));
    }
    for token in 10_000..10_000 + limits::RESTORES_KEPT as u64 {
        let Response::RestoreCreated { id } = done(&mut state, &restore(token)) else {
            panic!()
        };
        done(&mut state, &progress(id, RestoreState::Failed));
    }
    assert_eq!(state.restores.len(), limits::RESTORES_KEPT);
    assert_eq!(
        state.restores[&1].state,
        RestoreState::Running,
        "a running one is never forgotten"
    );
}
