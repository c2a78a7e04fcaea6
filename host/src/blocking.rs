//! Work that would hold up an async thread: file I/O, compression, hashing of large buffers.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use futures::channel::oneshot;

/// Where blocking work runs. Callable from any thread.
pub trait Blocking: Send + Sync {
    /// Runs `work` soon, in no promised order among several. It is dropped unrun when the process is ending.
    fn run(&self, work: Box<dyn FnOnce() + Send>);
}

/// Runs `work` at `blocking` and answers with what it returned; a panic in `work` goes on in the caller.
///
/// Never resolves if the work was dropped unrun: the caller's own task is about to be dropped then too.
pub async fn run<T, F>(blocking: &dyn Blocking, work: F) -> T
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    let (sender, result) = oneshot::channel();
    blocking.run(Box::new(move || {
        // The asker may have been dropped meanwhile; the work is done all the same.
        let _ = sender.send(catch_unwind(AssertUnwindSafe(work)));
    }));
    match result.await {
        Ok(Ok(value)) => value,
        Ok(Err(panic)) => resume_unwind(panic),
        Err(_) => std::future::pending().await,
    }
}
