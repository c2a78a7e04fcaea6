//! Encryption at rest, per deployment.
//!
//! * [`mod@format`]: the sealed object at rest; [`SealedObjects`]: a backing store in which every object is sealed.
//! * [`Secret`], [`DataKey`], [`MasterKey`]: keys in memory.
//! * [`wrapping`]: a data key at rest, wrapped by a master key; [`record`]: where it lies in the store.
//! * [`Keyring`]: the data keys of this process, and [`MasterKeys`], where master keys come from; [`key_file`]: from a file.

pub mod format;
pub mod key_file;
mod keyring;
mod objects;
pub mod record;
mod secret;
pub mod wrapping;

pub use keyring::{KeyFault, Keyring, KnownKeys, MasterKeys};
pub use objects::SealedObjects;
pub use secret::{DataKey, MasterKey, Secret};
