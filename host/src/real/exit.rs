//! The end of the process.

use crate::{Exit, ExitReason};

/// Ends the real process.
#[derive(Clone, Copy, Debug)]
pub struct ProcessExit;

impl Exit for ProcessExit {
    fn exit(&self, reason: ExitReason) {
        tracing::error!(code = reason.code(), "the process ends itself: {}", reason.text());
        std::process::exit(reason.code());
    }
}
