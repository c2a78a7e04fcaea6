//! The bed: what end-to-end tests lie on. Real mongods, a seeded workload, an independent oracle, an exact comparer,
//! and the `headwater` binary as a user runs it.
//!
//! ```no_run
//! use headwater_tests::{Bed, ReplicaSetSpec, Scope, WorkloadSpec, Workload, contents, replay};
//!
//! # async fn example() -> anyhow::Result<()> {
//! let bed = Bed::new().await?;
//! let source = bed.replica_set(ReplicaSetSpec::single("6.0.5")).await?;
//! let workload = Workload::start(&source, WorkloadSpec::seeded(1)).await?;
//! let middle = source.mark("middle").await?;
//! workload.stop().await?;
//! let model = replay::to(&bed, &source, middle).await?;
//! let wanted = contents::read(model.client(), Scope::Everything).await?;
//! # let _ = wanted; Ok(())
//! # }
//! ```

pub mod azure;
pub mod ballast;
pub mod bank;
pub mod bed;
pub mod certificates;
pub mod contents;
pub mod corpus;
pub mod gate;
pub mod headwater;
pub mod http_front;
pub mod log_watch;
pub mod mongod;
pub mod process;
pub mod proof;
pub mod replay;
pub mod replica_set;
pub mod s3;
pub mod sharded;
pub mod slow_way;
pub mod trio;
pub mod until;
pub mod webhook;
pub mod wire;
pub mod workload;

pub use azure::Azure;
pub use bed::{Bed, versions};
pub use certificates::{Authority, Certificate};
pub use contents::{Contents, Scope};
pub use gate::Way;
pub use headwater::{Ended, Headwater};
pub use log_watch::LogWatch;
pub use mongod::{Mongod, MongodSpec};
pub use process::Process;
pub use replica_set::{ReplicaSet, ReplicaSetSpec};
pub use s3::S3;
pub use sharded::{Cluster, Router, Shared, Transaction};
pub use slow_way::SlowWay;
pub use trio::Trio;
pub use until::until;
pub use webhook::Hook;
pub use workload::{Workload, WorkloadSpec};
