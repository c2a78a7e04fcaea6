//! What a process gets from the world: clock, entropy, spawn, blocking work, local key-value disk, exit.
