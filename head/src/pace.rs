//! Giving way: long work of many small steps lets other tasks run now and then.

/// Counts steps.
#[derive(Default)]
pub(crate) struct Pace {
    steps: u32,
}

impl Pace {
    /// One step done. Every 4096 steps, about some milliseconds of work, others may run.
    pub(crate) async fn step(&mut self) {
        self.steps = self.steps.wrapping_add(1);
        if self.steps.is_multiple_of(4096) {
            tokio::task::yield_now().await;
        }
    }
}
