//! What befalls a world: one task for each kind of trouble, each with a stream of its own, so that one more kind does not
//! change when the others strike.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, RngCore};

use crate::mongo::{Shared, set};
use crate::network::Peer;
use crate::trace;
use crate::world::World;
use crate::{agent, daemon, members, settings, wishes};

/// Lets every kind of trouble that was drawn begin.
pub fn unleash(world: &std::rc::Rc<World>) {
    let chaos = world.parts.draw.chaos;
    let kinds: [(&'static str, Option<u64>); 19] = [
        ("kill daemon", chaos.kill_daemon),
        ("kill all", chaos.kill_all),
        ("kill agent", chaos.kill_agent),
        ("pause", chaos.pause),
        ("partition", chaos.partition),
        ("outage", chaos.outage),
        ("full", chaos.full),
        ("clock", chaos.clock),
        ("election", chaos.election),
        ("member", chaos.member),
        ("lag", chaos.lag),
        ("truncate", chaos.truncate),
        ("user", chaos.user),
        ("resync", chaos.resync),
        ("replace", chaos.replace),
        ("drain", chaos.drain),
        ("remove", chaos.remove),
        ("rot disk", chaos.rot_disk),
        ("settings", chaos.settings),
    ];
    for (kind, every) in kinds {
        let Some(every) = every else { continue };
        let world = world.clone();
        tokio::task::spawn_local(async move {
            let mut rng = world.parts.rng(kind);
            loop {
                let pause = rng.gen_range(1..=2 * every * 1000);
                tokio::time::sleep(Duration::from_millis(pause)).await;
                if !world.faults.get() {
                    return;
                }
                strike(&world, kind, &mut rng).await;
            }
        });
    }
}

pub(crate) fn span(rng: &mut StdRng, most_ms: u64) -> Duration {
    // Mostly short, seldom long.
    let most = if rng.gen_bool(0.8) { most_ms / 8 } else { most_ms };
    Duration::from_millis(rng.gen_range(1..=most.max(2)))
}

/// A daemon and somebody who talks to it.
fn someone(world: &World, rng: &mut StdRng) -> (Peer, Peer) {
    let at = rng.gen_range(0..world.daemons.len());
    let daemon = daemon::NAMES[at];
    if world.daemons.len() > 1 && rng.gen_bool(0.6) {
        trace::mark("network: members apart");
        return (daemon, daemon::NAMES[(at + 1) % world.daemons.len()]);
    }
    let agent = agent::NAMES[rng.gen_range(0..world.agents.len())];
    (daemon, agent)
}

/// One of the source's replica sets.
fn some_set<'a>(world: &'a World, rng: &mut StdRng) -> &'a Shared {
    match world.parts.oracle.sets() {
        [only] => only,
        several => &several[rng.gen_range(0..several.len())],
    }
}

async fn strike(world: &World, kind: &'static str, rng: &mut StdRng) {
    match kind {
        "kill daemon" => {
            let daemon = world.daemons[rng.gen_range(0..world.daemons.len())].clone();
            let away = span(rng, 20_000);
            World::bounce_daemon(daemon, world.parts.clone(), rng.next_u64(), away).await;
        }
        "kill all" => {
            trace::mark("power cut");
            let away = span(rng, 20_000);
            let daemons = world
                .daemons
                .iter()
                .map(|daemon| World::bounce_daemon(daemon.clone(), world.parts.clone(), rng.next_u64(), away));
            let daemons: Vec<_> = daemons.collect();
            let agents = world
                .agents
                .iter()
                .map(|agent| World::bounce_agent(agent.clone(), world.parts.clone(), away));
            futures::future::join(futures::future::join_all(daemons), futures::future::join_all(agents)).await;
        }
        "kill agent" => {
            let agent = world.agents[rng.gen_range(0..world.agents.len())].clone();
            World::bounce_agent(agent, world.parts.clone(), span(rng, 20_000)).await;
        }
        "pause" => pause(world, rng),
        "partition" => {
            let (daemon, agent) = someone(world, rng);
            match rng.gen_range(0..3) {
                0 => world.parts.network.cut(agent, daemon),
                1 => world.parts.network.cut(daemon, agent),
                _ => {
                    world.parts.network.cut(agent, daemon);
                    world.parts.network.cut(daemon, agent);
                }
            }
            tokio::time::sleep(span(rng, 30_000)).await;
            world.parts.network.mend();
        }
        "outage" => world.parts.oracle.store().outage(span(rng, 30_000)),
        "full" => {
            world.parts.oracle.store().set_full(true);
            tokio::time::sleep(span(rng, 20_000)).await;
            world.parts.oracle.store().set_full(false);
        }
        "clock" => {
            let by = rng.gen_range(-5_000_000..5_000_000);
            trace::mark("clock set");
            trace::line(&format!("a clock is set by {by} ms"));
            world.daemons[rng.gen_range(0..world.daemons.len())]
                .borrow()
                .clock
                .jump(by);
        }
        "election" => set::lock(some_set(world, rng)).elect(),
        "member" => {
            let source = some_set(world, rng);
            let members = set::lock(source).members.len();
            let at = rng.gen_range(0..members);
            set::lock(source).restart(at, span(rng, 15_000));
            if set::lock(source).primary == at && members > 1 {
                tokio::time::sleep(Duration::from_millis(rng.gen_range(100..3000))).await;
                set::lock(source).elect();
            }
        }
        "lag" => {
            let source = some_set(world, rng);
            let members = set::lock(source).members.len();
            set::lock(source).stick(rng.gen_range(0..members), span(rng, 20_000));
        }
        "truncate" => set::lock(some_set(world, rng)).truncate(rng.gen_range(5..400)),
        "replace" => members::replace(world, rng).await,
        "drain" => members::drain(world, rng).await,
        "remove" => members::remove(world, rng).await,
        "rot disk" => members::rot(world, rng).await,
        "settings" => settings::change(world, rng).await,
        "resync" => wishes::upset(world, rng).await,
        _ => wishes::some(world, rng).await,
    }
}

fn pause(world: &World, rng: &mut StdRng) {
    let span = span(rng, 40_000);
    let at = rng.gen_range(0..world.daemons.len() + world.agents.len());
    trace::mark("process paused");
    trace::line(&format!("process {at} stands still for {} ms", span.as_millis()));
    match world.daemons.get(at) {
        Some(daemon) => {
            if let Some(process) = &daemon.borrow().process {
                process.pause(span);
            }
        }
        None => {
            if let Some(process) = &world.agents[at - world.daemons.len()].borrow().process {
                process.pause(span);
            }
        }
    }
}
