//! The vocabulary of Headwater with its laws: positions in an oplog, names and ids, epochs, limits.
//!
//! Everything here is plain data: no clock, no file system, no runtime. `docs/GLOSSARY.md` explains the words.

pub mod ids;
pub mod key_role;
pub mod limits;
pub mod namespace;
pub mod optime;
pub mod phase;
pub mod redact;
pub mod store_uri;

pub use ids::{
    BlockId, CollectionUuid, DataKeyId, DeploymentName, Epoch, Incarnation, InvalidName, KeyName, MasterKeyId,
    ReplicaSetId, SnapshotId, WrappedKey,
};
pub use key_role::KeyRole;
pub use namespace::Namespace;
pub use optime::{InvalidTs, Optime, Ts};
pub use phase::Phase;
pub use store_uri::StoreUri;
