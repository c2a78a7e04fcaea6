//! Blocks as they rest, for checks: nothing is taken from the cache, and a block counts as there only if its pack is there
//! in full length.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use headwater_model::BlockId;

use super::format::{self, PackFault};
use super::{Inner, PackStore, state};
use crate::blocks::Blocks;
use crate::naming::BlockNaming;
use crate::objects::{ObjectMeta, StoreError};

/// See the module.
pub struct AtRest {
    store: Arc<PackStore>,
    /// Packs that are missing or of another length, with what is wrong.
    unsound: BTreeMap<String, String>,
}

/// What reading a whole pack showed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PackVerdict {
    /// Its length.
    pub bytes: u64,
    /// Blocks in it.
    pub blocks: u64,
    /// Why the pack as a whole cannot be used: its index, its beginning, its length.
    pub fault: Option<String>,
    /// Blocks that do not match their ids.
    pub bad: Vec<BlockId>,
}

impl PackVerdict {
    /// Whether every byte is as it was written.
    pub fn is_sound(&self) -> bool {
        self.fault.is_none() && self.bad.is_empty()
    }
}

impl PackStore {
    /// The blocks as they rest, by a listing of now.
    pub async fn read_at_rest(self: &Arc<Self>) -> Result<AtRest, StoreError> {
        // Known first, listed then: what is written in between is in no one's way.
        let known = self.inner.state().packs_with_sizes();
        let listed: BTreeMap<String, u64> = self.packs().await?.into_iter().map(|p| (p.key, p.size)).collect();
        let mut unsound = BTreeMap::new();
        for (key, size) in known {
            let wrong = match listed.get(&key) {
                Some(found) if *found == size => continue,
                Some(found) => format!("it has {found} bytes where its index says {size}"),
                None => "it is missing".to_owned(),
            };
            // A groom may have removed it meanwhile.
            if self.inner.state().knows(&key) {
                unsound.insert(key, wrong);
            }
        }
        Ok(AtRest {
            store: self.clone(),
            unsound,
        })
    }

    /// All packs as listed now, sorted by key.
    pub async fn packs(&self) -> Result<Vec<ObjectMeta>, StoreError> {
        self.inner.objects.list(&self.inner.folder).await
    }

    /// Reads a whole pack and verifies every byte of it; `None` if it is not there any more.
    pub async fn verify_pack(&self, key: &str) -> Result<Option<PackVerdict>, StoreError> {
        let pack = match self.inner.objects.get(key).await {
            Ok(pack) => pack,
            Err(StoreError::NotFound(_)) => return Ok(None),
            Err(StoreError::Damaged { detail, .. }) => {
                return Ok(Some(PackVerdict {
                    fault: Some(detail),
                    ..PackVerdict::default()
                }));
            }
            Err(other) => return Err(other),
        };
        let naming = self.inner.naming.clone();
        Ok(Some(self.host.blocking(move || verdict(&naming, &pack)).await))
    }

    /// The blocks that are looked for in a pack, whatever the pack itself says.
    pub fn blocks_in(&self, key: &str) -> BTreeSet<BlockId> {
        self.inner.state().blocks_in(key)
    }

    /// Where a block is looked for; `None` for one that is not known, or not durable yet.
    pub fn pack_of(&self, id: &BlockId) -> Option<String> {
        match self.inner.state().find(id)? {
            state::Place::Pending(_) => None,
            state::Place::Packed { key, .. } => Some(key),
        }
    }

    /// Damaged blocks that readers met since this was last asked, with their packs.
    pub fn take_met(&self) -> Vec<(BlockId, String)> {
        std::mem::take(&mut self.inner.state().met)
    }
}

fn verdict(naming: &BlockNaming, pack: &Bytes) -> PackVerdict {
    let mut verdict = PackVerdict {
        bytes: pack.len() as u64,
        ..PackVerdict::default()
    };
    match format::verify_each(naming, pack) {
        Ok((entries, bad)) => (verdict.blocks, verdict.bad) = (entries.len() as u64, bad),
        Err(fault) => verdict.fault = Some(fault.to_string()),
    }
    verdict
}

/// Reads a block out of its pack, past the cache. A pack that was groomed away meanwhile is looked for once more.
pub(super) async fn read(inner: &Inner, id: BlockId) -> Result<Bytes, StoreError> {
    let mut gone = None;
    loop {
        let place = inner.state().find(&id);
        let (key, stored) = match place {
            None => return Err(StoreError::NotFound(format!("{}block {id}", inner.folder))),
            Some(state::Place::Pending(stored)) => ("a pending block".to_owned(), stored),
            Some(state::Place::Packed { key, range }) => match inner.objects.get_range(&key, range).await {
                Err(StoreError::NotFound(_)) if gone.as_ref() != Some(&key) => {
                    gone = Some(key);
                    continue;
                }
                Err(error @ (StoreError::NotFound(_) | StoreError::Damaged { .. })) => {
                    inner.state().meet(id, key);
                    return Err(error);
                }
                stored => (key, stored?),
            },
        };
        let raw = format::unpack_block(&inner.naming, id, &stored);
        return raw.map_err(|fault: PackFault| {
            inner.state().meet(id, key.clone());
            StoreError::damaged(&key, fault)
        });
    }
}

impl AtRest {
    /// Packs that are missing or of another length, with what is wrong.
    pub fn unsound(&self) -> &BTreeMap<String, String> {
        &self.unsound
    }
}

#[async_trait]
impl Blocks for AtRest {
    async fn put(&self, _: Bytes) -> Result<BlockId, StoreError> {
        Err(StoreError::refused(&self.store.inner.folder, "a check writes nothing"))
    }

    async fn get(&self, id: BlockId) -> Result<Bytes, StoreError> {
        read(&self.store.inner, id).await
    }

    fn contains(&self, id: BlockId) -> bool {
        let inner = &self.store.inner;
        // Asked for like this it also counts as alive for a census, which it is.
        if !inner.state().contains(&id) {
            return false;
        }
        self.unsound.is_empty()
            || self
                .store
                .pack_of(&id)
                .is_none_or(|key| !self.unsound.contains_key(&key))
    }

    async fn flush(&self) -> Result<(), StoreError> {
        Ok(())
    }
}
