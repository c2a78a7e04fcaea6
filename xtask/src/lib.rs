//! What the chores of this workspace share with its tests: the real mongods and the genuine mongorestore.

pub mod mongod;
pub mod tools;
