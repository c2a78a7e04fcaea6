//! Control state that must agree: commands, pure apply, plans; openraft in raft/ only.
