//! What commands do to the state, by noun; and laws that hold for all of them.

mod deployments;
mod golden;
mod keys;
mod laws;
mod replica_sets;
mod restores;
mod samples;
mod snapshots;
