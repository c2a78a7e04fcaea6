//! A sharded cluster, and the commands of its checkpoints.

use headwater_cluster::balancer::BalancerStep;
use headwater_cluster::checkpoints::MemberCut;
use headwater_cluster::sharding::{Member, Role};
use headwater_cluster::{Command, NodeId, Sharding, State};
use headwater_model::{Epoch, Incarnation, Phase, ReplicaSetId};

use crate::samples::{add, at, deployment, done, image, snapshot};

/// A cluster of these replica sets; the one without a shard's name are the config servers.
pub fn sharding(members: &[(&str, Option<&str>)]) -> Sharding {
    let member = |(set, shard): &(&str, Option<&str>)| {
        let member = Member {
            role: shard.map_or(Role::ConfigServers, |shard| Role::Shard(shard.to_owned())),
            hosts: vec![format!("{set}.example:27017")],
            removed: false,
        };
        ((*set).to_owned(), member)
    };
    Sharding {
        cluster: "5f".repeat(12),
        members: members.iter().map(member).collect(),
    }
}

pub fn set_sharding(members: &[(&str, Option<&str>)]) -> Command {
    Command::SetSharding {
        name: deployment(),
        found: sharding(members),
        interval_s: Some(900),
    }
}

pub fn open_checkpoint(id: &str, asked_ms: i64) -> Command {
    Command::OpenCheckpoint {
        name: deployment(),
        id: snapshot(id),
        reason: "schedule".to_owned(),
        asked_ms,
    }
}

pub fn member(set: &str) -> ReplicaSetId {
    ReplicaSetId::new(deployment(), set).unwrap()
}

pub fn note_checkpoint(id: &str, set: &str, epoch: u64, seconds: u32) -> Command {
    Command::NoteCheckpoint {
        set: member(set),
        id: snapshot(id),
        attempt: 0,
        epoch: Epoch(epoch),
        at: at(seconds).ts,
    }
}

pub fn fail_checkpoint(id: &str) -> Command {
    Command::FailCheckpoint {
        name: deployment(),
        id: snapshot(id),
        why: "too late".to_owned(),
    }
}

pub fn resume_checkpoint(id: &str, attempt: u32) -> Command {
    Command::ResumeCheckpoint {
        name: deployment(),
        id: snapshot(id),
        attempt,
    }
}

pub fn stop_balancer(stop: bool) -> Command {
    Command::SetStopBalancer {
        name: deployment(),
        stop,
    }
}

pub fn note_balancer(step: u64, outcome: BalancerStep) -> Command {
    Command::NoteBalancer {
        name: deployment(),
        step,
        outcome,
    }
}

/// One of each kind that concerns checkpoints that wait.
pub fn of_waiting_checkpoints() -> [Command; 3] {
    [
        resume_checkpoint("c1", 0),
        stop_balancer(true),
        note_balancer(0, BalancerStep::Found("full".to_owned())),
    ]
}

pub fn member_cut(seconds: u32, under_way: &[&str], completed_ms: i64) -> MemberCut {
    MemberCut {
        image: image(seconds),
        stored_bytes: 4096,
        under_way: under_way.iter().map(|text| (*text).to_owned()).collect(),
        completed_ms,
    }
}

pub fn cut_checkpoint(id: &str, set: &str, epoch: u64, seconds: u32) -> Command {
    Command::CutCheckpoint {
        set: member(set),
        id: snapshot(id),
        attempt: 0,
        epoch: Epoch(epoch),
        cut: member_cut(seconds, &[], 1_795_343_071_000),
    }
}

/// A cluster of config servers and a shard in routine operation, at epochs 1 and 2.
pub fn cluster() -> State {
    let mut state = State::default();
    done(&mut state, &add());
    done(&mut state, &set_sharding(&[("cfg", None), ("sh0", Some("sh0"))]));
    for (set, epoch) in [("cfg", 1), ("sh0", 2)] {
        join(&mut state, set, epoch);
    }
    state
}

/// A replica set comes to routine operation, with a waypoint at 100.
pub fn join(state: &mut State, set: &str, epoch: u64) {
    let register = Command::RegisterReplicaSet {
        set: member(set),
        node: NodeId(1),
        source_version: "6.0.5".to_owned(),
    };
    done(state, &register);
    let to = |phase| Command::SetPhase {
        set: member(set),
        incarnation: Incarnation(1),
        epoch: Epoch(epoch),
        phase,
    };
    let steps = [
        Phase::Transferring,
        Phase::Building,
        Phase::ApplyingOplog,
        Phase::Validating,
    ];
    steps.into_iter().for_each(|step| drop(done(state, &to(step))));
    let waypoint = Command::PublishWaypoint {
        set: member(set),
        epoch: Epoch(epoch),
        image: image(100),
    };
    done(state, &waypoint);
    done(state, &to(Phase::Complete));
}

/// The same with an open checkpoint of which all notes are known: its cut is at 150.
pub fn noted() -> State {
    let mut state = cluster();
    done(&mut state, &open_checkpoint("c1", 0));
    done(&mut state, &note_checkpoint("c1", "cfg", 1, 140));
    done(&mut state, &note_checkpoint("c1", "sh0", 2, 150));
    state
}
