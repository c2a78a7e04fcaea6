//! What a process gets from the world: wall clock, entropy, tasks, blocking work, a small durable key-value disk,
//! a way to call peers, and an exit.
//!
//! Each is a trait with its promises; the rest of Headwater knows the traits only, so that the simulation can be the
//! world. The real ones live in [`real`] and nowhere else; [`memory`] holds honest deterministic ones for tests and
//! the simulation. Monotonic time is not here: `tokio::time` is used directly, which a simulation can pause.

pub mod blocking;
pub mod clock;
pub mod entropy;
pub mod exit;
pub mod kv;
pub mod memory;
pub mod real;
pub mod spawn;
pub mod transport;

use std::future::Future;
use std::sync::Arc;

pub use blocking::Blocking;
pub use clock::WallClock;
pub use entropy::Entropy;
pub use exit::{Exit, ExitReason};
pub use kv::{Kv, KvError, Op, Pair};
pub use spawn::{Spawn, Task, TaskEnded};
pub use transport::{Serve, Transport, TransportError};

/// Everything a part of the process needs of the world, except its disk and its peers. Cheap to clone.
#[derive(Clone)]
pub struct Host {
    /// What people call the time.
    pub clock: Arc<dyn WallClock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// Work that would hold up an async thread.
    pub blocking: Arc<dyn Blocking>,
    /// Tasks that may move between threads.
    pub spawn: Arc<dyn Spawn>,
    /// The end of the process.
    pub exit: Arc<dyn Exit>,
}

impl Host {
    /// The real world, seen from the tokio runtime this is called in.
    ///
    /// Tasks and blocking work go to that runtime whichever thread asks for them later. Fails outside a runtime.
    pub fn real() -> Result<Host, real::NoRuntime> {
        let tasks = Arc::new(real::TokioTasks::current()?);
        Ok(Host {
            clock: Arc::new(real::SystemClock),
            entropy: Arc::new(real::OsEntropy),
            blocking: tasks.clone(),
            spawn: tasks,
            exit: Arc::new(real::ProcessExit),
        })
    }

    /// Starts a task; see [`Task`] for how it is stopped and awaited.
    pub fn spawn<F>(&self, future: F) -> Task<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        spawn::spawn(self.spawn.as_ref(), future)
    }

    /// Runs `work` where it may block, and answers with what it returned. A panic in `work` goes on in the caller.
    pub async fn blocking<T, F>(&self, work: F) -> T
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        blocking::run(self.blocking.as_ref(), work).await
    }
}
