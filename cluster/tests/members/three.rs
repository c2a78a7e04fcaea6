//! Three members.

use headwater_cluster::{NodeId, Settings};

use crate::process::{Trio, add_key};

#[tokio::test]
async fn three_members_elect_replicate_lose_the_leader_and_agree_when_it_is_back() {
    let mut trio = Trio::start(|settings| settings).await;
    let mut leader = NodeId(0);
    for n in 0..20 {
        leader = trio.submit(add_key(n)).await.0;
    }
    trio.converge(20).await;
    trio.kill(leader, 1);
    let mut next = leader;
    for n in 20..40 {
        next = trio.submit(add_key(n)).await.0;
    }
    assert_ne!(next, leader);
    trio.converge(40).await;
    trio.boot(leader).await;
    trio.submit(add_key(40)).await;
    trio.converge(41).await;
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_when_all_lose_power_again_and_again() {
    let mut trio = Trio::start(|settings| settings).await;
    for round in 0..4 {
        for n in 0..5 {
            trio.submit(add_key(round * 5 + n)).await;
        }
        for id in [1, 2, 3] {
            trio.kill(NodeId(id), round * 3 + id);
        }
        for id in [1, 2, 3] {
            trio.boot(NodeId(id)).await;
        }
    }
    trio.submit(add_key(1000)).await;
    trio.converge(21).await;
}

#[tokio::test]
async fn a_member_far_behind_gets_the_control_image() {
    fn eager(settings: Settings) -> Settings {
        Settings { entries_between_images: 10, entries_kept: 2, ..settings }
    }
    let mut trio = Trio::start(eager).await;
    let (leader, _) = trio.submit(add_key(0)).await;
    trio.converge(1).await;
    let absent = NodeId(leader.0 % 3 + 1);
    trio.kill(absent, 5);
    for n in 1..60 {
        trio.submit(add_key(n)).await;
    }
    trio.boot(absent).await;
    trio.converge(60).await;
}

#[tokio::test]
async fn a_leader_without_a_majority_acknowledges_nothing() {
    let trio = Trio::start(|settings| settings).await;
    let (leader, _) = trio.submit(add_key(0)).await;
    trio.converge(1).await;
    for other in [1, 2, 3].into_iter().filter(|id| *id != leader.0) {
        trio.network.cut(leader.0, other);
        trio.network.cut(other, leader.0);
    }
    let lonely = trio.members[&leader].control.submit(add_key(1)).await;
    assert!(lonely.is_err(), "{lonely:?}");
    let (next, _) = trio.submit(add_key(2)).await;
    assert_ne!(next, leader);
    trio.network.heal();
    trio.submit(add_key(1)).await;
    trio.converge(3).await;
}
