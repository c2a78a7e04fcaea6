//! What the chores of this workspace share with its tests: the real mongods, doubles of S3 and Azure, the genuine
//! mongorestore.

pub mod azure_double;
pub mod mongod;
pub mod s3_double;
pub mod tools;
