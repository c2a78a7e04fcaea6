//! When things happen: supervisors and their children. actix lives here, in [`worker`], [`child`], [`supervisor`] and
//! [`node`] only; what the children do is in [`work`].

pub mod access;
pub mod alerting;
pub mod archive;
pub mod auditing;
pub mod backup;
mod balancer;
pub mod board;
mod cataloging;
mod checkpoints;
mod checks;
mod child;
mod children;
mod commands;
pub mod enrol;
mod ingest;
mod keeping;
mod lead;
mod life;
mod metrics;
mod node;
mod own_store;
pub mod peers;
pub mod recovery;
mod restores;
mod roster;
mod route;
mod seal;
pub mod set;
mod sharding;
mod sights;
mod supervisor;
mod times;
mod trouble;
mod views;
mod work;
mod worker;

pub use archive::ArchiveStream;
pub use backup::Backup;
pub use set::{Ground, Tuning};
pub use work::groom::when::GroomRules;
