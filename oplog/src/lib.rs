//! The meaning of change, pure: entries, diffs, transactions, DDL, document keys, the record algebra.
//!
//! The rules are those of `reference/oplog.md`; every one of them is held against captures of real servers in
//! `tests/`. Documents are raw BSON bytes everywhere, because extended forms lose duplicate names and NaN payloads.

pub mod collection;
pub mod diff;
pub mod effect;
pub mod entry;
pub mod interpret;
pub mod key;
pub mod raw;
pub mod record;
pub mod validate;
pub mod version;

pub use effect::Effect;
pub use interpret::{EntryFault, EntryProblem, Interpreter};
pub use key::DocumentKey;
pub use record::{Change, ChangeBody, Place, Record, Settled};
pub use version::SourceVersion;
