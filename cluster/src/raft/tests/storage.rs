//! What openraft's suite does not ask: gaps, damage, crashes, images of many pieces, the purge that must wait.

use std::collections::BTreeSet;
use std::time::Duration;

use headwater_host::memory::MemoryDisk;
use headwater_host::{Kv, Op};
use headwater_model::{KeyRole, limits};
use openraft::storage::{RaftLogStorage, RaftLogStorageExt, RaftStateMachine};
use openraft::testing::blank_ent;
use openraft::{EntryPayload, RaftLogReader, RaftSnapshotBuilder};

use super::disk;
use crate::command::{Command, Response};
use crate::keys::Key;
use crate::raft::disk::{Disk, DiskError, IMAGE, PURGED, log_key};
use crate::raft::log_store::LogStore;
use crate::raft::records::LogIdRecord;
use crate::raft::state_machine::StateMachine;
use crate::raft::{Entry, LogId, Vote, image};
use crate::state::NodeId;

/// The log as a member opens it.
fn log_of(disk: &Disk) -> Result<LogStore, DiskError> {
    LogStore::open(disk, Some(StateMachine::open(disk)?.covered()))
}

fn blank(index: u64) -> Entry {
    blank_ent::<crate::raft::TypeConfig>(1, 1, index)
}

fn id(index: u64) -> LogId {
    blank(index).log_id
}

fn hash(n: u64) -> String {
    blake3::hash(&n.to_le_bytes()).to_hex().to_string()
}

fn add_key(n: u64) -> Command {
    Command::AddKey {
        id: hash(n),
        key: Key {
            name: hash(n).parse().unwrap(),
            role: KeyRole::Agent,
            scope: BTreeSet::new(),
            hash: hash(n),
            created_ms: 0,
        },
    }
}

fn adding_keys(index: u64, numbers: std::ops::Range<u64>) -> Entry {
    let commands = numbers.map(add_key);
    Entry {
        payload: EntryPayload::Normal(commands.collect()),
        ..blank(index)
    }
}

#[tokio::test]
async fn an_append_that_would_leave_a_gap_is_refused_and_ends_the_process() {
    let platter = MemoryDisk::new();
    let (disk, noted) = disk(&platter);
    let mut log = log_of(&disk).unwrap();
    assert!(
        log.blocking_append([blank(1)]).await.is_err(),
        "the first entry is missing"
    );
    log.blocking_append([blank(0), blank(1)]).await.unwrap();
    for wrong in [vec![blank(3)], vec![blank(1)], vec![blank(2), blank(4)]] {
        assert!(log.blocking_append(wrong).await.is_err());
    }
    assert_eq!(noted.0.lock().unwrap().len(), 4);
    log.blocking_append([blank(2)]).await.unwrap();
}

#[tokio::test]
async fn acknowledged_entries_and_votes_survive_a_crash() {
    for seed in 0..20 {
        let platter = MemoryDisk::new();
        let mut log = log_of(&disk(&platter).0).unwrap();
        log.save_vote(&Vote::new(3, 2)).await.unwrap();
        log.blocking_append([blank(0), blank(1), blank(2)]).await.unwrap();
        log.truncate(id(2)).await.unwrap();
        log.blocking_append([blank(2), blank(3)]).await.unwrap();
        platter.crash(seed);
        let mut log = log_of(&disk(&platter).0).unwrap();
        assert_eq!(log.read_vote().await.unwrap(), Some(Vote::new(3, 2)));
        assert_eq!(log.try_get_log_entries(..).await.unwrap().len(), 4);
    }
}

#[tokio::test]
async fn a_flush_that_fails_is_no_acknowledgement_and_ends_the_process() {
    let platter = MemoryDisk::new();
    let (disk, noted) = disk(&platter);
    let mut log = log_of(&disk).unwrap();
    platter.fail_flushes(2);
    assert!(log.save_vote(&Vote::new(1, 1)).await.is_err());
    assert!(log.blocking_append([blank(0)]).await.is_err());
    assert_eq!(noted.0.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn a_damaged_disk_is_not_started_with() {
    let damages: [(&str, Damage); 5] = [
        ("a flipped bit in an entry", |kv| flipped(kv, &log_key(1))),
        ("a missing entry", |_| Op::delete(log_key(1))),
        ("a missing first entry", |_| Op::delete(log_key(0))),
        ("an entry under another index", |kv| {
            Op::put(log_key(3), kv.get(&log_key(1)).unwrap().unwrap())
        }),
        ("a flipped bit in the vote", |kv| flipped(kv, crate::raft::disk::VOTE)),
    ];
    for (what, damage) in damages {
        let platter = MemoryDisk::new();
        let mut log = log_of(&disk(&platter).0).unwrap();
        log.save_vote(&Vote::new(3, 2)).await.unwrap();
        log.blocking_append([blank(0), blank(1), blank(2)]).await.unwrap();
        let kv = platter.open();
        kv.write(vec![damage(&kv)]).unwrap();
        assert!(log_of(&disk(&platter).0).is_err(), "{what}");
    }
}

/// Makes a step that damages what is there.
type Damage = fn(&dyn Kv) -> Op;

fn flipped(kv: &dyn Kv, key: &[u8]) -> Op {
    let mut value = kv.get(key).unwrap().unwrap();
    *value.last_mut().unwrap() ^= 1;
    Op::put(key, value)
}

#[tokio::test]
async fn a_purge_waits_until_the_durable_image_covers_it() {
    let platter = MemoryDisk::new();
    let (disk, _) = disk(&platter);
    let mut machine = StateMachine::open(&disk).unwrap();
    let mut log = LogStore::open(&disk, Some(machine.covered())).unwrap();
    let entries = [blank(0), adding_keys(1, 0..5), blank(2)];
    log.blocking_append(entries.clone()).await.unwrap();
    machine.apply(entries).await.unwrap();
    let early = tokio::time::timeout(Duration::from_millis(50), log.purge(id(2))).await;
    assert!(early.is_err(), "applied in memory is not enough");
    machine.get_snapshot_builder().await.build_snapshot().await.unwrap();
    log.purge(id(2)).await.unwrap();
    platter.crash(0);
    let (disk, _) = super::disk(&platter);
    let machine = StateMachine::open(&disk).unwrap();
    assert_eq!(machine.watch().borrow().keys.len(), 5);
    LogStore::open(&disk, Some(machine.covered())).unwrap();
}

#[tokio::test]
async fn a_log_cut_off_behind_the_image_is_not_started_with() {
    let platter = MemoryDisk::new();
    let (disk, _) = disk(&platter);
    let purged = crate::raft::disk::put("purge position", PURGED, &LogIdRecord::from(id(7))).unwrap();
    disk.write(vec![purged]).unwrap();
    let machine = StateMachine::open(&disk).unwrap();
    assert!(LogStore::open(&disk, Some(machine.covered())).is_err());
}

#[tokio::test]
async fn a_crash_while_an_image_is_replaced_leaves_the_old_or_the_new_one_whole() {
    let (mut old, mut new) = (0, 0);
    for seed in 0..40 {
        let platter = MemoryDisk::new();
        let (disk, _) = disk(&platter);
        let mut machine = StateMachine::open(&disk).unwrap();
        machine.apply([adding_keys(0, 0..2000)]).await.unwrap();
        machine.get_snapshot_builder().await.build_snapshot().await.unwrap();
        machine.apply([adding_keys(1, 2000..4000)]).await.unwrap();
        platter.fail_flushes(1);
        assert!(machine.get_snapshot_builder().await.build_snapshot().await.is_err());
        platter.crash(seed);
        let (disk, _) = super::disk(&platter);
        let found = StateMachine::open(&disk).unwrap().watch().borrow().keys.len();
        match found {
            2000 => old += 1,
            4000 => new += 1,
            other => panic!("seed {seed}: {other} keys"),
        }
        let mut machine = StateMachine::open(&disk).unwrap();
        machine.apply([adding_keys(2, 0..4000)]).await.unwrap();
        machine.get_snapshot_builder().await.build_snapshot().await.unwrap();
        let header = image::header(&disk).unwrap().unwrap();
        assert!(header.pieces > 3 && header.bytes > 3 * limits::CONTROL_PIECE_BYTES as u64);
        assert_eq!(
            disk.piece_keys().unwrap().len() as u64,
            header.pieces,
            "nothing is left behind"
        );
    }
    assert!(old > 0 && new > 0, "{old} old, {new} new");
}

#[tokio::test]
async fn a_damaged_image_is_not_started_with() {
    for piece in [true, false] {
        let platter = MemoryDisk::new();
        let (disk, _) = disk(&platter);
        let mut machine = StateMachine::open(&disk).unwrap();
        machine.apply([adding_keys(0, 0..10)]).await.unwrap();
        machine.get_snapshot_builder().await.build_snapshot().await.unwrap();
        let kv = platter.open();
        let key = if piece {
            disk.piece_keys().unwrap().remove(0)
        } else {
            IMAGE.to_vec()
        };
        kv.write(vec![flipped(&kv, &key)]).unwrap();
        assert!(StateMachine::open(&disk).is_err());
    }
}

#[tokio::test]
async fn commands_of_one_entry_are_answered_one_by_one() {
    let (disk, _) = disk(&MemoryDisk::new());
    let mut machine = StateMachine::open(&disk).unwrap();
    let remove = |n| Command::RemoveKey { id: hash(n) };
    let payload = EntryPayload::Normal(vec![remove(1), add_key(1), remove(1)]);
    let answers = machine.apply([blank(0), Entry { payload, ..blank(1) }]).await.unwrap();
    assert!(answers[0].is_empty());
    assert!(answers[1][0].is_refused());
    assert_eq!(answers[1][1..], [Response::Done, Response::Done]);
}

#[tokio::test]
async fn a_disk_is_one_nodes_and_never_anothers() {
    let platter = MemoryDisk::new();
    assert!(disk(&platter).0.identify(NodeId(1)).await.unwrap(), "empty at first");
    assert!(!disk(&platter).0.identify(NodeId(1)).await.unwrap());
    assert!(disk(&platter).0.identify(NodeId(2)).await.is_err());
    let foreign = MemoryDisk::new();
    log_of(&disk(&foreign).0)
        .unwrap()
        .blocking_append([blank(0)])
        .await
        .unwrap();
    assert!(
        disk(&foreign).0.identify(NodeId(1)).await.is_err(),
        "a log without an owner"
    );
}
