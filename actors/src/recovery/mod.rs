//! Recovery from the store alone: every daemon is lost, and a new cluster begins with what the store says.
//!
//! [`look()`] reads the store, [`mod@plan`] decides, [`begin()`] carries it out. Nothing that is at rest is moved or copied.

pub mod begin;
#[cfg(test)]
mod golden;
pub mod look;
pub mod plan;

pub use begin::{Begun, RecoveryError, begin};
pub use look::{Found, look, sign_of_life};
pub use plan::{NothingThere, RecoveryPlan, plan_recovery};
