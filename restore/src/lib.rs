//! Plans and executes restores and exports.
//!
//! * [`plan`]: which image and which oplog give the instant asked for (pure).
//! * [`source`]: collections at that instant, as everything below reads them.
//! * [`materialize`]: a source made from an image and the oplog after it.
//! * [`naming`]: what is restored and under which name (pure).
//! * [`dump`]: mongodump's directory and archive formats.
//! * [`timeseries`]: time-series collections as their users see them (pure).
//! * [`load`]: restoring into a running MongoDB.
//! * [`routing`]: which shard of a cluster owns what, and a whole cluster as one source.
//! * [`rebuild`]: a new sharded cluster out of a backup.

pub mod dump;
pub mod load;
pub mod materialize;
pub mod naming;
pub mod plan;
pub mod rebuild;
pub mod routing;
pub mod source;
pub mod timeseries;
