//! The segment at rest: many oplog slices in one object, each still the frame it came as.
//!
//! Merging proves nothing anew: checksums and chain are those of the agent's own frames.
//!
//! Layout, all integers little-endian:
//!
//! | bytes | content |
//! |---|---|
//! | … | frames back to back |
//! | 20 × n | per frame: its length (u32), the position before it: ts (u64), term (i64) |
//! | 16 | the last position of the last frame |
//! | 4 | n |
//! | 8 | closing: `HWTNES` and the format version as u16, 1 |
//! | 32 | BLAKE3 of everything from the index on |

use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};
use headwater_model::{Optime, Ts};

const CLOSING: [u8; 8] = *b"HWTNES\x01\x00";
const ENTRY: usize = 20;
const TAIL: usize = 16 + 4 + CLOSING.len() + 32;

/// A segment whose index cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an intact segment: {0}")]
pub struct SegmentFault(&'static str);

/// One frame within a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// The position before its first entry.
    pub previous: Optime,
    /// Its last entry.
    pub last: Optime,
    /// Where its bytes begin.
    pub offset: u64,
    /// How many bytes.
    pub len: u32,
}

impl Part {
    /// The bytes of the segment it takes.
    pub fn range(&self) -> Range<u64> {
        self.offset..self.offset + u64::from(self.len)
    }
}

/// How many bytes the index of `slices` frames takes, to the end of the segment.
pub fn end_len(slices: u64) -> u64 {
    slices * ENTRY as u64 + TAIL as u64
}

/// Puts frames together; each comes with the position before it, `last` is the end of the last.
pub fn write(frames: &[(Optime, Bytes)], last: Optime) -> Bytes {
    let len = frames.iter().map(|(_, frame)| frame.len()).sum::<usize>() + frames.len() * ENTRY + TAIL;
    let mut out = BytesMut::with_capacity(len);
    for (_, frame) in frames {
        out.put_slice(frame);
    }
    let index = out.len();
    for (previous, frame) in frames {
        out.put_u32_le(frame.len() as u32);
        put_position(&mut out, *previous);
    }
    put_position(&mut out, last);
    out.put_u32_le(frames.len() as u32);
    out.put_slice(&CLOSING);
    let checksum = blake3::hash(&out[index..]);
    out.put_slice(checksum.as_bytes());
    out.freeze()
}

fn put_position(out: &mut BytesMut, at: Optime) {
    out.put_u64_le(at.ts.0);
    out.put_i64_le(at.term);
}

fn position(bytes: &[u8]) -> Option<Optime> {
    let (ts, term) = (bytes.first_chunk::<8>()?, bytes.get(8..)?.first_chunk::<8>()?);
    Some(Optime::new(Ts(u64::from_le_bytes(*ts)), i64::from_le_bytes(*term)))
}

/// Reads the index out of the end of a segment of `size` bytes: exactly [`end_len`] bytes.
pub fn read_end(size: u64, end: &[u8]) -> Result<Vec<Part>, SegmentFault> {
    let tail = end.len().checked_sub(TAIL).ok_or(SegmentFault("too short"))?;
    let sealed = end.len() - 32;
    if end[sealed - CLOSING.len()..sealed] != CLOSING {
        return Err(SegmentFault("it is not closed, or written by a newer version"));
    }
    if blake3::hash(&end[..sealed]).as_bytes() != &end[sealed..] {
        return Err(SegmentFault("the checksum of its index does not match"));
    }
    let mut parts: Vec<Part> = Vec::new();
    let mut offset = 0;
    for entry in end[..tail].chunks(ENTRY) {
        let len = entry.first_chunk::<4>().map(|b| u32::from_le_bytes(*b));
        let previous = entry.get(4..).and_then(position);
        let (Some(len), Some(previous)) = (len, previous) else {
            return Err(SegmentFault("its index is cut"));
        };
        if let Some(before) = parts.last_mut() {
            before.last = previous;
        }
        parts.push(Part {
            previous,
            last: previous,
            offset,
            len,
        });
        offset += u64::from(len);
    }
    let count = end[tail + 16..]
        .first_chunk::<4>()
        .map_or(0, |b| u32::from_le_bytes(*b));
    if offset + end.len() as u64 != size || count as usize != parts.len() {
        return Err(SegmentFault("its length does not match its index"));
    }
    if let (Some(part), Some(last)) = (parts.last_mut(), position(&end[tail..])) {
        part.last = last;
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(n: u32) -> Optime {
        Optime::new(Ts::new(n, 1), 2)
    }

    #[test]
    fn a_segment_rests_in_these_bytes_and_reads_back() {
        let whole = write(
            &[
                (at(1), Bytes::from_static(b"one")),
                (at(2), Bytes::from_static(b"four")),
            ],
            at(3),
        );
        let index = concat!(
            "03000000",
            "0100000001000000",
            "0200000000000000",
            "04000000",
            "0100000002000000",
            "0200000000000000",
            "0100000003000000",
            "0200000000000000",
            "02000000",
            "4857544e45530100",
        );
        assert_eq!(
            hex::encode(&whole[..whole.len() - 32]),
            format!("{}{index}", hex::encode("onefour"))
        );
        let end = &whole[whole.len() - end_len(2) as usize..];
        let parts = read_end(whole.len() as u64, end).unwrap();
        assert_eq!(
            parts[0],
            Part {
                previous: at(1),
                last: at(2),
                offset: 0,
                len: 3
            }
        );
        assert_eq!(
            parts[1],
            Part {
                previous: at(2),
                last: at(3),
                offset: 3,
                len: 4
            }
        );
        for bit in 0..end.len() * 8 {
            let mut damaged = end.to_vec();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(read_end(whole.len() as u64, &damaged).is_err(), "bit {bit}");
        }
    }
}
