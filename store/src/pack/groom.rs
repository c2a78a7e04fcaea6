//! Grooming packs: a census marks what is alive, a plan says which packs go, living blocks of those are written elsewhere.
//!
//! Write order: living blocks durable elsewhere → the condemnation is made known (by the caller, with its epoch) → the pack
//! is deleted. Reversed, a crash, or another owner that trusts the old pack's index, would lose blocks. A groom that ends
//! anywhere before leaves a pack whose living blocks may rest twice, which the next census finds. Packs go in batches, each
//! with no more living bytes than one pack holds: that is all the room that a groom needs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use headwater_model::{BlockId, limits};

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
    /// Packs below this size are written together, when there are enough of them: every opening reads the end of each.
    pub small_bytes: u64,
}

/// Fewer small packs than this are left alone.
const SMALL_AT_LEAST: usize = 16;

impl Thresholds {
    /// Everything that is dead goes, but for what the ends of packs take.
    pub fn thorough() -> Self {
        Thresholds {
            living_percent: 97,
            dead_min_bytes: 0,
            ..Thresholds::default()
        }
    }
}

impl Default for Thresholds {
    /// Three quarters alive, and 64 MiB dead.
    fn default() -> Self {
        Thresholds {
            living_percent: 75,
            dead_min_bytes: 64 << 20,
            small_bytes: (limits::PACK_TARGET_BYTES / 4) as u64,
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
    let size = |pack: &PackWeight| pack.living_bytes + pack.dead_bytes;
    let small = |pack: &PackWeight| size(pack) < thresholds.small_bytes;
    let many_small = weights.iter().filter(|pack| small(pack)).count() >= SMALL_AT_LEAST;
    let worth = |pack: &&PackWeight| {
        let mostly_dead = pack.living_blocks == 0 || pack.living_bytes * 100 < size(pack) * thresholds.living_percent;
        mostly_dead && dead_bytes >= thresholds.dead_min_bytes || many_small && small(pack)
    };
    let mut packs: Vec<PackWeight> = weights.iter().filter(worth).cloned().collect();
    packs.sort_by_key(|pack| (pack.living_bytes, pack.number));
    GroomPlan {
        copied_bytes: packs.iter().map(|pack| pack.living_bytes).sum(),
        freed_bytes: packs.iter().map(|pack| pack.dead_bytes).sum(),
        living_bytes,
        dead_bytes,
        packs,
    }
}

/// Cuts a plan's packs into batches of at most `living_bytes` to be copied, unless one pack alone has more, and of at most
/// `packs` packs.
pub fn batches(plan: &GroomPlan, living_bytes: u64, packs: usize) -> Vec<Vec<PackWeight>> {
    let mut batches: Vec<Vec<PackWeight>> = Vec::new();
    let mut filled = 0;
    for pack in &plan.packs {
        match batches.last_mut() {
            Some(batch) if filled + pack.living_bytes <= living_bytes && batch.len() < packs => {
                batch.push(pack.clone());
                filled += pack.living_bytes;
            }
            _ => {
                batches.push(vec![pack.clone()]);
                filled = pack.living_bytes;
            }
        }
    }
    batches
}

fn numbers(packs: &[PackWeight]) -> BTreeSet<u32> {
    packs.iter().map(|pack| pack.number).collect()
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

    /// How many packs there are, and their bytes at rest.
    pub async fn at_rest(&self) -> Result<(u64, u64), StoreError> {
        let packs = self.inner.objects.list(&self.inner.folder).await?;
        Ok((packs.len() as u64, packs.iter().map(|pack| pack.size).sum()))
    }

    /// Deletes packs that were condemned before this store was opened, or whose removal was interrupted.
    pub async fn remove_condemned(&self, keys: &[String]) -> Result<(), StoreError> {
        for key in keys {
            if !key.starts_with(&self.inner.folder) {
                return Err(StoreError::refused(key, "it is no pack of this replica set"));
            }
            let number = self.inner.state().number_of(key);
            if let Some(number) = number
                && !self.inner.state().are_empty_now(&BTreeSet::from([number]))
            {
                return Err(StoreError::refused(key, "living blocks rest in it"));
            }
            self.delete(key).await?;
        }
        Ok(())
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        if let Some(fence) = &self.inner.fence {
            fence.check().await?;
        }
        // Nothing rests in it that is needed: once it may be gone, nobody is to miss it.
        self.inner.state().forget(key);
        self.inner.objects.delete(key).await
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

    /// What each pack weighs by the marks so far. Packs with blocks that nobody has are left out: they stay for whoever can
    /// read more out of them than we can.
    pub async fn weigh(&self) -> Result<Vec<PackWeight>, StoreError> {
        let listed = self.store.inner.objects.list(&self.store.inner.folder).await?;
        let sizes: BTreeMap<String, u64> = listed.into_iter().map(|object| (object.key, object.size)).collect();
        let state = self.store.inner.state();
        let living = state.living();
        let torn = state.packs_with_lost();
        let whole = (0..).zip(living).filter(|(number, _)| !torn.contains(number));
        let weights = whole.filter_map(|(number, (living_bytes, living_blocks))| {
            let key = state.packs.get(number as usize)?.clone();
            let size = *sizes.get(&key)?;
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

    /// Makes every living block of the packs durable elsewhere; afterwards nothing is found in them any more, and they may be
    /// deleted once the caller has made known that they go. Answers the bytes copied.
    pub async fn condemn(&self, packs: &[PackWeight]) -> Result<u64, StoreError> {
        let inner = &self.store.inner;
        let mut living: BTreeMap<u32, Vec<_>> = BTreeMap::new();
        for (id, at) in inner.state().condemn(&numbers(packs)) {
            living.entry(at.pack).or_default().push((id, at));
        }
        let mut copied = 0;
        for pack in packs {
            let Some(living) = living.remove(&pack.number) else {
                continue;
            };
            let bytes = inner.objects.get(&pack.key).await?;
            for (id, at) in living {
                let range = at.offset as usize..(at.offset as usize).saturating_add(at.stored as usize);
                let stored = (range.end <= bytes.len()).then(|| Bytes::copy_from_slice(&bytes[range]));
                let stored =
                    stored.ok_or_else(|| StoreError::damaged(&pack.key, "it is shorter than its index says"))?;
                format::unpack_block(&inner.naming, id, &stored).map_err(|fault| {
                    inner.state().meet(id, pack.key.clone());
                    StoreError::damaged(&pack.key, fault)
                })?;
                copied += stored.len() as u64;
                inner.state().add_again(id, stored);
            }
        }
        // Also with nothing copied now: a groom that failed may have taken blocks of these packs into memory.
        self.store.flush().await?;
        if inner.state().are_empty_now(&numbers(packs)) {
            Ok(copied)
        } else {
            let key = packs.first().map_or("", |pack| &pack.key);
            Err(StoreError::refused(
                key,
                "blocks of it were not written elsewhere; groom again",
            ))
        }
    }

    /// Deletes condemned packs.
    pub async fn remove(&self, packs: &[PackWeight]) -> Result<(), StoreError> {
        if !self.store.inner.state().are_empty_now(&numbers(packs)) {
            let key = packs.first().map_or("", |pack| &pack.key);
            return Err(StoreError::refused(key, "living blocks rest in it"));
        }
        for pack in packs {
            self.store.delete(&pack.key).await?;
        }
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
            small_bytes: 0,
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

    #[test]
    fn small_packs_are_written_together_when_there_are_many() {
        let thresholds = Thresholds {
            living_percent: 75,
            dead_min_bytes: 1,
            small_bytes: 50,
        };
        let few: Vec<PackWeight> = (0..15).map(|n| pack(n, 10, 0)).chain([pack(15, 100, 0)]).collect();
        assert_eq!(super::plan(&few, thresholds).packs, []);
        let many: Vec<PackWeight> = (0..16).map(|n| pack(n, 10, 0)).chain([pack(16, 100, 0)]).collect();
        assert_eq!(super::plan(&many, thresholds).packs.len(), 16);
    }

    #[test]
    fn a_batch_copies_no_more_than_a_pack_holds() {
        let plan = GroomPlan {
            packs: [0, 0, 0, 30, 60, 60, 200, 10]
                .into_iter()
                .map(|living| pack(0, living, 1))
                .collect(),
            ..GroomPlan::default()
        };
        let sizes = |packs| {
            let batches = batches(&plan, 100, packs);
            batches.iter().map(Vec::len).collect::<Vec<_>>()
        };
        assert_eq!(sizes(64), [5, 1, 1, 1]);
        assert_eq!(sizes(2), [2, 2, 1, 1, 1, 1]);
        assert!(super::batches(&GroomPlan::default(), 100, 1).is_empty());
    }
}
