//! The node at rest.
//!
//! All integers little-endian; *varint* is LEB128, shortest form.
//!
//! | offset | bytes | content |
//! |---|---|---|
//! | 0 | 3 | magic `HWN` |
//! | 3 | 1 | format version, 1 |
//! | 4 | 1 | level; 0 for a leaf |
//! | 5 | 4 | how many items, at least 1 |
//! | 9 | … | items, keys strictly ascending |
//!
//! An item of a leaf: varint length of the key, varint length of the value, key, value.
//! An item of an interior node: varint length of the last key, that key, 32 bytes of block id, varint records,
//! varint bytes of values, one byte of flags (1: sealed).

use bytes::Bytes;
use headwater_model::{BlockId, limits};

pub(super) const HEADER: usize = 9;
const MAGIC: [u8; 4] = *b"HWN\x01";
const SEALED: u8 = 1;

/// Bytes that are no node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NodeFault {
    /// Not the magic, or another version.
    #[error("unknown format")]
    Format,
    /// Another level than its parent says.
    #[error("level {found} where level {expected} belongs")]
    Level {
        /// What the parent says.
        expected: u8,
        /// What the node says.
        found: u8,
    },
    /// An item reaches beyond the end, or bytes are left over.
    #[error("lengths do not add up at byte {0}")]
    Length(usize),
    /// Keys do not ascend.
    #[error("keys are out of order at item {0}")]
    Order(usize),
    /// No items.
    #[error("no items")]
    Empty,
    /// More levels than a tree may have.
    #[error("too many levels")]
    TooDeep,
}

/// What an interior node knows of a child.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The last key below it.
    pub last: Bytes,
    /// Its block.
    pub id: BlockId,
    /// Records below it.
    pub records: u64,
    /// Bytes of the values below it.
    pub bytes: u64,
    /// Whether every node at its right edge ended by its own content.
    pub sealed: bool,
}

/// A decoded node.
#[derive(Clone, Debug)]
pub enum Node {
    /// Level 0.
    Leaf(Leaf),
    /// Any other level.
    Interior(Interior),
}

/// Records, sorted.
#[derive(Clone, Debug)]
pub struct Leaf {
    raw: Bytes,
    /// Where each record's key begins, its value begins, and its value ends.
    spans: Vec<[u32; 3]>,
}

/// Children, sorted.
#[derive(Clone, Debug)]
pub struct Interior {
    /// The level of the node; its children are one lower.
    pub level: u8,
    /// What is known of them.
    pub children: Vec<Entry>,
}

impl Leaf {
    /// How many records.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Never: a leaf at rest has a record.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// Key of record `at`, which must be below `len`, for a look.
    pub fn key_bytes(&self, at: usize) -> &[u8] {
        let [key, value, _] = self.spans[at];
        &self.raw[key as usize..value as usize]
    }

    /// Key of record `at`, which must be below `len`.
    pub fn key(&self, at: usize) -> Bytes {
        let [key, value, _] = self.spans[at];
        self.raw.slice(key as usize..value as usize)
    }

    /// Value of record `at`, which must be below `len`.
    pub fn value(&self, at: usize) -> Bytes {
        let [_, value, end] = self.spans[at];
        self.raw.slice(value as usize..end as usize)
    }

    /// The first record whose key is not below `key`.
    pub fn seek(&self, key: &[u8]) -> usize {
        self.spans
            .partition_point(|&[from, to, _]| &self.raw[from as usize..to as usize] < key)
    }
}

impl Node {
    /// Reads a node that should have this level.
    pub fn decode(raw: Bytes, level: u8) -> Result<Node, NodeFault> {
        if raw.len() < HEADER || raw.len() > u32::MAX as usize || raw[..4] != MAGIC {
            return Err(NodeFault::Format);
        }
        if raw[4] != level {
            return Err(NodeFault::Level {
                expected: level,
                found: raw[4],
            });
        }
        if level as usize >= limits::TREE_MAX_LEVELS {
            return Err(NodeFault::TooDeep);
        }
        let count = raw[5..9].iter().rev().fold(0, |n, b| (n << 8) | *b as usize);
        if count == 0 {
            return Err(NodeFault::Empty);
        }
        if level == 0 {
            decode_leaf(raw, count)
        } else {
            decode_interior(raw, count, level)
        }
    }
}

fn decode_leaf(raw: Bytes, count: usize) -> Result<Node, NodeFault> {
    let mut spans: Vec<[u32; 3]> = Vec::with_capacity(count.min(raw.len() / 2));
    let mut reader = Reader { raw: &raw, at: HEADER };
    let mut before: Option<&[u8]> = None;
    for item in 0..count {
        let key_len = reader.varint()? as usize;
        let value_len = reader.varint()? as usize;
        let key_at = reader.at;
        let key = reader.take(key_len)?;
        let value_at = reader.at;
        reader.take(value_len)?;
        if before.is_some_and(|before| before >= key) {
            return Err(NodeFault::Order(item));
        }
        before = Some(key);
        spans.push([key_at as u32, value_at as u32, reader.at as u32]);
    }
    reader.end()?;
    Ok(Node::Leaf(Leaf { raw, spans }))
}

fn decode_interior(raw: Bytes, count: usize, level: u8) -> Result<Node, NodeFault> {
    let mut children: Vec<Entry> = Vec::with_capacity(count.min(raw.len() / 36));
    let mut reader = Reader { raw: &raw, at: HEADER };
    for item in 0..count {
        let key_len = reader.varint()? as usize;
        let key_at = reader.at;
        reader.take(key_len)?;
        let last = raw.slice(key_at..reader.at);
        let mut id = [0; 32];
        id.copy_from_slice(reader.take(32)?);
        let (records, bytes) = (reader.varint()?, reader.varint()?);
        let flags = reader.take(1)?[0];
        if flags & !SEALED != 0 {
            return Err(NodeFault::Format);
        }
        if children.last().is_some_and(|before| before.last >= last) {
            return Err(NodeFault::Order(item));
        }
        children.push(Entry {
            last,
            id: BlockId(id),
            records,
            bytes,
            sealed: flags & SEALED != 0,
        });
    }
    reader.end()?;
    Ok(Node::Interior(Interior { level, children }))
}

/// A node being written: header, then items.
pub(super) struct NodeBuffer {
    bytes: Vec<u8>,
    count: u32,
}

impl NodeBuffer {
    pub(super) fn new(level: u8) -> Self {
        let mut bytes = Vec::with_capacity(limits::LEAF_TARGET_BYTES);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&[level, 0, 0, 0, 0]);
        NodeBuffer { bytes, count: 0 }
    }

    pub(super) fn count(&self) -> usize {
        self.count as usize
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes of the items so far.
    pub(super) fn size(&self) -> usize {
        self.bytes.len() - HEADER
    }

    /// Puts a record into a leaf.
    pub(super) fn record(&mut self, key: &[u8], value: &[u8]) {
        put_varint(&mut self.bytes, key.len() as u64);
        put_varint(&mut self.bytes, value.len() as u64);
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(value);
        self.count += 1;
    }

    /// Puts a child into an interior node.
    pub(super) fn child(&mut self, entry: &Entry) {
        put_varint(&mut self.bytes, entry.last.len() as u64);
        self.bytes.extend_from_slice(&entry.last);
        self.bytes.extend_from_slice(&entry.id.0);
        put_varint(&mut self.bytes, entry.records);
        put_varint(&mut self.bytes, entry.bytes);
        self.bytes.push(if entry.sealed { SEALED } else { 0 });
        self.count += 1;
    }

    /// The finished node; the buffer is as new afterwards.
    pub(super) fn finish(&mut self) -> Bytes {
        let level = self.bytes[4];
        let mut done = std::mem::replace(self, NodeBuffer::new(level));
        done.bytes[5..9].copy_from_slice(&done.count.to_le_bytes());
        done.bytes.into()
    }
}

/// Length of a record in a leaf.
pub(super) fn record_len(key: &[u8], value: &[u8]) -> usize {
    varint_len(key.len()) + varint_len(value.len()) + key.len() + value.len()
}

fn varint_len(value: usize) -> usize {
    (usize::BITS - (value | 1).leading_zeros()).div_ceil(7) as usize
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

struct Reader<'a> {
    raw: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], NodeFault> {
        let end = self.at.checked_add(len).ok_or(NodeFault::Length(self.at))?;
        let taken = self.raw.get(self.at..end).ok_or(NodeFault::Length(self.at))?;
        self.at = end;
        Ok(taken)
    }

    fn varint(&mut self) -> Result<u64, NodeFault> {
        let start = self.at;
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            let part = u64::from(byte & 0x7f);
            let fits = part << shift >> shift == part;
            let shortest = shift == 0 || byte != 0;
            if !fits || !shortest {
                return Err(NodeFault::Length(start));
            }
            value |= part << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(NodeFault::Length(start))
    }

    fn end(&self) -> Result<(), NodeFault> {
        if self.at == self.raw.len() {
            Ok(())
        } else {
            Err(NodeFault::Length(self.at))
        }
    }
}
