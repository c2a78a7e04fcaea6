//! The sealed object at rest.
//!
//! | bytes | content |
//! |---|---|
//! | 8 | opening: `HWSEAL` and the format version as u16 (little-endian), 1 |
//! | … | chunks, each of 65536 bytes of content; the last of 1 to 65536, or of none when there is no content |
//!
//! and each chunk:
//!
//! | bytes | content |
//! |---|---|
//! | 8 | id of the data key |
//! | 24 | salt, random, the same in all chunks of the object |
//! | … | AES-256-GCM of the content |
//! | 16 | its tag |
//!
//! The key of AES is BLAKE3, keyed with what follows from the data key, of opening, id, salt and the object's name. So
//! every writing of every object has a key of its own: what was moved to another name, or belongs to another writing,
//! does not open, and nonces need only differ within the object. The nonce of a chunk is its number (u64, little-endian),
//! three zeros, and 1 for the last chunk, else 0: chunks cannot be exchanged, left out, or cut off. Salt and id stand in
//! every chunk so that one is read without the others.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use headwater_model::DataKeyId;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use super::secret::{DataKey, Secret};

const OPENING: [u8; 8] = *b"HWSEAL\x01\x00";
/// Bytes of content in a chunk.
pub const CHUNK: usize = 64 << 10;
/// Bytes of a salt.
pub const SALT: usize = 24;
const KEY_ID: usize = 8;
const TAG: usize = 16;
/// What a chunk takes besides its content.
const AROUND: usize = KEY_ID + SALT + TAG;
const SEALED_CHUNK: u64 = (CHUNK + AROUND) as u64;

/// A sealed object that cannot be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealFault {
    /// Something else lies there.
    #[error("it is not a sealed object")]
    NotSealed,
    /// Written by a newer version.
    #[error("format version {0} of sealed objects is unknown here; upgrade this program")]
    Version(u16),
    /// Sealed with a key of somebody else's.
    #[error("it is sealed with data key {0}, which is not that of this deployment")]
    OtherKey(DataKeyId),
    /// The parts do not belong together, or not to this name.
    #[error("its seal is broken: it was changed, cut, moved, or mixed from several")]
    Broken,
}

/// How long an object of `plain` bytes is when sealed.
pub fn sealed_len(plain: u64) -> u64 {
    OPENING.len() as u64 + plain + chunks(plain) * AROUND as u64
}

/// How many bytes a sealed object of this length holds; `None` if none has that length.
pub fn plain_len(sealed: u64) -> Option<u64> {
    let body = sealed.checked_sub(OPENING.len() as u64)?;
    let (whole, rest) = (body / SEALED_CHUNK, body % SEALED_CHUNK);
    match rest.checked_sub(AROUND as u64) {
        None if rest == 0 && whole > 0 => Some(whole * CHUNK as u64),
        Some(last) if last > 0 || whole == 0 => Some(whole * CHUNK as u64 + last),
        _ => None,
    }
}

fn chunks(plain: u64) -> u64 {
    plain.div_ceil(CHUNK as u64).max(1)
}

/// Seals an object. The salt must be random and new.
pub fn seal(key: &DataKey, name: &str, salt: &[u8; SALT], plain: &[u8]) -> Result<Bytes, SealFault> {
    let cipher = cipher(key, name, salt)?;
    let last = chunks(plain.len() as u64) - 1;
    let mut out = BytesMut::with_capacity(sealed_len(plain.len() as u64) as usize);
    out.extend_from_slice(&OPENING);
    for number in 0..=last {
        let from = number as usize * CHUNK;
        out.extend_from_slice(&key.id().0);
        out.extend_from_slice(salt);
        let at = out.len();
        out.extend_from_slice(&plain[from..plain.len().min(from + CHUNK)]);
        let tag = cipher.seal_in_place_separate_tag(nonce(number, number == last), Aad::empty(), &mut out[at..]);
        out.extend_from_slice(tag.map_err(|_| SealFault::Broken)?.as_ref());
    }
    Ok(out.freeze())
}

/// Opens a whole object.
pub fn open(key: &DataKey, name: &str, sealed: &[u8]) -> Result<Bytes, SealFault> {
    let opening = sealed.get(..OPENING.len()).ok_or(SealFault::NotSealed)?;
    if opening[..6] != OPENING[..6] {
        return Err(SealFault::NotSealed);
    }
    if opening != OPENING {
        return Err(SealFault::Version(u16::from_le_bytes([opening[6], opening[7]])));
    }
    let plain = plain_len(sealed.len() as u64).ok_or(SealFault::Broken)?;
    let span = Span::of(0..plain, plain);
    span.open(key, name, &sealed[OPENING.len()..])
}

/// The chunks that hold a part of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// Where they rest in the sealed object.
    pub at: Range<u64>,
    first: u64,
    /// The number of the object's last chunk.
    last: u64,
    /// The part, within the content of these chunks.
    part: Range<usize>,
}

impl Span {
    /// The chunks for a part that lies within an object of `plain` bytes.
    pub fn of(part: Range<u64>, plain: u64) -> Span {
        let size = CHUNK as u64;
        let last = chunks(plain) - 1;
        let first = (part.start / size).min(last);
        let until = part.end.div_ceil(size).clamp(first + 1, last + 1);
        let begin = |chunk: u64| OPENING.len() as u64 + chunk * SEALED_CHUNK;
        Span {
            at: begin(first)..begin(until).min(sealed_len(plain)),
            first,
            last,
            part: (part.start - first * size) as usize..(part.end - first * size) as usize,
        }
    }

    /// Opens them; `sealed` is what rests at [`Span::at`].
    pub fn open(&self, key: &DataKey, name: &str, sealed: &[u8]) -> Result<Bytes, SealFault> {
        let salt: &[u8; SALT] = sealed
            .get(KEY_ID..)
            .and_then(|rest| rest.first_chunk())
            .ok_or(SealFault::Broken)?;
        let found = DataKeyId::from_slice(&sealed[..KEY_ID]).ok_or(SealFault::Broken)?;
        if found != key.id() {
            return Err(SealFault::OtherKey(found));
        }
        let cipher = cipher(key, name, salt)?;
        let head = &sealed[..KEY_ID + SALT];
        let mut out = BytesMut::with_capacity(sealed.len());
        for (number, chunk) in (self.first..).zip(sealed.chunks(SEALED_CHUNK as usize)) {
            if chunk.len() < AROUND || !chunk.starts_with(head) {
                return Err(SealFault::Broken);
            }
            let at = out.len();
            out.extend_from_slice(&chunk[KEY_ID + SALT..]);
            let nonce = nonce(number, number == self.last);
            let opened = cipher.open_in_place(nonce, Aad::empty(), &mut out[at..]);
            let len = opened.map_err(|_| SealFault::Broken)?.len();
            out.truncate(at + len);
        }
        if self.part.end > out.len() || self.part.start > self.part.end {
            return Err(SealFault::Broken);
        }
        Ok(out.freeze().slice(self.part.clone()))
    }
}

fn cipher(key: &DataKey, name: &str, salt: &[u8; SALT]) -> Result<LessSafeKey, SealFault> {
    let mut hasher = blake3::Hasher::new_keyed(key.objects().bytes());
    hasher.update(&OPENING).update(&key.id().0).update(salt);
    let own = Secret::new(*hasher.update(name.as_bytes()).finalize().as_bytes());
    let key = UnboundKey::new(&AES_256_GCM, own.bytes()).map_err(|_| SealFault::Broken)?;
    Ok(LessSafeKey::new(key))
}

fn nonce(number: u64, is_last: bool) -> Nonce {
    let mut bytes = [0; NONCE_LEN];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    bytes[NONCE_LEN - 1] = u8::from(is_last);
    Nonce::assume_unique_for_key(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "rs/shop/rs0/oplog/0000000000000001/a";

    fn key(n: u8) -> DataKey {
        DataKey::new(Secret::new([n; 32]))
    }

    fn content(len: usize) -> Vec<u8> {
        (0..len).map(|n| (n % 251) as u8).collect()
    }

    #[test]
    fn a_sealed_object_rests_in_these_bytes() {
        let salt = std::array::from_fn(|n| n as u8);
        let sealed = seal(&key(1), NAME, &salt, b"what is kept").unwrap();
        assert_eq!(hex::encode(&sealed), include_str!("fixture/object.sealed.hex").trim());
        assert_eq!(open(&key(1), NAME, &sealed).unwrap(), &b"what is kept"[..]);
    }

    #[test]
    fn the_damaged_twin_of_the_fixture_is_refused() {
        let twin = hex::decode(include_str!("fixture/object_damaged.sealed.hex").trim()).unwrap();
        assert_eq!(open(&key(1), NAME, &twin), Err(SealFault::Broken));
    }

    #[test]
    fn lengths_follow_from_each_other_and_no_other_length_is_believed() {
        let due: std::collections::BTreeMap<u64, u64> = (0..=3 * CHUNK as u64).map(|n| (sealed_len(n), n)).collect();
        for sealed in 0..=sealed_len(3 * CHUNK as u64) {
            assert_eq!(plain_len(sealed), due.get(&sealed).copied(), "{sealed}");
        }
    }

    #[test]
    fn every_part_of_an_object_is_read_without_the_rest() {
        for len in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 3 * CHUNK + 9] {
            let plain = content(len);
            let sealed = seal(&key(1), NAME, &[3; SALT], &plain).unwrap();
            assert_eq!(sealed.len() as u64, sealed_len(len as u64));
            assert_eq!(open(&key(1), NAME, &sealed).unwrap(), plain);
            let marks = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 3 * CHUNK, len];
            for from in marks.into_iter().filter(|at| *at <= len) {
                for to in marks.into_iter().filter(|at| (from..=len).contains(at)) {
                    let span = Span::of(from as u64..to as u64, len as u64);
                    let bytes = &sealed[span.at.start as usize..span.at.end as usize];
                    assert_eq!(
                        span.open(&key(1), NAME, bytes).unwrap(),
                        plain[from..to],
                        "{from}..{to} of {len}"
                    );
                    assert!(
                        bytes.len() <= to - from + 2 * SEALED_CHUNK as usize,
                        "{from}..{to} of {len}"
                    );
                }
            }
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_found() {
        let sealed = seal(&key(1), NAME, &[3; SALT], b"what is kept").unwrap();
        for bit in 0..sealed.len() * 8 {
            let mut damaged = sealed.to_vec();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(open(&key(1), NAME, &damaged).is_err(), "bit {bit}");
        }
        let large = seal(&key(1), NAME, &[3; SALT], &content(CHUNK * 2)).unwrap();
        for len in (0..sealed.len()).chain([8 + SEALED_CHUNK as usize, large.len() - 1]) {
            assert!(open(&key(1), NAME, &large[..len]).is_err(), "cut at {len}");
        }
        assert!(open(&key(1), NAME, &[&sealed[..], &[0]].concat()).is_err());
    }

    #[test]
    fn chunks_are_not_exchanged_nor_mixed_and_names_and_keys_are_not_either() {
        let plain = content(2 * CHUNK);
        let sealed = seal(&key(1), NAME, &[3; SALT], &plain).unwrap();
        let again = seal(&key(1), NAME, &[4; SALT], &plain).unwrap();
        let (opening, size) = (OPENING.len(), SEALED_CHUNK as usize);
        let chunk = |of: &Bytes, n: usize| of.slice(opening + n * size..opening + (n + 1) * size);
        let joined = |a: &[u8], b: &[u8]| [&OPENING[..], a, b].concat();
        for mixed in [
            joined(&chunk(&sealed, 1), &chunk(&sealed, 0)),
            joined(&chunk(&sealed, 0), &chunk(&sealed, 0)),
            joined(&chunk(&sealed, 0), &chunk(&again, 1)),
        ] {
            assert_eq!(open(&key(1), NAME, &mixed), Err(SealFault::Broken));
        }
        assert_eq!(
            open(&key(1), "rs/shop/rs0/oplog/0000000000000002/a", &sealed),
            Err(SealFault::Broken)
        );
        assert_eq!(open(&key(2), NAME, &sealed), Err(SealFault::OtherKey(key(1).id())));
        assert_eq!(open(&key(1), NAME, b"headwater-note 1"), Err(SealFault::NotSealed));
        let mut newer = sealed.to_vec();
        newer[6] = 2;
        assert_eq!(open(&key(1), NAME, &newer), Err(SealFault::Version(2)));
    }
}
