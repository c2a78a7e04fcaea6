//! Everything a world is made of, drawn from its seed before it begins.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::agent;
use crate::daemon::NAMES;
use crate::disk::DiskDraw;
use crate::mongo::cluster::ClusterDraw;
use crate::mongo::set::MongoDraw;
use crate::mongo::workload::WorkloadDraw;
use crate::network::NetworkDraw;
use crate::process::Schedule;
use crate::store::StoreDraw;

/// How wild the worlds are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Every kind of fault is on or off by a coin of its own, so that rare mixtures come up.
    Swarm,
    /// Nothing fails.
    Lite,
}

/// How often things happen: the mean number of seconds between two of them; `None` for never.
#[derive(Clone, Copy, Debug)]
pub struct Chaos {
    /// A daemon is killed and started again.
    pub kill_daemon: Option<u64>,
    /// All power is cut: every daemon and agent at once.
    pub kill_all: Option<u64>,
    /// An agent is killed and started again.
    pub kill_agent: Option<u64>,
    /// A process stands still for a while.
    pub pause: Option<u64>,
    /// A link is cut, one way or both.
    pub partition: Option<u64>,
    /// The store does not answer for a while.
    pub outage: Option<u64>,
    /// The store is full for a while.
    pub full: Option<u64>,
    /// A clock is set.
    pub clock: Option<u64>,
    /// The source elects.
    pub election: Option<u64>,
    /// A member of the source is restarted.
    pub member: Option<u64>,
    /// A member of the source lags.
    pub lag: Option<u64>,
    /// The source's oplog loses its oldest part.
    pub truncate: Option<u64>,
    /// A user takes or deletes a snapshot, restores, looks.
    pub user: Option<u64>,
    /// A user begins a new first copy, or stops and restarts a deployment.
    pub resync: Option<u64>,
    /// A daemon loses its disk and joins anew.
    pub replace: Option<u64>,
    /// A user drains a node for a while.
    pub drain: Option<u64>,
    /// A user takes a node out, and has its machine join anew.
    pub remove: Option<u64>,
    /// A bit flips on a daemon's own disk.
    pub rot_disk: Option<u64>,
    /// A setting changes: of the deployment while all runs, of a daemon or an agent with a restart.
    pub settings: Option<u64>,
}

/// How one daemon is tuned. Those of a cluster may differ.
#[derive(Clone, Copy, Debug)]
pub struct TuningDraw {
    /// Bytes of changes a head holds in memory.
    pub memtable_bytes: usize,
    /// Seconds between waypoints.
    pub waypoint_seconds: u64,
    /// Seconds between looks at leftovers and at the stored oplog; also between grooms.
    pub tend_seconds: u64,
    /// Slices that are worth merging.
    pub merge_slices: usize,
    /// Entries of Raft's log between images of the control state, and how many are kept behind one.
    pub images: (u64, u64),
}

impl TuningDraw {
    /// Another one.
    pub fn anew(rng: &mut StdRng) -> TuningDraw {
        TuningDraw {
            memtable_bytes: [2_000, 20_000, 400_000][rng.gen_range(0..3)],
            waypoint_seconds: rng.gen_range(2..40),
            tend_seconds: rng.gen_range(4..30),
            merge_slices: rng.gen_range(3..60),
            images: [(1000, 200), (100, 20), (20, 2)][rng.gen_range(0..3)],
        }
    }
}

/// A world before it begins.
#[derive(Clone, Debug)]
pub struct Draw {
    /// The seed all of it comes from.
    pub seed: u64,
    /// How wild.
    pub mode: Mode,
    /// How many daemons.
    pub daemons: usize,
    /// How many agents.
    pub agents: usize,
    /// Virtual seconds with faults.
    pub safety_s: u64,
    /// The source.
    pub mongo: MongoDraw,
    /// What makes it a sharded cluster, of which each replica set is like `mongo`.
    pub cluster: Option<ClusterDraw>,
    /// What users do to it.
    pub workload: WorkloadDraw,
    /// The network.
    pub network: NetworkDraw,
    /// The backing store.
    pub store: StoreDraw,
    /// The daemons' own disks.
    pub disk: DiskDraw,
    /// The scheduling of tasks.
    pub schedule: Schedule,
    /// How far clocks are off at first, in milliseconds either way, and what they gain in a million.
    pub clock: (i64, i64),
    /// Bytes of changes a head holds in memory.
    pub memtable_bytes: usize,
    /// Seconds between waypoints.
    pub waypoint_seconds: u64,
    /// Seconds between scheduled snapshots.
    pub snapshot_interval_s: u64,
    /// How long an agent waits for an answer, in milliseconds.
    pub patience_ms: u64,
    /// Seconds between looks at leftovers and at the stored oplog; also between grooms.
    pub tend_seconds: u64,
    /// Slices that are worth merging.
    pub merge_slices: usize,
    /// Hours of the point-in-time window, where snapshots expire as soon as they are complete.
    pub short_window: Option<u32>,
    /// Whether somebody collects metrics.
    pub metrics: bool,
    /// Objects of which a bit flips when all else is over.
    pub rot: u32,
    /// Bytes of a slice of a first copy, and of a collection that is scanned in parts; `None` for the usual ones, which no
    /// collection here has.
    pub slices: Option<(usize, u64)>,
    /// What befalls it.
    pub chaos: Chaos,
}

impl Draw {
    /// Draws a world.
    pub fn of(seed: u64, mode: Mode) -> Draw {
        let mut rng = StdRng::seed_from_u64(seed ^ 0x6865_6164_7761_7465);
        let rng = &mut rng;
        let wild = mode == Mode::Swarm;
        let version = ["6.0.5", "6.0.5", "5.0.4", "4.4.2"][rng.gen_range(0..4)];
        let mut draw = Draw {
            seed,
            mode,
            daemons: [1, 1, 3][rng.gen_range(0..3)],
            agents: if rng.gen_bool(0.2) { 2 } else { 1 },
            safety_s: rng.gen_range(40..160),
            mongo: MongoDraw {
                members: [1, 1, 2, 3, 3, 5][rng.gen_range(0..6)],
                version,
                latency_ms: rng.gen_range(1..15),
                lag_ms: rng.gen_range(50..2000),
                batch: rng.gen_range(4..60),
                scan_misses: false,
                skew_s: 0,
            },
            cluster: None,
            workload: WorkloadDraw {
                documents: rng.gen_range(0..300),
                collections: rng.gen_range(1..8),
                rate: rng.gen_range(1..30),
                text: [20, 200, 3000][rng.gen_range(0..3)],
                ddl: rng.gen_range(0..12),
                transactions: rng.gen_range(0..20),
            },
            network: NetworkDraw {
                delay_ms: rng.gen_range(1..20),
                slow: some(rng, wild, 1..60),
                lost: some(rng, wild, 1..120),
                twice: some(rng, wild, 1..100),
            },
            store: StoreDraw {
                latency_ms: rng.gen_range(1..20),
                slow: some(rng, wild, 1..30),
                before: some(rng, wild, 1..40),
                after: some(rng, wild, 1..40),
                late: 0,
            },
            disk: DiskDraw {
                flush_ms: rng.gen_range(1..15),
                slow: some(rng, wild, 1..20),
                eio: some(rng, wild, 1..60),
            },
            schedule: Schedule {
                put_off: some(rng, wild, 1..80),
                blocking_ms: rng.gen_range(0..40),
            },
            clock: (0, 0),
            memtable_bytes: [2_000, 20_000, 400_000][rng.gen_range(0..3)],
            waypoint_seconds: rng.gen_range(2..40),
            snapshot_interval_s: rng.gen_range(60..200),
            patience_ms: rng.gen_range(1500..20_000),
            tend_seconds: 60,
            merge_slices: 64,
            short_window: None,
            metrics: false,
            rot: 0,
            slices: None,
            chaos: Chaos {
                kill_daemon: every(rng, wild, 4..60),
                kill_all: every(rng, wild, 20..120),
                kill_agent: every(rng, wild, 4..60),
                pause: every(rng, wild, 8..60),
                partition: every(rng, wild, 5..60),
                outage: every(rng, wild, 15..80),
                full: every(rng, wild, 20..80),
                clock: every(rng, wild, 10..60),
                election: every(rng, wild, 5..60),
                member: every(rng, wild, 5..60),
                lag: every(rng, wild, 5..40),
                truncate: every(rng, wild, 10..60),
                user: Some(rng.gen_range(4..30)),
                resync: every(rng, wild, 40..200),
                replace: None,
                drain: None,
                remove: None,
                rot_disk: None,
                settings: None,
            },
        };
        if wild && rng.gen_bool(0.5) {
            draw.clock = (rng.gen_range(0..7_200_000), rng.gen_range(0..500));
        }
        let several = draw.daemons > 2;
        draw.chaos.replace = every(rng, wild && several, 15..120);
        draw.chaos.drain = every(rng, wild && several, 10..90);
        draw.chaos.remove = every(rng, wild && several, 15..120);
        draw.tend_seconds = rng.gen_range(4..30);
        draw.merge_slices = rng.gen_range(3..60);
        draw.short_window = [None, None, Some(0), Some(1)][rng.gen_range(0..4)];
        draw.rot = if wild { [0, 0, 1, 4][rng.gen_range(0..4)] } else { 0 };
        draw.cluster = ClusterDraw::of(seed);
        if let Some(cluster) = &draw.cluster {
            // As much to do as with one replica set, shared out; other versions were not tested as clusters.
            let sets = cluster.members.len() as u32;
            draw.mongo.version = "6.0.5";
            draw.workload.documents /= sets;
            draw.workload.collections = draw.workload.collections.div_ceil(2);
            draw.workload.rate = draw.workload.rate.div_ceil(sets);
            draw.safety_s = draw.safety_s.min(110);
        }
        draw.topology();
        if wild && ROTTEN_DISKS.contains(&(seed % 8)) {
            draw.chaos.rot_disk = Some(own(seed, "rot disk").gen_range(10..60));
        }
        if wild && LATE_WRITES.contains(&(seed % 12)) {
            draw.store.late = own(seed, "late writes").gen_range(20..250);
        }
        draw.mongo.scan_misses = wild && SCAN_MISSES.contains(&(seed % 31));
        if SLICES.contains(&(seed % 58)) {
            let mut rng = own(seed, "slices");
            let split_over = if rng.gen_bool(0.4) {
                rng.gen_range(400..20_000)
            } else {
                u64::MAX
            };
            draw.slices = Some((rng.gen_range(100..4000), split_over));
        }
        draw.metrics = METRICS.contains(&(seed % 8));
        if wild && seed % 7 == SETTINGS {
            draw.chaos.settings = Some(own(seed, "settings").gen_range(4..30));
        }
        draw
    }

    /// Of a fifth of the seeds any number of daemons and agents.
    fn topology(&mut self) {
        if !TOPOLOGIES.contains(&(self.seed % 10)) {
            return;
        }
        let mut rng = own(self.seed, "topology");
        let rng = &mut rng;
        self.daemons = rng.gen_range(1..=NAMES.len());
        self.agents = rng.gen_range(1..=agent::NAMES.len());
        // Two members do not bear the loss of a disk.
        let wild = self.mode == Mode::Swarm && self.daemons > 2;
        self.chaos.replace = every(rng, wild, 15..120);
        self.chaos.drain = every(rng, wild, 10..90);
        self.chaos.remove = every(rng, wild, 15..120);
    }

    /// How every daemon is tuned at first.
    pub fn tuning(&self) -> TuningDraw {
        TuningDraw {
            memtable_bytes: self.memtable_bytes,
            waypoint_seconds: self.waypoint_seconds,
            tend_seconds: self.tend_seconds,
            merge_slices: self.merge_slices,
            images: (1000, 200),
        }
    }
}

// What came in later is drawn for some seeds only, from a stream of its own, so that the others stay what they are. Which
// ones goes by remainders that no seed leaves that is pinned in `tests/simulation.rs`.
const ROTTEN_DISKS: [u64; 2] = [1, 4];
const TOPOLOGIES: [u64; 2] = [6, 8];
const METRICS: [u64; 2] = ROTTEN_DISKS;
const LATE_WRITES: [u64; 2] = [0, 5];
const SETTINGS: u64 = 1;
const SCAN_MISSES: [u64; 8] = [1, 2, 15, 16, 17, 18, 21, 25];
const SLICES: [u64; 29] = [
    2, 4, 6, 7, 11, 14, 15, 16, 17, 26, 27, 28, 29, 30, 32, 33, 35, 36, 38, 39, 41, 44, 47, 48, 49, 50, 52, 53, 56,
];

fn own(seed: u64, name: &str) -> StdRng {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes()).update(name.as_bytes());
    StdRng::from_seed(*hasher.finalize().as_bytes())
}

fn some(rng: &mut StdRng, wild: bool, range: std::ops::Range<u32>) -> u32 {
    let value = rng.gen_range(range);
    if wild && rng.gen_bool(0.5) { value } else { 0 }
}

fn every(rng: &mut StdRng, wild: bool, range: std::ops::Range<u64>) -> Option<u64> {
    let value = rng.gen_range(range);
    (wild && rng.gen_bool(0.5)).then_some(value)
}
