//! Integrity at rest: checks and proofs of a whole store find nothing; then bits rot, and what rotted is never given back
//! as if it were whole. After a check, what is still offered can be restored.

use std::time::Duration;

use headwater_model::DeploymentName;
use headwater_protocol::admin::At;
use headwater_protocol::integrity::{CheckRequest, CheckState, CheckView, ProofRequest};
use headwater_store::objects::Objects;
use rand::rngs::StdRng;
use rand::{Rng, RngCore};
use tokio::time::Instant;

use crate::cuts;
use crate::oracle::{Violation, integrity};
use crate::trace;
use crate::user::Wish;
use crate::wishes::{self, ask_for};
use crate::world::{World, deployment};

/// How long a check, and who has just begun, may take.
const PATIENCE: Duration = Duration::from_secs(300);
/// Instants that are restored before and after the check.
const SAMPLES: u32 = 4;

fn every_byte(name: DeploymentName, set: Option<String>) -> Wish {
    let data = CheckRequest {
        data: true,
        replica_set: set,
        ..CheckRequest::default()
    };
    Wish::Check(name, data)
}

fn proof(name: DeploymentName, set: Option<String>) -> Wish {
    let proof = ProofRequest {
        replica_set: set,
        ..ProofRequest::default()
    };
    Wish::Proof(name, proof)
}

/// A check of every byte and a proof: both must be content.
pub async fn whole(world: &World) -> Result<(), Violation> {
    let Some(name) = deployment() else { return Ok(()) };
    for (id, _) in world.parts.sets() {
        let set = world.parts.named(&id);
        for wish in [every_byte(name.clone(), set.clone()), proof(name.clone(), set.clone())] {
            integrity::sound(&ended(world, wish, set.clone()).await?)?;
        }
    }
    trace::mark("integrity: everything is sound");
    Ok(())
}

/// Lets bits of some objects rot, looks what comes out, lets everything be checked, and looks again.
pub async fn rot(world: &World) -> Result<(), Violation> {
    let objects = world.parts.draw.rot;
    let Some(name) = deployment().filter(|_| objects > 0) else {
        return Ok(());
    };
    let mut rng = world.parts.rng("rot");
    world.rotten.set(true);
    for _ in 0..objects {
        flip(world, &mut rng).await;
    }
    if rng.gen_bool(0.5) {
        restart(world, &mut rng).await?;
    }
    // Refused or right.
    restores(world, &mut rng, false).await;
    for (id, _) in world.parts.sets() {
        let set = world.parts.named(&id);
        let check = ended(world, every_byte(name.clone(), set.clone()), set).await?;
        if check.mended > 0 {
            trace::mark("integrity: damage was mended");
        }
        trace::mark(match check.state {
            CheckState::Damaged => "integrity: damage stays",
            _ => "integrity: no damage that matters",
        });
        trace::line(&format!("the check ended: {check:?}"));
    }
    restores(world, &mut rng, true).await;
    Ok(())
}

/// Flips a bit of an object of the replica set; fences and what names the cluster are read before anything is offered.
async fn flip(world: &World, rng: &mut StdRng) {
    let bare = world.parts.oracle.store().bare();
    let contents = bare.contents();
    let all: Vec<_> = contents
        .iter()
        .filter(|(key, bytes)| key.starts_with("rs/") && !key.contains("/fence/") && !bytes.is_empty())
        .collect();
    if all.is_empty() {
        return;
    }
    let (key, bytes) = all[rng.gen_range(0..all.len())];
    world.parts.oracle.store().note_rotten(bytes.clone());
    let (mut rotten, bit) = (bytes.to_vec(), rng.gen_range(0..bytes.len() * 8));
    rotten[bit / 8] ^= 1 << (bit % 8);
    trace::mark("store: a bit flipped");
    trace::line(&format!("bit {bit} of {key} flips"));
    // The memory behind the store never fails by itself.
    if bare.put(key, rotten.into()).await.is_err() {
        trace::line("it could not be written");
    }
}

/// Nothing is in memory any more.
async fn restart(world: &World, rng: &mut StdRng) -> Result<(), Violation> {
    for daemon in &world.daemons {
        daemon.borrow_mut().kill(rng.next_u64());
        daemon.borrow_mut().boot(&world.parts);
    }
    let began = Instant::now();
    while wishes::timeline(world, 0).await.is_none() {
        if began.elapsed() > PATIENCE {
            let what = "no daemon tells what can be restored after bits rotted".to_owned();
            return Err(Violation::Stuck(PATIENCE.as_secs(), what));
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    Ok(())
}

/// Restores some instants that are offered and every snapshot that is; `must` they be granted?
async fn restores(world: &World, rng: &mut StdRng, must: bool) {
    let Some(timeline) = wishes::timeline(world, 0).await else {
        return;
    };
    for _ in 0..SAMPLES {
        if let Some((set, wanted @ At::Position(_))) = wishes::choose(world, &timeline, rng) {
            wishes::restore(world, 0, &set, wanted, must).await;
        }
    }
    for snapshot in timeline.snapshots {
        let wanted = At::Snapshot(snapshot.id);
        match snapshot.complete && snapshot.damaged.is_none() {
            true if snapshot.members.is_empty() => {
                wishes::restore(world, 0, &snapshot.replica_set, wanted, must).await;
            }
            true => cuts::whole(world, 0, wanted, must).await,
            false => {}
        }
    }
}

/// Asks for a check or a proof and waits for its end.
async fn ended(world: &World, wish: Wish, set: Option<String>) -> Result<CheckView, Violation> {
    let began = Instant::now();
    let stuck = |what: &str| Violation::Stuck(PATIENCE.as_secs(), what.to_owned());
    let Some(name) = deployment() else {
        return Err(stuck("there is no deployment"));
    };
    let mut asked: Option<CheckView> = None;
    while began.elapsed() < PATIENCE {
        match &asked {
            None => asked = ask_for(world, 0, wish.clone()).await,
            Some(check) if check.state != CheckState::Running => return Ok(check.clone()),
            Some(check) => {
                if let Some(now) = ask_for(world, 0, Wish::CheckAt(name.clone(), set.clone(), check.number)).await {
                    asked = Some(now);
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    Err(stuck(&format!("a check does not end: {asked:?}")))
}
