//! The pack at rest: many blocks in one object, and an index at its end.
//!
//! Layout, all integers little-endian:
//!
//! | bytes | content |
//! |---|---|
//! | 8 | opening: `HWPACK` and the format version as u16, 1 |
//! | … | blocks back to back, each: length of the raw bytes (u32), then the body: zstd if it is shorter than the raw bytes, else the raw bytes themselves |
//! | 44 × n | index in the order of the blocks: id (32), offset of the block (u32), its stored length with the 4 bytes of raw length (u32), its raw length (u32) |
//! | 4 | n, the number of blocks (u32) |
//! | 8 | closing: `HWKCAP` and the format version as u16 |
//! | 32 | BLAKE3 of opening, index, n and closing |
//!
//! The checksum covers what a reader of the end sees; a block is covered by its own id. So a pack is opened by reading
//! its end, and a block is verified without the rest of the pack.

use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};
use headwater_model::{BlockId, limits};

use crate::naming::BlockNaming;

const OPENING: [u8; 8] = *b"HWPACK\x01\x00";
const CLOSING: [u8; 8] = *b"HWKCAP\x01\x00";
const ENTRY: usize = 44;
const CHECKSUM: usize = 32;
/// The fixed end of a pack: number of blocks, closing, checksum.
const TAIL: usize = 4 + CLOSING.len() + CHECKSUM;
/// Level 1: writing a block must not be slower than scanning a source.
const ZSTD_LEVEL: i32 = 1;

/// A pack or a block that is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PackFault {
    /// Too short, or not closed.
    #[error("not a whole pack: {0}")]
    NotAPack(&'static str),
    /// Written by a newer version.
    #[error("pack format version {0} is unknown here; upgrade this program")]
    Version(u16),
    /// The index was damaged.
    #[error("the checksum of the pack's index does not match")]
    Checksum,
    /// A block's bytes do not give its id.
    #[error("block {0} does not match its id")]
    Block(BlockId),
}

/// Where a block rests within its pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The block.
    pub id: BlockId,
    /// Where it begins.
    pub offset: u32,
    /// Its length at rest.
    pub stored: u32,
    /// Its length unpacked.
    pub raw: u32,
}

impl Entry {
    /// The bytes of the pack it takes.
    pub fn range(&self) -> Range<u64> {
        u64::from(self.offset)..u64::from(self.offset) + u64::from(self.stored)
    }
}

/// Packs one block. At most [`limits::BLOCK_MAX_BYTES`]; the caller checks.
pub fn pack_block(raw: &[u8]) -> Bytes {
    let packed = zstd::bulk::compress(raw, ZSTD_LEVEL)
        .ok()
        .filter(|packed| packed.len() < raw.len());
    let body = packed.as_deref().unwrap_or(raw);
    let mut out = BytesMut::with_capacity(4 + body.len());
    out.put_u32_le(raw.len() as u32);
    out.put_slice(body);
    out.freeze()
}

/// Unpacks one block and verifies it against its id.
pub fn unpack_block(naming: &BlockNaming, id: BlockId, stored: &Bytes) -> Result<Bytes, PackFault> {
    let fault = || PackFault::Block(id);
    let len = stored
        .first_chunk::<4>()
        .map(|b| u32::from_le_bytes(*b) as usize)
        .ok_or_else(fault)?;
    let body = stored.slice(4..);
    if len > limits::BLOCK_MAX_BYTES {
        return Err(fault());
    }
    let raw = if body.len() < len {
        zstd::bulk::decompress(&body, len).map_err(|_| fault())?.into()
    } else {
        body
    };
    if raw.len() == len && naming.fits(&id, &raw) {
        Ok(raw)
    } else {
        Err(fault())
    }
}

/// Puts packed blocks together to a pack, and says where each rests. The caller keeps packs below 4 GiB.
pub fn write<'a>(blocks: impl IntoIterator<Item = (BlockId, &'a Bytes)>) -> (Bytes, Vec<Entry>) {
    let mut out = BytesMut::with_capacity(limits::PACK_TARGET_BYTES + (1 << 16));
    out.put_slice(&OPENING);
    let mut entries = Vec::new();
    for (id, stored) in blocks {
        let raw = stored.first_chunk::<4>().map_or(0, |b| u32::from_le_bytes(*b));
        entries.push(Entry {
            id,
            offset: out.len() as u32,
            stored: stored.len() as u32,
            raw,
        });
        out.put_slice(stored);
    }
    let index = out.len();
    for entry in &entries {
        out.put_slice(&entry.id.0);
        out.put_u32_le(entry.offset);
        out.put_u32_le(entry.stored);
        out.put_u32_le(entry.raw);
    }
    out.put_u32_le(entries.len() as u32);
    out.put_slice(&CLOSING);
    let checksum = checksum(&out[index..]);
    out.put_slice(&checksum);
    (out.freeze(), entries)
}

fn checksum(index_to_closing: &[u8]) -> [u8; CHECKSUM] {
    *blake3::Hasher::new()
        .update(&OPENING)
        .update(index_to_closing)
        .finalize()
        .as_bytes()
}

/// What the end of a pack told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The index, in the order of the blocks.
    Index(Vec<Entry>),
    /// The end must be read again, with this many bytes.
    Needs(u64),
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes)
}

/// Reads the index out of the last bytes of a pack of `size` bytes.
pub fn read_end(size: u64, end: &[u8]) -> Result<End, PackFault> {
    let short = PackFault::NotAPack("too short");
    let tail = end.len().checked_sub(TAIL).ok_or(short.clone())?;
    let closing = &end[tail + 4..tail + 4 + CLOSING.len()];
    if closing[..6] != CLOSING[..6] {
        return Err(PackFault::NotAPack("it is not closed"));
    }
    if closing != CLOSING {
        return Err(PackFault::Version(u16::from_le_bytes([closing[6], closing[7]])));
    }
    let count = u32_at(end, tail).ok_or(short.clone())? as usize;
    let needs = (count * ENTRY + TAIL) as u64;
    if needs + OPENING.len() as u64 > size {
        return Err(short);
    }
    if needs > end.len() as u64 {
        return Ok(End::Needs(needs));
    }
    let index = end.len() - needs as usize;
    let sealed = end.len() - CHECKSUM;
    if checksum(&end[index..sealed]) != end[sealed..] {
        return Err(PackFault::Checksum);
    }
    let entries = end[index..tail]
        .chunks_exact(ENTRY)
        .map(read_entry)
        .collect::<Option<Vec<_>>>();
    let entries = entries.ok_or(PackFault::NotAPack("its index does not divide"))?;
    let mut at = OPENING.len() as u64;
    for entry in &entries {
        if entry.range().start != at {
            return Err(PackFault::NotAPack("its index does not match its blocks"));
        }
        at = entry.range().end;
    }
    if at + needs != size {
        return Err(PackFault::NotAPack("its length does not match its index"));
    }
    Ok(End::Index(entries))
}

fn read_entry(bytes: &[u8]) -> Option<Entry> {
    Some(Entry {
        id: BlockId::from_slice(bytes.get(..32)?)?,
        offset: u32_at(bytes, 32)?,
        stored: u32_at(bytes, 36)?,
        raw: u32_at(bytes, 40)?,
    })
}

/// Verifies every byte of a whole pack.
pub fn verify(naming: &BlockNaming, pack: &Bytes) -> Result<Vec<Entry>, PackFault> {
    let (entries, bad) = verify_each(naming, pack)?;
    match bad.first() {
        Some(id) => Err(PackFault::Block(*id)),
        None => Ok(entries),
    }
}

/// The same, with all blocks that do not match their ids instead of the first.
pub fn verify_each(naming: &BlockNaming, pack: &Bytes) -> Result<(Vec<Entry>, Vec<BlockId>), PackFault> {
    if !pack.starts_with(&OPENING) {
        return Err(PackFault::NotAPack("it does not begin with HWPACK"));
    }
    let End::Index(entries) = read_end(pack.len() as u64, pack)? else {
        return Err(PackFault::NotAPack("too short"));
    };
    let is_bad = |entry: &&Entry| {
        let range = entry.range();
        let stored = pack.slice(range.start as usize..range.end as usize);
        unpack_block(naming, entry.id, &stored).map(|raw| raw.len()) != Ok(entry.raw as usize)
    };
    let bad = entries.iter().filter(is_bad).map(|entry| entry.id).collect();
    Ok((entries, bad))
}

/// The length of a pack with this index.
pub fn pack_len(entries: &[Entry]) -> u64 {
    let blocks_end = entries.last().map_or(OPENING.len() as u64, |entry| entry.range().end);
    blocks_end + (entries.len() * ENTRY + TAIL) as u64
}

/// The last bytes of a pack by which a copy of it is recognised.
pub fn fingerprint(pack: &[u8]) -> &[u8] {
    &pack[pack.len().saturating_sub(CHECKSUM)..]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(raw: &[u8]) -> BlockId {
        BlockId(*blake3::hash(raw).as_bytes())
    }

    fn sample() -> Bytes {
        let blocks: Vec<_> = [&b"block one"[..], &[7; 300], b""]
            .map(|raw| (id(raw), pack_block(raw)))
            .into();
        write(blocks.iter().map(|(id, stored)| (*id, stored))).0
    }

    #[test]
    fn a_pack_rests_in_these_bytes() {
        // Two blocks that do not compress, so that the fixture does not hang on a version of zstd.
        let blocks: Vec<_> = [&b"block one"[..], b"2"].map(|raw| (id(raw), pack_block(raw))).into();
        let (pack, _) = write(blocks.iter().map(|(id, stored)| (*id, stored)));
        assert_eq!(hex::encode(&pack), include_str!("fixture/two_blocks.pack.hex").trim());
        assert_eq!(verify(&BlockNaming::default(), &pack).unwrap().len(), 2);
    }

    #[test]
    fn the_damaged_twin_of_the_fixture_is_refused() {
        let twin = hex::decode(include_str!("fixture/two_blocks_damaged.pack.hex").trim()).unwrap();
        assert_eq!(
            verify(&BlockNaming::default(), &twin.into()),
            Err(PackFault::Block(id(b"block one")))
        );
    }

    #[test]
    fn every_cut_is_found_and_every_flipped_bit_is_found_or_changes_nothing() {
        // zstd frames hold a bit or two without meaning; the id covers what comes out of them.
        let whole = sample();
        let entries = verify(&BlockNaming::default(), &whole).unwrap();
        for bit in 0..whole.len() * 8 {
            let mut damaged = whole.to_vec();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let in_zstd = entries
                .iter()
                .any(|e| e.stored < e.raw && e.range().contains(&(bit as u64 / 8)));
            match verify(&BlockNaming::default(), &damaged.into()) {
                Ok(same) => assert!(in_zstd && same == entries, "bit {bit}"),
                Err(fault) => assert_ne!(fault.to_string(), "", "bit {bit}"),
            }
        }
        for len in 0..whole.len() {
            assert!(
                verify(&BlockNaming::default(), &whole.slice(..len)).is_err(),
                "cut at {len}"
            );
        }
    }

    #[test]
    fn an_end_that_is_too_short_says_how_much_it_needs() {
        let whole = sample();
        let size = whole.len() as u64;
        let End::Needs(needs) = read_end(size, &whole[whole.len() - 60..]).unwrap() else {
            panic!("index")
        };
        let end = &whole[whole.len() - needs as usize..];
        assert!(matches!(read_end(size, end), Ok(End::Index(entries)) if entries.len() == 3));
    }
}
