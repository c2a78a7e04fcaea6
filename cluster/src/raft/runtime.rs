//! openraft's idea of a runtime, served by our host.
//!
//! openraft starts tasks and draws random numbers through functions without a receiver. What they use is inherited from
//! task to task: [`within`] sets it for a future, and every task started in there, or by one started in there, has it
//! too. So all of Raft's tasks go where [`headwater_host::Spawn`] puts them: onto the multi-threaded runtime in production, into
//! the simulated process in a simulation, where they die with it. Nothing depends on a thread or a `LocalSet`.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use headwater_host::{Entropy, Host, Spawn, Task, TaskEnded, spawn};
use openraft::AsyncRuntime;
use openraft::async_runtime::AsyncOneshotSendExt;
use rand::RngCore;
use tokio::sync::oneshot;

#[derive(Clone)]
struct Home {
    spawn: Arc<dyn Spawn>,
    entropy: Arc<dyn Entropy>,
}

tokio::task_local! {
    static HOME: Home;
}

/// Runs `future` such that openraft finds `host`. Everything that touches a `Raft` handle runs in here.
pub(crate) fn within<F: Future>(host: &Host, future: F) -> impl Future<Output = F::Output> + use<F> {
    HOME.scope(
        Home {
            spawn: host.spawn.clone(),
            entropy: host.entropy.clone(),
        },
        future,
    )
}

/// openraft's runtime; see the module.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct AppRuntime;

/// The sending half of a oneshot channel.
pub(crate) struct Sender<T>(oneshot::Sender<T>);

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sender")
    }
}

impl<T: Send> AsyncOneshotSendExt<T> for Sender<T> {
    fn send(self, value: T) -> Result<(), T> {
        self.0.send(value)
    }
}

/// Random numbers from the host.
pub(crate) struct HostRng(Option<Arc<dyn Entropy>>);

impl RngCore for HostRng {
    fn next_u32(&mut self) -> u32 {
        self.next_u64() as u32
    }

    fn next_u64(&mut self) -> u64 {
        let mut bytes = [0; 8];
        self.fill_bytes(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        match &self.0 {
            Some(entropy) => entropy.fill(bytes),
            // Only election timeouts are drawn here: the shortest one is safe.
            None => bytes.fill(0),
        }
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), rand::Error> {
        self.fill_bytes(bytes);
        Ok(())
    }
}

/// Where a task goes that was started outside [`within`]: nowhere, so that its handle tells that it was aborted.
struct Nowhere;

impl Spawn for Nowhere {
    fn start(&self, _: futures::future::BoxFuture<'static, ()>) {
        tracing::error!("a task of Raft was started outside its home; it is dropped");
    }
}

impl AsyncRuntime for AppRuntime {
    type JoinError = TaskEnded;
    type JoinHandle<T: Send + 'static> = Task<T>;
    type Sleep = tokio::time::Sleep;
    type Instant = tokio::time::Instant;
    type TimeoutError = tokio::time::error::Elapsed;
    type Timeout<R, T: Future<Output = R> + Send> = tokio::time::Timeout<T>;
    type ThreadLocalRng = HostRng;
    type OneshotSender<T: Send> = Sender<T>;
    type OneshotReceiver<T: Send> = oneshot::Receiver<T>;
    type OneshotReceiverError = oneshot::error::RecvError;

    fn spawn<T>(future: T) -> Task<T::Output>
    where
        T: Future + Send + 'static,
        T::Output: Send + 'static,
    {
        match HOME.try_with(Clone::clone) {
            Ok(home) => spawn::spawn(home.spawn.clone().as_ref(), HOME.scope(home, future)),
            Err(_) => spawn::spawn(&Nowhere, future),
        }
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        tokio::time::sleep(duration)
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        tokio::time::sleep_until(deadline)
    }

    fn timeout<R, F: Future<Output = R> + Send>(duration: Duration, future: F) -> Self::Timeout<R, F> {
        tokio::time::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + Send>(deadline: Self::Instant, future: F) -> Self::Timeout<R, F> {
        tokio::time::timeout_at(deadline, future)
    }

    fn is_panic(error: &TaskEnded) -> bool {
        matches!(error, TaskEnded::Panicked(_))
    }

    fn thread_rng() -> HostRng {
        HostRng(HOME.try_with(|home| home.entropy.clone()).ok())
    }

    fn oneshot<T: Send>() -> (Sender<T>, oneshot::Receiver<T>) {
        let (sender, receiver) = oneshot::channel();
        (Sender(sender), receiver)
    }
}
