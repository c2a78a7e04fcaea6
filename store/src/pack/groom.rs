//! Grooming packs: a census marks what is alive, a plan says which packs go, living blocks of those are written elsewhere.
//!
//! Write order: living blocks durable elsewhere → the condemnation is made known (by the caller, with its epoch) → the pack
//! is deleted. Reversed, a crash, or another owner that trusts the old pack's index, would lose blocks. A groom that ends
//! anywhere before leaves a pack whose living blocks may rest twice, which the next census finds.

use std::sync::Arc;

use headwater_model::BlockId;

pub use super::census::PackWeight;
use super::{PackStore, format};
use crate::blocks::Blocks;
use crate::objects::StoreError;

/// When a pack is worth rewriting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// A pack whose living share is below this is rewritten; in per cent.
    pub living_percent: u64,
    /// Nothing is done below so many dead bytes in all packs together.
    pub dead_min_bytes: u64,
}

impl Default for Thresholds {
    /// Three quarters alive, and 64 MiB dead.
    fn default() -> Self {
        Thresholds {
            living_percent: 75,
            dead_min_bytes: 64 << 20,
        }
    }
}

/// What a groom is to do, with its reasons in figures.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroomPlan {
    /// Packs to go, those with the least to copy first.
    pub packs: Vec<PackWeight>,
    /// Bytes that will be copied.
    pub copied_bytes: u64,
    /// Bytes that will be given back in the end.
    pub freed_bytes: u64,
    /// Living bytes of all packs.
    pub living_bytes: u64,
    /// Dead bytes of all packs.
    pub dead_bytes: u64,
}

/// Decides which packs go.
pub fn plan(weights: &[PackWeight], thresholds: Thresholds) -> GroomPlan {
    let living_bytes = weights.iter().map(|pack| pack.living_bytes).sum();
    let dead_bytes: u64 = weights.iter().map(|pack| pack.dead_bytes).sum();
    let worth = |pack: &&PackWeight| {
        let all = pack.living_bytes + pack.dead_bytes;
        pack.living_blocks == 0 || pack.living_bytes * 100 < all * thresholds.living_percent
    };
    let mut packs: Vec<PackWeight> = if dead_bytes < thresholds.dead_min_bytes {
        Vec::new()
    } else {
        weights.iter().filter(worth).cloned().collect()
    };
    packs.sort_by_key(|pack| (pack.living_bytes, pack.number));
    GroomPlan {
        copied_bytes: packs.iter().map(|pack| pack.living_bytes).sum(),
        freed_bytes: packs.iter().map(|pack| pack.dead_bytes).sum(),
        living_bytes,
        dead_bytes,
        packs,
    }
}

/// A census that runs; ends when it is dropped.
pub struct CensusRun {
    store: Arc<PackStore>,
}

impl Drop for CensusRun {
    fn drop(&mut self) {
        self.store.inner.state().end_census();
    }
}

impl PackStore {
    /// Begins a census: from now on, whatever is put or asked for counts as alive. `None` while another runs.
    pub fn begin_census(self: &Arc<Self>) -> Option<CensusRun> {
        let begun = self.inner.state().begin_census();
        begun.then(|| CensusRun { store: self.clone() })
    }
}

impl CensusRun {
    /// Marks a block that something living refers to. An unknown one is an error: a groom that does not see all that lives
    /// must end.
    pub fn mark(&self, id: BlockId) -> Result<(), StoreError> {
        if self.store.inner.state().mark(&id) {
            Ok(())
        } else {
            Err(self.unknown(id))
        }
    }

    /// Marks a block that has others below it; whether those are still to be marked.
    pub fn enter(&self, id: BlockId) -> Result<bool, StoreError> {
        let entered = self.store.inner.state().enter(&id);
        entered.ok_or_else(|| self.unknown(id))
    }

    fn unknown(&self, id: BlockId) -> StoreError {
        StoreError::NotFound(format!("{}block {id}", self.store.inner.folder))
    }

    /// What each pack weighs by the marks so far.
    pub async fn weigh(&self) -> Result<Vec<PackWeight>, StoreError> {
        let sizes = self.store.inner.objects.list(&self.store.inner.folder).await?;
        let state = self.store.inner.state();
        let living = state.living();
        let weights = (0..).zip(living).filter_map(|(number, (living_bytes, living_blocks))| {
            let key = state.packs.get(number as usize)?.clone();
            let size = sizes.iter().find(|object| object.key == key)?.size;
            Some(PackWeight {
                key,
                number,
                living_bytes,
                living_blocks,
                dead_bytes: size.saturating_sub(living_bytes),
            })
        });
        Ok(weights.collect())
    }

    /// Makes every living block of the pack durable elsewhere; afterwards nothing is found in it any more, and it may be
    /// deleted once the caller has made known that it goes. Answers the bytes copied.
    pub async fn condemn(&self, pack: &PackWeight) -> Result<u64, StoreError> {
        let inner = &self.store.inner;
        let living = inner.state().condemn(pack.number);
        let mut copied = 0;
        if !living.is_empty() {
            let bytes = inner.objects.get(&pack.key).await?;
            for (id, at) in living {
                let range = at.offset as usize..(at.offset as usize).saturating_add(at.stored as usize);
                let stored = (range.end <= bytes.len()).then(|| bytes.slice(range));
                let stored =
                    stored.ok_or_else(|| StoreError::damaged(&pack.key, "it is shorter than its index says"))?;
                format::unpack_block(id, &stored).map_err(|fault| StoreError::damaged(&pack.key, fault))?;
                copied += stored.len() as u64;
                inner.state().add_again(id, stored);
            }
            self.store.flush().await?;
        }
        if inner.state().is_empty_now(pack.number) {
            Ok(copied)
        } else {
            Err(StoreError::refused(
                &pack.key,
                "blocks of it were not written elsewhere; groom again",
            ))
        }
    }

    /// Deletes a condemned pack.
    pub async fn remove(&self, pack: &PackWeight) -> Result<(), StoreError> {
        let inner = &self.store.inner;
        if !inner.state().is_empty_now(pack.number) {
            return Err(StoreError::refused(&pack.key, "living blocks rest in it"));
        }
        if let Some(fence) = &inner.fence {
            fence.check().await?;
        }
        inner.objects.delete(&pack.key).await?;
        inner.state().forget(&pack.key);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pack(number: u32, living_bytes: u64, dead_bytes: u64) -> PackWeight {
        PackWeight {
            key: format!("p{number}"),
            number,
            living_bytes,
            living_blocks: living_bytes,
            dead_bytes,
        }
    }

    #[test]
    fn packs_go_that_are_mostly_dead_the_cheapest_first() {
        let weights = [
            pack(0, 90, 10),
            pack(1, 50, 50),
            pack(2, 0, 100),
            pack(3, 10, 90),
            pack(4, 75, 25),
        ];
        let all = Thresholds {
            living_percent: 75,
            dead_min_bytes: 100,
        };
        let plan = plan(&weights, all);
        assert_eq!(plan.packs.iter().map(|p| p.number).collect::<Vec<_>>(), [2, 3, 1]);
        assert_eq!((plan.copied_bytes, plan.freed_bytes), (60, 240));
        assert_eq!((plan.living_bytes, plan.dead_bytes), (225, 275));
        let lazy = Thresholds {
            dead_min_bytes: 276,
            ..all
        };
        assert_eq!(super::plan(&weights, lazy).packs, []);
    }
}
