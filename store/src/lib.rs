//! Bytes at rest: blockstore, oplog store, sync store, image manifests and their backends.
//!
//! * [`objects`]: the edge to a backing store; [`backend`]: those we have; [`conformance`]: what all of them must pass.
//! * [`blocks`]: what a head sees of a blockstore; [`pack`]: the blockstore over objects;
//!   [`memory_blocks`]: blocks in memory.
//! * [`oplog_store`], [`sync_store`], [`images`]: homes of oplog slices, sync slices and image manifests.
//! * [`repository`]: all of these for one replica set; [`fence`]: one writer at a time.
//! * [`sealed`]: encryption at rest; [`naming`]: how blocks get their ids.
//! * [`claim`], [`catalog`]: whose store it is, and what its cluster knows about what is in it.
//! * [`note`]: small checksummed records.
//!
//! Every format here is described in the file that writes it, and has a test with fixed bytes.

pub mod backend;
pub mod blocks;
pub mod catalog;
pub mod claim;
pub mod conformance;
pub mod fence;
pub mod images;
pub mod memory_blocks;
pub mod moving;
pub mod naming;
pub mod note;
pub mod objects;
pub mod oplog_store;
pub mod pack;
pub mod repository;
pub mod sealed;
pub mod sync_store;
