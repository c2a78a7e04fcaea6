//! A deployment to begin with, and commands.

use std::collections::BTreeMap;

use headwater_cluster::audit::AuditEntry;
use headwater_cluster::command::RestoreProgress;
use headwater_cluster::integrity::{CheckKind, CheckState, Damage, DamageKind, Standing};
use headwater_cluster::retention::Retention;
use headwater_cluster::timetable::ReferenceTime;
use headwater_cluster::{Command, GroomReport, ImageRef, Key, NodeId, Response, RestoreState, State, apply};
use headwater_model::{
    DataKeyId, DeploymentName, Epoch, Incarnation, KeyRole, MasterKeyId, Optime, Phase, ReplicaSetId, SnapshotId, Ts,
    WrappedKey,
};

pub fn deployment() -> DeploymentName {
    DeploymentName::new("shop").unwrap()
}

pub fn set() -> ReplicaSetId {
    "shop/rs0".parse().unwrap()
}

pub fn snapshot(id: &str) -> SnapshotId {
    SnapshotId::new(id).unwrap()
}

pub fn at(seconds: u32) -> Optime {
    Optime::new(Ts::new(seconds, 1), 7)
}

pub fn image(seconds: u32) -> ImageRef {
    ImageRef {
        name: format!("image-{seconds}"),
        incarnation: Incarnation(1),
        at: at(seconds),
        replay_from: at(seconds - 1),
        documents: 1000,
        collections: 3,
        logical_bytes: 1 << 20,
    }
}

pub fn add() -> Command {
    let uri = "mongodb://db.example:27017".to_owned();
    Command::AddDeployment {
        name: deployment(),
        uri,
        snapshot_interval_s: 21600,
        created_ms: 1_795_343_068_000,
        key: Some(wrapped(1)),
    }
}

pub fn begin_audit(token: u64) -> Command {
    Command::BeginAudit {
        entry: AuditEntry {
            token,
            at_ms: 1_795_343_068_000,
            who: "alice".to_owned(),
            key: "0a1b2c3d".to_owned(),
            what: "restore start".to_owned(),
            path: "/api/v1/deployments/shop/restores".to_owned(),
            deployment: Some(deployment()),
            restore: None,
            outcome: None,
        },
    }
}

pub fn end_audit(token: u64, restore: Option<u64>) -> Command {
    Command::EndAudit {
        token,
        deployment: None,
        restore,
        outcome: "restore 1 begun".to_owned(),
    }
}

/// `id` is two hexadecimal digits.
pub fn add_key(id: &str) -> Command {
    Command::AddKey {
        id: id.to_owned(),
        key: Key {
            name: format!("key-{id}").parse().unwrap(),
            role: KeyRole::Agent,
            scope: [deployment()].into(),
            hash: id.repeat(32),
            created_ms: 1,
        },
    }
}

pub fn wrapped(revision: u64) -> WrappedKey {
    WrappedKey {
        revision,
        key: DataKeyId([7; 8]),
        master: MasterKeyId::new(&format!("k{revision}")).unwrap(),
        sealed: "00ff".to_owned(),
    }
}

pub fn rewrap(revision: u64) -> Command {
    Command::RewrapKey {
        name: deployment(),
        key: wrapped(revision),
    }
}

pub fn register() -> Command {
    Command::RegisterReplicaSet {
        set: set(),
        node: NodeId(1),
        source_version: "6.0.5".to_owned(),
    }
}

pub fn phase(phase: Phase) -> Command {
    Command::SetPhase {
        set: set(),
        incarnation: Incarnation(1),
        epoch: Epoch(1),
        phase,
    }
}

pub fn waypoint(seconds: u32) -> Command {
    Command::PublishWaypoint {
        set: set(),
        epoch: Epoch(1),
        image: image(seconds),
    }
}

pub fn request(id: &str) -> Command {
    Command::RequestSnapshot {
        set: set(),
        id: snapshot(id),
        incarnation: Incarnation(1),
        reason: "demand".to_owned(),
        asked_ms: 1_795_343_070_000,
    }
}

pub fn complete(id: &str) -> Command {
    Command::CompleteSnapshot {
        set: set(),
        id: snapshot(id),
        epoch: Epoch(1),
        image: image(200),
        stored_bytes: 4096,
        completed_ms: 1_795_343_071_000,
    }
}

pub fn restore(token: u64) -> Command {
    Command::CreateRestore {
        token,
        set: set(),
        request_json: r#"{"at":"latest"}"#.to_owned(),
        created_ms: 1_795_343_072_000,
        uses: BTreeMap::new(),
    }
}

/// Everything by default, and no point-in-time window.
pub fn schedule() -> Command {
    Command::SetSchedule {
        name: deployment(),
        interval_s: 3600,
        reference: ReferenceTime {
            minute: 750,
            offset_minutes: 120,
        },
        retention: Retention {
            point_in_time_window_hours: 0,
            ..Retention::default()
        },
        now_ms: 1_795_343_072_000,
    }
}

pub fn complete_at(id: &str, seconds: u32) -> Command {
    Command::CompleteSnapshot {
        set: set(),
        id: snapshot(id),
        epoch: Epoch(1),
        image: image(seconds),
        stored_bytes: 4096,
        completed_ms: i64::from(seconds) * 1000,
    }
}

pub fn expire(id: &str, now_ms: i64) -> Command {
    Command::ExpireSnapshot {
        set: set(),
        id: snapshot(id),
        epoch: Epoch(1),
        now_ms,
    }
}

pub fn trim(keep_after: u32, now_ms: i64) -> Command {
    Command::TrimOplog {
        set: set(),
        incarnation: Incarnation(1),
        epoch: Epoch(1),
        keep_after: at(keep_after),
        now_ms,
    }
}

/// Long after everything.
pub const LATER_MS: i64 = 1_900_000_000_000;

pub fn progress(id: u64, state: RestoreState) -> Command {
    let progress = RestoreProgress {
        state,
        step: "documents".to_owned(),
        done_documents: 10,
        done_bytes: 1000,
        total_bytes: 100_000,
        error: (state == RestoreState::Failed).then(|| "the target is full".to_owned()),
        notes: vec!["the view shop.v was left out".to_owned()],
        cursor_json: r#"{"collection":2}"#.to_owned(),
    };
    Command::UpdateRestore {
        id,
        epoch: Epoch(1),
        progress,
    }
}

pub fn begin() -> Command {
    Command::BeginCluster {
        cluster: "c0ffee".to_owned(),
        nodes: [(NodeId(1), "one:7480".to_owned())].into(),
    }
}

pub fn add_node(token: u64) -> Command {
    Command::AddNode {
        token,
        address: format!("node-{token}:7480"),
    }
}

pub fn start_node(start: u64) -> Command {
    Command::StartNode {
        node: NodeId(1),
        start,
        address: "one:7481".to_owned(),
    }
}

pub fn grant(agent: &str, expected: u64) -> Command {
    Command::GrantLease {
        deployment: deployment(),
        agent: agent.to_owned(),
        expected,
    }
}

pub fn ask_check(token: u64) -> Command {
    Command::AskCheck {
        set: set(),
        token,
        kind: CheckKind::Data,
        snapshot: None,
        asked_ms: 1_795_343_080_000,
    }
}

pub fn update_check(number: u64, state: CheckState) -> Command {
    let standing = Standing {
        state,
        cursor_json: r#"{"packs_after":"p"}"#.to_owned(),
        faults: 1,
        findings: vec!["p: one of its blocks does not match its id".to_owned()],
        ended_ms: (state != CheckState::Running).then_some(1_795_343_090_000),
        ..Standing::default()
    };
    Command::UpdateCheck {
        set: set(),
        epoch: Epoch(1),
        number,
        standing,
    }
}

pub fn note_damage(object: &str) -> Command {
    Command::NoteDamage {
        set: set(),
        epoch: Epoch(1),
        object: object.to_owned(),
        damage: Damage {
            kind: DamageKind::Blocks,
            detail: "block ab does not match its id".to_owned(),
            found_ms: 1_795_343_081_000,
            blocks: 1,
            snapshots: [snapshot("daily-1"), snapshot("gone")].into(),
            head: true,
            oplog: Some((Incarnation(1), at(110), at(120))),
        },
    }
}

pub fn begin_alert(id: &str) -> Command {
    Command::BeginAlert {
        id: id.to_owned(),
        kind: "damage".to_owned(),
        subject: "shop/rs0".to_owned(),
        text: "1 damaged objects, first p".to_owned(),
        begun_ms: 1_795_343_100_000,
    }
}

pub fn report() -> GroomReport {
    GroomReport {
        asked_ms: Some(1_795_360_000_000),
        began_ms: 1_795_360_000_001,
        ended_ms: 1_795_360_000_002,
        why: "a user asked for it".to_owned(),
        dry_run: true,
        packs: 3,
        living_bytes: 100,
        dead_bytes: 50,
        packs_removed: 1,
        copied_bytes: 10,
        bytes_before: 150,
        bytes_after: 100,
        error: None,
    }
}

/// Carries out a command that must succeed.
pub fn done(state: &mut State, command: &Command) -> Response {
    let response = apply(state, command);
    assert!(!response.is_refused(), "{command:?}: {response:?}");
    response
}

/// A deployment with one registered replica set, at incarnation 1 and epoch 1.
pub fn registered() -> State {
    let mut state = State::default();
    done(&mut state, &add());
    done(&mut state, &register());
    state
}

/// The same in routine operation, with a waypoint at 100.
pub fn routine() -> State {
    let mut state = registered();
    let steps = [
        Phase::Transferring,
        Phase::Building,
        Phase::ApplyingOplog,
        Phase::Validating,
    ];
    steps.into_iter().for_each(|step| drop(done(&mut state, &phase(step))));
    done(&mut state, &waypoint(100));
    done(&mut state, &phase(Phase::Complete));
    state
}

/// Its head does not follow the source any more.
pub fn stopped() -> State {
    let mut state = full();
    let name = deployment();
    done(&mut state, &Command::SetDeploymentActive { name, active: false });
    state
}

/// Everything a state can hold.
pub fn full() -> State {
    let mut state = routine();
    done(
        &mut state,
        &Command::SetConsistentFrom {
            set: set(),
            incarnation: Incarnation(1),
            epoch: Epoch(1),
            from: at(90),
        },
    );
    done(&mut state, &schedule());
    done(&mut state, &request("daily-0"));
    done(&mut state, &complete_at("daily-0", 120));
    done(&mut state, &request("daily-1"));
    done(&mut state, &complete("daily-1"));
    done(&mut state, &waypoint(250));
    done(&mut state, &trim(100, 0));
    let (dry_run, asked_ms) = (false, 1_795_360_000_001);
    done(
        &mut state,
        &Command::RequestGroom {
            set: set(),
            dry_run,
            asked_ms,
        },
    );
    done(
        &mut state,
        &Command::CondemnPacks {
            set: set(),
            epoch: Epoch(1),
            packs: vec!["rs/shop/rs0/blocks/1-1.pack".to_owned()],
        },
    );
    done(
        &mut state,
        &Command::NoteGroom {
            set: set(),
            epoch: Epoch(1),
            report: report(),
        },
    );
    done(&mut state, &request("daily-2"));
    done(&mut state, &restore(42));
    done(&mut state, &progress(1, RestoreState::Running));
    done(&mut state, &add_key("cd"));
    done(&mut state, &begin_audit(77));
    done(
        &mut state,
        &Command::ScheduleSnapshot {
            set: set(),
            next_ms: Some(1_795_360_000_000),
        },
    );
    let nodes = [(NodeId(1), "one:7480".to_owned())].into();
    let cluster = "decade".to_owned();
    done(&mut state, &Command::BeginCluster { cluster, nodes });
    done(&mut state, &add_node(9));
    done(&mut state, &ask_check(5));
    done(&mut state, &note_damage("p"));
    done(&mut state, &begin_alert("damage:shop/rs0"));
    state.retired.insert("gone/rs1".parse().unwrap(), Incarnation(3));
    state
}
