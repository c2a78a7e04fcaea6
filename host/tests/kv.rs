//! What every [`Kv`] promises, asked of each of them.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail anywhere")]

use std::path::Path;
use std::sync::Arc;

use headwater_host::memory::MemoryDisk;
use headwater_host::real::{SledKv, TokioTasks};
use headwater_host::{Kv, KvError, Op};
use headwater_model::limits;

/// A disk that can be closed and opened again.
enum Disk {
    Memory(MemoryDisk),
    Sled(tempfile::TempDir),
}

impl Disk {
    fn each() -> [Disk; 2] {
        [
            Disk::Memory(MemoryDisk::new()),
            Disk::Sled(tempfile::tempdir().unwrap()),
        ]
    }

    fn open(&self) -> Arc<dyn Kv> {
        match self {
            Disk::Memory(disk) => Arc::new(disk.open()),
            Disk::Sled(folder) => {
                let tasks = Arc::new(TokioTasks::current().unwrap());
                Arc::new(SledKv::open(&folder.path().join("kv"), tasks).unwrap())
            }
        }
    }
}

fn put(key: &str, value: &str) -> Op {
    Op::put(key, value)
}

fn keys(kv: &dyn Kv, from: &str, to: &str, limit: usize) -> Vec<String> {
    let pairs = kv.range(from.as_bytes()..to.as_bytes(), limit).unwrap();
    pairs
        .into_iter()
        .map(|(key, _)| String::from_utf8(key).unwrap())
        .collect()
}

#[tokio::test]
async fn a_batch_is_seen_as_soon_as_it_is_written_with_its_steps_in_order() {
    for disk in Disk::each() {
        let kv = disk.open();
        assert_eq!(kv.get(b"a").unwrap(), None);
        kv.write(vec![
            put("a", "1"),
            put("b", "2"),
            Op::delete("a"),
            put("b", "3"),
            Op::delete("absent"),
        ])
        .unwrap();
        assert_eq!(kv.get(b"a").unwrap(), None);
        assert_eq!(kv.get(b"b").unwrap(), Some(b"3".to_vec()));
        kv.write(vec![]).unwrap();
    }
}

#[tokio::test]
async fn a_range_is_ordered_by_key_bytes_and_leaves_out_its_end() {
    for disk in Disk::each() {
        let kv = disk.open();
        kv.write(["c", "a", "b/2", "b/10", "b"].map(|key| put(key, "")).to_vec())
            .unwrap();
        assert_eq!(keys(&*kv, "a", "z", 9), ["a", "b", "b/10", "b/2", "c"]);
        assert_eq!(keys(&*kv, "a", "c", 9), ["a", "b", "b/10", "b/2"]);
        assert_eq!(keys(&*kv, "b/", "b0", 1), ["b/10"]);
        assert!(keys(&*kv, "z", "a", 9).is_empty(), "an empty range is no error");
        assert_eq!(kv.last(b"b/"..b"b0").unwrap(), Some((b"b/2".to_vec(), vec![])));
        assert_eq!(kv.last(b"x"..b"y").unwrap(), None);
        assert_eq!(kv.last(b"y"..b"x").unwrap(), None);
    }
}

#[tokio::test]
async fn what_was_flushed_is_there_after_opening_again() {
    for disk in Disk::each() {
        let kv = disk.open();
        for n in 0..500 {
            kv.write(vec![put(&format!("key {n:05}"), &format!("value {n}"))])
                .unwrap();
        }
        kv.flush().await.unwrap();
        drop(kv);
        if let Disk::Memory(disk) = &disk {
            disk.crash(1);
        }
        let kv = disk.open();
        assert_eq!(keys(&*kv, "", "z", 1000).len(), 500);
        assert_eq!(kv.get(b"key 00499").unwrap(), Some(b"value 499".to_vec()));
    }
}

#[tokio::test]
async fn a_batch_with_anything_too_large_is_refused_whole() {
    for disk in Disk::each() {
        let kv = disk.open();
        let value = vec![7; limits::KV_VALUE_MAX_BYTES];
        kv.write(vec![Op::put("fits", value.clone())]).unwrap();
        let wrong = [
            Op::put("large", [&value[..], &[7]].concat()),
            Op::put(vec![0; limits::KV_KEY_MAX_BYTES + 1], ""),
        ];
        for op in wrong {
            let refused = kv.write(vec![put("small", "1"), op]).unwrap_err();
            assert!(matches!(refused, KvError::TooLarge { .. }), "{refused}");
        }
        assert_eq!(kv.get(b"small").unwrap(), None);
    }
}

#[tokio::test]
async fn a_flush_covers_what_other_handles_wrote_before_it() {
    for disk in Disk::each() {
        let kv = disk.open();
        let other = kv.clone();
        other.write(vec![put("a", "1")]).unwrap();
        kv.flush().await.unwrap();
        if let Disk::Memory(disk) = &disk {
            assert_eq!(disk.durable().len(), 1);
        }
    }
}

#[tokio::test]
async fn the_largest_values_never_leave_the_file_that_is_made_durable() {
    let folder = tempfile::tempdir().unwrap();
    let kv = SledKv::open(folder.path(), Arc::new(TokioTasks::current().unwrap())).unwrap();
    for round in 0..8u8 {
        let batch = (0..50u8).map(|n| Op::put([n], vec![n ^ round; limits::KV_VALUE_MAX_BYTES]));
        kv.write(batch.collect()).unwrap();
        kv.flush().await.unwrap();
    }
    assert_eq!(std::fs::read_dir(folder.path().join("blobs")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_folder_in_use_is_not_opened_twice() {
    let folder = tempfile::tempdir().unwrap();
    let tasks = Arc::new(TokioTasks::current().unwrap());
    let first = SledKv::open(folder.path(), tasks.clone()).unwrap();
    let second = SledKv::open(folder.path(), tasks.clone()).err().unwrap();
    assert!(matches!(second, KvError::Open { .. }), "{second}");
    drop(first);
    SledKv::open(folder.path(), tasks).unwrap();
}

/// Bits of the database that are set to something, spread over all of it.
fn bits(file: &[u8]) -> Vec<usize> {
    let written: Vec<usize> = (0..file.len()).filter(|at| file[*at] != 0).collect();
    let step = (written.len() / 60).max(1);
    written.into_iter().step_by(step).map(|at| at * 8 + at % 8).collect()
}

#[tokio::test]
async fn a_database_with_a_flipped_bit_is_refused_or_right_and_never_forgets_silently() {
    let (tasks, folder) = (Arc::new(TokioTasks::current().unwrap()), tempfile::tempdir().unwrap());
    let whole = folder.path().join("whole");
    let kv = SledKv::open(&whole, tasks.clone()).unwrap();
    for n in 0..300 {
        kv.write(vec![
            put(&format!("key {n:05}"), &format!("value {n}")),
            put("vote", &n.to_string()),
        ])
        .unwrap();
        kv.flush().await.unwrap();
    }
    let wanted = kv.range(b"".as_slice()..b"\xff\xff", 1000).unwrap();
    assert_eq!(wanted.len(), 301, "what the disk keeps for itself is not shown");
    assert_eq!(kv.last(b"".as_slice()..b"\xff\xff").unwrap().unwrap().0, b"vote");
    // As a kill leaves it: what sled looks at anew when it opens is the more, the longer it was open.
    let killed = folder.path().join("killed");
    std::fs::create_dir(&killed).unwrap();
    copy_files(&whole, &killed);
    let database = std::fs::read(killed.join("db")).unwrap();
    let (mut refused, mut right) = (0, 0);
    for bit in bits(&database) {
        let copy = tempfile::tempdir().unwrap();
        copy_files(&killed, copy.path());
        let mut rotten = database.clone();
        rotten[bit / 8] ^= 1 << (bit % 8);
        std::fs::write(copy.path().join("db"), rotten).unwrap();
        match SledKv::open(copy.path(), tasks.clone()) {
            Err(error) => {
                refused += 1;
                let again = SledKv::open(copy.path(), tasks.clone()).err();
                assert!(again.is_some(), "bit {bit} was refused once ({error}), then opened");
            }
            Ok(kv) => {
                let found = kv.range(b"".as_slice()..b"\xff\xff", 1000).unwrap();
                assert!(
                    found == wanted,
                    "bit {bit}: {} of {} are left",
                    found.len(),
                    wanted.len()
                );
                right += 1;
            }
        }
    }
    println!("{refused} refused, {right} right");
    assert!(refused > 0, "every flipped bit was right");
}

fn copy_files(from: &Path, to: &Path) {
    let files = std::fs::read_dir(from).unwrap().map(|entry| entry.unwrap().path());
    for file in files.filter(|path| path.is_file()) {
        std::fs::copy(&file, to.join(file.file_name().unwrap())).unwrap();
    }
}

#[tokio::test]
async fn a_database_that_does_not_hold_what_was_durable_is_refused_and_says_so() {
    let tasks = Arc::new(TokioTasks::current().unwrap());
    let [now, before] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let write = async |n: u32| {
        let kv = SledKv::open(now.path(), tasks.clone()).unwrap();
        kv.write(vec![put("vote", &n.to_string())]).unwrap();
        kv.flush().await.unwrap();
    };
    write(1).await;
    drop(SledKv::open(now.path(), tasks.clone()).unwrap());
    copy_files(now.path(), before.path());
    write(2).await;
    drop(SledKv::open(now.path(), tasks.clone()).unwrap());
    std::fs::copy(now.path().join("flushed"), before.path().join("flushed")).unwrap();
    let refused = SledKv::open(before.path(), tasks.clone()).err().unwrap();
    assert!(matches!(refused, KvError::Damaged { .. }), "{refused}");
    assert!(refused.to_string().contains("the last 1 are gone"), "{refused}");
    std::fs::remove_file(now.path().join("flushed")).unwrap();
    let refused = SledKv::open(now.path(), tasks).err().unwrap();
    assert!(refused.to_string().contains("move the folder away"), "{refused}");
}
