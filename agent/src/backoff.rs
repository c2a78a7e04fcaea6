//! How long to wait before trying again.

use std::time::Duration;

/// Doubles from `least` to `most`; an attempt that got somewhere starts it over.
#[derive(Clone, Debug)]
pub struct Backoff {
    least: Duration,
    most: Duration,
    next: Duration,
    failures: u32,
}

impl Backoff {
    /// Waits between `least` and `most`.
    pub fn new(least: Duration, most: Duration) -> Self {
        Backoff { least, most, next: least, failures: 0 }
    }

    /// The wait after one more failure: between half and all of the current step, by `random`, so that many agents
    /// that failed together do not come back together.
    pub fn after_failure(&mut self, random: u64) -> Duration {
        let step = self.next;
        self.next = (step * 2).min(self.most);
        self.failures = self.failures.saturating_add(1);
        let half = step / 2;
        half + half.mul_f64((random % 1024) as f64 / 1023.0)
    }

    /// Something worked.
    pub fn reset(&mut self) {
        self.next = self.least;
        self.failures = 0;
    }

    /// Failures since something worked.
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_cap_and_start_over_after_success() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(500));
        let waits: Vec<u128> = (0..4).map(|_| backoff.after_failure(1023).as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 500]);
        assert_eq!(backoff.failures(), 4);
        backoff.reset();
        assert_eq!(backoff.after_failure(0).as_millis(), 50, "at the least half of the step");
    }
}
