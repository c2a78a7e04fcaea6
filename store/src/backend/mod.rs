//! The backing stores we have. Each passes [`crate::conformance`].

pub mod directory;
pub mod memory;
