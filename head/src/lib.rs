//! The living copy of a replica set: tree, layer, memtable, catalog, image, fold, build.

pub mod error;
pub mod merge;
pub mod tree;

#[cfg(test)]
mod test_support;
