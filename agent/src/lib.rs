//! Reads a source and ships slices.
