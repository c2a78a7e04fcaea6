//! What users ask of a whole cluster: all members at one cluster time, and a checkpoint.

use std::collections::BTreeMap;
use std::time::Duration;

use headwater_model::{SnapshotId, Ts};
use headwater_protocol::admin::{At, Range, SnapshotView, Timeline};
use rand::Rng;
use rand::rngs::StdRng;
use tokio::time::Instant;

use crate::mongo::set::{self, Role};
use crate::oracle::{Violation, cut};
use crate::trace;
use crate::wishes;
use crate::world::World;

/// Without faults a checkpoint that is asked for is sealed within this. One that was begun before may have to be given up
/// first, which takes two minutes.
const SEALED_WITHIN: Duration = Duration::from_secs(300);

/// Restores all members at one instant that is offered for the whole cluster.
pub async fn some(world: &World, at: usize, timeline: &Timeline, rng: &mut StdRng, must: bool) {
    let snapshots: Vec<&SnapshotView> = checkpoints(timeline).collect();
    if !snapshots.is_empty() && rng.gen_bool(0.3) {
        let chosen = snapshots[rng.gen_range(0..snapshots.len())].id.clone();
        whole(world, at, At::Snapshot(chosen), must).await;
    } else if !timeline.whole_cluster.is_empty() {
        let range = timeline.whole_cluster[rng.gen_range(0..timeline.whole_cluster.len())];
        let time = time(world, range, rng);
        whole(world, at, At::Position(time.into()), must).await;
    }
}

/// The snapshots of a timeline that show the whole cluster.
pub fn checkpoints(timeline: &Timeline) -> impl DoubleEndedIterator<Item = &SnapshotView> {
    let all = timeline.snapshots.iter();
    all.filter(|snapshot| snapshot.complete && !snapshot.members.is_empty())
}

/// A cluster time in a range: an end of it, one about which a transaction is prepared, or any.
fn time(world: &World, range: Range, rng: &mut StdRng) -> Ts {
    let (from, to) = (Ts::from(range.from), Ts::from(range.to));
    let sets = world.parts.oracle.sets();
    let set = set::lock(&sets[rng.gen_range(0..sets.len())]);
    let transactions = &set.history.transactions;
    let time = match rng.gen_range(0..8) {
        0 => from,
        1 => to,
        2 => Ts(rng.gen_range(from.0..=to.0)),
        3..6 if !transactions.is_empty() => {
            let transaction = &transactions[rng.gen_range(0..transactions.len())];
            let decided = set.history.position(transaction.decided.unwrap_or_default()).ts;
            let prepared = transaction.first.1.ts;
            let times = [
                prepared,
                transaction.commit.unwrap_or(prepared),
                Ts(decided.0.saturating_sub(1)),
            ];
            times[rng.gen_range(0..times.len())]
        }
        _ => {
            let (first, last) = (set.history.count_at(from), set.history.count_at(to));
            set.history.position(rng.gen_range(first..=last.max(first))).ts
        }
    };
    time.clamp(from, to)
}

/// Restores all members at one instant, each held against its model, and all of them against each other.
pub async fn whole(world: &World, at: usize, wanted: At, must: bool) {
    let mut shards = BTreeMap::new();
    let (sets, mut time) = (world.parts.sets(), None);
    for (id, set) in &sets {
        let Some((instant, restored)) = wishes::restore(world, at, id, wanted.clone(), must).await else {
            return;
        };
        time = time.or(Some(instant.ts()));
        let set = set::lock(set);
        if set.role == Role::Shard {
            shards.insert(set.name.clone(), restored);
        }
    }
    let (Some(time), Some(draw), Some((_, config))) = (time, &world.parts.draw.cluster, sets.first()) else {
        return;
    };
    let judged = cut::check(time, draw, &set::lock(config), &shards);
    match judged {
        Ok(()) => {
            trace::mark("cut: all members restored");
            trace::line(&format!("all members at {time} fit each other"));
        }
        Err(torn) => world.parts.oracle.report(torn),
    }
}

/// Asks for a checkpoint until there is one; gives what can be restored then.
pub async fn sealed(world: &World) -> Result<Timeline, Violation> {
    let began = Instant::now();
    let mut asked: Option<SnapshotId> = None;
    while began.elapsed() < SEALED_WITHIN {
        match (&asked, wishes::timeline(world, 0).await) {
            (None, _) => asked = wishes::snapshot(world, 0).await.map(|view| view.id),
            (Some(id), Some(timeline)) => match timeline.snapshots.iter().find(|snapshot| snapshot.id == *id) {
                Some(snapshot) if snapshot.complete => {
                    trace::line(&format!(
                        "a checkpoint was sealed after {} ms",
                        began.elapsed().as_millis()
                    ));
                    return Ok(timeline);
                }
                Some(_) => {}
                None => asked = None,
            },
            (Some(_), None) => {}
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let what = format!("a checkpoint that is asked for is not sealed: {asked:?}");
    Err(Violation::Stuck(SEALED_WITHIN.as_secs(), what))
}
