//! Nodes that come and go: a disk is lost, an administrator drains a node or takes it out.
//!
//! A cluster of three bears the loss of one disk. So no second one is thrown away before the node that takes the place of
//! the first has its vote, by the word of a leader; whoever does is told by the flag.

use std::time::Duration;

use headwater_protocol::admin::{ClusterView, NodeView};
use rand::rngs::StdRng;
use rand::{Rng, RngCore};

use crate::chaos::span;
use crate::daemon::NAMES;
use crate::trace;
use crate::user::Wish;
use crate::wishes;
use crate::world::World;

const PAUSE: Duration = Duration::from_millis(700);

/// The nodes, by the word of one that leads; `None` when nobody says that it does.
pub async fn view(world: &World) -> Option<ClusterView> {
    for at in 0..world.daemons.len() {
        let view: Option<ClusterView> = wishes::ask_for(world, at, Wish::Cluster).await;
        if let Some(view) = view.filter(|view| view.leader == Some(view.node)) {
            return Some(view);
        }
    }
    None
}

fn node_at(view: &ClusterView, at: usize) -> Option<&NodeView> {
    view.nodes.iter().find(|node| node.address == NAMES[at])
}

/// What is missing until every machine has a node that votes.
pub fn lacks(world: &World, view: &ClusterView) -> Option<String> {
    (0..world.daemons.len()).find_map(|at| match node_at(view, at) {
        Some(node) if node.voter && node.answers => None,
        Some(node) => Some(format!(
            "node {} at {} has no vote or does not answer",
            node.id, node.address
        )),
        None => Some(format!("{} has no node", NAMES[at])),
    })
}

/// Waits until the machine's node is another one than `old`, and votes.
async fn until_replaced(world: &World, at: usize, old: u64) {
    loop {
        if let Some(view) = view(world).await
            && node_at(&view, at).is_some_and(|node| node.id > old && node.voter)
        {
            return;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// A machine whose cluster is whole and that nobody else is about to replace, with its node's number.
async fn one_of_a_whole_cluster(world: &World, rng: &mut StdRng) -> Option<(usize, u64)> {
    let at = rng.gen_range(0..world.daemons.len());
    if world.replacing.get() {
        return None;
    }
    let view = view(world).await?;
    let id = node_at(&view, at)?.id;
    let is_whole = lacks(world, &view).is_none() && view.nodes.len() == world.daemons.len();
    (is_whole && !world.replacing.replace(true)).then_some((at, id))
}

/// A daemon's disk is lost; it joins as a new node.
pub async fn replace(world: &World, rng: &mut StdRng) {
    let (away, seed) = (span(rng, 20_000), rng.next_u64());
    let Some((at, old)) = one_of_a_whole_cluster(world, rng).await else {
        return;
    };
    trace::mark("daemon lost its disk");
    throw_away(world, at, seed, away).await;
    until_replaced(world, at, old).await;
    world.replacing.set(false);
}

async fn throw_away(world: &World, at: usize, seed: u64, away: Duration) {
    let machine = &world.daemons[at];
    trace::line(&format!("{} loses its disk", machine.borrow().name()));
    machine.borrow_mut().kill(seed);
    machine.borrow_mut().wipe();
    tokio::time::sleep(away).await;
    // Somebody else may have started it meanwhile.
    if machine.borrow().process.is_none() {
        machine.borrow_mut().boot(&world.parts);
    }
}

/// A bit flips on a daemon's own disk while the machine is off. The daemon does not begin with it. In a cluster of several
/// it joins anew; one that its cluster cannot do without has its disk repaired.
pub async fn rot(world: &World, rng: &mut StdRng) {
    let (spell, seeds) = (span(rng, 20_000), (rng.next_u64(), rng.next_u64()));
    let chosen = match world.daemons.len() {
        1 | 2 if world.replacing.replace(true) => None,
        1 | 2 => Some((rng.gen_range(0..world.daemons.len()), None)),
        _ => one_of_a_whole_cluster(world, rng)
            .await
            .map(|(at, old)| (at, Some(old))),
    };
    let Some((at, old)) = chosen else { return };
    let machine = &world.daemons[at];
    machine.borrow_mut().kill(seeds.0);
    let flipped = machine.borrow_mut().rot(rng);
    if let Some(what) = &flipped {
        trace::mark("disk: a bit flipped");
        trace::line(&format!("{what} flips on the disk of {}", machine.borrow().name()));
    }
    machine.borrow_mut().boot(&world.parts);
    tokio::time::sleep(spell).await;
    match old.filter(|_| flipped.is_some()) {
        Some(old) => {
            trace::mark("daemon lost its disk");
            throw_away(world, at, seeds.1, PAUSE).await;
            until_replaced(world, at, old).await;
        }
        None => {
            machine.borrow_mut().kill(seeds.1);
            machine.borrow_mut().repair();
            machine.borrow_mut().boot(&world.parts);
        }
    }
    world.replacing.set(false);
}

/// A node is drained, and takes part again after a while.
pub async fn drain(world: &World, rng: &mut StdRng) {
    let at = rng.gen_range(0..world.daemons.len());
    let (asked, spell) = (rng.gen_range(0..world.daemons.len()), span(rng, 40_000));
    let Some(node) = view(world).await.and_then(|view| Some(node_at(&view, at)?.id)) else {
        return;
    };
    trace::mark("node drained");
    wishes::ask(world, asked, Wish::Drain(node, true)).await;
    tokio::time::sleep(spell).await;
    // Carried out, or no such node any more.
    while !matches!(
        wishes::ask(world, asked, Wish::Drain(node, false)).await,
        Some((200 | 404, _))
    ) {
        tokio::time::sleep(PAUSE).await;
    }
}

/// A node is drained and taken out; its machine joins anew with an empty disk.
pub async fn remove(world: &World, rng: &mut StdRng) {
    let (asked, seed) = (rng.gen_range(0..world.daemons.len()), rng.next_u64());
    let Some((at, old)) = one_of_a_whole_cluster(world, rng).await else {
        return;
    };
    wishes::ask(world, asked, Wish::Drain(old, true)).await;
    // Who is asked may be the one that goes: then the next one is asked.
    for turn in asked.. {
        let asked = turn % world.daemons.len();
        if let Some(view) = view(world).await
            && view.nodes.iter().all(|node| node.id != old)
        {
            break;
        }
        wishes::ask(world, asked, Wish::Remove(old)).await;
        tokio::time::sleep(PAUSE).await;
    }
    trace::mark("node removed");
    throw_away(world, at, seed, PAUSE).await;
    until_replaced(world, at, old).await;
    world.replacing.set(false);
}
