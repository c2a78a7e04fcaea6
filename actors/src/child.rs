//! Keeps one child alive: builds its work from durable state, runs it as an actor, and after a fault or a panic
//! builds it anew with back-off. In-memory state of a failed child is never used again.

use std::cell::RefCell;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix::{Context, Recipient};
use futures::FutureExt;

use crate::worker::{Fault, Wake, Work, Worker};

const BACK_OFF_FIRST: Duration = Duration::from_millis(100);
const BACK_OFF_MOST: Duration = Duration::from_secs(15);
/// A blocked child is looked at again this often: a user may have mended the cause.
const BLOCKED_PAUSE: Duration = Duration::from_secs(30);
/// A child that ran this long before it failed begins with the shortest back-off again.
const STEADY: Duration = Duration::from_secs(60);

/// Wakes a child from anywhere; forgetting to is harmless, since every child also looks by itself twice a second.
#[derive(Clone, Default)]
pub struct Waker(Arc<Mutex<Option<Recipient<Wake>>>>);

impl Waker {
    /// Tells the child that there may be something to do.
    pub fn wake(&self) {
        if let Some(child) = self.0.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            // A full mailbox means that the child is awake already.
            let _ = child.try_send(Wake);
        }
    }

    fn set(&self, child: Option<Recipient<Wake>>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = child;
    }
}

/// What a child tells its supervisor about its troubles.
pub trait Report: 'static {
    /// The child failed; it will be built anew unless the fault is `Fenced`.
    fn failed(&self, fault: &Fault);
    /// The child was built and runs.
    fn running(&self);
}

/// Runs until the child is fenced; dropped by its owner to stop it.
pub async fn keep_alive<W, F>(name: &'static str, waker: Waker, report: impl Report, build: impl Fn() -> F)
where
    W: Work,
    F: Future<Output = Result<W, Fault>>,
{
    let mut back_off = BACK_OFF_FIRST;
    loop {
        let began = tokio::time::Instant::now();
        let fault = match AssertUnwindSafe(build()).catch_unwind().await {
            Ok(Ok(work)) => {
                report.running();
                run(work, &waker).await
            }
            Ok(Err(fault)) => fault,
            Err(_) => Fault::Retry("panicked while it was built".into()),
        };
        waker.set(None);
        report.failed(&fault);
        if began.elapsed() > STEADY {
            back_off = BACK_OFF_FIRST;
        }
        let pause = match &fault {
            Fault::Fenced(_) => return,
            Fault::Blocked(_) => BLOCKED_PAUSE,
            Fault::Retry(_) => back_off,
        };
        tracing::warn!(child = name, %fault, pause_ms = pause.as_millis() as u64, "child failed; it is built anew");
        tokio::time::sleep(pause).await;
        back_off = (back_off * 2).min(BACK_OFF_MOST);
    }
}

async fn run<W: Work>(work: W, waker: &Waker) -> Fault {
    let last = Rc::new(RefCell::new(None));
    let worker = Worker::new(work, {
        let last = last.clone();
        Box::new(move |fault| *last.borrow_mut() = Some(fault))
    });
    let running = Context::new().into_future(worker);
    waker.set(Some(running.address().recipient()));
    let panicked = AssertUnwindSafe(running).catch_unwind().await.is_err();
    let fault = last.borrow_mut().take();
    fault.unwrap_or_else(|| Fault::Retry(if panicked { "panicked".into() } else { "ended".into() }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::Pace;
    use std::cell::Cell;

    #[derive(Clone, Default)]
    struct Seen(Rc<Cell<u32>>);

    impl Report for Seen {
        fn failed(&self, _: &Fault) {
            self.0.set(self.0.get() + 1);
        }
        fn running(&self) {}
    }

    struct Fragile(u32);

    impl Work for Fragile {
        async fn step(&mut self) -> Result<Pace, Fault> {
            match self.0 {
                0 => panic!("planted"),
                1 => Err(Fault::Retry("planted".into())),
                _ => Err(Fault::Fenced("planted".into())),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_child_is_built_anew_after_a_panic_and_a_fault_and_ends_when_fenced() {
        let (seen, builds) = (Seen::default(), Cell::new(0));
        keep_alive("fragile", Waker::default(), seen.clone(), || {
            builds.set(builds.get() + 1);
            let n = builds.get() - 1;
            async move { Ok(Fragile(n)) }
        })
        .await;
        assert_eq!((builds.get(), seen.0.get()), (3, 3));
    }
}
