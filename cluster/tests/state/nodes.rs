//! Nodes: numbers, starts, removal.

use headwater_cluster::{Command, NodeId, RefusalKind, Response, State, apply};
use headwater_model::Epoch;

use crate::samples::*;

fn begun() -> State {
    let mut state = registered();
    done(&mut state, &begin());
    state
}

#[test]
fn a_number_is_never_given_again() {
    let mut state = begun();
    let id = |answer| match answer {
        Response::NodeAdded { id } => id,
        other => panic!("{other:?}"),
    };
    assert_eq!(id(done(&mut state, &add_node(5))), NodeId(2));
    assert_eq!(id(done(&mut state, &add_node(5))), NodeId(2), "asked again");
    done(&mut state, &Command::RemoveNode { node: NodeId(2) });
    assert_eq!(id(done(&mut state, &add_node(5))), NodeId(3), "its disk was lost");
}

#[test]
fn a_start_fences_the_process_before_it() {
    let mut state = begun();
    assert_eq!(done(&mut state, &start_node(8)), Response::Started { floor: Epoch(1) });
    assert_eq!(state.replica_sets[&set()].epoch, Epoch(2));
    assert_eq!(
        done(&mut state, &start_node(8)),
        Response::Started { floor: Epoch(1) },
        "the same start again"
    );
    assert_eq!(state.replica_sets[&set()].epoch, Epoch(2));
    assert_eq!(done(&mut state, &start_node(9)), Response::Started { floor: Epoch(2) });
    assert_eq!(
        apply(&mut state, &phase(headwater_model::Phase::Transferring)).refusal(),
        Some(RefusalKind::Stale)
    );
}

#[test]
fn a_start_leaves_what_others_own_alone() {
    let mut state = begun();
    done(&mut state, &add_node(5));
    let start = Command::StartNode {
        node: NodeId(2),
        start: 4,
        address: "two:7480".to_owned(),
    };
    done(&mut state, &start);
    assert_eq!(state.replica_sets[&set()].epoch, Epoch(1));
    assert_eq!(state.nodes[&NodeId(2)].address, "two:7480");
}

#[test]
fn the_last_node_stays_and_one_that_was_removed_does_not_start_again() {
    let mut state = begun();
    let remove = |node| Command::RemoveNode { node: NodeId(node) };
    assert_eq!(apply(&mut state, &remove(1)).refusal(), Some(RefusalKind::Conflict));
    done(&mut state, &add_node(5));
    done(&mut state, &remove(1));
    assert_eq!(apply(&mut state, &start_node(8)).refusal(), Some(RefusalKind::NotFound));
}
