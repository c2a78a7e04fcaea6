//! The agent against real mongods and an honest service in memory.

mod agent;
mod check;
mod faults;
mod first_copy;
mod mongod;
mod receiver;
mod trouble;
