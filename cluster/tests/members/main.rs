//! Control on real Raft: one member and three, restarted, killed, cut off.

mod kill;
mod process;
mod single;
mod three;
