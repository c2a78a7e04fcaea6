//! The tail: from the source's oplog to a chain of slices at the service, without a gap.
//!
//! Three steps run at once, each a bounded queue apart: *reading* entries and cutting them into slices, *sealing* each slice
//! into a frame that names the one before, *shipping* frames in order. When the service is slow, the queues fill and reading
//! stops; when it says that the chain stands elsewhere, the steps are dropped and begin again from there.

pub mod chain;
pub mod place;
pub mod read;

use std::convert::Infallible;
use std::time::Duration;

use headwater_protocol::agent::{RefusalKind, TailOrder};
use tokio::sync::mpsc;

use crate::backoff::Backoff;
use crate::stream::{Conversation, End};

/// Slices that wait between reading and sealing.
const READ_AHEAD: usize = 3;
/// Frames that wait between sealing and shipping.
const SEALED_AHEAD: usize = 1;

/// Why the steps stopped.
pub enum Stop {
    /// The chain goes on elsewhere.
    Elsewhere(TailOrder),
    /// The conversation is over.
    End(End),
}

impl<E: Into<End>> From<E> for Stop {
    fn from(end: E) -> Self {
        Stop::End(end.into())
    }
}

/// Tails from `order` on until the conversation ends.
pub async fn run(conversation: &Conversation, mut order: TailOrder) -> Result<Infallible, End> {
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
    loop {
        match steps(conversation, order.clone()).await {
            Ok(never) => match never {},
            Err(Stop::End(end)) => return Err(end),
            Err(Stop::Elsewhere(tail)) => {
                tracing::info!(set = %conversation.set, from = %order.after, to = %tail.after, "the tail goes on elsewhere");
                if tail.after > order.after {
                    backoff.reset();
                }
                order = tail;
            }
        }
        tokio::time::sleep(backoff.after_failure(conversation.host.entropy.number())).await;
    }
}

async fn steps(conversation: &Conversation, order: TailOrder) -> Result<Infallible, Stop> {
    let (cuts_in, cuts) = mpsc::channel(READ_AHEAD);
    let (frames_in, frames) = mpsc::channel(SEALED_AHEAD);
    // Ends with the first step that ends; the others are dropped.
    tokio::select! {
        end = read::run(conversation, order.after, cuts_in) => end,
        end = chain::seal(conversation, order, cuts, frames_in) => end,
        end = ship(conversation, frames) => end,
    }
}

async fn ship(conversation: &Conversation, mut frames: mpsc::Receiver<chain::Link>) -> Result<Infallible, Stop> {
    while let Some(link) = frames.recv().await {
        let ack = match conversation.service.oplog(&conversation.set, link.frame).await {
            Ok(ack) => ack,
            Err(refusal) => match (refusal.kind, refusal.tail.clone()) {
                (RefusalKind::Gap, Some(tail)) => return Err(Stop::Elsewhere(tail)),
                _ => return Err(Stop::End(refusal.into())),
            },
        };
        if ack.tip != link.tip.after || ack.tip_slice != link.tip.previous_slice {
            return Err(Stop::Elsewhere(TailOrder { after: ack.tip, previous_slice: ack.tip_slice }));
        }
    }
    std::future::pending().await
}
