//! The one adapter between actix and the work of Headwater.
//!
//! Work is a plain struct with an async [`Work::step`]; nothing in it knows actix. [`Worker`] is the actor around
//! it: mail wakes it, a step runs to its end before the next begins, a fault ends the actor. Ends are the business
//! of [`crate::child`], which builds the work anew from durable state: `actix::Supervisor` is not used because it
//! neither survives a panic nor gives a fresh struct.

use std::future::Future;
use std::time::Duration;

use actix::{Actor, ActorContext, ActorFutureExt, AsyncContext, Context, Handler, Message, WrapFuture};
use headwater_model::limits;

/// How soon the next step is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// There is more to do at once.
    Again,
    /// Nothing to do until something wakes the work, or the next tick.
    Idle,
}

/// A step went wrong; the work is thrown away and built anew after a pause.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Fault {
    /// May pass: retry with back-off.
    #[error("{0}")]
    Retry(String),
    /// Cannot pass by itself: the user is told; retried rarely.
    #[error("{0}")]
    Blocked(String),
    /// The assignment is over: this child must not come back.
    #[error("fenced: {0}")]
    Fenced(String),
}

/// What a child does, one bounded step at a time.
pub trait Work: Unpin + 'static {
    /// Does a bounded piece of work. All effects must be safe to repeat: a step may be cut off anywhere.
    fn step(&mut self) -> impl Future<Output = Result<Pace, Fault>>;
}

/// There may be something to do.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct Wake;

const TICK: Duration = Duration::from_millis(500);

/// The actor around a piece of work.
pub struct Worker<W: Work> {
    work: Option<W>,
    woken: bool,
    on_fault: Box<dyn FnMut(Fault)>,
}

impl<W: Work> Worker<W> {
    /// Wraps work; `on_fault` learns why the actor ended, if it did not panic.
    pub fn new(work: W, on_fault: Box<dyn FnMut(Fault)>) -> Self {
        Worker {
            work: Some(work),
            woken: false,
            on_fault,
        }
    }
}

impl<W: Work> Actor for Worker<W> {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(limits::MAILBOX_CAPACITY);
        ctx.run_interval(TICK, |_, ctx| ctx.notify(Wake));
        ctx.notify(Wake);
    }
}

impl<W: Work> Handler<Wake> for Worker<W> {
    type Result = ();

    fn handle(&mut self, _: Wake, ctx: &mut Self::Context) {
        let Some(mut work) = self.work.take() else {
            self.woken = true;
            return;
        };
        self.woken = false;
        let step = async move {
            let outcome = work.step().await;
            (work, outcome)
        };
        ctx.spawn(step.into_actor(self).map(|(work, outcome), actor, ctx| match outcome {
            Ok(pace) => {
                actor.work = Some(work);
                if pace == Pace::Again || actor.woken {
                    ctx.notify(Wake);
                }
            }
            Err(fault) => {
                (actor.on_fault)(fault);
                ctx.stop();
            }
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::rc::Rc;

    struct Counting {
        steps: Rc<Cell<u32>>,
        until: u32,
    }

    impl Work for Counting {
        async fn step(&mut self) -> Result<Pace, Fault> {
            self.steps.set(self.steps.get() + 1);
            match self.steps.get() {
                n if n < self.until => Ok(Pace::Again),
                n if n == self.until => Ok(Pace::Idle),
                _ => Err(Fault::Retry("enough".into())),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn work_goes_on_at_once_then_idles_until_the_tick_and_ends_on_a_fault() {
        let steps = Rc::new(Cell::new(0));
        let seen = Rc::new(Cell::new(false));
        let worker = Worker::new(
            Counting {
                steps: steps.clone(),
                until: 3,
            },
            {
                let seen = seen.clone();
                Box::new(move |_| seen.set(true))
            },
        );
        let started = tokio::time::Instant::now();
        Context::new().into_future(worker).await;
        assert_eq!((steps.get(), seen.get()), (4, true));
        assert!(started.elapsed() >= TICK, "the fourth step waits for the tick");
    }
}
