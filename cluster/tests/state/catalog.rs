//! The catalog says what a recovery needs, and nothing that must not lie in a store.

use headwater_cluster::catalog::{Catalog, Change, Piece};
use headwater_cluster::{Command, NodeId, Response, State, apply, codec};
use headwater_model::{Epoch, limits};

use crate::samples::{self, begin, deployment, done, full, registered, set};

fn recover(piece: Piece) -> Command {
    Command::Recover { piece: Box::new(piece) }
}

fn first() -> Piece {
    Piece::Begin {
        recoveries: 3,
        last_epoch: Epoch(1000),
        last_restore: 7,
    }
}

/// A cluster that was just begun and took a catalog in.
fn recovered(catalog: &Catalog) -> State {
    let mut state = State::default();
    done(&mut state, &begin());
    let pieces = catalog.pieces.iter().cloned();
    for piece in std::iter::once(first()).chain(pieces).chain([Piece::End]) {
        let command = recover(piece);
        let bytes = codec::encode("command", &command).unwrap().len();
        assert!(bytes <= limits::COMMAND_MAX_BYTES, "{command:?}");
        done(&mut state, &command);
    }
    state
}

#[test]
fn what_is_taken_in_is_what_was_written() {
    let before = Catalog::of(&full());
    let state = recovered(&before);
    let after = Catalog::of(&state);
    assert_eq!(after.pieces, before.pieces);
    assert_eq!((after.recoveries, after.last_restore), (3, 7));
    assert_eq!(state.snapshots, full().snapshots);
    assert_eq!(state.retired, full().retired);
    assert_eq!(state.oplog_floors, full().oplog_floors);
    assert_eq!(state.grooms[&set()].condemned, full().grooms[&set()].condemned);
    assert_eq!(state.integrity[&set()].damage, full().integrity[&set()].damage);
    let record = &state.replica_sets[&set()];
    assert_eq!((record.node, record.epoch), (NodeId(1), Epoch(1001)));
    assert!(!state.recovering && state.keys.is_empty() && state.leases.is_empty());
}

#[test]
fn pieces_are_taken_in_between_begin_and_end_only_and_never_over_something_else() {
    let pieces = Catalog::of(&full()).pieces;
    let mut state = State::default();
    for piece in &pieces {
        assert!(apply(&mut state, &recover(piece.clone())).is_refused());
    }
    assert!(apply(&mut full(), &recover(first())).is_refused());
    let mut state = recovered(&Catalog::of(&full()));
    assert!(apply(&mut state, &recover(pieces[0].clone())).is_refused());
    assert!(apply(&mut state, &recover(first())).is_refused());
}

#[test]
fn a_password_is_not_in_the_catalog_and_is_given_again() {
    let mut state = State::default();
    let add = |uri: &str| Command::AddDeployment {
        name: deployment(),
        uri: uri.to_owned(),
        snapshot_interval_s: 3600,
        created_ms: 1,
        key: None,
    };
    let (uri, other) = (
        "mongodb://backup:secret@db:27017/?replicaSet=rs0",
        "mongodb://db2:27017",
    );
    done(&mut state, &add(uri));
    let catalog = Catalog::of(&state);
    assert!(!format!("{catalog:?}").contains("secret"));
    let mut state = recovered(&catalog);
    state.deployments.get_mut(&deployment()).unwrap().active = false;
    let active = Command::SetDeploymentActive {
        name: deployment(),
        active: true,
    };
    let refused = apply(&mut state, &active);
    assert!(
        format!("{refused:?}").contains("deployment add shop --uri"),
        "{refused:?}"
    );
    assert!(apply(&mut state, &add("mongodb://***@db")).is_refused());
    assert_eq!(done(&mut state, &add(uri)), Response::Done);
    assert!(state.deployments[&deployment()].active);
    assert_eq!(state.deployments[&deployment()].uri, uri);
    assert!(apply(&mut state, &add(other)).is_refused(), "one that is known stays");
}

#[test]
fn only_what_a_recovery_needs_is_a_change() {
    let before = Catalog::of(&full());
    let change = |command: &Command| {
        let mut state = full();
        done(&mut state, command);
        Catalog::of(&state).since(&before)
    };
    assert_eq!(Catalog::of(&full()).since(&before), Change::None);
    assert_eq!(change(&samples::grant("agent-1", 0)), Change::None);
    assert_eq!(change(&samples::restore(43)), Change::None);
    assert_eq!(change(&samples::start_node(3)), Change::None);
    assert_eq!(change(&samples::waypoint(260)), Change::Waypoints);
    assert_eq!(change(&samples::request("daily-9")), Change::Much);
    let keep = Command::UpdateSnapshot {
        set: set(),
        id: samples::snapshot("daily-1"),
        keep: true,
        expires_ms: None,
    };
    assert_eq!(change(&keep), Change::Much);
    assert_eq!(Catalog::of(&registered()).since(&before), Change::Much);
}
