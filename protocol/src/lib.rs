//! What agent, service and command line say to each other, and the frame that slices travel and rest in.
//!
//! * [`frame`]: the checksummed container of every slice, block pack header and image at rest or on the wire.
//! * [`slices`]: headers of sync slices, oplog slices and fetched documents.
//! * [`agent`]: the conversation between an agent and the service.
//! * [`admin`]: the user's API: deployments, status, snapshots, restores.
//! * [`redact`]: connection strings as they may be shown (of the model).

pub mod access;
pub mod admin;
pub mod agent;
pub mod frame;
pub mod integrity;
pub mod internal;
pub mod keeping;
pub mod slices;

pub use headwater_model::redact;
