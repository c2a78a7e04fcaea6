//! The backing stores we have. Each passes [`crate::conformance`].

pub mod memory;
