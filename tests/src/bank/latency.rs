//! How long writes at the source take while a checkpoint is open, and while none is.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Times of writes and of checkpoints.
#[derive(Debug, Default)]
pub struct Latencies(Mutex<Noted>);

#[derive(Debug, Default)]
struct Noted {
    writes: Vec<(Instant, Duration)>,
    checkpoints: Vec<(Instant, Instant)>,
}

impl Latencies {
    fn change<T>(&self, with: impl FnOnce(&mut Noted) -> T) -> T {
        with(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A write that began then is done.
    pub fn note(&self, began: Instant) {
        self.change(|noted| noted.writes.push((began, began.elapsed())));
    }

    /// A checkpoint was open from then to now.
    pub fn checkpoint(&self, asked: Instant) {
        self.change(|noted| noted.checkpoints.push((asked, Instant::now())));
    }

    /// Times of the writes that were going on while a checkpoint was open, and of the others.
    pub fn split(&self) -> (Vec<Duration>, Vec<Duration>) {
        let during = |noted: &Noted, began: Instant, took: Duration| {
            let overlaps = |(asked, sealed): &(Instant, Instant)| began <= *sealed && began + took >= *asked;
            noted.checkpoints.iter().any(overlaps)
        };
        self.change(|noted| {
            let (some, others): (Vec<_>, Vec<_>) = noted
                .writes
                .iter()
                .partition(|(began, took)| during(noted, *began, *took));
            let times = |writes: Vec<(Instant, Duration)>| writes.into_iter().map(|(_, took)| took).collect();
            (times(some), times(others))
        })
    }
}

/// p50, p99 and the longest of some times, as cells of a table.
pub fn shares(times: &mut [Duration]) -> String {
    times.sort();
    let at = |percent: usize| match times.len() {
        0 => "-".to_owned(),
        count => shown(times[(count * percent).div_ceil(100) - 1]),
    };
    format!("{} | {} | {}", at(50), at(99), at(100))
}

fn shown(time: Duration) -> String {
    match time.as_secs() {
        0 => format!("{:.1} ms", time.as_secs_f64() * 1000.0),
        _ => format!("{:.2} s", time.as_secs_f64()),
    }
}
