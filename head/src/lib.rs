//! The living copy of a replica set: tree, layer, memtable, catalog, image, fold, build.
