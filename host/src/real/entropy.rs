//! The system's entropy.

use rand::RngCore;
use rand::rngs::OsRng;

use crate::Entropy;

/// The system's entropy, fit for keys.
#[derive(Clone, Copy, Debug)]
pub struct OsEntropy;

impl Entropy for OsEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        if let Err(error) = OsRng.try_fill_bytes(bytes) {
            // Going on with guessable keys or ids would be worse than not going on.
            tracing::error!(%error, "the system gives no entropy");
            std::process::abort();
        }
    }
}
