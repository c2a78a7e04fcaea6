//! The crate held against captures of real servers, and against its own laws.

#![allow(clippy::unwrap_used, reason = "a test that cannot read its vectors must fail")]

mod algebra;
mod copy;
mod diffs;
mod histories;
mod interpreter;
mod keys;
mod vectors;
