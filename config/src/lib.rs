//! From flags, environment and settings file to validated [`Settings`].
//!
//! Whoever speaks last does not win; the nearest does: flag, then environment, then file, then default. The file is
//! YAML with the look of `mongod.conf`; `headwater.example.yaml` beside this crate shows every key. Nothing here
//! touches a disk or the environment: the program hands in what it read.
//!
//! * [`keys`]: the table of keys, with the name of each in the environment.
//! * [`file`](mod@file): a settings file, cut into values that know their line.
//! * [`quantity`]: durations and byte counts as people write them.
//! * [`settings`]: the result, and how it is put together and checked.

pub mod file;
pub mod keys;
pub mod quantity;
pub mod settings;
mod suggest;

pub use settings::{MasterKeySource, Settings, SettingsError, Sources, Tls};
