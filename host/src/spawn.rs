//! Tasks.

use std::any::Any;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::channel::oneshot;
use futures::future::{AbortHandle, Abortable, BoxFuture, FutureExt};

/// Where tasks run. Callable from any thread.
pub trait Spawn: Send + Sync {
    /// Starts a task and forgets it. A task that is never started because the process is ending is dropped.
    fn start(&self, future: BoxFuture<'static, ()>);
}

/// Why a task gave no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TaskEnded {
    /// [`Task::abort`] was called, or the runtime is ending.
    #[error("the task was aborted")]
    Aborted,
    /// It panicked.
    #[error("the task panicked: {0}")]
    Panicked(String),
}

/// A task that was started. Await it for its result; dropping it lets the task run on.
#[derive(Debug)]
pub struct Task<T> {
    abort: AbortHandle,
    result: oneshot::Receiver<Result<T, TaskEnded>>,
}

impl<T> Task<T> {
    /// Stops the task at its next await; harmless when it has ended.
    pub fn abort(&self) {
        self.abort.abort();
    }

    /// A way to stop the task that can be kept apart from it.
    pub fn abort_handle(&self) -> AbortHandle {
        self.abort.clone()
    }
}

impl<T> Future for Task<T> {
    type Output = Result<T, TaskEnded>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.result
            .poll_unpin(cx)
            .map(|answer| answer.unwrap_or(Err(TaskEnded::Aborted)))
    }
}

/// Starts `future` at `spawn` and returns a handle on it.
pub fn spawn<F>(spawn: &dyn Spawn, future: F) -> Task<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let (sender, result) = oneshot::channel();
    let (abort, registration) = AbortHandle::new_pair();
    let task = Abortable::new(AssertUnwindSafe(future).catch_unwind(), registration).map(move |end| {
        let answer = match end {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(panic)) => Err(TaskEnded::Panicked(panic_text(panic.as_ref()))),
            Err(_) => Err(TaskEnded::Aborted),
        };
        // Nobody may be waiting; that is their choice.
        let _ = sender.send(answer);
    });
    spawn.start(task.boxed());
    Task { abort, result }
}

/// What a panic said.
pub fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}
