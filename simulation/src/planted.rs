//! The museum: bugs that are planted on purpose, to see that the oracles find them. A checker that finds nothing proves
//! nothing.
//!
//! They are planted at the edges of the simulated world, never in production code: what a program with such a bug would
//! do to its disk, to the store and to its answers is done in its place.

use std::cell::Cell;

/// A planted bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// A flush of the control state's disk answers and does nothing.
    DiskForgetsFlush,
    /// Create-if-absent overwrites.
    StoreOverwrites,
    /// A listing leaves out its last object.
    ListForgetsLast,
    /// Now and then a write of an oplog slice is acknowledged and lost.
    OplogWriteLost,
    /// Now and then a write of a pack of blocks is acknowledged and lost.
    PackWriteLost,
    /// Now and then an image's manifest is acknowledged and lost.
    ManifestLost,
    /// An oplog slice is acknowledged before it is stored.
    AckBeforeStored,
    /// Now and then an oplog slice is acknowledged and thrown away.
    SliceDropped,
    /// A sync slice is acknowledged and thrown away.
    SyncSliceDropped,
    /// The tail reads what is not majority-committed.
    TailReadsLocal,
    /// The tail skips an entry.
    TailSkipsEntry,
    /// The tail delivers a damaged update.
    TailAltersEntry,
    /// The scan skips a document.
    ScanSkipsDocument,
    /// Documents that the scan missed and that are asked for are not found.
    FetchFindsNothing,
    /// Cursors break often, and the server where a scan goes on is another one by the same name.
    ProcessesBearOneName,
    /// The scan reads a server that is behind.
    ScanReadsStale,
    /// The listing of collections forgets one.
    ListingForgetsCollection,
    /// Now and then a new oplog slice gets the bytes of the one written before it.
    MisdirectedWrite,
    /// A daemon comes back with the disk of an earlier day.
    DiskOfYesterday,
    /// A groom deletes by listing what it does not know.
    GroomDeletesPack,
    /// A groom deletes the newest image.
    GroomDeletesImage,
    /// A trim of the oplog takes a slice that is still needed.
    TrimTakesNeeded,
    /// A restored document is changed.
    RestoreAlters,
    /// A restore stops one entry short.
    RestoreStopsShort,
    /// A deployment's snapshot vanishes from the catalog.
    SnapshotVanishes,
    /// Bits rot in a stored oplog slice.
    OplogRots,
    /// The cut of a cluster goes by where the entry lies that commits a transaction, not by its `commitTimestamp`.
    CutByCommitEntry,
    /// The cut of a cluster takes transactions in that are prepared by then, without waiting for when they commit.
    CutTakesPrepared,
    /// A checkpoint is sealed without one of the members.
    CheckpointWithoutMember,
    /// The tail leaves out what migrations write.
    TailSkipsMigrated,
    /// Of a cluster that is restored one member shows an earlier time than the others.
    MembersApart,
    /// A cluster that is restored as one shows what shards hold and do not own.
    MergedWithOrphans,
    /// What lies on a daemon's own disk has no checksum that would tell of a flipped bit.
    RotUnnoticed,
    /// A vote is given and not kept.
    VoteForgotten,
    /// Changes are held in memory without end.
    MemtableUnbounded,
}

/// All of them.
pub const ALL: [Bug; 35] = [
    Bug::DiskForgetsFlush,
    Bug::StoreOverwrites,
    Bug::ListForgetsLast,
    Bug::OplogWriteLost,
    Bug::PackWriteLost,
    Bug::ManifestLost,
    Bug::AckBeforeStored,
    Bug::SliceDropped,
    Bug::SyncSliceDropped,
    Bug::TailReadsLocal,
    Bug::TailSkipsEntry,
    Bug::TailAltersEntry,
    Bug::ScanSkipsDocument,
    Bug::FetchFindsNothing,
    Bug::ProcessesBearOneName,
    Bug::ScanReadsStale,
    Bug::ListingForgetsCollection,
    Bug::MisdirectedWrite,
    Bug::DiskOfYesterday,
    Bug::GroomDeletesPack,
    Bug::GroomDeletesImage,
    Bug::TrimTakesNeeded,
    Bug::RestoreAlters,
    Bug::RestoreStopsShort,
    Bug::SnapshotVanishes,
    Bug::OplogRots,
    Bug::CutByCommitEntry,
    Bug::CutTakesPrepared,
    Bug::CheckpointWithoutMember,
    Bug::TailSkipsMigrated,
    Bug::MembersApart,
    Bug::MergedWithOrphans,
    Bug::RotUnnoticed,
    Bug::VoteForgotten,
    Bug::MemtableUnbounded,
];

thread_local! {
    static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

/// Plants a bug into this thread's world.
pub fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
    COUNT.set(0);
}

/// Whether the bug is planted.
pub fn is(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}

/// Whether the bug is planted and strikes now: every `nth` time it is asked.
pub fn strikes(bug: Bug, nth: u64) -> bool {
    if !is(bug) {
        return false;
    }
    let count = COUNT.get() + 1;
    COUNT.set(count);
    count.is_multiple_of(nth)
}

/// Whether a write to this key is one that a planted bug loses.
pub fn lost_write(key: &str) -> bool {
    is_slice(key) && strikes(Bug::OplogWriteLost, 17)
        || key.ends_with(".pack") && strikes(Bug::PackWriteLost, 3)
        || key.contains("/images/") && strikes(Bug::ManifestLost, 2)
}

/// Whether this key is that of an oplog slice.
pub fn is_slice(key: &str) -> bool {
    key.contains("/oplog/") && !key.contains("/manifest/")
}

/// Whether a write to this key is one that a planted bug gives other bytes.
pub fn misdirected(key: &str) -> bool {
    is_slice(key) && strikes(Bug::MisdirectedWrite, 11)
}

/// A bug by its name.
pub fn named(name: &str) -> Option<Bug> {
    ALL.into_iter().find(|bug| format!("{bug:?}") == name)
}
