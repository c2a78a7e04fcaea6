//! The simulation itself under test.
