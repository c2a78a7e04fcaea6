//! Mending a damaged pack: blocks of it that are still to be had elsewhere are written anew.
//!
//! A plan says first where each block can be had: in memory, in another pack, or in its place where only the index of the
//! pack is broken. Write order: blocks durable in new packs → the condemnation of the damaged pack is made known (by the
//! caller, with its epoch) → it is deleted, as in a groom and for the same reason. It goes only when nothing of it is lost;
//! else it stays, for whoever can read more out of it than we can. What is lost counts as absent when it is put again, so that
//! a writer who still has it makes it whole.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use bytes::Bytes;
use headwater_model::BlockId;

use super::state::Place;
use super::{PackStore, format, open};
use crate::blocks::Blocks;
use crate::objects::StoreError;

/// Where the blocks of a damaged pack can be had.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MendPlan {
    /// The pack.
    pub pack: String,
    /// Blocks that are in memory.
    pub in_memory: BTreeSet<BlockId>,
    /// Blocks that rest in another pack too.
    pub elsewhere: BTreeMap<BlockId, (String, Range<u64>)>,
    /// Blocks that can be read where they are.
    pub in_place: BTreeSet<BlockId>,
    /// Blocks that nobody has.
    pub lost: BTreeSet<BlockId>,
}

impl MendPlan {
    /// Whether nothing is lost.
    pub fn is_whole(&self) -> bool {
        self.lost.is_empty()
    }
}

impl PackStore {
    /// Finds out where the blocks that are looked for in a pack can be had. Changes nothing.
    pub async fn plan_mend(&self, pack: &str) -> Result<MendPlan, StoreError> {
        let mut plan = MendPlan {
            pack: pack.to_owned(),
            ..MendPlan::default()
        };
        for id in self.blocks_in(pack) {
            if self.stored_at(id, pack).await?.is_some() {
                plan.in_place.insert(id);
            } else if self
                .inner
                .cache()
                .get(&id)
                .is_some_and(|raw| self.inner.naming.fits(&id, &raw))
            {
                plan.in_memory.insert(id);
            } else {
                plan.lost.insert(id);
            }
        }
        if !plan.lost.is_empty() {
            self.look_elsewhere(&mut plan).await?;
        }
        Ok(plan)
    }

    /// A block's bytes at rest in this pack, if they are what they should be.
    async fn stored_at(&self, id: BlockId, pack: &str) -> Result<Option<Bytes>, StoreError> {
        let place = self.inner.state().find(&id);
        match place {
            // An attempt before, or a groom, has taken it into memory already.
            Some(Place::Pending(stored)) => Ok(Some(stored)),
            Some(Place::Packed { key, range }) if key == pack => self.intact(id, &key, range).await,
            _ => Ok(None),
        }
    }

    async fn intact(&self, id: BlockId, key: &str, range: Range<u64>) -> Result<Option<Bytes>, StoreError> {
        match self.inner.objects.get_range(key, range).await {
            Ok(stored) => {
                let intact = format::unpack_block(&self.inner.naming, id, &stored).is_ok();
                Ok(intact.then_some(stored))
            }
            Err(StoreError::NotFound(_) | StoreError::Damaged { .. }) => Ok(None),
            Err(other) => Err(other),
        }
    }

    /// A block that cannot be read out of `pack`, out of another one: it rests twice while a groom or a mending goes on, and
    /// a reader may know the worse of the two.
    pub(super) async fn intact_elsewhere(&self, id: BlockId, pack: &str) -> Result<Option<Bytes>, StoreError> {
        let mut plan = MendPlan {
            pack: pack.to_owned(),
            lost: BTreeSet::from([id]),
            ..MendPlan::default()
        };
        self.look_elsewhere(&mut plan).await?;
        let Some((key, range)) = plan.elsewhere.remove(&id) else {
            return Ok(None);
        };
        let stored = self.intact(id, &key, range).await?;
        Ok(stored.and_then(|stored| format::unpack_block(&self.inner.naming, id, &stored).ok()))
    }

    /// A groom that was interrupted leaves blocks that rest twice.
    async fn look_elsewhere(&self, plan: &mut MendPlan) -> Result<(), StoreError> {
        for other in self.packs().await?.into_iter().filter(|other| other.key != plan.pack) {
            let (key, Some(entries)) = open::read_index(&self.inner, other).await? else {
                continue;
            };
            for entry in entries {
                if plan.lost.contains(&entry.id) && self.intact(entry.id, &key, entry.range()).await?.is_some() {
                    plan.lost.remove(&entry.id);
                    plan.elsewhere.insert(entry.id, (key.clone(), entry.range()));
                }
            }
            if plan.lost.is_empty() {
                break;
            }
        }
        Ok(())
    }

    /// Carries a plan out; what it counted on and is no longer there is lost after all. Answers what is lost. If that is
    /// nothing, nothing is looked for in the pack any more: the caller makes known that it goes, and then removes it with
    /// [`PackStore::remove_condemned`].
    pub async fn mend(&self, plan: &MendPlan) -> Result<BTreeSet<BlockId>, StoreError> {
        let Some(fence) = &self.inner.fence else {
            return Err(StoreError::refused(
                &plan.pack,
                "opened to read; open it with an epoch to mend",
            ));
        };
        fence.check().await?;
        let mut lost = plan.lost.clone();
        let copies = plan
            .elsewhere
            .iter()
            .map(|(id, (key, range))| (*id, key.clone(), range.clone()));
        for (id, key, range) in copies {
            match self.intact(id, &key, range).await? {
                Some(stored) => self.put_again(id, stored),
                None => _ = lost.insert(id),
            }
        }
        for id in &plan.in_memory {
            let raw = self.inner.cache().get(id);
            match raw.filter(|raw| self.inner.naming.fits(id, raw)) {
                Some(raw) => self.put_again(*id, format::pack_block(&raw)),
                None => _ = lost.insert(*id),
            }
        }
        // What is whole in its place leaves it only if the pack goes.
        if lost.is_empty() {
            for id in &plan.in_place {
                match self.stored_at(*id, &plan.pack).await? {
                    Some(stored) => self.put_again(*id, stored),
                    None => _ = lost.insert(*id),
                }
            }
        }
        self.flush().await?;
        if !lost.is_empty() {
            self.inner.state().lost.extend(lost.iter().copied());
        }
        Ok(lost)
    }

    /// The blocks that are known to be lost and were not written anew since.
    pub fn lost(&self) -> BTreeSet<BlockId> {
        self.inner.state().lost.clone()
    }

    /// Finds out again what is lost of a pack that is known to be damaged, for a store that was opened since.
    pub async fn recall_lost(&self, pack: &str) -> Result<(), StoreError> {
        let plan = self.plan_mend(pack).await?;
        self.inner.state().lost.extend(plan.lost);
        Ok(())
    }

    fn put_again(&self, id: BlockId, stored: Bytes) {
        let mut state = self.inner.state();
        state.unlink(&id);
        state.add_again(id, stored);
    }
}
