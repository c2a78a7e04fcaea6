//! What commands do to the state, by noun; and laws that hold for all of them.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail anywhere")]

mod audit;
mod balancer;
mod catalog;
mod checkpoint_samples;
mod checkpoints;
mod deployments;
mod every_kind;
mod golden;
mod grooms;
mod integrity;
mod keeping;
mod keys;
mod laws;
mod leases;
mod nodes;
mod placement;
mod replica_sets;
mod restores;
mod samples;
mod snapshots;
