//! What a pack store knows: durable blocks by pack, pending ones, and its figures. Decides, never acts.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;

use bytes::Bytes;
use headwater_model::BlockId;

use super::PackStats;
use super::census::Census;
use super::format::Entry;
use super::table::{Location, Table};

/// Where a block is.
pub enum Place {
    /// Not durable yet: its bytes as they will rest.
    Pending(Bytes),
    /// In a pack.
    Packed {
        /// The pack.
        key: String,
        /// The block's bytes within it.
        range: Range<u64>,
    },
}

/// A pack with all its blocks, not durable yet.
struct Closed {
    blocks: Vec<BlockId>,
    /// The sequence number it is or was last tried under.
    sequence: u64,
}

/// The state. Maps by block id are for lookup only; order comes from the vectors.
#[derive(Default)]
pub struct State {
    pub(super) table: Table,
    pub(super) packs: Vec<String>,
    known: BTreeSet<String>,
    /// Packs whose index cannot be read.
    pub damaged: BTreeSet<String>,
    /// Packs that are on their way out by the word of a former owner: nothing in them counts.
    pub(super) passed_over: BTreeSet<String>,
    pub(super) pending: HashMap<BlockId, Bytes>,
    open: Vec<BlockId>,
    open_bytes: usize,
    closed: BTreeMap<u64, Closed>,
    next_closed: u64,
    next_sequence: u64,
    pub(super) figures: PackStats,
    pub(super) census: Option<Census>,
    /// Lengths of `packs`, by their indexes.
    sizes: Vec<u64>,
    /// Blocks that nobody has: whoever puts one of them writes it.
    pub(super) lost: BTreeSet<BlockId>,
    /// Damaged blocks that readers met, with their packs.
    pub(super) met: Vec<(BlockId, String)>,
}

/// Damaged blocks that are remembered until somebody asks.
const MET_KEPT: usize = 64;

impl State {
    /// An empty one that passes these packs over.
    pub fn without(passed_over: &BTreeSet<String>) -> State {
        State {
            passed_over: passed_over.clone(),
            ..State::default()
        }
    }

    /// Whether the block is durable or pending. Who asks may rely on it from now on: a running census counts it as alive.
    pub fn contains(&mut self, id: &BlockId) -> bool {
        let Some(row) = self.table.number(id) else {
            return self.pending.contains_key(id);
        };
        if let Some(census) = &mut self.census {
            census.mark(row);
        }
        true
    }

    /// Where the block is.
    pub fn find(&self, id: &BlockId) -> Option<Place> {
        if let Some(stored) = self.pending.get(id) {
            return Some(Place::Pending(stored.clone()));
        }
        let at = self.table.get(id)?;
        let range = u64::from(at.offset)..u64::from(at.offset) + u64::from(at.stored);
        Some(Place::Packed {
            key: self.packs[at.pack as usize].clone(),
            range,
        })
    }

    /// Takes a block that rests in a condemned pack into the open pack, to rest elsewhere.
    pub(super) fn add_again(&mut self, id: BlockId, stored: Bytes) {
        // What was taken in by an attempt that failed is on its way already.
        if self.pending.contains_key(&id) {
            return;
        }
        self.open_bytes += stored.len();
        self.open.push(id);
        self.pending.insert(id, stored);
    }

    /// A pack is gone: its key may be used again for another.
    pub(super) fn forget(&mut self, key: &str) {
        self.known.remove(key);
        self.damaged.remove(key);
        self.passed_over.remove(key);
    }

    /// The number of a known pack.
    pub(super) fn number_of(&self, key: &str) -> Option<u32> {
        let place = self.packs.iter().position(|pack| pack == key)?;
        u32::try_from(place).ok()
    }

    /// Takes a block into the open pack. Answers the number of the pack if it is closed now.
    pub fn add(&mut self, id: BlockId, stored: Bytes, pack_bytes: usize) -> Option<u64> {
        if self.contains(&id) {
            return None;
        }
        self.open_bytes += stored.len();
        self.open.push(id);
        self.pending.insert(id, stored);
        if self.open_bytes >= pack_bytes {
            self.close()
        } else {
            None
        }
    }

    /// Closes the open pack, if it holds anything.
    pub fn close(&mut self) -> Option<u64> {
        if self.open.is_empty() {
            return None;
        }
        let number = self.next_closed;
        self.next_closed += 1;
        let sequence = self.take_sequence();
        self.closed.insert(
            number,
            Closed {
                blocks: std::mem::take(&mut self.open),
                sequence,
            },
        );
        self.open_bytes = 0;
        Some(number)
    }

    fn take_sequence(&mut self) -> u64 {
        self.next_sequence += 1;
        self.next_sequence - 1
    }

    /// Sequence numbers up to this one are taken.
    pub fn sequence_taken(&mut self, sequence: u64) {
        self.next_sequence = self.next_sequence.max(sequence + 1);
    }

    /// Packs that are closed and not durable, oldest first.
    pub fn closed_numbers(&self) -> Vec<u64> {
        self.closed.keys().copied().collect()
    }

    /// How many packs are closed and not durable.
    pub fn closed_count(&self) -> usize {
        self.closed.len()
    }

    /// The sequence number and blocks of a closed pack; `None` once it is durable.
    pub fn closed(&self, number: u64) -> Option<(u64, Vec<(BlockId, Bytes)>)> {
        let closed = self.closed.get(&number)?;
        let stored = |id: &BlockId| Some((*id, self.pending.get(id)?.clone()));
        Some((closed.sequence, closed.blocks.iter().filter_map(stored).collect()))
    }

    /// The key under the closed pack's sequence number belongs to another pack: takes the next one.
    pub fn next_sequence(&mut self, number: u64) -> u64 {
        let sequence = self.take_sequence();
        if let Some(closed) = self.closed.get_mut(&number) {
            closed.sequence = sequence;
        }
        sequence
    }

    /// The closed pack is durable under `key`.
    pub fn written(&mut self, number: u64, key: String, entries: &[Entry]) {
        if self.closed.remove(&number).is_none() {
            return;
        }
        self.load(key, entries);
        for entry in entries {
            self.pending.remove(&entry.id);
            self.figures.blocks_written += 1;
            self.figures.stored_bytes_written += u64::from(entry.stored);
        }
    }

    /// Whether a pack is known, readable or damaged.
    pub fn knows(&self, key: &str) -> bool {
        self.known.contains(key) || self.damaged.contains(key) || self.passed_over.contains(key)
    }

    /// Takes in the index of a durable pack.
    pub fn load(&mut self, key: String, entries: &[Entry]) {
        if !self.known.insert(key.clone()) {
            return;
        }
        let pack = self.packs.len() as u32;
        self.packs.push(key);
        // One that was groomed while it was opened has no blocks; nobody expects it to be there.
        self.sizes.push(if entries.is_empty() {
            0
        } else {
            super::format::pack_len(entries)
        });
        for entry in entries {
            let location = Location {
                pack,
                offset: entry.offset,
                stored: entry.stored,
            };
            if self.table.insert(entry.id, location) {
                self.figures.raw_bytes += u64::from(entry.raw);
                self.figures.stored_bytes += u64::from(entry.stored);
            } else if let Some(row) = self.table.number(&entry.id) {
                // Written once more by a groom or a mending, or by somebody who had what was lost: from bytes that were verified,
                // while the former place is on its way out or not to be trusted.
                self.table.place(row, location);
            }
        }
    }

    /// Forgets where a block rests.
    pub(super) fn unlink(&mut self, id: &BlockId) {
        if let Some(row) = self.table.number(id) {
            self.table.unlink(row);
        }
    }

    /// Somebody has a block that was lost: it counts as absent from now on, and is written.
    pub(super) fn give_up_lost(&mut self, id: &BlockId) {
        if !self.lost.is_empty() && self.lost.remove(id) {
            self.unlink(id);
        }
    }

    /// The numbers of packs in which blocks are looked for that nobody has.
    pub(super) fn packs_with_lost(&self) -> BTreeSet<u32> {
        let places = self.lost.iter().filter_map(|id| self.table.get(id));
        places.map(|at| at.pack).collect()
    }

    /// Known packs with their lengths.
    pub(super) fn packs_with_sizes(&self) -> Vec<(String, u64)> {
        let all = self.packs.iter().zip(&self.sizes);
        all.filter(|(key, size)| **size > 0 && self.known.contains(*key))
            .map(|(key, size)| (key.clone(), *size))
            .collect()
    }

    /// The blocks that are looked for in a pack.
    pub(super) fn blocks_in(&self, key: &str) -> BTreeSet<BlockId> {
        let rows = (0..self.table.rows()).filter_map(|row| self.table.at(row));
        rows.filter(|(_, at)| self.packs.get(at.pack as usize).is_some_and(|pack| pack == key))
            .map(|(id, _)| id)
            .collect()
    }

    /// A reader met a damaged block.
    pub(super) fn meet(&mut self, id: BlockId, pack: String) {
        if self.met.len() < MET_KEPT && self.met.iter().all(|(known, _)| *known != id) {
            self.met.push((id, pack));
        }
    }

    /// Figures as of now.
    pub fn stats(&self) -> PackStats {
        PackStats {
            packs: self.known.len() as u64,
            damaged_packs: self.damaged.len() as u64,
            blocks: self.table.len() as u64,
            pending_blocks: self.pending.len() as u64,
            index_memory: self.table.memory() as u64,
            ..self.figures
        }
    }
}
