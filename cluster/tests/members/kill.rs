//! A real process on a real disk, killed with SIGKILL.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command as Program, Stdio};
use std::sync::Arc;

use headwater_cluster::{Control, NodeId, Settings};
use headwater_host::Host;
use headwater_host::real::SledKv;

use crate::process::{add_key, key};

const FOLDER: &str = "HEADWATER_TEST_KILL_FOLDER";
const ACKNOWLEDGED: &str = "acknowledged ";

async fn member(folder: &Path) -> Control {
    let host = Host::real().unwrap();
    let kv = Arc::new(SledKv::open(folder, host.blocking.clone()).unwrap());
    let settings = Settings { entries_between_images: 20, entries_kept: 5, ..Settings::single(NodeId(1)) };
    Control::start(&host, kv, NodeId(1), settings).await.unwrap()
}

/// The process that is killed: this test, run by the other one. By itself it does nothing.
#[tokio::test]
async fn a_process_that_submits_until_it_is_killed() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let control = member(Path::new(&folder)).await;
    for n in control.state().keys.len() as u64.. {
        control.submit(add_key(n)).await.unwrap();
        println!("\n{ACKNOWLEDGED}{n}");
    }
}

#[tokio::test]
async fn what_a_process_acknowledged_before_it_was_killed_is_there() {
    let folder = tempfile::tempdir().unwrap();
    for round in 0..3 {
        let mut child = Program::new(std::env::current_exe().unwrap())
            .args(["--exact", "kill::a_process_that_submits_until_it_is_killed", "--nocapture"])
            .env(FOLDER, folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let numbers = lines.filter_map(|line| line.ok()?.strip_prefix(ACKNOWLEDGED)?.parse::<u64>().ok());
        let last = numbers.take(30 + round * 17).last().expect("the process acknowledged something");
        child.kill().unwrap();
        child.wait().unwrap();
        let control = member(folder.path()).await;
        let missing: Vec<u64> = (0..=last).filter(|n| !control.state().keys.contains_key(&key(*n))).collect();
        assert_eq!(missing, [], "acknowledged in round {round} and lost");
        control.shutdown().await;
        drop(control);
        released(folder.path()).await;
    }
}

/// Raft's tasks end a moment after the member; the next process needs the folder.
async fn released(folder: &Path) {
    let blocking = Host::real().unwrap().blocking;
    while SledKv::open(folder, blocking.clone()).is_err() {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}
