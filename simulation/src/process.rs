//! A simulated process: a `LocalSet` of its own, which a kill drops with everything in it, and a host that is the world
//! to it.
//!
//! Whatever a process asks of its host, it asks through something that outlives a kill; so a kill first *fences* the process:
//! from then on its disk, its network and its tasks are dead, and what its destructors still try has no effect.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use headwater_host::{Blocking, Entropy, Exit, ExitReason, Host, Spawn};
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};
use tokio::sync::mpsc;
use tokio::task::LocalSet;
use tokio::time::{Instant, Sleep};

use crate::time::Clock;
use crate::trace;

/// Whether a process lives; shared with everything that acts for it.
#[derive(Clone, Debug)]
pub struct Life(Arc<AtomicBool>);

impl Life {
    /// Whether it lives.
    pub fn is_alive(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// How badly a process's tasks are scheduled.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    /// Of a thousand polls of a task, so many are put off once.
    pub put_off: u32,
    /// The longest a piece of blocking work takes, in milliseconds.
    pub blocking_ms: u64,
}

type Job = Pin<Box<dyn Future<Output = ()>>>;

/// A process. Dropping the handle leaves it running; [`Process::kill`] ends it.
pub struct Process {
    name: &'static str,
    life: Life,
    set: Rc<RefCell<Option<LocalSet>>>,
    paused_until: Rc<Cell<Option<Instant>>>,
    exit: Arc<Mutex<Option<String>>>,
}

impl Process {
    /// Starts a process on this thread, within a `LocalSet` that is polled. `main` gets its host and runs within the process.
    pub fn start<F: Future<Output = ()> + 'static>(
        name: &'static str,
        seed: u64,
        clock: Clock,
        schedule: Schedule,
        main: impl FnOnce(Host, Life) -> F,
    ) -> Process {
        let life = Life(Arc::new(AtomicBool::new(true)));
        let exit = Arc::new(Mutex::new(None));
        let (queue, mut jobs) = mpsc::unbounded_channel::<Box<dyn FnOnce() -> Job + Send>>();
        let tasks = Arc::new(Tasks {
            life: life.clone(),
            queue,
            rng: Mutex::new(StdRng::seed_from_u64(seed)),
            schedule,
        });
        let host = Host {
            clock: Arc::new(clock),
            entropy: Arc::new(Bytes(Mutex::new(StdRng::seed_from_u64(seed.wrapping_add(1))))),
            blocking: tasks.clone(),
            spawn: tasks,
            exit: Arc::new(Ends {
                life: life.clone(),
                reason: exit.clone(),
            }),
        };
        let set = LocalSet::new();
        set.spawn_local(async move {
            while let Some(job) = jobs.recv().await {
                tokio::task::spawn_local(job());
            }
            std::future::pending::<()>().await;
        });
        set.spawn_local(main(host, life.clone()));
        let set = Rc::new(RefCell::new(Some(set)));
        let paused_until = Rc::new(Cell::new(None));
        tokio::task::spawn_local(Polling {
            name,
            set: set.clone(),
            life: life.clone(),
            paused_until: paused_until.clone(),
            wait: None,
        });
        Process {
            name,
            life,
            set,
            paused_until,
            exit,
        }
    }

    /// Whether it runs.
    pub fn is_alive(&self) -> bool {
        self.life.is_alive()
    }

    /// Why it ended itself, if it did; told once.
    pub fn take_exit(&self) -> Option<String> {
        self.exit.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// As kill -9, or a power cut.
    pub fn kill(&self) {
        self.life.0.store(false, Ordering::Relaxed);
        // Not while it is being polled: then it goes at the end of the poll.
        if let Ok(mut set) = self.set.try_borrow_mut() {
            let before = trace::process(self.name);
            drop(set.take());
            trace::process(before);
        }
    }

    /// As SIGSTOP, and SIGCONT after a while.
    pub fn pause(&self, span: Duration) {
        self.paused_until.set(Some(Instant::now() + span));
    }
}

/// Polls a process's `LocalSet` within the world's.
struct Polling {
    name: &'static str,
    set: Rc<RefCell<Option<LocalSet>>>,
    life: Life,
    paused_until: Rc<Cell<Option<Instant>>>,
    wait: Option<Pin<Box<Sleep>>>,
}

impl Future for Polling {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(until) = self.paused_until.get() {
            if Instant::now() < until {
                let mut wait = Box::pin(tokio::time::sleep_until(until));
                let waiting = wait.as_mut().poll(cx);
                self.wait = Some(wait);
                if waiting.is_pending() {
                    return Poll::Pending;
                }
            }
            self.paused_until.set(None);
            self.wait = None;
        }
        let cell = self.set.clone();
        let mut set = cell.borrow_mut();
        let Some(running) = set.as_mut() else {
            return Poll::Ready(());
        };
        let before = trace::process(self.name);
        let polled = Pin::new(running).poll(cx);
        if !self.life.is_alive() || polled.is_ready() {
            drop(set.take());
            trace::process(before);
            return Poll::Ready(());
        }
        trace::process(before);
        Poll::Pending
    }
}

struct Tasks {
    life: Life,
    queue: mpsc::UnboundedSender<Box<dyn FnOnce() -> Job + Send>>,
    rng: Mutex<StdRng>,
    schedule: Schedule,
}

impl Tasks {
    fn rng(&self) -> StdRng {
        let mut rng = self.rng.lock().unwrap_or_else(PoisonError::into_inner);
        StdRng::seed_from_u64(rng.next_u64())
    }

    fn start_job(&self, job: impl FnOnce() -> Job + Send + 'static) {
        if self.life.is_alive() {
            // Fails only when the process is ending, and then tasks are dropped unrun.
            let _ = self.queue.send(Box::new(job));
        }
    }
}

impl Spawn for Tasks {
    fn start(&self, future: BoxFuture<'static, ()>) {
        let (rng, put_off) = (self.rng(), self.schedule.put_off);
        self.start_job(move || Box::pin(PutOff { future, rng, put_off }));
    }
}

impl Blocking for Tasks {
    fn run(&self, work: Box<dyn FnOnce() + Send>) {
        let mut rng = self.rng();
        let most = self.schedule.blocking_ms;
        self.start_job(move || {
            Box::pin(async move {
                let delay = if rng.gen_ratio(1, 8) {
                    rng.gen_range(0..=most)
                } else {
                    0
                };
                if delay > 0 {
                    tokio::time::sleep(Duration::from_millis(delay)).await;
                }
                work();
            })
        });
    }
}

/// Explores schedules a fair queue never shows: now and then a task that could run is put behind all others.
struct PutOff {
    future: BoxFuture<'static, ()>,
    rng: StdRng,
    put_off: u32,
}

impl Future for PutOff {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let put_off = self.put_off;
        if put_off > 0 && self.rng.gen_range(0..1000) < put_off {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.future.as_mut().poll(cx)
    }
}

struct Bytes(Mutex<StdRng>);

impl Entropy for Bytes {
    fn fill(&self, bytes: &mut [u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).fill_bytes(bytes);
    }
}

struct Ends {
    life: Life,
    reason: Arc<Mutex<Option<String>>>,
}

impl Exit for Ends {
    fn exit(&self, reason: ExitReason) {
        if self.life.0.swap(false, Ordering::Relaxed) {
            trace::mark("process ended itself");
            trace::line(&format!("exit {}: {}", reason.code(), reason.text()));
            *self.reason.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason.text().to_owned());
        }
    }
}
