//! A replica set, as far as a backup can tell: an oplog, the state it makes at every point, members that replicate it at
//! their own pace, elections that take back what no majority had. Or several that make a sharded cluster: [`cluster`].
//!
//! The model shares no code with what reads it: what an entry means is written down here a second time, simply, so that the
//! state of the model at an instant can be held against a restore.

pub mod cluster;
pub mod connect;
pub mod history;
pub mod migration;
pub mod operations;
pub mod scan;
pub mod server;
pub mod set;
pub mod transfer;
pub mod update;
pub mod workload;

pub use cluster::Cluster;
pub use connect::Sources;
pub use set::{Mongo, Shared};
