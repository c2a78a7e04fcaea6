//! Checks and damage in the control state.

use headwater_cluster::integrity::{Check, CheckState};
use headwater_cluster::{Command, Response, State, apply};
use headwater_model::{Incarnation, limits};

use crate::samples::{
    ask_check, at, complete, deployment, done, full, note_damage, request, routine, set, snapshot, update_check,
};

fn checks(state: &State) -> Vec<(u64, Check)> {
    let known = state.integrity_of(&set()).unwrap();
    known.checks.iter().map(|(n, check)| (*n, check.clone())).collect()
}

#[test]
fn a_check_is_asked_for_once_and_its_end_stands() {
    let mut state = routine();
    for _ in 0..2 {
        assert_eq!(done(&mut state, &ask_check(5)), Response::CheckAsked { number: 1 });
    }
    done(&mut state, &update_check(1, CheckState::Running));
    done(&mut state, &update_check(1, CheckState::Finished));
    done(&mut state, &update_check(1, CheckState::Running));
    assert_eq!(checks(&state)[0].1.standing.state, CheckState::Finished);
    assert!(apply(&mut state, &update_check(2, CheckState::Running)).is_refused());
}

#[test]
fn only_so_many_checks_wait_and_are_remembered() {
    let mut state = routine();
    for token in 0..limits::CHECKS_WAITING_PER_SET as u64 {
        done(&mut state, &ask_check(token));
    }
    assert!(apply(&mut state, &ask_check(99)).is_refused());
    for number in 1..=limits::CHECKS_WAITING_PER_SET as u64 {
        done(&mut state, &update_check(number, CheckState::Finished));
    }
    let left: Vec<u64> = checks(&state).into_iter().map(|(number, _)| number).collect();
    assert_eq!(left, [4, 5, 6, 7, 8]);
}

#[test]
fn damage_names_snapshots_that_exist_and_those_that_come_from_a_damaged_head() {
    let mut state = full();
    let damaged = |state: &State, id: &str| state.damage_of(&set(), &snapshot(id)).is_some();
    assert!(damaged(&state, "daily-1") && !damaged(&state, "gone") && !damaged(&state, "daily-2"));
    assert!(state.damage_of_head(&set()).is_some());
    done(&mut state, &complete("daily-2"));
    assert!(damaged(&state, "daily-2"), "it was taken from a damaged head");
    let drop = |id| Command::DropSnapshot {
        set: set(),
        id: snapshot(id),
    };
    done(&mut state, &drop("daily-1"));
    assert!(!damaged(&state, "daily-1"));
    done(
        &mut state,
        &Command::ClearDamage {
            set: set(),
            epoch: headwater_model::Epoch(1),
            object: "p".to_owned(),
        },
    );
    assert!(!damaged(&state, "daily-2"));
    done(&mut state, &request("daily-3"));
    done(&mut state, &complete("daily-3"));
    assert!(!damaged(&state, "daily-3"));
}

#[test]
fn an_object_that_is_damaged_in_two_places_keeps_both() {
    let mut state = routine();
    let note = |from: u32, until: u32| {
        let mut command = note_damage("segment");
        if let Command::NoteDamage { damage, .. } = &mut command {
            damage.oplog = Some((Incarnation(1), at(from), at(until)));
        }
        command
    };
    for (from, until) in [(110, 120), (150, 160), (130, 140)] {
        done(&mut state, &note(from, until));
    }
    let known = state.integrity_of(&set()).unwrap();
    assert_eq!(known.damage["segment"].oplog, Some((Incarnation(1), at(110), at(160))));
}

#[test]
fn a_removed_deployment_leaves_nothing_behind() {
    let mut state = full();
    done(&mut state, &note_damage("q"));
    done(&mut state, &Command::RemoveDeployment { name: deployment() });
    assert!(state.integrity.is_empty());
}

#[test]
fn what_is_damaged_beyond_the_bound_is_known_together_and_no_snapshot_of_it_is_forgotten() {
    let mut state = routine();
    for n in 0..limits::DAMAGE_KEPT_PER_SET + 5 {
        done(&mut state, &note_damage(&format!("pack {n}")));
    }
    let known = &state.integrity_of(&set()).unwrap().damage;
    assert_eq!(known.len(), limits::DAMAGE_KEPT_PER_SET);
    let of_one = known["pack 0"].blocks;
    assert_eq!(known["more objects"].blocks, 6 * of_one);
    assert_eq!(known["more objects"].snapshots, known["pack 0"].snapshots);
}

#[test]
fn of_a_pack_that_is_gone_nothing_is_damaged() {
    let mut state = routine();
    done(&mut state, &note_damage("p"));
    done(&mut state, &note_damage("q"));
    let gone = Command::PacksRemoved {
        set: set(),
        epoch: state.replica_sets[&set()].epoch,
        packs: vec!["p".to_owned()],
    };
    done(&mut state, &gone);
    let known = &state.integrity_of(&set()).unwrap().damage;
    assert_eq!(known.keys().collect::<Vec<_>>(), ["q"]);
}
