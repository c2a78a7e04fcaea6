//! Notes: small records at rest, readable by people, under a checksum.
//!
//! Layout: one line `headwater-note 1 KIND CHECKSUM`, then one line of JSON. CHECKSUM is the BLAKE3 of
//! `KIND`, a line feed and the JSON line (its line feed included), in hexadecimal.

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

use crate::objects::StoreError;

const OPENING: &str = "headwater-note 1";

fn checksum(kind: &str, body: &str) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(kind.as_bytes()).update(b"\n").update(body.as_bytes());
    hasher.finalize().to_hex().to_string()
}

/// Writes a note of the given kind (one word).
pub fn seal<T: Serialize>(kind: &str, value: &T) -> Result<Bytes, StoreError> {
    let mut body = serde_json::to_string(value).map_err(|e| StoreError::refused(kind, e))?;
    body.push('\n');
    Ok(format!("{OPENING} {kind} {}\n{body}", checksum(kind, &body)).into())
}

/// Reads a note; `key` names it in errors. Anything but the bytes [`seal`] made is [`StoreError::Damaged`].
pub fn open<T: DeserializeOwned>(kind: &str, key: &str, bytes: &[u8]) -> Result<T, StoreError> {
    let damaged = |detail: &str| StoreError::damaged(key, detail);
    let text = std::str::from_utf8(bytes).map_err(|_| damaged("not a note: no text"))?;
    let (line, body) = text.split_once('\n').ok_or_else(|| damaged("not a note: no lines"))?;
    if line != format!("{OPENING} {kind} {}", checksum(kind, body)) {
        return Err(damaged(&format!("not an intact note of kind {kind}")));
    }
    serde_json::from_str(body).map_err(|e| StoreError::damaged(key, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_rests_in_these_bytes() {
        let bytes = seal("start", &vec![1, 2]).unwrap();
        let sum = checksum("start", "[1,2]\n");
        assert_eq!(bytes, format!("headwater-note 1 start {sum}\n[1,2]\n"));
        assert_eq!(open::<Vec<u8>>("start", "k", &bytes).unwrap(), [1, 2]);
    }

    #[test]
    fn a_note_of_another_kind_or_with_any_bit_flipped_is_damaged() {
        let bytes = seal("start", &7_u64).unwrap();
        assert!(open::<u64>("end", "k", &bytes).is_err());
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.to_vec();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(open::<u64>("start", "k", &damaged).is_err(), "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert!(open::<u64>("start", "k", &bytes[..len]).is_err(), "cut at {len}");
        }
    }
}
