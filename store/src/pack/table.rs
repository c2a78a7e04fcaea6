//! Which block rests where, for millions of blocks, in at most 64 bytes each.
//!
//! Entries stand in the order of their arrival in chunks that never move; an open-addressed table of their numbers
//! finds them. 44 bytes of entry and, at a load between 0.35 and 0.7, at most 12 bytes of table.

use headwater_model::BlockId;

const CHUNK: usize = 4096;
const EMPTY: u32 = u32::MAX;
/// The pack number of a row whose block was unlinked.
const UNLINKED: u32 = u32::MAX;

/// Where a block rests: the number of its pack, its place within it, its length at rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Location {
    /// Number of the pack in the store's list of packs.
    pub pack: u32,
    /// Where the block begins.
    pub offset: u32,
    /// Its length at rest.
    pub stored: u32,
}

#[derive(Clone, Copy)]
struct Row {
    id: BlockId,
    location: Location,
}

const _: () = assert!(size_of::<Row>() == 44);

/// The table.
#[derive(Default)]
pub struct Table {
    chunks: Vec<Vec<Row>>,
    len: usize,
    slots: Vec<u32>,
}

const UNLINKED_LOCATION: Location = Location {
    pack: UNLINKED,
    offset: 0,
    stored: 0,
};

/// An id is a hash already: some of its bits are a fair place to begin looking.
fn first_slot(id: &BlockId, slots: usize) -> usize {
    let hash = id.0.first_chunk::<8>().map_or(0, |b| u64::from_le_bytes(*b));
    ((u128::from(hash) * slots as u128) >> 64) as usize
}

impl Table {
    /// How many blocks were ever inserted.
    pub fn len(&self) -> usize {
        self.len
    }

    fn row(&self, number: u32) -> &Row {
        &self.chunks[number as usize / CHUNK][number as usize % CHUNK]
    }

    /// The slot that holds the block, or the empty slot where it would go. The table is never full.
    fn slot(&self, id: &BlockId) -> usize {
        let mut at = first_slot(id, self.slots.len());
        while self.slots[at] != EMPTY && self.row(self.slots[at]).id != *id {
            at = (at + 1) % self.slots.len();
        }
        at
    }

    /// Finds a block.
    pub fn get(&self, id: &BlockId) -> Option<Location> {
        Some(self.row(self.number(id)?).location)
    }

    /// The number of the block's row, which it keeps. Rows are numbered from 0 to [`Table::rows`].
    pub fn number(&self, id: &BlockId) -> Option<u32> {
        if self.slots.is_empty() {
            return None;
        }
        let number = self.slots[self.slot(id)];
        (number != EMPTY && self.row(number).location.pack != UNLINKED).then_some(number)
    }

    /// How many rows there are, those of unlinked blocks included.
    pub fn rows(&self) -> u32 {
        self.len as u32
    }

    /// The block of a row and where it rests; `None` if it was unlinked.
    pub fn at(&self, number: u32) -> Option<(BlockId, Location)> {
        let Row { id, location } = *self.row(number);
        (location.pack != UNLINKED).then_some((id, location))
    }

    /// Forgets where the block of a row rests: it counts as absent until it is inserted again.
    pub fn unlink(&mut self, number: u32) {
        self.place(number, UNLINKED_LOCATION);
    }

    /// Says where the block of a row rests from now on.
    pub fn place(&mut self, number: u32, location: Location) {
        if let Some(chunk) = self.chunks.get_mut(number as usize / CHUNK) {
            chunk[number as usize % CHUNK].location = location;
        }
    }

    /// Adds a block; one that is known keeps its location. Answers whether it was new.
    pub fn insert(&mut self, id: BlockId, location: Location) -> bool {
        if (self.len + 1) * 10 > self.slots.len() * 7 {
            self.grow();
        }
        let slot = self.slot(&id);
        if self.slots[slot] != EMPTY {
            let number = self.slots[slot];
            let unlinked = self.row(number).location.pack == UNLINKED;
            if unlinked {
                self.place(number, location);
            }
            return unlinked;
        }
        self.slots[slot] = self.len as u32;
        if self.len.is_multiple_of(CHUNK) {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        if let Some(chunk) = self.chunks.last_mut() {
            chunk.push(Row { id, location });
        }
        self.len += 1;
        true
    }

    fn grow(&mut self) {
        let slots = (self.slots.len() * 2).max(64);
        self.slots = vec![EMPTY; slots];
        for number in 0..self.len as u32 {
            let slot = self.slot(&self.row(number).id);
            self.slots[slot] = number;
        }
    }

    /// Bytes of memory it takes.
    pub fn memory(&self) -> usize {
        self.chunks.len() * CHUNK * size_of::<Row>() + self.slots.len() * size_of::<u32>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u32) -> BlockId {
        BlockId(*blake3::hash(&n.to_le_bytes()).as_bytes())
    }

    fn location(n: u32) -> Location {
        Location {
            pack: n / 100,
            offset: n,
            stored: 1,
        }
    }

    #[test]
    fn every_block_is_found_where_it_was_put_first() {
        let mut table = Table::default();
        assert_eq!(table.get(&id(0)), None);
        for n in 0..20_000 {
            assert!(table.insert(id(n), location(n)));
            assert!(!table.insert(id(n / 2), location(9)));
        }
        for n in 0..20_000 {
            assert_eq!(table.get(&id(n)), Some(location(n)));
        }
        assert_eq!(table.get(&id(20_000)), None);
        assert_eq!(table.len(), 20_000);
    }

    #[test]
    fn an_unlinked_block_is_absent_until_it_comes_again() {
        let mut table = Table::default();
        table.insert(id(1), location(1));
        table.insert(id(2), location(2));
        let row = table.number(&id(1)).unwrap();
        table.unlink(row);
        assert_eq!((table.get(&id(1)), table.at(row)), (None, None));
        assert_eq!(table.get(&id(2)), Some(location(2)));
        assert!(table.insert(id(1), location(7)));
        assert_eq!(
            (table.get(&id(1)), table.number(&id(1))),
            (Some(location(7)), Some(row))
        );
        assert_eq!(table.rows(), 2);
    }

    #[test]
    fn a_block_takes_at_most_64_bytes_of_memory() {
        let mut table = Table::default();
        for n in 0..300_000 {
            table.insert(id(n), location(n));
            if n >= 50_000 && n % 1000 == 0 {
                assert!(
                    table.memory() <= table.len() * 64,
                    "{} bytes for {}",
                    table.memory(),
                    table.len()
                );
            }
        }
    }
}
