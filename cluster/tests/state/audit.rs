//! The log of who did what.

use headwater_cluster::{RefusalKind, RestoreState, State, apply};
use headwater_model::limits;

use crate::samples::*;

fn outcome(state: &State) -> Option<&str> {
    state.audit.values().next_back()?.outcome.as_deref()
}

#[test]
fn a_deed_is_noted_once_and_gets_one_outcome() {
    let mut state = State::default();
    assert_eq!(
        apply(&mut state, &end_audit(7, None)).refusal(),
        Some(RefusalKind::NotFound)
    );
    for _ in 0..2 {
        done(&mut state, &begin_audit(7));
    }
    assert_eq!((state.audit.len(), outcome(&state)), (1, None));
    for _ in 0..2 {
        done(&mut state, &end_audit(7, None));
    }
    assert_eq!(outcome(&state), Some("restore 1 begun"));
    assert_eq!(state.audit[&1].deployment, Some(deployment()));
}

#[test]
fn how_a_restore_ends_is_the_outcome_of_the_deed_that_began_it() {
    for ended_first in [false, true] {
        let mut state = full();
        done(&mut state, &begin_audit(7));
        if !ended_first {
            done(&mut state, &end_audit(7, Some(1)));
        }
        done(&mut state, &progress(1, RestoreState::Finished));
        if ended_first {
            done(&mut state, &end_audit(7, Some(1)));
        }
        assert_eq!(outcome(&state), Some("restore 1 finished"), "{ended_first}");
    }
}

#[test]
fn the_oldest_go() {
    let mut state = State::default();
    for token in 0..limits::AUDIT_KEPT as u64 + 3 {
        done(&mut state, &begin_audit(token));
    }
    assert_eq!(state.audit.len(), limits::AUDIT_KEPT);
    assert_eq!(state.audit.keys().next(), Some(&4));
}
