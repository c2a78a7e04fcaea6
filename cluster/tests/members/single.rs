//! A single member, which is what a fresh installation is.

use std::sync::Arc;
use std::time::Duration;

use headwater_cluster::{Command, Control, ControlError, NodeId, Response, Settings, State, codec};
use headwater_host::memory::MemoryDisk;
use headwater_host::real::SledKv;
use headwater_host::{Host, Kv, KvError};

use crate::process::{add_key, key, start};

const NODE: NodeId = NodeId(1);

fn eager() -> Settings {
    Settings {
        entries_between_images: 10,
        entries_kept: 3,
        ..Settings::single(NODE)
    }
}

#[tokio::test]
async fn a_fresh_member_leads_at_once_and_shows_what_it_acknowledged() {
    let member = start(&MemoryDisk::new(), NODE, Settings::single(NODE)).await.unwrap();
    assert!(member.control.is_leader());
    assert_eq!(member.control.leader(), Some(NODE));
    assert_eq!(*member.control.state(), State::default());
    let mut watch = member.control.watch();
    assert_eq!(member.control.submit(add_key(7)).await, Ok(Response::Done));
    assert!(
        member.control.state().keys.contains_key(&key(7)),
        "shown when it is acknowledged"
    );
    watch.changed().await.unwrap();
    let refused = member.control.submit(Command::RemoveKey { id: key(8) }).await.unwrap();
    assert!(refused.is_refused(), "a refusal is an answer");
}

#[tokio::test]
async fn what_was_acknowledged_survives_every_crash() {
    for seed in 0..30 {
        let disk = MemoryDisk::new();
        for round in 0..4 {
            let member = start(&disk, NODE, eager()).await.unwrap();
            assert_eq!(
                member.control.state().keys.len() as u64,
                round * 7,
                "seed {seed}, round {round}"
            );
            for n in 0..7 {
                member.control.submit(add_key(round * 7 + n)).await.unwrap();
            }
            assert_eq!(*member.noted.0.lock().unwrap(), []);
            member.kill(&disk, seed * 10 + round);
        }
    }
}

#[tokio::test]
async fn a_member_killed_while_it_began_begins_or_goes_on() {
    for seed in 0..20 {
        let disk = MemoryDisk::new();
        for round in 0..3 {
            start(&disk, NODE, Settings::single(NODE))
                .await
                .unwrap()
                .kill(&disk, seed * 3 + round);
        }
        let member = start(&disk, NODE, Settings::single(NODE)).await.unwrap();
        assert_eq!(
            member.control.submit(add_key(1)).await,
            Ok(Response::Done),
            "seed {seed}"
        );
    }
}

#[tokio::test]
async fn what_peers_send_is_never_trusted() {
    let member = start(&MemoryDisk::new(), NODE, Settings::single(NODE)).await.unwrap();
    member.control.submit(add_key(1)).await.unwrap();
    let server = member.control.server();
    let framed = |kind: u8, payload: &[u8]| codec::frame(&[kind], payload);
    for kind in 0..=4 {
        for body in [
            vec![],
            vec![0; 100],
            vec![255; 100],
            framed(kind, &[]),
            framed(kind, &[253; 64]),
        ] {
            assert!(server.serve(kind, body).await.is_empty(), "kind {kind}");
        }
    }
    // A well-formed image (vote, meta, data) of a greater term, whose state is none.
    let meta = (
        Some((9u64, 2u64, 50u64)),
        None::<u64>,
        (vec![vec![2u64]], vec![(2u64, "b")]),
        "image",
    );
    let image = ((9u64, 2u64, true), meta, vec![250u8; 40]);
    let call = framed(3, &codec::encode("image", &image).unwrap());
    let answer = server.serve(3, call).await;
    let answer: Result<(u64, u64, bool), String> =
        codec::decode("answer", codec::unframe("answer", &[3], &answer).unwrap()).unwrap();
    assert!(answer.unwrap_err().contains("control state"));
    assert!(member.control.is_leader());
    assert_eq!(member.control.submit(add_key(2)).await, Ok(Response::Done));
    assert_eq!(*member.noted.0.lock().unwrap(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_submitters_share_entries_and_each_gets_its_own_answer() {
    let disk = MemoryDisk::new();
    let member = start(&disk, NODE, eager()).await.unwrap();
    let submitters = (0..500).map(|n| {
        let control = member.control.clone();
        async move {
            let added = control.submit(add_key(n)).await.unwrap();
            let missing = control
                .submit(Command::RemoveKey { id: key(n + 10_000) })
                .await
                .unwrap();
            (added, missing.is_refused())
        }
    });
    for answer in futures::future::join_all(submitters).await {
        assert_eq!(answer, (Response::Done, true));
    }
    assert_eq!(member.control.state().keys.len(), 500);
}

#[test]
fn the_handle_works_from_a_thread_of_another_runtime() {
    let ours = tokio::runtime::Runtime::new().unwrap();
    let member = ours
        .block_on(start(&MemoryDisk::new(), NODE, Settings::single(NODE)))
        .unwrap();
    let control = member.control.clone();
    let submit = move || {
        let theirs = tokio::runtime::Builder::new_current_thread().build().unwrap();
        theirs.block_on(control.submit(add_key(1)))
    };
    let answer = std::thread::scope(|scope| scope.spawn(submit).join());
    assert_eq!(answer.unwrap(), Ok(Response::Done));
}

#[tokio::test]
async fn a_command_too_large_is_refused_before_anything_is_done() {
    let member = start(&MemoryDisk::new(), NODE, Settings::single(NODE)).await.unwrap();
    let answer = member.control.submit(Command::RemoveKey { id: "a".repeat(40_000) });
    assert!(matches!(answer.await, Err(ControlError::TooLarge { .. })));
}

#[tokio::test]
async fn a_failing_disk_ends_the_process_and_acknowledges_nothing() {
    let disk = MemoryDisk::new();
    let member = start(&disk, NODE, Settings::single(NODE)).await.unwrap();
    member.control.submit(add_key(1)).await.unwrap();
    disk.fail_flushes(u32::MAX);
    assert_eq!(member.control.submit(add_key(2)).await, Err(ControlError::Unknown));
    assert!(!member.noted.0.lock().unwrap().is_empty());
    assert!(member.control.submit(add_key(3)).await.is_err());
}

#[tokio::test]
async fn another_nodes_disk_is_not_started_with() {
    let disk = MemoryDisk::new();
    start(&disk, NODE, Settings::single(NODE)).await.unwrap().kill(&disk, 1);
    let other = start(&disk, NodeId(2), Settings::single(NodeId(2))).await;
    assert!(matches!(other, Err(ControlError::Start(_))));
}

#[tokio::test]
async fn a_member_on_sled_that_was_shut_down_or_dropped_comes_back_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let host = Host::real().unwrap();
    for round in 0..3 {
        let control = Control::start(&host, open(&folder, &host).await, NODE, eager())
            .await
            .unwrap();
        assert_eq!(control.state().keys.len() as u64, round * 15);
        for n in 0..15 {
            control.submit(add_key(round * 15 + n)).await.unwrap();
        }
        if round == 1 {
            control.shutdown().await;
            assert_eq!(control.submit(add_key(9999)).await, Err(ControlError::Stopped));
        }
    }
}

/// Waits until the former member has let go of the folder.
async fn open(folder: &tempfile::TempDir, host: &Host) -> Arc<dyn Kv> {
    let mut last: Option<KvError> = None;
    for _ in 0..500 {
        match SledKv::open(folder.path(), host.blocking.clone()) {
            Ok(kv) => return Arc::new(kv),
            Err(error) => last = Some(error),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the folder is still in use: {last:?}");
}
