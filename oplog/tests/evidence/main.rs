//! The crate held against captures of real servers, and against its own laws.

mod algebra;
mod copy;
mod diffs;
mod histories;
mod interpreter;
mod keys;
mod vectors;
