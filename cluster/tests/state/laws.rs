//! Laws that hold for every command in every state that commands can reach.

use std::collections::{BTreeMap, BTreeSet};

use headwater_cluster::command::{RestoreProgress, Use};
use headwater_cluster::integrity::CheckState;
use headwater_cluster::retention::Retention;
use headwater_cluster::timetable::ReferenceTime;
use headwater_cluster::{Command, NodeId, RefusalKind, RestoreState, State, apply};
use headwater_model::{DeploymentName, Epoch, Incarnation, Phase, ReplicaSetId};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::checkpoint_samples;
use crate::every_kind::{NAMES, every_kind};
use crate::samples::{self, at, image, snapshot};

#[test]
fn there_is_a_sample_of_every_kind() {
    let kinds: BTreeSet<&str> = every_kind().into_iter().map(|(name, _)| name).collect();
    assert_eq!(kinds, BTreeSet::from(NAMES));
}

#[test]
fn carried_out_twice_is_carried_out_once_and_a_refusal_changes_nothing() {
    for seed in 0..300 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut state = if seed % 2 == 0 {
            State::default()
        } else {
            samples::full()
        };
        for _ in 0..200 {
            let command = any(&mut rng);
            let before = state.clone();
            let response = apply(&mut state, &command);
            assert!(
                !response.is_refused() || state == before,
                "seed {seed}: {command:?} was refused and did something"
            );
            let once = state.clone();
            apply(&mut state, &command);
            assert_eq!(state, once, "seed {seed}: {command:?} does more when it comes twice");
            hold(&before, &state, seed);
        }
    }
}

#[test]
fn every_kind_of_command_succeeds_somewhere_and_is_refused_somewhere() {
    let (mut succeeded, mut refused) = (BTreeSet::new(), BTreeSet::new());
    for state in [
        State::default(),
        samples::registered(),
        samples::routine(),
        samples::full(),
        checkpoint_samples::noted(),
        samples::stopped(),
    ] {
        for (name, command) in every_kind() {
            match apply(&mut state.clone(), &command).is_refused() {
                true => refused.insert(name),
                false => succeeded.insert(name),
            };
        }
    }
    let add_key_only: BTreeSet<&str> = BTreeSet::from(["AddKey", "BeginAlert", "BeginAudit"]);
    assert_eq!(
        &BTreeSet::from(NAMES) - &refused,
        add_key_only,
        "these are refused for reasons of their own"
    );
    assert_eq!(
        &BTreeSet::from(NAMES) - &succeeded,
        BTreeSet::from(["RemoveKey"]),
        "it is tested with keys"
    );
}

#[test]
fn nothing_an_owner_may_say_is_accepted_from_a_former_one() {
    let mut kinds = BTreeSet::new();
    for state in [
        samples::registered(),
        samples::routine(),
        samples::full(),
        samples::stopped(),
    ] {
        let of_owners = every_kind()
            .into_iter()
            .filter(|(_, command)| format!("{command:?}").contains("epoch: Epoch(1)"));
        for (name, command) in of_owners.filter(|(_, command)| !apply(&mut state.clone(), command).is_refused()) {
            let mut overtaken = state.clone();
            let assign = Command::Assign {
                set: samples::set(),
                node: NodeId(2),
                expected: Epoch(1),
            };
            samples::done(&mut overtaken, &assign);
            let refusal = apply(&mut overtaken, &command).refusal();
            assert_eq!(refusal, Some(RefusalKind::Stale), "{name}");
            kinds.insert(name);
        }
    }
    assert_eq!(kinds.len(), 14, "{kinds:?}");
}

/// What no command may ever break.
fn hold(before: &State, after: &State, seed: u64) {
    assert!(
        after.last_epoch >= before.last_epoch && after.last_restore >= before.last_restore,
        "seed {seed}"
    );
    assert!(
        after.last_node >= before.last_node && after.nodes.keys().all(|id| id.0 <= after.last_node),
        "seed {seed}"
    );
    for id in after.nodes.keys().filter(|id| !before.nodes.contains_key(id)) {
        assert!(
            id.0 > before.last_node,
            "seed {seed}: node {id} came back under its old number"
        );
    }
    let epochs: BTreeSet<Epoch> = after.replica_sets.values().map(|known| known.epoch).collect();
    assert_eq!(
        epochs.len(),
        after.replica_sets.len(),
        "seed {seed}: an epoch was given twice"
    );
    assert!(epochs.iter().all(|epoch| *epoch <= after.last_epoch), "seed {seed}");
    for (set, known) in &after.replica_sets {
        assert!(
            after.deployments.contains_key(set.deployment()),
            "seed {seed}: {set} belongs to nothing"
        );
        assert!(
            known.phase != Phase::Complete || known.waypoint.is_some(),
            "seed {seed}: {set} could be lost"
        );
        if let Some(was) = before.replica_sets.get(set) {
            assert!(
                known.incarnation >= was.incarnation && known.epoch >= was.epoch,
                "seed {seed}: {set} went back"
            );
        }
    }
    for set in before
        .replica_sets
        .keys()
        .filter(|set| after.replica_sets.contains_key(set))
    {
        for ((of, incarnation), floor) in after.oplog_floors.iter().filter(|((of, _), _)| of == set) {
            let was = before.oplog_floors.get(&(of.clone(), *incarnation));
            assert!(
                was.is_none_or(|was| was <= floor),
                "seed {seed}: what was given up of {set} came back"
            );
        }
    }
    for ((set, id), snapshot) in &after.snapshots {
        assert!(
            after.replica_sets.contains_key(set),
            "seed {seed}: snapshot {id} belongs to nothing"
        );
        let was = before
            .snapshots
            .get(&(set.clone(), id.clone()))
            .and_then(|was| was.image.as_ref());
        assert!(
            was.is_none() || was == snapshot.image.as_ref(),
            "seed {seed}: a complete snapshot changed"
        );
    }
}

fn any(rng: &mut StdRng) -> Command {
    let name = DeploymentName::new(["shop", "blog"][rng.gen_range(0..2)]).unwrap();
    let set = ReplicaSetId::new(name.clone(), ["rs0", "rs1"][rng.gen_range(0..2)]).unwrap();
    let (incarnation, epoch) = (Incarnation(rng.gen_range(1..4)), Epoch(rng.gen_range(1..6)));
    let id = snapshot(["a", "b", "daily-1"][rng.gen_range(0..3)]);
    let seconds = rng.gen_range(50..300);
    let mut image = image(seconds);
    image.incarnation = incarnation;
    match rng.gen_range(0..33) {
        24..=29 => any_of_life(rng, name, set, epoch, incarnation),
        30 => any_of_integrity(rng),
        31 => any_of_alerts(rng),
        32 => Command::RewrapKey {
            name,
            key: samples::wrapped(rng.gen_range(1..4)),
        },
        20 => samples::add_node(rng.gen_range(1..4)),
        21 => samples::start_node(rng.gen_range(1..4)),
        22 => samples::grant(["a", "b"][rng.gen_range(0..2)], rng.gen_range(0..4)),
        23 => any_of_nodes(rng),
        0 => Command::AddDeployment {
            name,
            uri: "mongodb://a".to_owned(),
            snapshot_interval_s: rng.gen_range(59..62),
            created_ms: 1,
            key: rng.gen_bool(0.5).then(|| samples::wrapped(1)),
        },
        // Rarely, or little else would be left to look at.
        1 if rng.gen_bool(0.1) => Command::RemoveDeployment { name },
        1 | 2 => Command::SetDeploymentActive {
            name,
            active: rng.gen_bool(0.8),
        },
        3 => Command::SetSnapshotInterval {
            name,
            seconds: rng.gen_range(59..62),
        },
        4 => Command::RegisterReplicaSet {
            set,
            node: NodeId(rng.gen_range(1..4)),
            source_version: "6.0.5".to_owned(),
        },
        5 => Command::Assign {
            set,
            node: NodeId(rng.gen_range(1..4)),
            expected: epoch,
        },
        6 if rng.gen_bool(0.2) => Command::StartIncarnation {
            set,
            expected: incarnation,
        },
        6..=8 => Command::SetPhase {
            set,
            incarnation,
            epoch,
            phase: Phase::ALL[rng.gen_range(0..7)],
        },
        9 => Command::SetSyncStop {
            set,
            incarnation,
            stop: at(seconds),
        },
        10 => Command::SetConsistentFrom {
            set,
            incarnation,
            epoch,
            from: at(seconds),
        },
        11 => Command::PublishWaypoint { set, epoch, image },
        12 => Command::SetProblem {
            set,
            incarnation,
            problem: rng.gen_bool(0.5).then(|| "full".to_owned()),
        },
        13 => Command::RequestSnapshot {
            set,
            id,
            incarnation,
            reason: "demand".to_owned(),
            asked_ms: 1,
        },
        14 => Command::CompleteSnapshot {
            set,
            id,
            epoch,
            image,
            stored_bytes: 1,
            completed_ms: 2,
        },
        15 => Command::DropSnapshot { set, id },
        16 => Command::ScheduleSnapshot {
            set,
            next_ms: rng.gen_bool(0.5).then_some(5),
        },
        17 => Command::CreateRestore {
            token: rng.gen_range(0..50),
            uses: match rng.gen_bool(0.5) {
                true => BTreeMap::from([(
                    set.clone(),
                    Use {
                        image,
                        until: at(seconds).ts,
                    },
                )]),
                false => BTreeMap::new(),
            },
            set,
            request_json: "{}".to_owned(),
            created_ms: 1,
        },
        18 if rng.gen_bool(0.2) => Command::CancelRestore {
            id: rng.gen_range(0..5),
        },
        18 => Command::UpdateRestore {
            id: rng.gen_range(0..5),
            epoch,
            progress: any_progress(rng),
        },
        _ => match rng.gen_bool(0.5) {
            true => samples::add_key(["ab", "cd"][rng.gen_range(0..2)]),
            false => Command::RemoveKey { id: "ab".to_owned() },
        },
    }
}

fn any_of_integrity(rng: &mut StdRng) -> Command {
    let object = ["p", "q"][rng.gen_range(0..2)];
    match rng.gen_range(0..4) {
        0 => samples::ask_check(rng.gen_range(0..20)),
        1 => samples::update_check(
            rng.gen_range(0..9),
            [CheckState::Running, CheckState::Finished][rng.gen_range(0..2)],
        ),
        2 => samples::note_damage(object),
        _ => Command::ClearDamage {
            set: samples::set(),
            epoch: Epoch(1),
            object: object.to_owned(),
        },
    }
}

fn any_of_alerts(rng: &mut StdRng) -> Command {
    let id = ["a", "b"][rng.gen_range(0..2)];
    match rng.gen_range(0..3) {
        0 => samples::begin_alert(id),
        1 => Command::EndAlert {
            id: id.to_owned(),
            ended_ms: rng.gen_range(0..9),
        },
        _ => Command::AlertTold {
            id: id.to_owned(),
            begun_ms: 1_795_343_100_000,
            end: rng.gen_bool(0.5),
            failure: rng.gen_bool(0.5).then(|| "it answered 500".to_owned()),
        },
    }
}

fn any_of_life(
    rng: &mut StdRng,
    name: DeploymentName,
    set: ReplicaSetId,
    epoch: Epoch,
    incarnation: Incarnation,
) -> Command {
    let id = snapshot(["a", "b", "daily-1"][rng.gen_range(0..3)]);
    let now_ms = [0, 250_000, samples::LATER_MS][rng.gen_range(0..3)];
    let packs = vec![["p1", "p2", ""][rng.gen_range(0..3)].to_owned()];
    match rng.gen_range(0..8) {
        0 => Command::SetSchedule {
            name,
            interval_s: rng.gen_range(59..62),
            reference: ReferenceTime {
                minute: rng.gen_range(0..1500),
                offset_minutes: 0,
            },
            retention: Retention {
                snapshot_retention_days: rng.gen_range(0..2),
                point_in_time_window_hours: rng.gen_range(0..2),
                ..Retention::default()
            },
            now_ms,
        },
        1 => Command::UpdateSnapshot {
            set,
            id,
            keep: rng.gen_bool(0.3),
            expires_ms: rng.gen_bool(0.5).then_some(7),
        },
        2 => Command::ExpireSnapshot { set, id, epoch, now_ms },
        3 => Command::TrimOplog {
            set,
            incarnation,
            epoch,
            keep_after: at(rng.gen_range(50..300)),
            now_ms,
        },
        4 => Command::RequestGroom {
            set,
            dry_run: rng.gen_bool(0.5),
            asked_ms: now_ms,
        },
        5 => Command::CondemnPacks { set, epoch, packs },
        6 => Command::PacksRemoved { set, epoch, packs },
        _ => Command::NoteGroom {
            set,
            epoch,
            report: samples::report(),
        },
    }
}

fn any_of_nodes(rng: &mut StdRng) -> Command {
    let node = NodeId(rng.gen_range(1..4));
    match rng.gen_range(0..3) {
        0 => samples::begin(),
        1 => Command::SetDraining {
            node,
            draining: rng.gen_bool(0.5),
        },
        _ => Command::RemoveNode { node },
    }
}

fn any_progress(rng: &mut StdRng) -> RestoreProgress {
    let state = [RestoreState::Running, RestoreState::Finished, RestoreState::Failed][rng.gen_range(0..3)];
    RestoreProgress {
        state,
        step: "documents".to_owned(),
        done_documents: rng.gen_range(0..9),
        done_bytes: 1,
        total_bytes: 2,
        error: None,
        notes: Vec::new(),
        cursor_json: "{}".to_owned(),
    }
}
