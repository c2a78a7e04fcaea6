//! Randomness.

/// A source of random bytes.
///
/// The real one is fit for keys; a simulated one repeats itself from its seed. Always succeeds: a process that gets no
/// entropy does not go on.
pub trait Entropy: Send + Sync {
    /// Fills all of `bytes`.
    fn fill(&self, bytes: &mut [u8]);
}

impl dyn Entropy + '_ {
    /// A random number.
    pub fn number(&self) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }
}
