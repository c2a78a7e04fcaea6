//! Three members under kills and cut links, from a seed. Real time and real tasks: the seed fixes what is done to them,
//! not how they take it; the simulation does both.

use headwater_cluster::{NodeId, Settings};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::process::{Trio, add_key, key};

const ROUNDS: u64 = 8;

fn eager(settings: Settings) -> Settings {
    Settings {
        entries_between_images: 8,
        entries_kept: 2,
        ..settings
    }
}

#[tokio::test]
async fn what_was_acknowledged_under_chaos_is_there_and_all_agree() {
    for seed in 0..3 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut trio = Trio::start(eager).await;
        for round in 0..ROUNDS {
            harm(&mut trio, &mut rng).await;
            for n in 0..6 {
                trio.submit(add_key(round * 6 + n)).await;
            }
        }
        restore_all(&mut trio).await;
        trio.submit(add_key(999)).await;
        trio.converge(ROUNDS as usize * 6 + 1).await;
        let state = trio.members[&NodeId(1)].control.state();
        assert!((0..ROUNDS * 6).all(|n| state.keys.contains_key(&key(n))), "seed {seed}");
    }
}

/// Does one thing that leaves a majority able to talk.
async fn harm(trio: &mut Trio, rng: &mut StdRng) {
    restore_all(trio).await;
    let (one, other) = (rng.gen_range(1..4), rng.gen_range(1..3));
    let other = (one + other - 1) % 3 + 1;
    match rng.gen_range(0..4) {
        0 => trio.kill(NodeId(one), rng.r#gen()),
        1 => {
            let leader = trio.members.values().find_map(|member| member.control.leader());
            trio.kill(leader.unwrap_or(NodeId(one)), rng.r#gen());
        }
        2 => trio.network.cut(one, other),
        _ => (1..4).filter(|peer| *peer != one).for_each(|peer| {
            trio.network.cut(one, peer);
            trio.network.cut(peer, one);
        }),
    }
}

async fn restore_all(trio: &mut Trio) {
    trio.network.heal();
    for id in [1, 2, 3].map(NodeId) {
        if !trio.members.contains_key(&id) {
            trio.boot(id).await;
        }
    }
}
