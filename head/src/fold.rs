//! Folding: merging a stack of layers into fewer, by cost.
//!
//! A *full* fold makes one plain layer of the whole stack; key ranges that no change reaches come out as the same
//! blocks, unread. It is done when the bytes it must rewrite are at most a few times the bytes of change; a *survey*
//! finds that out by holding the keys of the changes against the interior nodes of the bottom layer. When it would be
//! too costly, the layers stay, until they are too many; then they are merged among themselves, above the bottom, if
//! they are still small beside it.
//!
//! A fold works on layers, which do not change, so entries are applied meanwhile. What was cleared, dropped or folded
//! otherwise in the meantime makes its result void.

use std::sync::Arc;

use bytes::Bytes;
use headwater_model::{CollectionUuid, limits};
use headwater_oplog::key::DocumentKey;
use headwater_oplog::record::{Record, Settled};
use headwater_store::blocks::Blocks;

use crate::collection::{Collection, Layer, stack_is_settled};
use crate::error::HeadError;
use crate::identity;
use crate::merge::{Merge, Run, Step, Value};
use crate::pace::Pace;
use crate::stack;
use crate::tree::{Cursor, Position, TreeWriter};

/// A fold to do.
#[derive(Clone, Debug)]
pub struct FoldJob {
    pub(crate) collection: CollectionUuid,
    pub(crate) generation: u64,
    capped: bool,
    layers: Vec<Layer>,
    whatever_the_cost: bool,
}

/// What a fold came to; for [`crate::Head::finish_fold`].
#[derive(Debug)]
pub struct FoldDone {
    pub(crate) collection: CollectionUuid,
    pub(crate) generation: u64,
    /// The layers as the fold found them…
    pub(crate) before: Vec<Layer>,
    /// …and what takes their place; `None`: they stay, for now.
    pub(crate) after: Option<Vec<Layer>>,
    /// Documents that are changed by the oplog but were never seen. Their changes are dropped by the fold.
    pub missing: Vec<Missing>,
}

/// A document to be read from the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// Where.
    pub collection: CollectionUuid,
    /// Which.
    pub key: DocumentKey,
    /// `{_id: …}`, equal to the document's for the source, though not always of the same type. `None` if the key does
    /// not decode.
    pub id: Option<Bytes>,
}

impl FoldJob {
    /// A fold by cost; `None` if there is nothing to gain, or nothing changed since the last survey.
    pub(crate) fn by_cost(collection: &Collection) -> Option<FoldJob> {
        let worth = !stack_is_settled(&collection.layers) && collection.surveyed != collection.layers.len();
        worth.then(|| FoldJob::of(collection, false))
    }

    /// A full fold at any cost; `None` if the stack is settled.
    pub(crate) fn forced(collection: &Collection) -> Option<FoldJob> {
        (!stack_is_settled(&collection.layers)).then(|| FoldJob::of(collection, true))
    }

    fn of(collection: &Collection, whatever_the_cost: bool) -> FoldJob {
        FoldJob {
            collection: collection.uuid(),
            generation: collection.generation,
            capped: collection.is_capped(),
            layers: collection.layers.clone(),
            whatever_the_cost,
        }
    }

    /// The collection it is for.
    pub fn collection(&self) -> CollectionUuid {
        self.collection
    }

    /// Does it. After an error the head is as it was.
    pub async fn run(self, blocks: Arc<dyn Blocks>) -> Result<FoldDone, HeadError> {
        let full = self.whatever_the_cost || self.is_cheap(&blocks).await?;
        let mut missing = Vec::new();
        let mut after = None;
        if !full && self.must_shrink() && self.changes_are_small() {
            after = self.merged_changes(&blocks).await?;
        }
        if full || (self.must_shrink() && after.is_none()) {
            after = Some(self.merged(&blocks, 0, &mut missing).await?);
        }
        let FoldJob {
            collection,
            generation,
            layers: before,
            ..
        } = self;
        Ok(FoldDone {
            collection,
            generation,
            before,
            after,
            missing,
        })
    }

    fn must_shrink(&self) -> bool {
        self.layers.len() > limits::STACK_MAX_LAYERS
    }

    fn bytes_of_change(&self) -> u64 {
        self.layers[1..].iter().map(|layer| layer.root.bytes).sum()
    }

    /// Whether all changes together are small beside the bottom layer.
    fn changes_are_small(&self) -> bool {
        self.layers[0].plain && self.bytes_of_change() < self.layers[0].root.bytes / limits::FOLD_CHEAP_FACTOR
    }

    /// The survey: whether the leaves of the bottom layer that changes reach into are few.
    async fn is_cheap(&self, blocks: &Arc<dyn Blocks>) -> Result<bool, HeadError> {
        let budget = limits::FOLD_CHEAP_FACTOR * self.bytes_of_change() + limits::MIB as u64;
        let [bottom, upper @ ..] = &self.layers[..] else {
            return Ok(true);
        };
        if !bottom.plain || bottom.root.bytes <= budget {
            return Ok(true);
        }
        let mut changes = Merge::<Record>::new(runs(blocks, upper));
        let mut below = Cursor::new(blocks.clone(), Some(&bottom.root), None);
        let mut rewritten = 0;
        let mut reached = Bytes::new();
        let mut pace = Pace::default();
        while let Some(Step::Record { key, .. }) = changes.next(|_, _, _| false).await? {
            pace.step().await;
            if key <= reached {
                continue;
            }
            loop {
                match below.position() {
                    Position::End => return Ok(true),
                    Position::Record(_) => below.skip(),
                    Position::Subtree { entry, .. } if entry.last < key => below.skip(),
                    Position::Subtree { level: 0, entry } => {
                        rewritten += entry.bytes;
                        reached = entry.last.clone();
                        below.skip();
                        break;
                    }
                    Position::Subtree { .. } => below.open().await?,
                }
            }
            if rewritten > budget {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The stack with its changes merged among themselves. `None` if the changes of one document no longer fit a block.
    async fn merged_changes(&self, blocks: &Arc<dyn Blocks>) -> Result<Option<Vec<Layer>>, HeadError> {
        match self.merged(blocks, 1, &mut Vec::new()).await {
            Ok(upper) => Ok(Some(self.layers[..1].iter().cloned().chain(upper).collect())),
            Err(HeadError::TooLarge(_)) => Ok(None),
            Err(other) => Err(other),
        }
    }

    /// The layers from `from` on as one. From the bottom on it is settled: whole documents only.
    async fn merged(
        &self,
        blocks: &Arc<dyn Blocks>,
        from: usize,
        missing: &mut Vec<Missing>,
    ) -> Result<Vec<Layer>, HeadError> {
        let settle = from == 0;
        let layers = &self.layers[from..];
        let mut writer = TreeWriter::new(blocks.clone());
        let mut merge = Merge::new(runs(blocks, layers));
        let mut pace = Pace::default();
        let mut value = Vec::new();
        loop {
            let take =
                |run: usize, level, entry: &_| (!settle || layers[run].plain) && writer.could_reuse(level, entry);
            match merge.next(take).await? {
                None => break,
                Some(Step::Subtree { level, entry, .. }) => {
                    writer.reuse(level, &entry).await?;
                }
                Some(Step::Record {
                    key,
                    oldest: (run, Value::Stored(stored)),
                    newer,
                }) if newer.is_empty() && (!settle || layers[run].plain) => {
                    writer.add(key, &stored).await?;
                }
                Some(Step::Record {
                    key,
                    oldest: (_, oldest),
                    newer,
                }) => {
                    let mut record = stack::composed(self.collection, &key, oldest, newer)?;
                    if settle {
                        match stack::settled(self.collection, &key, record)? {
                            Settled::Document { doc, place } => record = stack::bottom(doc, place, self.capped),
                            Settled::Absent => continue,
                            Settled::Missing(_) => {
                                missing.push(self.missing(key));
                                continue;
                            }
                        }
                    }
                    value.clear();
                    record.encode(&mut value);
                    writer.add(key, &value).await?;
                }
            }
            pace.step().await;
        }
        let plain = settle || layers.iter().all(|layer| layer.plain);
        Ok(writer
            .finish()
            .await?
            .map(|root| Layer { root, plain })
            .into_iter()
            .collect())
    }

    fn missing(&self, key: Bytes) -> Missing {
        let key = DocumentKey(key);
        Missing {
            collection: self.collection,
            id: identity::of_key(&key),
            key,
        }
    }
}

fn runs<M>(blocks: &Arc<dyn Blocks>, layers: &[Layer]) -> Vec<Run<M>> {
    layers
        .iter()
        .map(|layer| Run::Tree(Cursor::new(blocks.clone(), Some(&layer.root), None)))
        .collect()
}
