//! The world in a box: deterministic simulation.
