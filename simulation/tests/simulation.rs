//! Seeds that every change must pass, seeds that found something once, and the simulation itself under test.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use headwater_simulation::draw::{Draw, Mode};
use headwater_simulation::mongo::cluster::ClusterDraw;
use headwater_simulation::planted::Bug;
use headwater_simulation::run::{Options, Outcome, run};
use headwater_simulation::trace::MARKS;

const SWARM: Options = Options {
    mode: Mode::Swarm,
    print: false,
    planted: None,
};

/// Seeds of every change.
const EVERY_CHANGE: std::ops::Range<u64> = 0..200;

/// Seeds that found a bug in production code, and which.
const FOUND: [(u64, &str); 46] = [
    (
        13,
        "a node that does not own a shard could not plan a restore from a snapshot with transactions open in it: planning wrote blocks",
    ),
    (
        19,
        "the trouble of a Sync child that failed in its very last step was shown for ever, since nobody took it back",
    ),
    (
        40,
        "a restore to the cut of a checkpoint read the oplog after it, which was damaged and not needed",
    ),
    (
        61,
        "a second arrival of the end of the transfer put a sync that was validating back to building, for ever",
    ),
    (
        70,
        "the timeline listed a complete snapshot and left its range out, when it was completed while the timeline was made",
    ),
    (
        82,
        "a checkpoint that was asked for at a node whose clock is behind the leader's by minutes was given up at once, every time",
    ),
    (
        117,
        "an agent that died between the beginnings of oplog and sync left an incarnation that no agent could ever begin",
    ),
    (
        150,
        "a transfer whose end was stored, but with the answer of the store and then the agent lost, never went on",
    ),
    (
        179,
        "after a resync the position of the old head was shown as that of the new one",
    ),
    (
        182,
        "the instant of a shard's own first snapshot was restored while a transaction was prepared and not decided",
    ),
    (
        183,
        "a restore that was asked for while the slices of a first copy were removed found one gone, and was refused",
    ),
    (
        231,
        "a snapshot of a shard whose oplog could not be opened for damage was offered and could not be restored",
    ),
    (
        315,
        "a checkpoint whose oplog was given up was offered, and refused as if it needed that oplog",
    ),
    (
        440,
        "instants were offered that only the waypoint led to, which the next waypoint replaced",
    ),
    (
        534,
        "of a segment that was damaged in two places the first was forgotten, and what lay in it offered",
    ),
    (
        767,
        "nothing, but the oracle did not know that a slice may have served when a daemon that stood still acknowledges it",
    ),
    (
        10104,
        "a single daemon that died before it had elected itself asked without a pause whether it leads, until time passed",
    ),
    (
        10116,
        "a node that lost its disk was known for ever, when the one that took its place died as it was given its vote",
    ),
    (
        10172,
        "a node that was about to get its vote was shown as one that has it, and a disk was thrown away in reliance on it",
    ),
    (
        10233,
        "blocks that only the head needed rotted, and snapshots taken from it afterwards were offered",
    ),
    (
        10392,
        "(the world: a snapshot may expire between the look and the wish)",
    ),
    (10405, "the same as 10116, after the leader died"),
    (10474, "the same as 10104"),
    (
        121,
        "a checkpoint that was cut from a head known to be damaged was offered",
    ),
    (
        11353,
        "damage that a reader had met was noted again after it was mended, and kept whole snapshots from being offered",
    ),
    (
        11825,
        "(the world: a daemon that is behind sees a snapshot go with the newer one that let it go)",
    ),
    (
        10843,
        "the oplog before a damaged segment could not be read when the reader looked ahead into it",
    ),
    (
        10516,
        "a change of the members whose leader died in the middle was never carried through: a majority of both was needed for ever",
    ),
    (
        12269,
        "a write that took effect late brought a slice back into an ended history that was half removed: it could not be opened, \
         nor removed, and the oplog of the present one was not trimmed any more",
    ),
    (12953, "the same as 12269, with a slice that nobody had acknowledged"),
    (
        12606,
        "a mending that was interrupted before its pack was condemned was not carried on, and a restore at another node met the \
         damaged copy of a block that was whole elsewhere",
    ),
    (14612, "the same as 12606, after a groom that failed"),
    (
        16374,
        "a node that started while it was taken out of its cluster got its vote back, and its disk was thrown away in reliance on \
         its removal",
    ),
    (
        20088,
        "an instant was restored from a snapshot of an ended history although a transaction was prepared and not decided",
    ),
    (
        22111,
        "blocks that a failed groom had taken into memory were alive for the next groom, which deleted their packs and wrote nothing",
    ),
    (
        23303,
        "the founder began in a store that it had not claimed yet, and no other node could work there for ever",
    ),
    (
        16340,
        "(the world: a disk that rotted and is refused says nothing of the log)",
    ),
    (
        17327,
        "(the world: a stop whose answer was lost may take effect after the restart)",
    ),
    (
        22947,
        "(the world: a wish of the user who protects the source was on its way when the world was held to be at rest)",
    ),
    (
        30745,
        "a node that was told of its removal got its vote back when all nodes died before it was forgotten, and its disk was thrown \
         away",
    ),
    (
        26912,
        "a check found blocks of a damaged pack that the head had written again and not made durable yet: snapshots were offered \
         that no other node could read",
    ),
    (
        34763,
        "(the world: a slice that rots between its write and its acknowledgement was stored)",
    ),
    (
        25508,
        "(the world: a user who is told that enough snapshots are being taken waits for one of them)",
    ),
    (
        44042,
        "with as many snapshots waiting as may wait, the one by schedule was asked for first and refused, and none was ever taken again",
    ),
    (
        52444,
        "the first snapshot of a member drew the same four letters as a checkpoint of the same second, and became a part of it",
    ),
    (
        71123,
        "(the world: an index that is there cannot be made by the same name)",
    ),
];

fn all(seeds: impl IntoIterator<Item = u64>, options: Options) -> Vec<Outcome> {
    let seeds: Vec<u64> = seeds.into_iter().collect();
    let next = AtomicU64::new(0);
    let outcomes = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                    let outcome = run(*seed, options);
                    outcomes.lock().unwrap().push(outcome);
                }
            });
        }
    });
    let mut outcomes = outcomes.into_inner().unwrap();
    outcomes.sort_by_key(|outcome| outcome.seed);
    outcomes
}

fn none_failed(outcomes: &[Outcome]) {
    let failed: Vec<String> = outcomes
        .iter()
        .filter_map(|outcome| {
            let violation = outcome.violation.as_ref()?;
            Some(format!(
                "seed {}: {violation}\n    cargo run -p headwater-simulation -- --seed {} --trace",
                outcome.seed, outcome.seed
            ))
        })
        .collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn no_seed_fails_and_together_they_reach_every_fault_and_rare_branch() {
    let outcomes = all(EVERY_CHANGE, SWARM);
    none_failed(&outcomes);
    let mut marks: BTreeMap<&str, u64> = BTreeMap::new();
    for outcome in &outcomes {
        for (mark, count) in &outcome.told.marks {
            *marks.entry(mark).or_default() += count;
        }
    }
    let missing: Vec<_> = MARKS.iter().filter(|mark| !marks.contains_key(*mark)).collect();
    assert!(missing.is_empty(), "never reached: {missing:?}");
    let unlisted: Vec<_> = marks.keys().filter(|mark| !MARKS.contains(mark)).collect();
    assert!(unlisted.is_empty(), "not in the list of marks: {unlisted:?}");
}

#[test]
fn seeds_that_found_something_once_stay_clean() {
    none_failed(&all(FOUND.map(|(seed, _)| seed), SWARM));
}

/// The museum: each bug must be found within so many seeds, counted from 0.
const MUSEUM: [(Bug, u64); 28] = [
    (Bug::DiskForgetsFlush, 16),
    (Bug::DiskOfYesterday, 16),
    (Bug::ListForgetsLast, 4),
    (Bug::OplogWriteLost, 6),
    (Bug::MisdirectedWrite, 6),
    (Bug::PackWriteLost, 6),
    (Bug::ManifestLost, 4),
    (Bug::AckBeforeStored, 6),
    (Bug::SliceDropped, 6),
    (Bug::SyncSliceDropped, 4),
    (Bug::TailSkipsEntry, 8),
    (Bug::TailAltersEntry, 6),
    (Bug::ScanSkipsDocument, 6),
    (Bug::FetchFindsNothing, 6),
    (Bug::ProcessesBearOneName, 6),
    (Bug::ScanReadsStale, 6),
    (Bug::ListingForgetsCollection, 4),
    (Bug::GroomDeletesPack, 6),
    (Bug::GroomDeletesImage, 6),
    (Bug::TrimTakesNeeded, 6),
    (Bug::RestoreAlters, 6),
    (Bug::RestoreStopsShort, 6),
    (Bug::OplogRots, 8),
    (Bug::TailReadsLocal, 4),
    (Bug::SnapshotVanishes, 2),
    (Bug::RotUnnoticed, 8),
    (Bug::VoteForgotten, 2),
    (Bug::MemtableUnbounded, 12),
];

/// Those of sharded clusters: within so many seeds that have one.
const MUSEUM_OF_CLUSTERS: [(Bug, u64); 6] = [
    (Bug::CutByCommitEntry, 4),
    (Bug::CutTakesPrepared, 6),
    (Bug::CheckpointWithoutMember, 2),
    (Bug::TailSkipsMigrated, 6),
    (Bug::MembersApart, 4),
    (Bug::MergedWithOrphans, 12),
];

/// Those that show only where writes take effect late: within so many seeds that have such writes.
const MUSEUM_OF_LATE_WRITES: [(Bug, u64); 1] = [(Bug::StoreOverwrites, 12)];

#[test]
fn every_planted_bug_is_found() {
    let finds = |bug: Bug, seed: u64| {
        let options = Options {
            planted: Some(bug),
            ..SWARM
        };
        run(seed, options).violation.is_some()
    };
    let all = |_: u64| true;
    let with_cluster = |seed: u64| ClusterDraw::of(seed).is_some();
    let with_late_writes = |seed: u64| Draw::of(seed, Mode::Swarm).store.late > 0;
    let missed_among = |exhibits: &[(Bug, u64)], counts: &dyn Fn(u64) -> bool| -> Vec<(Bug, u64)> {
        let is_missed = |(bug, within): &(Bug, u64)| {
            let seeds = (0..).filter(|seed| counts(*seed));
            !seeds.take(*within as usize).any(|seed| finds(*bug, seed))
        };
        exhibits.iter().copied().filter(is_missed).collect()
    };
    let mut missed = missed_among(&MUSEUM, &all);
    missed.extend(missed_among(&MUSEUM_OF_CLUSTERS, &with_cluster));
    missed.extend(missed_among(&MUSEUM_OF_LATE_WRITES, &with_late_writes));
    assert!(missed.is_empty(), "the oracles do not see {missed:?}");
}

#[test]
fn a_world_without_faults_is_clean() {
    let lite = Options {
        mode: Mode::Lite,
        ..SWARM
    };
    none_failed(&all(0..8, lite));
}

#[test]
fn a_seed_is_the_same_run_in_two_processes() {
    let hashes = |threads: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_simulation"))
            .args(["--seeds", "0..10", "--hash", "--threads", threads])
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let mut hashes: Vec<String> = text
            .lines()
            .filter(|line| line.contains(" trace "))
            .map(str::to_owned)
            .collect();
        hashes.sort();
        hashes
    };
    let (one, other) = (hashes("1"), hashes("2"));
    assert_eq!(one.len(), 10);
    assert_eq!(one, other);
    let traces: std::collections::BTreeSet<_> = one.iter().map(|line| line.split(" trace ").nth(1)).collect();
    assert_eq!(traces.len(), 10, "every seed is a run of its own");
}

#[test]
fn the_same_seed_prints_the_same_trace_byte_for_byte() {
    let trace = || {
        let output = Command::new(env!("CARGO_BIN_EXE_simulation"))
            .args(["--seed", "7", "--trace"])
            .output()
            .unwrap();
        assert!(output.stdout.len() > 10_000);
        output.stdout
    };
    assert!(trace() == trace(), "two runs of one seed differ");
}
