//! Deployments.

use headwater_cluster::{Command, RefusalKind, Response, RestoreState, State, apply};
use headwater_model::{DataKeyId, Epoch, Incarnation, WrappedKey};

use crate::samples::*;

#[test]
fn adding_a_deployment_again_is_harmless_and_another_one_of_its_name_is_refused() {
    let mut state = State::default();
    done(&mut state, &add());
    let Command::AddDeployment {
        name,
        uri,
        snapshot_interval_s,
        key,
        ..
    } = add()
    else {
        panic!()
    };
    let later = Command::AddDeployment {
        name: name.clone(),
        uri,
        snapshot_interval_s,
        created_ms: 5,
        key: key.clone(),
    };
    assert_eq!(apply(&mut state, &later), Response::Done);
    assert_eq!(
        state.deployments[&name].created_ms, 1_795_343_068_000,
        "the first one counts"
    );
    let uri = "mongodb://elsewhere".to_owned();
    let other = Command::AddDeployment {
        name,
        uri,
        snapshot_interval_s,
        created_ms: 5,
        key,
    };
    assert_eq!(apply(&mut state, &other).refusal(), Some(RefusalKind::Conflict));
}

#[test]
fn removing_a_deployment_takes_all_that_is_its_own_and_fails_its_restores() {
    let mut state = full();
    done(&mut state, &Command::RemoveDeployment { name: deployment() });
    assert!(state.deployments.is_empty() && state.replica_sets.is_empty() && state.snapshots.is_empty());
    assert_eq!(state.restores[&1].state, RestoreState::Failed);
    assert!(state.restores[&1].error.as_ref().unwrap().contains("removed"));
}

#[test]
fn a_deployment_that_comes_back_counts_incarnations_and_epochs_on() {
    let mut state = routine();
    done(&mut state, &Command::RemoveDeployment { name: deployment() });
    done(&mut state, &add());
    let Response::Assigned { epoch, incarnation, .. } = done(&mut state, &register()) else {
        panic!()
    };
    assert_eq!((epoch, incarnation), (Epoch(2), Incarnation(2)));
}

#[test]
fn a_stopped_deployment_takes_no_agents() {
    let mut state = State::default();
    done(&mut state, &add());
    done(
        &mut state,
        &Command::SetDeploymentActive {
            name: deployment(),
            active: false,
        },
    );
    assert_eq!(apply(&mut state, &register()).refusal(), Some(RefusalKind::NotReady));
}

#[test]
fn whether_a_deployment_is_encrypted_is_decided_once_and_its_key_stays() {
    let mut state = State::default();
    done(&mut state, &add());
    let again = |key| {
        let mut command = add();
        if let Command::AddDeployment { key: own, .. } = &mut command {
            *own = key;
        }
        command
    };
    let other = WrappedKey {
        key: DataKeyId([8; 8]),
        ..wrapped(1)
    };
    done(&mut state, &again(Some(other.clone())));
    assert_eq!(
        state.deployments[&deployment()].key,
        Some(wrapped(1)),
        "the first one counts"
    );
    let plain = apply(&mut state, &again(None));
    assert_eq!(plain.refusal(), Some(RefusalKind::Conflict));
    for refused in [
        rewrap(3),
        Command::RewrapKey {
            name: deployment(),
            key: other,
        },
    ] {
        assert_eq!(apply(&mut state, &refused).refusal(), Some(RefusalKind::Conflict));
    }
    for _ in 0..2 {
        done(&mut state, &rewrap(2));
    }
    assert_eq!(state.deployments[&deployment()].key, Some(wrapped(2)));
}

#[test]
fn an_interval_of_zero_is_refused() {
    let mut state = registered();
    let zero = Command::SetSnapshotInterval {
        name: deployment(),
        seconds: 0,
    };
    assert_eq!(apply(&mut state, &zero).refusal(), Some(RefusalKind::Limit));
}
