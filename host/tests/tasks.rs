//! Tasks and blocking work, as every part of the daemon uses them.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail anywhere")]

use std::time::Duration;

use headwater_host::{Host, TaskEnded};

#[tokio::test]
async fn a_task_gives_its_result_or_says_why_not() {
    let host = Host::real().unwrap();
    assert_eq!(host.spawn(async { 7 }).await, Ok(7));
    let stuck = host.spawn(std::future::pending::<()>());
    stuck.abort();
    assert_eq!(stuck.await, Err(TaskEnded::Aborted));
    let broken = host.spawn(async { panic!("out of {}", "luck") });
    assert_eq!(broken.await, Err(TaskEnded::Panicked("out of luck".to_owned())));
}

#[tokio::test]
async fn a_task_whose_handle_is_dropped_runs_on() {
    let host = Host::real().unwrap();
    let (sender, receiver) = tokio::sync::oneshot::channel();
    drop(host.spawn(async move {
        tokio::time::sleep(Duration::from_millis(5)).await;
        sender.send(7).unwrap();
    }));
    assert_eq!(receiver.await, Ok(7));
}

#[tokio::test]
async fn blocking_work_does_not_hold_up_tasks_and_its_panics_reach_the_asker() {
    let host = Host::real().unwrap();
    let (sender, receiver) = std::sync::mpsc::channel();
    let (waited, ()) = tokio::join!(host.blocking(move || receiver.recv().unwrap()), async {
        sender.send(7).unwrap()
    });
    assert_eq!(waited, 7);
    let asker = host.clone();
    let ended = host
        .spawn(async move { asker.blocking(|| panic!("no disk")).await })
        .await;
    assert_eq!(ended, Err::<(), _>(TaskEnded::Panicked("no disk".to_owned())));
}

#[test]
fn a_thread_outside_the_runtime_can_start_tasks_in_it() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    assert!(Host::real().is_err(), "there is no runtime here");
    let host = runtime.block_on(async { Host::real().unwrap() });
    let task = host.spawn(async { tokio::time::sleep(Duration::from_millis(1)).await });
    runtime.block_on(task).unwrap();
}
