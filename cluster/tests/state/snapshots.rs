//! Snapshots.

use headwater_cluster::{Command, RefusalKind, Response, apply};
use headwater_model::{Epoch, limits};

use crate::samples::*;

#[test]
fn a_snapshot_can_be_asked_for_once_the_sync_is_complete() {
    assert_eq!(apply(&mut registered(), &request("a")).refusal(), Some(RefusalKind::NotReady));
    done(&mut routine(), &request("a"));
}

#[test]
fn completing_twice_is_harmless_and_never_changes_what_a_snapshot_holds() {
    let mut state = routine();
    done(&mut state, &request("a"));
    done(&mut state, &complete("a"));
    let before = state.clone();
    assert_eq!(apply(&mut state, &complete("a")), Response::Done);
    let (id, epoch) = (snapshot("a"), Epoch(1));
    let other =
        Command::CompleteSnapshot { set: set(), id, epoch, image: image(300), stored_bytes: 1, completed_ms: 1 };
    assert_eq!(apply(&mut state, &other).refusal(), Some(RefusalKind::Conflict));
    assert_eq!(state, before);
}

#[test]
fn a_dropped_snapshot_cannot_be_completed() {
    let mut state = routine();
    done(&mut state, &request("a"));
    done(&mut state, &Command::DropSnapshot { set: set(), id: snapshot("a") });
    assert_eq!(apply(&mut state, &complete("a")).refusal(), Some(RefusalKind::NotFound));
}

#[test]
fn only_so_many_snapshots_wait_at_once() {
    let mut state = routine();
    for n in 0..limits::SNAPSHOTS_WAITING_PER_SET {
        done(&mut state, &request(&format!("s{n}")));
    }
    assert_eq!(apply(&mut state, &request("more")).refusal(), Some(RefusalKind::NotReady));
    done(&mut state, &complete("s0"));
    done(&mut state, &request("more"));
}
