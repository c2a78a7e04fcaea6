//! One seed from its beginning to its end: a safety phase with faults, then a liveness phase without.

use std::rc::Rc;
use std::sync::Once;
use std::time::Duration;

use headwater_model::{Incarnation, ReplicaSetId};
use headwater_protocol::admin::{At, Phase, Status, Timeline};
use tokio::runtime::{Builder, RngSeed};
use tokio::task::LocalSet;
use tokio::time::Instant;

use crate::draw::{Draw, Mode};
use crate::mongo::Shared;
use crate::mongo::set::{self, Role};
use crate::oracle::window::Unkept;
use crate::oracle::{Violation, chain, raft};
use crate::planted::{self, Bug};
use crate::trace::Told;
use crate::world::World;
use crate::{chaos, cuts, entropy, members, rogue, rot, time, trace, wishes};

/// How a seed is run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How wild.
    pub mode: Mode,
    /// Prints the draw and every line of the trace.
    pub print: bool,
    /// A bug to plant.
    pub planted: Option<Bug>,
}

/// How a seed ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Which.
    pub seed: u64,
    /// What was violated, in words.
    pub violation: Option<String>,
    /// Virtual milliseconds.
    pub virtual_ms: u64,
    /// The trace.
    pub told: Told,
    /// Restores that were checked.
    pub restores: u64,
}

/// Without faults the world comes to rest within this, or something is stuck. Longer than every back-off and every patience.
const LIVENESS: Duration = Duration::from_secs(900);
/// Instants that are restored at the end.
const SAMPLES: u32 = 8;
/// Checkpoints that are restored at the end.
const CHECKPOINTS: usize = 4;

/// Runs a seed, on a thread of its own: thread-locals of one world never meet another.
pub fn run(seed: u64, options: Options) -> Outcome {
    hook();
    let thread = std::thread::Builder::new()
        .name(format!("seed {seed}"))
        .stack_size(16 << 20)
        .spawn(move || here(seed, options));
    match thread.map(std::thread::JoinHandle::join) {
        Ok(Ok(outcome)) => outcome,
        _ => Outcome {
            seed,
            violation: Some("the world itself panicked".to_owned()),
            virtual_ms: 0,
            told: Told::default(),
            restores: 0,
        },
    }
}

/// Collects panics of simulating threads: tokio and production code catch them, and they must not go unnoticed.
fn hook() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !trace::panicked(&panic.to_string()) {
                before(panic);
            }
        }));
    });
}

fn here(seed: u64, options: Options) -> Outcome {
    entropy::simulate(seed);
    trace::begin(options.print);
    planted::plant(options.planted);
    let runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .rng_seed(RngSeed::from_bytes(&seed.to_le_bytes()))
        .build();
    let (violation, virtual_ms) = match runtime {
        Ok(runtime) => {
            let local = LocalSet::new();
            let ended =
                tracing::subscriber::with_default(trace::Log, || local.block_on(&runtime, whole(seed, options)));
            drop(local);
            ended
        }
        Err(error) => (Some(format!("no runtime: {error}")), 0),
    };
    time::end();
    planted::plant(None);
    let told = trace::end();
    let panic = told
        .panics
        .first()
        .map(|panic| Violation::Panic(panic.clone()).to_string());
    Outcome {
        seed,
        violation: violation.or(panic),
        virtual_ms,
        restores: told.marks.get("restore checked").copied().unwrap_or(0),
        told,
    }
}

async fn whole(seed: u64, options: Options) -> (Option<String>, u64) {
    time::begin();
    let draw = Draw::of(seed, options.mode);
    if options.print {
        println!("{draw:#?}");
    }
    trace::line(&format!("{draw:?}"));
    let world = Rc::new(World::begin(draw));
    let violation = phases(&world).await;
    world.end();
    (violation.map(|violation| violation.to_string()), time::elapsed_ms())
}

async fn phases(world: &Rc<World>) -> Option<Violation> {
    let oracle = world.parts.oracle.clone();
    let protecting = world.clone();
    tokio::task::spawn_local(async move { wishes::protect(&protecting).await });
    chaos::unleash(world);
    rogue::unleash(world);
    for _ in 0..world.parts.draw.safety_s {
        tokio::time::sleep(Duration::from_secs(1)).await;
        if let Some(violation) = oracle.violation() {
            return Some(violation);
        }
    }
    world.heal();
    if let Some(stuck) = converge(world).await {
        return oracle.violation().or(Some(stuck));
    }
    if let Err(violation) = rest(world).await {
        oracle.report(violation);
    }
    oracle.violation()
}

/// Waits until the backup has caught up with the source.
async fn converge(world: &World) -> Option<Violation> {
    let (began, mut turns) = (Instant::now(), 0_u32);
    loop {
        tokio::time::sleep(Duration::from_millis(500)).await;
        if world.parts.oracle.violation().is_some() {
            return None;
        }
        let why = match lacks(world).await {
            None => return None,
            Some(why) => why,
        };
        turns += 1;
        if world.was_stopped.get() && turns % 100 == 0 {
            wishes::start_again(world).await;
        }
        if began.elapsed() > LIVENESS {
            return Some(Violation::Stuck(LIVENESS.as_secs(), why));
        }
    }
}

/// What is still to be done; `None` when all is done.
async fn lacks(world: &World) -> Option<String> {
    if !world.is_protected.get() {
        return Some("a user is not answered who protects the source".to_owned());
    }
    let Some(status) = wishes::status(world, 0).await else {
        return Some("no daemon answers".to_owned());
    };
    match members::view(world).await {
        None => return Some("nobody leads".to_owned()),
        Some(view) => {
            if let Some(lack) = members::lacks(world, &view) {
                return Some(lack);
            }
        }
    }
    if let Some(cluster) = &world.cluster
        && !cluster.borrow().is_at_rest()
    {
        return Some("transfers or migrations of the source are on their way".to_owned());
    }
    let mut sets = world.parts.sets().into_iter();
    sets.find_map(|(id, source)| lags(&status, &id, &source))
}

/// What a replica set of the source lacks.
fn lags(status: &Status, id: &ReplicaSetId, source: &Shared) -> Option<String> {
    let Some(set) = status.replica_sets.iter().find(|set| set.name == *id) else {
        return Some(format!("{id} is not known: {:?}", status.alerts));
    };
    let newest = {
        let source = set::lock(source);
        // A checkpoint would wait for it for ever.
        let is_open = source.history.open(source.history.count()).next().is_some();
        if source.role != Role::Plain && is_open {
            return Some(format!("a transaction of {id} is not decided at the source"));
        }
        source.history.position(source.history.count()).ts.into()
    };
    if let Some(problem) = &set.problem {
        return Some(format!("there is a problem: {problem}"));
    }
    if set.phase != Phase::Complete {
        return Some(format!("the phase is {}", set.phase.text()));
    }
    // The source goes on writing no-ops: the newest may be a moment old.
    let behind = |at: Option<headwater_protocol::admin::Position>| at.is_none_or(|at| at != newest);
    if behind(set.tip) || behind(set.applied) {
        return Some(format!(
            "tip {:?} and head {:?} are not at {newest:?}",
            set.tip, set.applied
        ));
    }
    if set.last_snapshot.is_none() {
        return Some("there is no snapshot".to_owned());
    }
    None
}

/// The world is at rest: everything that was promised is looked at.
async fn rest(world: &World) -> Result<(), Violation> {
    let oracle = &world.parts.oracle;
    if world.parts.draw.short_window.is_some() {
        // What is offered from now on stays; what was about to go has time to.
        wishes::schedule(world, 30, 24).await;
        wishes::snapshot(world, 0).await;
        tokio::time::sleep(Duration::from_secs(90)).await;
    }
    let timeline = match world.cluster {
        None => snapshot(world).await?,
        Some(_) => cuts::sealed(world).await?,
    };
    for (id, source) in world.parts.sets() {
        let own = timeline.ranges.iter().filter(|range| range.replica_set == id);
        let newest = own.map(|range| range.incarnation).max();
        let Incarnation(incarnations) = newest.ok_or(Unkept::Nothing)?;
        let bare = std::sync::Arc::new(oracle.store().bare());
        // What is left of a history that was given up, or comes back late, is nobody's.
        let kept = (1..=incarnations)
            .map(Incarnation)
            .filter(|of| !oracle.is_given_up(&id, *of));
        let stored = chain::check(bare, &id, kept, &source).await?;
        oracle.acknowledged_within(&id, &stored)?;
    }
    let machines = world.daemons.iter().enumerate();
    let disks = machines.map(|(number, machine)| (number, machine.borrow()));
    // What rotted is refused, and says nothing.
    let disks = disks.filter(|(_, machine)| !machine.is_rotten());
    let disks: Vec<_> = disks.map(|(number, machine)| (number, machine.disk.clone())).collect();
    raft::check(&disks)?;
    match world.cluster {
        None => restores(world, &timeline).await,
        Some(_) => restores_of_cluster(world, &timeline).await,
    }
    if oracle.violation().is_some() {
        return Ok(());
    }
    rot::whole(world).await?;
    rot::rot(world).await
}

/// Some instants that are offered, and every snapshot.
async fn restores(world: &World, timeline: &Timeline) {
    let mut rng = world.parts.rng("samples");
    for _ in 0..SAMPLES {
        if let Some((set, wanted)) = wishes::choose(world, timeline, &mut rng) {
            wishes::restore(world, 0, &set, wanted, true).await;
        }
    }
    for snapshot in timeline.snapshots.iter().filter(|snapshot| snapshot.complete) {
        let at = At::Snapshot(snapshot.id.clone());
        wishes::restore(world, 0, &snapshot.replica_set, at, true).await;
    }
}

/// Some cluster times that are offered, the newest checkpoints, and a member by itself.
async fn restores_of_cluster(world: &World, timeline: &Timeline) {
    let mut rng = world.parts.rng("samples");
    for _ in 0..SAMPLES / 2 {
        cuts::some(world, 0, timeline, &mut rng, true).await;
    }
    for snapshot in cuts::checkpoints(timeline).rev().take(CHECKPOINTS) {
        cuts::whole(world, 0, At::Snapshot(snapshot.id.clone()), true).await;
        cuts::merged(world, 0, At::Snapshot(snapshot.id.clone()), true).await;
    }
    if let Some((set, wanted)) = wishes::choose(world, timeline, &mut rng) {
        wishes::restore(world, 0, &set, wanted, true).await;
    }
}

/// Takes a snapshot; gives what can be restored then.
async fn snapshot(world: &World) -> Result<Timeline, Violation> {
    let began = Instant::now();
    // Those that the timetable asked for while nothing went on may be under way: users are told to wait.
    let asked = loop {
        match wishes::snapshot(world, 0).await {
            Some(asked) => break asked,
            None if began.elapsed() > LIVENESS => {
                return Err(Violation::Stuck(
                    LIVENESS.as_secs(),
                    "a snapshot was refused".to_owned(),
                ));
            }
            None => tokio::time::sleep(Duration::from_millis(500)).await,
        }
    };
    loop {
        let timeline = wishes::timeline(world, 0).await;
        if let Some(timeline) = timeline
            && timeline
                .snapshots
                .iter()
                .any(|snapshot| snapshot.id == asked.id && snapshot.complete)
        {
            return Ok(timeline);
        }
        if began.elapsed() > LIVENESS {
            return Err(Violation::Stuck(
                LIVENESS.as_secs(),
                format!("snapshot {} is not complete", asked.id),
            ));
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}
