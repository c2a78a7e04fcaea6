//! A daemon whose own disk rotted does not begin with it.

/// A disk on which something is not what was written, and a daemon that took no notice.
#[derive(Clone, Debug, thiserror::Error)]
#[error("a rotten disk is refused: {daemon} began with one on which a bit of {key} had flipped")]
pub struct Trusted {
    /// Which daemon.
    pub daemon: &'static str,
    /// What it misread.
    pub key: String,
}
