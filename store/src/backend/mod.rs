//! The backing stores we have. Each passes [`crate::conformance`].

pub mod bucket;
pub mod directory;
pub mod memory;
pub mod mongodb;
pub mod open;
pub mod probe;
pub mod split;
