//! The meaning of change, pure: entries, diffs, transactions, DDL, document keys, the record algebra.
//!
//! The rules are those of `reference/oplog.md`; every one of them is held against captures of real servers in
//! `tests/`. Documents are raw BSON bytes everywhere, because extended forms lose duplicate names and NaN payloads.

pub mod diff;
pub mod effect;
pub mod key;
pub mod raw;
pub mod record;
