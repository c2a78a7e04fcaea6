//! The world in a box: deterministic simulation. Not built yet.
//!
//! What it will stand on is in place: `host` gives clock, entropy, tasks, blocking work, disk and network as traits, with
//! deterministic ones in `host::memory`; `store::backend::memory` is a backing store with a hook for faults;
//! `store::memory_blocks` a blockstore; `actors` keeps actix behind `worker` and `child`.
