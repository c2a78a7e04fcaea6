//! The end of the process, by its own decision.

/// Why a process ends itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExitReason {
    /// A disk gave a wrong or no answer, and what is durable is in doubt. Exit code 74.
    Storage(String),
    /// A fenced writer may have been overtaken. Exit code 75.
    Fenced(String),
    /// Something that cannot happen did. Exit code 70.
    Defect(String),
}

impl ExitReason {
    /// The process's exit code, after `sysexits.h`; 74 and 75 mean that a restart is the cure.
    pub fn code(&self) -> i32 {
        match self {
            ExitReason::Defect(_) => 70,
            ExitReason::Storage(_) => 74,
            ExitReason::Fenced(_) => 75,
        }
    }

    /// What happened, for the log.
    pub fn text(&self) -> &str {
        match self {
            ExitReason::Storage(text) | ExitReason::Fenced(text) | ExitReason::Defect(text) => text,
        }
    }
}

/// Ends the process at once, as kill -9 would: nothing is flushed, no hook runs. Whoever started it starts it again.
pub trait Exit: Send + Sync {
    /// The real one does not return. A simulated one does, and nothing the process does afterwards has any effect; so
    /// callers still return an error.
    fn exit(&self, reason: ExitReason);
}
