//! What the chores of this workspace share with its tests: the real mongods.

pub mod mongod;
