//! Placement: who should own what.

use std::collections::BTreeMap;

use headwater_cluster::placement::{Patience, Sight, choose, plan};
use headwater_cluster::{Command, NodeId, State};
use headwater_model::{Epoch, Phase};

use crate::samples::done;

const PATIENCE: Patience = Patience {
    lost_ms: 2000,
    steady_ms: 30_000,
};

/// Three nodes that own so many replica sets, one deployment each, all in routine operation.
fn owning(counts: [usize; 3]) -> State {
    let mut state = State::default();
    let nodes = (1..=3).map(|id| (NodeId(id), format!("node-{id}:1"))).collect();
    let cluster = "c".to_owned();
    done(&mut state, &Command::BeginCluster { cluster, nodes });
    for (node, count) in (1..).zip(counts) {
        for n in 0..count {
            let name: headwater_model::DeploymentName = format!("d{node}-{n}").parse().unwrap();
            let add = Command::AddDeployment {
                name: name.clone(),
                uri: "mongodb://a".to_owned(),
                snapshot_interval_s: 60,
                created_ms: 1,
                key: None,
            };
            done(&mut state, &add);
            let register = Command::RegisterReplicaSet {
                set: format!("{name}/rs0").parse().unwrap(),
                node: NodeId(node),
                source_version: "6.0.5".to_owned(),
            };
            done(&mut state, &register);
        }
    }
    state
        .replica_sets
        .values_mut()
        .for_each(|set| set.phase = Phase::Complete);
    state
}

fn all_well() -> BTreeMap<NodeId, Sight> {
    let well = Sight {
        steady_ms: 60_000,
        ..Sight::default()
    };
    (1..=3).map(|id| (NodeId(id), well)).collect()
}

/// How many each would own after the plan.
fn after(state: &State, sights: &BTreeMap<NodeId, Sight>) -> ([usize; 3], usize) {
    let moves = plan(state, sights, PATIENCE);
    let mut state = state.clone();
    moves.iter().for_each(|command| drop(done(&mut state, command)));
    let owned = |id| state.replica_sets.values().filter(|set| set.node == NodeId(id)).count();
    ([owned(1), owned(2), owned(3)], moves.len())
}

fn with(id: u64, change: impl Fn(&mut Sight)) -> BTreeMap<NodeId, Sight> {
    let mut sights = all_well();
    change(sights.get_mut(&NodeId(id)).unwrap());
    sights
}

#[test]
fn everything_stays_while_all_is_well() {
    for counts in [[0, 0, 0], [1, 0, 0], [2, 1, 1], [3, 3, 3]] {
        assert_eq!(after(&owning(counts), &all_well()), (counts, 0));
    }
}

#[test]
fn what_a_lost_a_leaving_or_a_drained_node_owns_is_spread_over_the_others() {
    let silent = with(1, |sight| sight.silent_ms = 2000);
    let leaving = with(1, |sight| sight.leaving = true);
    for sights in [&silent, &leaving] {
        assert_eq!(after(&owning([4, 1, 0]), sights), ([0, 3, 2], 4));
    }
    assert_eq!(after(&owning([4, 1, 0]), &with(1, |sight| sight.silent_ms = 1999)).1, 1);
    let mut drained = owning([2, 0, 0]);
    let command = Command::SetDraining {
        node: NodeId(1),
        draining: true,
    };
    done(&mut drained, &command);
    assert_eq!(after(&drained, &all_well()), ([0, 1, 1], 2));
}

#[test]
fn what_a_removed_node_owned_is_spread_too() {
    let mut state = owning([1, 0, 1]);
    done(&mut state, &Command::RemoveNode { node: NodeId(3) });
    assert_eq!(after(&state, &all_well()), ([1, 1, 0], 1));
}

#[test]
fn with_nobody_to_go_to_everything_stays() {
    let mut sights = all_well();
    sights.values_mut().for_each(|sight| sight.silent_ms = 9000);
    assert_eq!(after(&owning([2, 1, 0]), &sights), ([2, 1, 0], 0));
    assert_eq!(choose(&owning([0, 0, 0]), &sights, PATIENCE), None);
}

#[test]
fn balance_moves_one_at_a_time_to_a_node_that_is_steady() {
    assert_eq!(after(&owning([3, 1, 0]), &all_well()), ([2, 1, 1], 1));
    assert_eq!(after(&owning([2, 2, 1]), &all_well()).1, 0);
    assert_eq!(after(&owning([3, 2, 0]), &with(3, |sight| sight.steady_ms = 100)).1, 0);
}

#[test]
fn a_first_copy_is_not_moved_for_the_sake_of_balance() {
    let mut state = owning([3, 0, 0]);
    state
        .replica_sets
        .values_mut()
        .for_each(|set| set.phase = Phase::Building);
    assert_eq!(after(&state, &all_well()).1, 0);
}

#[test]
fn a_new_replica_set_goes_to_whoever_has_the_least() {
    assert_eq!(choose(&owning([1, 2, 0]), &all_well(), PATIENCE), Some(NodeId(3)));
    assert_eq!(choose(&owning([1, 1, 1]), &all_well(), PATIENCE), Some(NodeId(1)));
}

#[test]
fn a_move_names_the_epoch_it_ends() {
    let moves = plan(&owning([1, 0, 0]), &with(1, |sight| sight.silent_ms = 5000), PATIENCE);
    assert!(matches!(
        &moves[..],
        [Command::Assign {
            node: NodeId(2),
            expected: Epoch(1),
            ..
        }]
    ));
}
