//! The window that is offered is the window that can be restored.

/// An offer that was not kept.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Unkept {
    /// An instant within an offered range was refused.
    #[error("offered means restorable: {wish} was offered and refused with {status}: {words}")]
    Refused {
        /// Which restore.
        wish: String,
        /// The answer's status.
        status: u16,
        /// Its words.
        words: String,
    },
    /// Nothing is offered though everything is complete.
    #[error("offered means restorable: the backup is complete and nothing is offered")]
    Nothing,
}
