//! Bytes at rest: blockstore, oplog store, sync store, manifests and their backends.
