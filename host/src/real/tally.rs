//! What a disk must hold, kept twice: how many batches were written and a sum over all pairs, in the database with every
//! batch; and how many of them were made durable, in a file beside it with every flush.
//!
//! sled answers for each message of its log with a checksum, but passes over the ones that do not match: it takes them for
//! the torn end of a log, cuts it there, and shows what was before, without an error. A node that came back so would have
//! forgotten votes and entries that it had promised to keep. So whoever opens the database counts and sums anew.
//!
//! The file `flushed` has two slots of 21 bytes, at 0 and at 512, which are written in turn, so that one that is torn
//! leaves the other:
//!
//! | bytes | what |
//! |---|---|
//! | 4 | `HWFL` |
//! | 1 | version, 1 |
//! | 8 | durable batches, little-endian |
//! | 8 | BLAKE3 of the 13 bytes before, its first 8 |

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

/// The key under which a tally lies in the database.
pub(super) const KEY: &[u8] = b"\xffheadwater tally";
/// The name of the file beside it.
pub(super) const FILE: &str = "flushed";

const MAGIC: &[u8; 4] = b"HWFL";
const VERSION: u8 = 1;
const TALLY_BYTES: usize = 1 + 8 + 16;
const SLOT_BYTES: usize = 4 + 1 + 8 + 8;
const SLOT_AT: [u64; 2] = [0, 512];

/// Of all batches written so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// How many there were.
    pub(super) batches: u64,
    /// Over all pairs that are there now; the order in which they came does not matter.
    pub(super) sum: u128,
}

impl Tally {
    /// A pair is there now.
    pub(super) fn add(&mut self, key: &[u8], value: &[u8]) {
        self.sum = self.sum.wrapping_add(weight(key, value));
    }

    /// A pair is there no more.
    pub(super) fn take(&mut self, key: &[u8], value: &[u8]) {
        self.sum = self.sum.wrapping_sub(weight(key, value));
    }

    /// As it lies under [`KEY`]: version, batches, sum, little-endian.
    pub(super) fn bytes(&self) -> Vec<u8> {
        [&[VERSION][..], &self.batches.to_le_bytes(), &self.sum.to_le_bytes()].concat()
    }

    /// The way back.
    pub(super) fn read(bytes: &[u8]) -> Option<Tally> {
        let bytes: &[u8; TALLY_BYTES] = bytes.try_into().ok()?;
        Some(Tally {
            batches: u64::from_le_bytes(bytes[1..9].try_into().ok()?),
            sum: u128::from_le_bytes(bytes[9..].try_into().ok()?),
        })
        .filter(|_| bytes[0] == VERSION)
    }
}

fn weight(key: &[u8], value: &[u8]) -> u128 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(key.len() as u64).to_le_bytes());
    hasher.update(key).update(value);
    let mut first = [0; 16];
    first.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    u128::from_le_bytes(first)
}

/// The file `flushed`.
pub(super) struct Flushed {
    file: File,
    batches: u64,
    /// The slot that is written next.
    slot: usize,
}

impl Flushed {
    /// Opens it in a folder that exists; makes it where there is none, durably but for its name. `None` when neither slot
    /// can be read.
    pub(super) fn open(folder: &Path) -> io::Result<Option<Flushed>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut file = options.open(folder.join(FILE))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        // Also one that was made and not filled before a crash has seen no flush.
        if bytes.is_empty() {
            let (batches, slot) = (0, 0);
            let mut made = Flushed { file, batches, slot };
            made.write(0)?;
            return Ok(Some(made));
        }
        let slots = SLOT_AT.map(|at| bytes.get(at as usize..).and_then(read_slot));
        let newest = slots.into_iter().flatten().max();
        let slot = usize::from(slots[0] == newest);
        Ok(newest.map(|batches| Flushed { file, batches, slot }))
    }

    /// How many batches are durable.
    pub(super) fn batches(&self) -> u64 {
        self.batches
    }

    /// So many batches are durable now.
    pub(super) fn note(&mut self, batches: u64) -> io::Result<()> {
        if batches > self.batches {
            self.write(batches)?;
            self.batches = batches;
        }
        Ok(())
    }

    fn write(&mut self, batches: u64) -> io::Result<()> {
        let mut bytes = [&MAGIC[..], &[VERSION], &batches.to_le_bytes()].concat();
        bytes.extend(&blake3::hash(&bytes).as_bytes()[..8]);
        self.file.seek(SeekFrom::Start(SLOT_AT[self.slot]))?;
        self.file.write_all(&bytes)?;
        self.slot = 1 - self.slot;
        self.file.sync_data()
    }
}

fn read_slot(bytes: &[u8]) -> Option<u64> {
    let (body, sum) = bytes.get(..SLOT_BYTES)?.split_at(SLOT_BYTES - 8);
    let whole = body.starts_with(MAGIC) && body[4] == VERSION && blake3::hash(body).as_bytes()[..8] == *sum;
    whole.then(|| body[5..].try_into().map(u64::from_le_bytes).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_is_of_what_is_there_in_whatever_order_it_came() {
        let (mut one, mut other) = (Tally::default(), Tally::default());
        one.add(b"a", b"1");
        one.add(b"b", b"2");
        other.add(b"b", b"2");
        other.add(b"a", b"old");
        assert_ne!(one, other);
        other.take(b"a", b"old");
        other.add(b"a", b"1");
        assert_eq!(one, other);
        let mut shifted = Tally::default();
        shifted.add(b"a1", b"");
        shifted.add(b"b", b"2");
        assert_ne!(one, shifted, "what is key and what is value matters");
        one.batches = 7;
        assert_eq!(Tally::read(&one.bytes()), Some(one));
        assert_eq!(Tally::read(&one.bytes()[1..]), None);
    }

    #[test]
    fn a_note_of_flushes_survives_the_loss_of_one_slot_and_not_of_both() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        let mut made = Flushed::open(folder.path()).unwrap().unwrap();
        made.note(4).unwrap();
        made.note(5).unwrap();
        made.note(3).unwrap();
        let whole = std::fs::read(&path).unwrap();
        let golden = "4857464c010500000000000000";
        assert_eq!(hex_of(&whole[..13]), golden);
        let opened = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            Flushed::open(folder.path()).unwrap().map(|flushed| flushed.batches())
        };
        assert_eq!(opened(&whole), Some(5));
        for bit in 0..SLOT_BYTES * 8 {
            let mut torn = whole.clone();
            torn[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(opened(&torn), Some(4), "bit {bit}");
            torn[512] ^= 1;
            assert_eq!(opened(&torn), None);
        }
        assert_eq!(opened(&[]), Some(0));
    }

    fn hex_of(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
