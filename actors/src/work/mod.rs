//! What the children do: plain structs with an async step, no actix.

pub mod check;
pub mod cursors;
pub mod cut;
pub mod first_copy;
pub mod groom;
pub mod head_store;
pub mod oplog_apply;
pub mod restore;
pub mod retention;
pub mod snapshot;
pub mod sync;
mod under_way;
