//! The machine that a daemon runs on: what outlives its process.

use std::collections::BTreeMap;

use futures::FutureExt;
use headwater_cluster::codec;
use headwater_host::memory::MemoryDisk;
use headwater_host::{Kv, Op};
use rand::Rng;
use rand::rngs::StdRng;

use crate::daemon::{NAMES, Run};
use crate::draw::TuningDraw;
use crate::network::Peer;
use crate::planted::{self, Bug};
use crate::process::Process;
use crate::time::Clock;
use crate::world::Parts;

/// Version and checksum of what lies on a daemon's disk; see `cluster/src/codec.rs`.
const FRAME_BYTES: usize = 9;

/// See the module.
pub struct Machine {
    /// Counted from 0.
    pub at: usize,
    /// Its clock.
    pub clock: Clock,
    /// Its own disk.
    pub disk: MemoryDisk,
    /// How often it was started.
    pub boots: u64,
    /// The process that runs.
    pub process: Option<Process>,
    /// Whether it is told to begin a cluster; otherwise it is told to join.
    founder: bool,
    /// How it is tuned from its next start on.
    pub tuning: TuningDraw,
    yesterday: Option<BTreeMap<Vec<u8>, Vec<u8>>>,
    /// How many disks it had before.
    disks: u64,
    /// A pair on its disk of which a bit flipped, as it was before.
    rotten: Option<(Vec<u8>, Vec<u8>)>,
}

impl Machine {
    /// Whether a bit on its disk flipped that was not mended since.
    pub fn is_rotten(&self) -> bool {
        self.rotten.is_some()
    }

    /// A machine with an empty disk.
    pub fn new(at: usize, clock: Clock, tuning: TuningDraw) -> Machine {
        Machine {
            at,
            clock,
            disk: MemoryDisk::new(),
            boots: 0,
            process: None,
            founder: at == 0,
            tuning,
            yesterday: None,
            disks: 0,
            rotten: None,
        }
    }

    /// Its daemon's name on the network.
    pub fn name(&self) -> Peer {
        NAMES[self.at]
    }

    /// Starts the daemon.
    pub fn boot(&mut self, parts: &Parts) {
        self.boots += 1;
        let run = Run {
            name: self.name(),
            founder: self.founder,
            process: self.boots * 10 + self.at as u64,
            seed: parts.seed_of(self.name(), self.boots),
            disk: self.disk.clone(),
            owner: (self.at, self.disks),
            rotten: self.rotten.as_ref().map(|(key, _)| key.clone()),
            tuning: self.tuning,
            parts: parts.clone(),
        };
        let (seed, clock) = (run.seed, self.clock.clone());
        self.process = Some(Process::start(
            self.name(),
            seed,
            clock,
            parts.draw.schedule,
            move |host, life| run.main(host, life),
        ));
    }

    /// Ends the daemon as kill -9 or a power cut do: what was not flushed may be lost.
    pub fn kill(&mut self, seed: u64) {
        if let Some(process) = self.process.take() {
            process.kill();
            self.disk.crash(seed);
            if planted::is(Bug::DiskOfYesterday) {
                self.go_back();
            }
        }
    }

    /// A new disk in the place of the old one; from now on it joins.
    pub fn wipe(&mut self) {
        self.disk = MemoryDisk::new();
        self.founder = false;
        self.yesterday = None;
        self.disks += 1;
        self.rotten = None;
    }

    /// A bit of something on its disk flips; tells of what. For a machine that is off.
    pub fn rot(&mut self, rng: &mut StdRng) -> Option<String> {
        // Pieces that a crash left behind belong to no image, and nobody looks at them.
        let pairs = self.disk.durable().into_iter();
        let pairs: Vec<_> = pairs.filter(|(key, _)| !key.starts_with(b"raft/piece/")).collect();
        if pairs.is_empty() || self.rotten.is_some() {
            return None;
        }
        let (key, before) = pairs[rng.gen_range(0..pairs.len())].clone();
        let (mut after, bit) = (before.clone(), rng.gen_range(0..before.len() * 8));
        after[bit / 8] ^= 1 << (bit % 8);
        if planted::is(Bug::RotUnnoticed) {
            after = codec::frame(&key, &after[FRAME_BYTES.min(after.len())..]);
        }
        self.disk.rot(&key, &after);
        let what = format!("bit {bit} of {}", key.escape_ascii());
        self.rotten = Some((key, before));
        Some(what)
    }

    /// The disk is as it was before a bit flipped.
    pub fn repair(&mut self) {
        if let Some((key, before)) = self.rotten.take() {
            self.disk.rot(&key, &before);
        }
    }

    /// The disk of the second start comes back at every later one.
    fn go_back(&mut self) {
        if self.boots == 2 {
            self.yesterday = Some(self.disk.durable());
        } else if let Some(yesterday) = &self.yesterday {
            let old = MemoryDisk::new();
            let kv = old.open();
            let puts = yesterday.iter().map(|(key, value)| Op::put(key.clone(), value.clone()));
            // In memory, and nothing is planted into it.
            let _ = kv.write(puts.collect());
            let _ = kv.flush().now_or_never();
            self.disk = old;
        }
    }
}
