//! Restores.

use std::collections::BTreeMap;

use headwater_cluster::restores::kept_notes;
use headwater_cluster::{Command, NodeId, RefusalKind, Response, RestoreState, apply};
use headwater_model::{Epoch, limits};

use crate::samples::*;

#[test]
fn a_restore_asked_for_twice_with_one_token_is_one_restore() {
    let mut state = routine();
    assert_eq!(done(&mut state, &restore(42)), Response::RestoreCreated { id: 1 });
    assert_eq!(done(&mut state, &restore(42)), Response::RestoreCreated { id: 1 });
    assert_eq!(done(&mut state, &restore(43)), Response::RestoreCreated { id: 2 });
    let again = |set: &str| Command::CreateRestore {
        token: 42,
        set: set.parse().unwrap(),
        request_json: "{}".to_owned(),
        created_ms: 0,
        uses: BTreeMap::new(),
    };
    let before = state.restores.clone();
    let planned_anew = done(&mut state, &again("shop/rs0"));
    assert_eq!(planned_anew, Response::RestoreCreated { id: 1 });
    assert_eq!(state.restores, before, "the first plan stays");
    let other = apply(&mut state, &again("other/rs0"));
    assert_eq!(other.refusal(), Some(RefusalKind::Conflict));
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
fn a_restore_that_a_user_ended_is_over_whatever_its_owner_says() {
    let mut state = routine();
    done(&mut state, &restore(42));
    done(&mut state, &progress(1, RestoreState::Running));
    let cancel = Command::CancelRestore { id: 1 };
    for _ in 0..2 {
        assert_eq!(apply(&mut state, &cancel), Response::Done, "twice is once");
        assert_eq!(state.restores[&1].state, RestoreState::Cancelled);
    }
    assert!(state.restores[&1].cursor_json.is_empty(), "nobody goes on with it");
    for late in [RestoreState::Running, RestoreState::Finished, RestoreState::Failed] {
        assert_eq!(
            apply(&mut state, &progress(1, late)).refusal(),
            Some(RefusalKind::OutOfOrder)
        );
    }
    done(&mut state, &restore(43));
    done(&mut state, &progress(2, RestoreState::Finished));
    let too_late = apply(&mut state, &Command::CancelRestore { id: 2 });
    assert_eq!(too_late.refusal(), Some(RefusalKind::OutOfOrder));
    let unknown = apply(&mut state, &Command::CancelRestore { id: 3 });
    assert_eq!(unknown.refusal(), Some(RefusalKind::NotFound));
}

#[test]
fn what_a_restore_left_out_is_remembered_within_bounds() {
    let mut state = routine();
    done(&mut state, &restore(42));
    let notes: Vec<String> = (0..100).map(|n| format!("{n}: {}", "x".repeat(1000))).collect();
    let Command::UpdateRestore {
        id,
        epoch,
        mut progress,
    } = progress(1, RestoreState::Finished)
    else {
        panic!()
    };
    progress.notes = kept_notes(&notes);
    done(&mut state, &Command::UpdateRestore { id, epoch, progress });
    let kept = &state.restores[&1].notes;
    assert_eq!(kept.len(), limits::RESTORE_NOTES_KEPT + 1);
    assert_eq!(kept.last().map(String::as_str), Some("and 84 more"));
    assert!(kept.iter().all(|note| note.len() <= limits::RESTORE_NOTE_MAX_BYTES));
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
