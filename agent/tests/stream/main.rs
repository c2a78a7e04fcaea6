//! The agent against real mongods and an honest service in memory.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends at the first thing that is not as expected"
)]

mod agent;
mod check;
mod cursors;
mod faults;
mod first_copy;
mod mongod;
mod receiver;
mod trouble;
