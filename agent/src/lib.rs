//! Reads a source and ships slices: the agent.
//!
//! It asks the service for orders once a second and runs one stream per deployment it is told to protect. A stream
//! connects to the replica set, asks the service where it stands (`open`), and from there on does three things at once:
//! it *tails* the oplog into a gap-free chain of oplog slices, it *scans* the collections into sync slices while a first
//! copy is wanted, and it *polls*: reports how it fares and reads single documents the service asks for.
//!
//! The agent keeps nothing on disk. Whatever kills it, the service knows how far it came, and the next agent goes on there.
//! Only majority-committed data ever leaves the source.
//!
//! * [`orders`]: which deployments.
//! * [`stream`]: one deployment, from connecting to the end of a conversation.
//! * [`tail`], [`scan`], [`poll`]: the three parts of a conversation.
//! * [`shipping`]: the service, over [`http`]. [`source`]: the replica set, through the driver.
//! * [`slicer`], [`backoff`], [`settings`]: what they share.

pub mod backoff;
mod balancer;
pub mod http;
pub mod orders;
pub mod poll;
pub mod scan;
pub mod settings;
pub mod sharding;
pub mod shipping;
pub mod slicer;
pub mod source;
pub mod stream;
pub mod tail;

pub use orders::{AgentError, Reach, run, run_with};
pub use settings::AgentSettings;
