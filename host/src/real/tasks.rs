//! Tasks and blocking work on a tokio runtime.

use futures::future::BoxFuture;
use tokio::runtime::Handle;

use crate::{Blocking, Spawn};

/// Not called from within a tokio runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no tokio runtime here; call this from within one")]
pub struct NoRuntime;

/// A tokio runtime. Works from every thread, also from the LocalSets of actix, since it holds the runtime by its handle.
#[derive(Clone, Debug)]
pub struct TokioTasks(Handle);

impl TokioTasks {
    /// The runtime this is called in.
    pub fn current() -> Result<Self, NoRuntime> {
        Handle::try_current().map(TokioTasks).map_err(|_| NoRuntime)
    }

    /// A given runtime.
    pub fn on(handle: Handle) -> Self {
        TokioTasks(handle)
    }
}

impl Spawn for TokioTasks {
    fn start(&self, future: BoxFuture<'static, ()>) {
        self.0.spawn(future);
    }
}

impl Blocking for TokioTasks {
    fn run(&self, work: Box<dyn FnOnce() + Send>) {
        self.0.spawn_blocking(work);
    }
}
