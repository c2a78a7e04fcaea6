//! What the chores of this workspace share with its tests: the real mongods, a double of S3, the genuine mongorestore.

pub mod mongod;
pub mod s3_double;
pub mod tools;
