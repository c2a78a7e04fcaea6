//! Which blocks are alive, and what packs weigh: the part of the state that a groom works on. Decides, never acts.
//!
//! A block is alive if it was marked, or asked for while the census ran, or written after the census began. Condemning a
//! pack unlinks its dead blocks at once, so that whoever puts one of them again writes it anew; its living blocks stay where
//! they are until they are durable elsewhere.

use std::collections::BTreeSet;

use headwater_model::BlockId;

use super::state::State;
use super::table::Location;

/// Marks on the rows of the table as they were when the census began.
pub struct Census {
    /// Rows from here on were written later, and are alive.
    rows: u32,
    /// Packs from here on were written later.
    packs: u32,
    marks: Vec<u64>,
    /// Of marked rows, those of interior nodes whose children were marked too. A mark alone does not say that: it may come
    /// from a writer that only asked for the node.
    entered: Vec<u64>,
}

/// What one pack holds, by the census.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackWeight {
    /// Its key.
    pub key: String,
    /// Its place in the order in which packs became known; for [`super::groom::CensusRun::condemn`].
    pub number: u32,
    /// Bytes at rest of living blocks.
    pub living_bytes: u64,
    /// How many of them.
    pub living_blocks: u64,
    /// Bytes at rest of blocks that are dead or rest elsewhere too.
    pub dead_bytes: u64,
}

/// Sets a bit; whether it was not set before. Beyond the end nothing happens.
fn set(bits: &mut [u64], at: u32) -> bool {
    let Some(word) = bits.get_mut(at as usize / 64) else {
        return false;
    };
    let bit = 1 << (at % 64);
    let fresh = *word & bit == 0;
    *word |= bit;
    fresh
}

impl Census {
    fn new(rows: u32, packs: u32) -> Census {
        Census {
            rows,
            packs,
            marks: vec![0; (rows as usize).div_ceil(64)],
            entered: vec![0; (rows as usize).div_ceil(64)],
        }
    }

    /// Marks a row.
    pub fn mark(&mut self, row: u32) {
        set(&mut self.marks, row);
    }

    /// Marks a row, and notes that its children are being marked; whether that was not so before. Rows of later blocks are
    /// entered every time.
    fn enter(&mut self, row: u32) -> bool {
        set(&mut self.marks, row);
        row >= self.rows || set(&mut self.entered, row)
    }

    fn is_alive(&self, row: u32) -> bool {
        row >= self.rows || self.marks[row as usize / 64] & (1 << (row % 64)) != 0
    }
}

impl State {
    /// Begins a census; `false` while another runs.
    pub(super) fn begin_census(&mut self) -> bool {
        let idle = self.census.is_none();
        if idle {
            self.census = Some(Census::new(self.table.rows(), self.packs.len() as u32));
        }
        idle
    }

    pub(super) fn end_census(&mut self) {
        self.census = None;
    }

    /// Marks a block as alive; whether it is known.
    pub(super) fn mark(&mut self, id: &BlockId) -> bool {
        self.contains(id)
    }

    /// The same for a block with others below it: whether those are to be marked now. `None` if it is not known.
    pub(super) fn enter(&mut self, id: &BlockId) -> Option<bool> {
        let Some(row) = self.table.number(id) else {
            return self.pending.contains_key(id).then_some(true);
        };
        Some(self.census.as_mut().is_none_or(|census| census.enter(row)))
    }

    /// Living bytes and blocks of every pack that was there when the census began. Dead bytes are not known here.
    pub(super) fn living(&self) -> Vec<(u64, u64)> {
        let Some(census) = &self.census else {
            return Vec::new();
        };
        let mut living = vec![(0, 0); census.packs as usize];
        for row in 0..self.table.rows() {
            if let Some((_, at)) = self.table.at(row)
                && census.is_alive(row)
                && let Some((bytes, blocks)) = living.get_mut(at.pack as usize)
            {
                *bytes += u64::from(at.stored);
                *blocks += 1;
            }
        }
        living
    }

    /// Unlinks the dead blocks of packs, and gives the living ones with their places.
    pub(super) fn condemn(&mut self, packs: &BTreeSet<u32>) -> Vec<(BlockId, Location)> {
        let State {
            census, table, figures, ..
        } = self;
        let Some(census) = census else {
            return Vec::new();
        };
        let fits = |pack: &&u32| **pack < census.packs;
        let packs: BTreeSet<u32> = packs.iter().filter(fits).copied().collect();
        let mut living = Vec::new();
        for row in 0..table.rows() {
            match table.at(row) {
                Some((id, at)) if packs.contains(&at.pack) && census.is_alive(row) => living.push((id, at)),
                Some((_, at)) if packs.contains(&at.pack) => {
                    figures.stored_bytes -= u64::from(at.stored).min(figures.stored_bytes);
                    table.unlink(row);
                }
                _ => {}
            }
        }
        living
    }

    /// Whether no block is found in the packs any more.
    pub(super) fn are_empty_now(&self, packs: &BTreeSet<u32>) -> bool {
        (0..self.table.rows()).all(|row| self.table.at(row).is_none_or(|(_, at)| !packs.contains(&at.pack)))
    }
}
