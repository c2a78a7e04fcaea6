//! Requests for images. Whoever wants one leaves a request; the child that owns the head carries it out.

use std::sync::{Mutex, PoisonError};

use headwater_cluster::ImageRef;
use headwater_model::Ts;
use tokio::sync::{OwnedRwLockReadGuard, oneshot};

/// An image that was just cut: durable at rest, not yet known to the control state.
#[derive(Debug)]
pub struct CutImage {
    /// What is to be made known.
    pub image: ImageRef,
    /// Bytes newly stored for it.
    pub stored_bytes: u64,
    /// While this is held, the image is not taken for a leftover: until it is known, or nobody will make it known.
    pub unsettled: OwnedRwLockReadGuard<()>,
}

/// An image that was asked for.
#[derive(Debug)]
pub struct Cut {
    /// The image must show everything up to here at the least.
    pub at_least: Ts,
    /// Gets the image.
    pub answer: oneshot::Sender<CutImage>,
}

/// The requests that wait.
#[derive(Debug, Default)]
pub struct Cuts(Mutex<Vec<Cut>>);

impl Cuts {
    /// Leaves a request. The receiver fails when the head's owner ended before it could answer: ask again.
    pub fn ask(&self, at_least: Ts) -> oneshot::Receiver<CutImage> {
        let (answer, receiver) = oneshot::channel();
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Cut { at_least, answer });
        receiver
    }

    /// Takes the requests that a head at `applied` can serve; drops those nobody waits for.
    pub fn ready(&self, applied: Ts) -> Vec<Cut> {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|cut| !cut.answer.is_closed());
        let (ready, rest) = waiting.drain(..).partition(|cut| cut.at_least <= applied);
        *waiting = rest;
        ready
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_served_only_once_the_head_is_far_enough() {
        let cuts = Cuts::default();
        let near = cuts.ask(Ts(5));
        let _far = cuts.ask(Ts(9));
        assert!(cuts.ready(Ts(4)).is_empty());
        assert_eq!(cuts.ready(Ts(5)).len(), 1);
        drop(near);
        assert!(cuts.ready(Ts(8)).is_empty());
        assert_eq!(cuts.ready(Ts(9)).len(), 1);
    }
}
