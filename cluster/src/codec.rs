//! How control data becomes bytes: bincode behind one door, and a frame with version and checksum for what rests on disk.
//!
//! The encoding is positional: a field added, moved or removed breaks every disk. What rests on disk is therefore
//! pinned by golden bytes (tests below), and a new shape gets a new version.

use headwater_model::limits;
use serde::{Serialize, de::DeserializeOwned};

/// The layout written today, the first byte of every frame.
pub const VERSION: u8 = 1;
const CHECKSUM_BYTES: usize = 8;

/// Bytes that are not what they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// Cannot be encoded: beyond a limit of the encoding.
    #[error("{what} cannot be encoded: {reason}")]
    Encode {
        /// Of which kind.
        what: &'static str,
        /// What the encoding said.
        reason: String,
    },
    /// Not an encoding of the kind, or one with something behind it.
    #[error("these bytes are no {what}: {reason}")]
    Decode {
        /// Of which kind.
        what: &'static str,
        /// What the encoding said.
        reason: String,
    },
    /// Written by a newer Headwater.
    #[error("a {what} is of version {version}, which this program is too old to read; upgrade it")]
    Version {
        /// Of which kind.
        what: &'static str,
        /// The version found.
        version: u8,
    },
    /// Damaged, or kept under another key than it was written for.
    #[error("a {what} does not match its checksum: the disk is damaged; let this node join anew with an empty one")]
    Checksum {
        /// Of which kind.
        what: &'static str,
    },
}

fn config() -> impl bincode::config::Config {
    // The limit bounds what a hostile length can make us allocate.
    bincode::config::standard().with_limit::<{ limits::CONTROL_STATE_MAX_BYTES }>()
}

/// Encodes `value`, which is a `what`.
pub fn encode<T: Serialize>(what: &'static str, value: &T) -> Result<Vec<u8>, CodecError> {
    bincode::serde::encode_to_vec(value, config()).map_err(|error| CodecError::Encode {
        what,
        reason: error.to_string(),
    })
}

/// Decodes all of `bytes`, which may be anything.
pub fn decode<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, CodecError> {
    let (value, read) = bincode::serde::decode_from_slice(bytes, config()).map_err(|error| CodecError::Decode {
        what,
        reason: error.to_string(),
    })?;
    if read != bytes.len() {
        let reason = format!("{} bytes are left over", bytes.len() - read);
        return Err(CodecError::Decode { what, reason });
    }
    Ok(value)
}

/// Frames `payload` for the disk: version, checksum over `key` and payload, payload.
///
/// The key takes part so that a value under a wrong key is not believed.
pub fn frame(key: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut framed = Vec::with_capacity(1 + CHECKSUM_BYTES + payload.len());
    framed.push(VERSION);
    framed.extend(checksum(VERSION, key, payload));
    framed.extend(payload);
    framed
}

/// Undoes [`frame`].
pub fn unframe<'a>(what: &'static str, key: &[u8], framed: &'a [u8]) -> Result<&'a [u8], CodecError> {
    let (version, rest) = framed.split_first().ok_or(CodecError::Checksum { what })?;
    let (sum, payload) = rest
        .split_at_checked(CHECKSUM_BYTES)
        .ok_or(CodecError::Checksum { what })?;
    // Of every version the checksum is this one, so that a flipped bit in the version is damage and not an upgrade.
    if sum != checksum(*version, key, payload) {
        return Err(CodecError::Checksum { what });
    }
    match *version {
        VERSION => Ok(payload),
        version => Err(CodecError::Version { what, version }),
    }
}

fn checksum(version: u8, key: &[u8], payload: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[version]);
    hasher.update(&(key.len() as u64).to_le_bytes());
    hasher.update(key);
    hasher.update(payload);
    let mut sum = [0; CHECKSUM_BYTES];
    sum.copy_from_slice(&hasher.finalize().as_bytes()[..CHECKSUM_BYTES]);
    sum
}
