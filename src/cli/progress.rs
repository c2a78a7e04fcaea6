//! Progress on standard error: a bar on a terminal, a line every ten seconds otherwise.

use std::collections::VecDeque;
use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::Instant;

use crate::output::{bytes, seconds};

/// The rate is that of the last so many seconds.
const WINDOW: Duration = Duration::from_secs(15);
/// How often a line is written where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Bytes per second over a moving window.
#[derive(Debug, Default)]
pub struct Rate {
    samples: VecDeque<(Duration, u64)>,
}

impl Rate {
    /// Notes how much was done at a time since the start.
    pub fn note(&mut self, at: Duration, done: u64) {
        self.samples.push_back((at, done));
        while self.samples.front().is_some_and(|(oldest, _)| *oldest + WINDOW < at) {
            self.samples.pop_front();
        }
    }

    /// Bytes per second; 0 while nothing is known.
    pub fn per_second(&self) -> u64 {
        let (Some((from, before)), Some((to, now))) = (self.samples.front(), self.samples.back()) else {
            return 0;
        };
        let took = to.saturating_sub(*from).as_secs_f64();
        if took < 0.2 {
            0
        } else {
            (now.saturating_sub(*before) as f64 / took) as u64
        }
    }

    /// Seconds that the rest will take; `None` while there is no rate.
    pub fn remaining(&self, total: u64) -> Option<u64> {
        let done = self.samples.back()?.1;
        let rate = self.per_second();
        (rate > 0).then(|| total.saturating_sub(done).div_ceil(rate))
    }
}

/// One thing under way.
pub struct Progress {
    bar: Option<ProgressBar>,
    started: Instant,
    line_due: Instant,
    said: String,
    rate: Rate,
}

impl Progress {
    /// Begins; shows nothing yet.
    pub fn start() -> Self {
        let bar = std::io::stderr()
            .is_terminal()
            .then(|| ProgressBar::new(0).with_style(style()));
        let now = Instant::now();
        Progress {
            bar,
            started: now,
            line_due: now,
            said: String::new(),
            rate: Rate::default(),
        }
    }

    /// Shows how it stands: what it is at, and bytes done of a total (0 when unknown).
    pub fn show(&mut self, step: &str, done: u64, total: u64) {
        let now = Instant::now();
        let total = if total == 0 { 0 } else { total.max(done) };
        self.rate.note(now - self.started, done);
        let words = words(done, total, &self.rate);
        if let Some(bar) = &self.bar {
            bar.set_length(total.max(1));
            bar.set_position(done.min(total));
            bar.set_message(words.clone());
            bar.set_prefix(step.to_owned());
        } else if now >= self.line_due || self.said != step {
            eprintln!("{step}: {words}");
            self.line_due = now + LINE_EVERY;
        }
        step.clone_into(&mut self.said);
    }

    /// Says something that stays.
    pub fn say(&self, words: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{words}")),
            None => eprintln!("{words}"),
        }
    }

    /// Ends; the bar vanishes.
    pub fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn style() -> ProgressStyle {
    let styled = ProgressStyle::with_template("  {prefix} {bar:30.cyan/dim} {msg}");
    styled
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("━╸─")
}

fn words(done: u64, total: u64, rate: &Rate) -> String {
    let mut out = if total == 0 {
        bytes(done)
    } else {
        let percent = done as f64 * 100.0 / total as f64;
        format!("{percent:.0} %  {} of about {}", bytes(done), bytes(total))
    };
    if rate.per_second() > 0 {
        out.push_str(&format!("  {}/s", bytes(rate.per_second())));
    }
    if let Some(left) = rate.remaining(total).filter(|_| total > done) {
        out.push_str(&format!("  about {} left", seconds(left)));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_last_seconds() {
        let mut rate = Rate::default();
        assert_eq!((rate.per_second(), rate.remaining(100)), (0, None));
        for second in 0..=20 {
            rate.note(Duration::from_secs(second), second * 10);
        }
        assert_eq!((rate.per_second(), rate.remaining(300)), (10, Some(10)));
        for second in 21..=60 {
            rate.note(Duration::from_secs(second), 200);
        }
        assert_eq!((rate.per_second(), rate.remaining(300)), (0, None));
    }

    #[test]
    fn progress_is_told_with_rate_and_what_is_left() {
        let mut rate = Rate::default();
        rate.note(Duration::ZERO, 0);
        rate.note(Duration::from_secs(2), 2 << 20);
        assert_eq!(
            words(2 << 20, 4 << 20, &rate),
            "50 %  2.0 MiB of about 4.0 MiB  1.0 MiB/s  about 2 s left"
        );
        assert_eq!(words(2 << 20, 0, &rate), "2.0 MiB  1.0 MiB/s");
    }
}
