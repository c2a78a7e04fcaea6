//! The frame: header and compressed payload under one checksum.
//!
//! Layout, all integers little-endian:
//!
//! | offset | bytes | content |
//! |---|---|---|
//! | 0 | 4 | magic `HWF1` |
//! | 4 | 1 | format version, 1 |
//! | 5 | 1 | kind, see [`FrameKind`] |
//! | 6 | 1 | codec of the payload: 0 stored, 1 zstd |
//! | 7 | 1 | zero |
//! | 8 | 4 | length of the header |
//! | 12 | 4 | length of the payload as stored |
//! | 16 | 4 | length of the payload unpacked |
//! | 20 | … | header: one BSON document |
//! | … | … | payload |
//! | end-32 | 32 | BLAKE3 of everything before |
//!
//! The checksum is verified before the header is parsed, lengths before anything is allocated.

use bytes::Bytes;
use headwater_model::limits;
use serde::{Serialize, de::DeserializeOwned};

const MAGIC: [u8; 4] = *b"HWF1";
const VERSION: u8 = 1;
const FIXED: usize = 20;
const CHECKSUM: usize = 32;
/// zstd's own default is 3; level 1 is twice as fast on slices for a few per cent of size.
const ZSTD_LEVEL: i32 = 1;

/// What a frame holds. The numbers are at rest: never reuse one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameKind {
    /// Documents of a first copy.
    SyncSlice = 1,
    /// Oplog entries.
    OplogSlice = 2,
    /// Documents fetched from the source on request.
    Documents = 3,
    /// What a sync begins with: collections, options, indexes.
    SyncBegin = 4,
    /// An image manifest.
    Image = 5,
}

impl FrameKind {
    fn from_byte(byte: u8) -> Option<Self> {
        [
            Self::SyncSlice,
            Self::OplogSlice,
            Self::Documents,
            Self::SyncBegin,
            Self::Image,
        ]
        .into_iter()
        .find(|kind| *kind as u8 == byte)
    }
}

/// A frame that cannot be used. None of these is worth a retry with the same bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Shorter than its own lengths say, or longer.
    #[error("frame is {actual} bytes long but says {expected}: it was cut or padded on the way")]
    Length {
        /// By its header.
        expected: u64,
        /// In truth.
        actual: u64,
    },
    /// Not a frame at all.
    #[error("not a frame: it does not begin with HWF1")]
    Magic,
    /// Written by a newer version.
    #[error("frame format version {0} is unknown here; upgrade this program")]
    Version(u8),
    /// Another kind than the place calls for.
    #[error("frame of kind {found} where {expected:?} belongs")]
    Kind {
        /// What was called for.
        expected: FrameKind,
        /// The kind byte found.
        found: u8,
    },
    /// Bits changed.
    #[error("frame checksum does not match: its bytes were damaged")]
    Checksum,
    /// Beyond a limit.
    #[error("{what} of {actual} bytes is over the limit of {limit}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// How large.
        actual: u64,
        /// The limit.
        limit: u64,
    },
    /// The header is no such document.
    #[error("frame header cannot be read: {0}")]
    Header(String),
    /// The payload does not unpack to what the frame says.
    #[error("frame payload cannot be unpacked: {0}")]
    Payload(String),
}

/// A verified frame. The payload is still packed.
#[derive(Clone, Debug)]
pub struct Frame {
    bytes: Bytes,
    codec: u8,
    header_len: usize,
    payload_len: usize,
    raw_len: usize,
}

/// Packs header and payload into a frame.
pub fn seal<H: Serialize>(kind: FrameKind, header: &H, raw: &[u8]) -> Result<Bytes, FrameError> {
    let header = bson::serialize_to_vec(header).map_err(|e| FrameError::Header(e.to_string()))?;
    within("frame header", header.len(), limits::FRAME_HEADER_MAX_BYTES)?;
    within("frame payload", raw.len(), limits::FRAME_MAX_RAW_BYTES)?;
    let packed = zstd::bulk::compress(raw, ZSTD_LEVEL).map_err(|e| FrameError::Payload(e.to_string()))?;
    let (codec, payload) = if packed.len() < raw.len() {
        (1, packed.as_slice())
    } else {
        (0, raw)
    };
    let mut out = Vec::with_capacity(FIXED + header.len() + payload.len() + CHECKSUM);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&[VERSION, kind as u8, codec, 0]);
    for len in [header.len(), payload.len(), raw.len()] {
        out.extend_from_slice(&(len as u32).to_le_bytes());
    }
    out.extend_from_slice(&header);
    out.extend_from_slice(payload);
    let checksum = blake3::hash(&out);
    out.extend_from_slice(checksum.as_bytes());
    Ok(out.into())
}

fn within(what: &'static str, actual: usize, limit: usize) -> Result<(), FrameError> {
    if actual <= limit {
        Ok(())
    } else {
        Err(FrameError::TooLarge {
            what,
            actual: actual as u64,
            limit: limit as u64,
        })
    }
}

fn u32_at(bytes: &[u8], at: usize) -> usize {
    bytes
        .get(at..at + 4)
        .and_then(|b| b.try_into().ok())
        .map_or(0, |b| u32::from_le_bytes(b) as usize)
}

impl Frame {
    /// Verifies lengths, kind and checksum.
    pub fn open(kind: FrameKind, bytes: Bytes) -> Result<Frame, FrameError> {
        if bytes.len() < FIXED + CHECKSUM {
            let expected = (FIXED + CHECKSUM) as u64;
            return Err(FrameError::Length {
                expected,
                actual: bytes.len() as u64,
            });
        }
        if bytes[..4] != MAGIC {
            return Err(FrameError::Magic);
        }
        if bytes[4] != VERSION {
            return Err(FrameError::Version(bytes[4]));
        }
        if FrameKind::from_byte(bytes[5]) != Some(kind) {
            return Err(FrameError::Kind {
                expected: kind,
                found: bytes[5],
            });
        }
        let frame = Frame {
            codec: bytes[6],
            header_len: u32_at(&bytes, 8),
            payload_len: u32_at(&bytes, 12),
            raw_len: u32_at(&bytes, 16),
            bytes,
        };
        within("frame header", frame.header_len, limits::FRAME_HEADER_MAX_BYTES)?;
        within("frame payload", frame.payload_len, limits::FRAME_MAX_BYTES)?;
        within("unpacked frame payload", frame.raw_len, limits::FRAME_MAX_RAW_BYTES)?;
        let body = FIXED + frame.header_len + frame.payload_len;
        if frame.bytes.len() != body + CHECKSUM {
            return Err(FrameError::Length {
                expected: (body + CHECKSUM) as u64,
                actual: frame.bytes.len() as u64,
            });
        }
        if blake3::hash(&frame.bytes[..body]).as_bytes()[..] != frame.bytes[body..] {
            return Err(FrameError::Checksum);
        }
        Ok(frame)
    }

    /// Reads the header.
    pub fn header<H: DeserializeOwned>(&self) -> Result<H, FrameError> {
        bson::deserialize_from_slice(&self.bytes[FIXED..FIXED + self.header_len])
            .map_err(|e| FrameError::Header(e.to_string()))
    }

    /// Unpacks the payload, never beyond the length the frame states.
    pub fn payload(&self) -> Result<Bytes, FrameError> {
        let at = FIXED + self.header_len;
        let stored = self.bytes.slice(at..at + self.payload_len);
        let raw = match self.codec {
            0 => stored,
            1 => zstd::bulk::decompress(&stored, self.raw_len)
                .map_err(|e| FrameError::Payload(e.to_string()))?
                .into(),
            other => return Err(FrameError::Payload(format!("codec {other} is unknown"))),
        };
        if raw.len() == self.raw_len {
            Ok(raw)
        } else {
            Err(FrameError::Payload(format!(
                "{} bytes where {} were promised",
                raw.len(),
                self.raw_len
            )))
        }
    }

    /// The whole frame as it travels and rests.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The frame's checksum: names its content in chains of slices.
    pub fn checksum(&self) -> [u8; 32] {
        let mut out = [0; CHECKSUM];
        out.copy_from_slice(&self.bytes[self.bytes.len() - CHECKSUM..]);
        out
    }

    /// Length of the payload unpacked.
    pub fn raw_len(&self) -> usize {
        self.raw_len
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::{Document, doc};

    fn sample() -> Bytes {
        seal(FrameKind::OplogSlice, &doc! { "n": 1 }, &[7; 1000]).unwrap()
    }

    #[test]
    fn a_frame_gives_back_what_was_sealed() {
        let frame = Frame::open(FrameKind::OplogSlice, sample()).unwrap();
        assert_eq!(frame.header::<Document>().unwrap(), doc! { "n": 1 });
        assert_eq!(frame.payload().unwrap(), vec![7; 1000]);
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_refused() {
        let whole = sample();
        for bit in 0..whole.len() * 8 {
            let mut damaged = whole.to_vec();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Frame::open(FrameKind::OplogSlice, damaged.into()).is_err(), "bit {bit}");
        }
        for len in 0..whole.len() {
            assert!(
                Frame::open(FrameKind::OplogSlice, whole.slice(..len)).is_err(),
                "cut at {len}"
            );
        }
    }

    #[test]
    fn a_payload_that_unpacks_to_more_than_promised_is_refused() {
        let bomb = zstd::bulk::compress(&vec![0; 10 << 20], 1).unwrap();
        let mut bytes = Vec::new();
        bytes.extend_from_slice(b"HWF1\x01\x02\x01\x00");
        for len in [5, bomb.len(), 1000] {
            bytes.extend_from_slice(&(len as u32).to_le_bytes());
        }
        bytes.extend_from_slice(&[5, 0, 0, 0, 0]);
        bytes.extend_from_slice(&bomb);
        let checksum = blake3::hash(&bytes);
        bytes.extend_from_slice(checksum.as_bytes());
        let frame = Frame::open(FrameKind::OplogSlice, bytes.into()).unwrap();
        assert!(matches!(frame.payload(), Err(FrameError::Payload(_))));
    }

    #[test]
    fn another_kind_is_refused() {
        assert!(matches!(
            Frame::open(FrameKind::SyncSlice, sample()),
            Err(FrameError::Kind { .. })
        ));
    }
}
