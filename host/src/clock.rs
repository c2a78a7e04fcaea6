//! The wall clock.

/// What people call the time. It may stand still and jump either way, so nothing that must be right rests on it:
/// it is for schedules and for display.
pub trait WallClock: Send + Sync {
    /// Milliseconds since 1970, UTC.
    fn now_ms(&self) -> i64;
}
