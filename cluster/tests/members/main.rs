//! Control on real Raft: one member and three, restarted, killed, cut off.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail anywhere")]

mod chaos;
mod kill;
mod process;
mod single;
mod three;
