//! Settings that change in the middle of everything: those of the deployment at once, those of a daemon or an agent with its
//! next start, so that daemons of one cluster run with different ones.

use std::time::Duration;

use headwater_protocol::keeping::ScheduleChange;
use rand::rngs::StdRng;
use rand::{Rng, RngCore};

use crate::chaos::span;
use crate::draw::TuningDraw;
use crate::trace;
use crate::user::Wish;
use crate::wishes;
use crate::world::{World, deployment};

/// Changes some.
pub async fn change(world: &World, rng: &mut StdRng) {
    match rng.gen_range(0..4) {
        0 => schedule(world, rng).await,
        1 => agent(world, rng).await,
        _ => daemon(world, rng).await,
    }
}

async fn schedule(world: &World, rng: &mut StdRng) {
    let Some(name) = deployment() else { return };
    let at = rng.gen_range(0..world.daemons.len());
    let change = ScheduleChange {
        interval_seconds: Some(rng.gen_range(60..300)),
        reference: Some(format!("{:02}:{:02}", rng.gen_range(0..24), rng.gen_range(0..60))),
        ..ScheduleChange::default()
    };
    trace::line(&format!("a user changes the schedule: {change:?}"));
    if let Some((200, _)) = wishes::ask(world, at, Wish::Schedule(name, change)).await {
        trace::mark("settings: schedule changed");
    }
}

async fn agent(world: &World, rng: &mut StdRng) {
    let agent = world.agents[rng.gen_range(0..world.agents.len())].clone();
    trace::mark("settings: agent tuned anew");
    agent.borrow_mut().patience = Duration::from_millis(rng.gen_range(1500..20_000));
    World::bounce_agent(agent, world.parts.clone(), span(rng, 4_000)).await;
}

async fn daemon(world: &World, rng: &mut StdRng) {
    let daemon = world.daemons[rng.gen_range(0..world.daemons.len())].clone();
    let tuning = TuningDraw::anew(rng);
    trace::mark("settings: daemon tuned anew");
    trace::line(&format!("{} is tuned anew: {tuning:?}", daemon.borrow().name()));
    daemon.borrow_mut().tuning = tuning;
    World::bounce_daemon(daemon, world.parts.clone(), rng.next_u64(), span(rng, 4_000)).await;
}
