//! Virtual time, and clocks that show it badly.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use headwater_host::WallClock;
use tokio::time::Instant;

use crate::entropy::BEGIN_SECONDS;

thread_local! {
    static BEGAN: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// The world begins now.
pub fn begin() {
    BEGAN.set(Some(Instant::now()));
}

/// The world is over: outside of its runtime there is no time.
pub fn end() {
    BEGAN.set(None);
}

/// Virtual milliseconds since the world began.
pub fn elapsed_ms() -> u64 {
    BEGAN.get().map_or(0, |began| {
        u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX)
    })
}

/// What a perfect clock shows, in milliseconds since 1970.
pub fn true_ms() -> i64 {
    BEGIN_SECONDS * 1000 + i64::try_from(elapsed_ms()).unwrap_or(i64::MAX)
}

/// The clock of one machine: drifts, and can be set. Clones are the same clock.
#[derive(Clone, Debug, Default)]
pub struct Clock(Arc<Hands>);

#[derive(Debug, Default)]
struct Hands {
    offset_ms: AtomicI64,
    drift_ppm: AtomicI64,
}

impl Clock {
    /// A clock that gains `drift_ppm` microseconds a second and is `offset_ms` ahead.
    pub fn new(offset_ms: i64, drift_ppm: i64) -> Self {
        let clock = Clock::default();
        clock.0.offset_ms.store(offset_ms, Ordering::Relaxed);
        clock.0.drift_ppm.store(drift_ppm, Ordering::Relaxed);
        clock
    }

    /// Sets the clock forward, or back.
    pub fn jump(&self, by_ms: i64) {
        self.0.offset_ms.fetch_add(by_ms, Ordering::Relaxed);
    }
}

impl WallClock for Clock {
    fn now_ms(&self) -> i64 {
        let elapsed = i64::try_from(elapsed_ms()).unwrap_or(i64::MAX);
        let drift = elapsed / 1000 * self.0.drift_ppm.load(Ordering::Relaxed) / 1000;
        true_ms() + drift + self.0.offset_ms.load(Ordering::Relaxed)
    }
}
