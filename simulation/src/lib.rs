//! The world in a box: the production code of agent, actors, cluster, head, restore and store in one thread, under virtual
//! time, from one seed. `docs/SIMULATION.md` says how to use it and how to add to it.
//!
//! * [`draw`]: what a world is made of. [`run`]: a seed from beginning to end. [`mod@world`]: machines and what they share.
//! * [`entropy`], [`mod@time`], [`process`], [`network`], [`disk`], [`store`]: the world as a process meets it.
//! * [`mongo`]: the source. [`daemon`], [`agent`]: the production code in its processes, on a
//!   [`machine`]. [`user`], [`wishes`], [`cuts`]: users.
//! * [`chaos`]: what befalls it; [`members`]: nodes that come and go; [`settings`] that change; [`rot`]: bits that rot.
//!   [`oracle`]: what must hold all the same. [`planted`], [`rogue`]: bugs that the oracles must find.
//! * [`trace`]: what happened.

#[cfg(not(tokio_unstable))]
compile_error!(
    "the simulation seeds tokio, which needs `--cfg tokio_unstable`: see `.cargo/config.toml`; RUSTFLAGS replaces it"
);

pub mod agent;
pub mod chaos;
pub mod cuts;
pub mod daemon;
pub mod disk;
pub mod door;
pub mod draw;
pub mod entropy;
pub mod machine;
pub mod members;
pub mod mongo;
pub mod network;
pub mod oracle;
pub mod planted;
pub mod process;
pub mod rogue;
pub mod rot;
pub mod run;
pub mod settings;
pub mod store;
pub mod time;
pub mod trace;
pub mod user;
pub mod wishes;
pub mod world;
