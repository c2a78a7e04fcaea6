//! Replica sets: who may say what, and when.

use headwater_cluster::{Command, NodeId, RefusalKind, Response, apply};
use headwater_model::{Epoch, Incarnation, Phase, limits};

use crate::samples::*;

/// A state in which epoch 1 has ended: node 1 was replaced by node 2.
fn overtaken() -> headwater_cluster::State {
    let mut state = routine();
    let assign = Command::Assign {
        set: set(),
        node: NodeId(2),
        expected: Epoch(1),
    };
    let answer = done(&mut state, &assign);
    assert_eq!(
        answer,
        Response::Assigned {
            node: NodeId(2),
            epoch: Epoch(2),
            incarnation: Incarnation(1)
        }
    );
    state
}

#[test]
fn a_former_owner_cannot_publish_a_waypoint() {
    assert_eq!(
        apply(&mut overtaken(), &waypoint(200)).refusal(),
        Some(RefusalKind::Stale)
    );
}

#[test]
fn a_former_owner_cannot_complete_a_snapshot() {
    let mut state = overtaken();
    done(&mut state, &request("daily-1"));
    assert_eq!(
        apply(&mut state, &complete("daily-1")).refusal(),
        Some(RefusalKind::Stale)
    );
    assert!(state.snapshots[&(set(), snapshot("daily-1"))].image.is_none());
}

#[test]
fn a_former_owner_cannot_set_the_phase() {
    let mut state = registered();
    done(
        &mut state,
        &Command::Assign {
            set: set(),
            node: NodeId(1),
            expected: Epoch(1),
        },
    );
    assert_eq!(
        apply(&mut state, &phase(Phase::Transferring)).refusal(),
        Some(RefusalKind::Stale)
    );
}

#[test]
fn a_former_owner_cannot_say_where_images_are_consistent() {
    let say = Command::SetConsistentFrom {
        set: set(),
        incarnation: Incarnation(1),
        epoch: Epoch(1),
        from: at(300),
    };
    assert_eq!(apply(&mut overtaken(), &say).refusal(), Some(RefusalKind::Stale));
}

#[test]
fn two_takeovers_of_one_epoch_cannot_both_succeed() {
    let again = Command::Assign {
        set: set(),
        node: NodeId(3),
        expected: Epoch(1),
    };
    assert_eq!(apply(&mut overtaken(), &again).refusal(), Some(RefusalKind::Stale));
}

#[test]
fn what_belongs_to_an_ended_incarnation_is_refused() {
    let mut state = routine();
    done(
        &mut state,
        &Command::StartIncarnation {
            set: set(),
            expected: Incarnation(1),
        },
    );
    for late in [
        phase(Phase::Transferring),
        waypoint(200),
        request("daily-1"),
        Command::SetSyncStop {
            set: set(),
            incarnation: Incarnation(1),
            stop: at(1),
        },
        Command::SetProblem {
            set: set(),
            incarnation: Incarnation(1),
            problem: None,
        },
        Command::StartIncarnation {
            set: set(),
            expected: Incarnation(1),
        },
    ] {
        assert_eq!(apply(&mut state, &late).refusal(), Some(RefusalKind::Stale), "{late:?}");
    }
}

#[test]
fn a_new_incarnation_begins_anew_and_keeps_what_is_restorable() {
    let mut state = full();
    let answer = done(
        &mut state,
        &Command::StartIncarnation {
            set: set(),
            expected: Incarnation(1),
        },
    );
    assert_eq!(
        answer,
        Response::Assigned {
            node: NodeId(1),
            epoch: Epoch(1),
            incarnation: Incarnation(2)
        }
    );
    let known = &state.replica_sets[&set()];
    assert_eq!(
        (known.phase, &known.waypoint, known.sync_stop),
        (Phase::Starting, &None, None)
    );
    let left: Vec<_> = state.snapshots.keys().map(|(_, id)| id.as_str()).collect();
    assert_eq!(left, ["daily-0", "daily-1"], "complete ones stay, those asked for go");
}

#[test]
fn phases_follow_the_table() {
    let mut state = registered();
    assert_eq!(
        apply(&mut state, &phase(Phase::Complete)).refusal(),
        Some(RefusalKind::OutOfOrder)
    );
    done(&mut state, &phase(Phase::Transferring));
    done(&mut state, &phase(Phase::Transferring));
    assert_eq!(
        apply(&mut state, &phase(Phase::Starting)).refusal(),
        Some(RefusalKind::OutOfOrder)
    );
}

#[test]
fn a_late_end_of_the_transfer_takes_nothing_back() {
    let mut state = registered();
    for step in [
        Phase::Transferring,
        Phase::Building,
        Phase::ApplyingOplog,
        Phase::Validating,
    ] {
        done(&mut state, &phase(step));
        for late in [Phase::Transferring, Phase::Building] {
            let before = state.replica_sets[&set()].phase;
            if late < before {
                done(&mut state, &phase(late));
                assert_eq!(state.replica_sets[&set()].phase, before);
            }
        }
    }
    let refused = apply(&mut state, &phase(Phase::ApplyingOplog)).refusal();
    assert_eq!(refused, Some(RefusalKind::OutOfOrder));
}

#[test]
fn a_sync_is_not_complete_without_a_waypoint() {
    let mut state = registered();
    for step in [
        Phase::Transferring,
        Phase::Building,
        Phase::ApplyingOplog,
        Phase::Validating,
    ] {
        done(&mut state, &phase(step));
    }
    assert_eq!(
        apply(&mut state, &phase(Phase::Complete)).refusal(),
        Some(RefusalKind::OutOfOrder)
    );
    done(&mut state, &waypoint(100));
    done(&mut state, &phase(Phase::Complete));
}

/// Of two images at one position the one that came later was cut after the copy was checked; the other may come late or twice.
#[test]
fn once_the_copy_is_complete_a_waypoint_at_the_same_position_replaces_none() {
    let mut state = full();
    let mut late = waypoint(250);
    done(&mut state, &late);
    if let Command::PublishWaypoint { image, .. } = &mut late {
        image.name = format!("{}-late", image.name);
    }
    assert_eq!(apply(&mut state, &late).refusal(), Some(RefusalKind::OutOfOrder));
    done(&mut state, &waypoint(250));
}

#[test]
fn waypoints_and_consistency_never_go_back() {
    let mut state = full();
    assert_eq!(
        apply(&mut state, &waypoint(249)).refusal(),
        Some(RefusalKind::OutOfOrder)
    );
    done(&mut state, &waypoint(250));
    let say = |from| Command::SetConsistentFrom {
        set: set(),
        incarnation: Incarnation(1),
        epoch: Epoch(1),
        from,
    };
    assert_eq!(apply(&mut state, &say(at(80))).refusal(), Some(RefusalKind::OutOfOrder));
    done(&mut state, &say(at(95)));
}

#[test]
fn the_end_of_the_scan_is_fixed_once_building_begins() {
    let mut state = registered();
    let stop = |stop| Command::SetSyncStop {
        set: set(),
        incarnation: Incarnation(1),
        stop,
    };
    done(&mut state, &stop(at(10)));
    done(&mut state, &phase(Phase::Transferring));
    done(&mut state, &stop(at(11)));
    done(&mut state, &phase(Phase::Building));
    done(&mut state, &stop(at(11)));
    assert_eq!(
        apply(&mut state, &stop(at(12))).refusal(),
        Some(RefusalKind::OutOfOrder)
    );
}

#[test]
fn a_known_replica_set_keeps_its_owner_and_takes_its_new_version() {
    let mut state = overtaken();
    let upgraded = Command::RegisterReplicaSet {
        set: set(),
        node: NodeId(9),
        source_version: "7.0.2".to_owned(),
    };
    let answer = done(&mut state, &upgraded);
    assert_eq!(
        answer,
        Response::Assigned {
            node: NodeId(2),
            epoch: Epoch(2),
            incarnation: Incarnation(1)
        }
    );
    assert_eq!(state.replica_sets[&set()].source_version, "7.0.2");
}

#[test]
fn a_long_problem_is_cut_short() {
    let mut state = registered();
    let problem = Some("ü".repeat(limits::PROBLEM_MAX_BYTES));
    done(
        &mut state,
        &Command::SetProblem {
            set: set(),
            incarnation: Incarnation(1),
            problem,
        },
    );
    assert_eq!(
        state.replica_sets[&set()].problem.as_ref().unwrap().len(),
        limits::PROBLEM_MAX_BYTES
    );
}
