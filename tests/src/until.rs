//! Waiting for something to become true.

use std::future::Future;
use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::{Instant, sleep};

/// How long anything may take before a test gives up. Generous: machines that run tests are often busy.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Asks again and again until the answer is `Some`; gives up after [`PATIENCE`], with `what` in the error.
pub async fn until<T, F>(what: &str, mut ask: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<Option<T>>>,
{
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask().await? {
            return Ok(answer);
        }
        if Instant::now() > end {
            bail!("waited {} seconds in vain for {what}", PATIENCE.as_secs());
        }
        sleep(Duration::from_millis(50)).await;
    }
}
