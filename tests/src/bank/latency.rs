//! How long writes at the source take while a checkpoint is open, and while none is.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// From when to when.
pub type Span = (Instant, Instant);

/// Times of writes and of checkpoints.
#[derive(Debug, Default)]
pub struct Latencies(Mutex<Noted>);

#[derive(Debug, Default)]
struct Noted {
    writes: Vec<(Instant, Duration)>,
    checkpoints: Vec<Span>,
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
        let checkpoints = self.change(|noted| noted.checkpoints.clone());
        self.within(&checkpoints)
    }

    /// Times of the writes that were going on at some time of these spans, and of the others.
    pub fn within(&self, spans: &[Span]) -> (Vec<Duration>, Vec<Duration>) {
        let overlaps = |began: Instant, took: Duration| {
            let mut spans = spans.iter();
            spans.any(|(from, to)| began <= *to && began + took >= *from)
        };
        self.change(|noted| {
            let (some, others): (Vec<_>, Vec<_>) =
                noted.writes.iter().partition(|(began, took)| overlaps(*began, *took));
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
