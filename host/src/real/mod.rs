//! The real world. The only place that touches the system's clock, entropy, threads and disk by itself.

mod clock;
mod entropy;
mod exit;
mod sled_kv;
mod tally;
mod tasks;
mod tls;

pub use clock::SystemClock;
pub use entropy::OsEntropy;
pub use exit::ProcessExit;
pub use sled_kv::SledKv;
pub use tasks::{NoRuntime, TokioTasks};
pub use tls::{Secured, TlsAcceptor, TlsError, use_ring};
