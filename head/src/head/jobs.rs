//! Jobs given out and taken back: spill, fold, image.

use std::sync::Arc;

use headwater_model::{Incarnation, ReplicaSetId};

use super::Head;
use crate::collection::stack_is_settled;
use crate::error::HeadError;
use crate::fold::{FoldDone, FoldJob, Missing};
use crate::image::{Image, ImageJob, Totals};
use crate::spill::{FrozenTable, SpillDone, SpillJob};

impl Head {
    /// Freezes all tables and gives them out to be written; entries go on into new ones. `None` if there are none.
    ///
    /// Tables whose job failed, or has not come back yet, are given out again: do not call this while a job runs, or its
    /// work is done twice.
    pub fn begin_spill(&mut self) -> Option<SpillJob> {
        let mut tables = Vec::new();
        for collection in self.collections.values_mut() {
            collection.freeze();
            tables.extend(collection.frozen.iter().map(|table| FrozenTable {
                collection: collection.uuid(),
                generation: collection.generation,
                table: table.clone(),
            }));
        }
        (!tables.is_empty()).then_some(SpillJob { tables })
    }

    /// Takes the layers of a spill in.
    pub fn finish_spill(&mut self, done: SpillDone) {
        for (spilled, layer) in done.layers {
            let Some(collection) = self.collections.get_mut(&spilled.collection) else {
                continue;
            };
            let expected = collection
                .frozen
                .first()
                .is_some_and(|oldest| Arc::ptr_eq(oldest, &spilled.table));
            if expected && collection.generation == spilled.generation {
                collection.frozen.remove(0);
                self.memory -= spilled.table.bytes();
                collection.layers.extend(layer);
            }
        }
    }

    /// The folds worth trying now: of every collection with new layers. Each decides by its survey whether to fold.
    pub fn plan_fold(&self) -> Vec<FoldJob> {
        self.collections.values().filter_map(FoldJob::by_cost).collect()
    }

    /// Full folds of all collections that are not settled, whatever the cost. Spill before, so that nothing is left in
    /// memory.
    pub fn force_folds(&self) -> Vec<FoldJob> {
        self.collections.values().filter_map(FoldJob::forced).collect()
    }

    /// Takes the result of a fold in; layers spilled meanwhile stay on top. The missing documents it found, none if the
    /// result is void.
    pub fn finish_fold(&mut self, done: FoldDone) -> Vec<Missing> {
        let FoldDone {
            collection,
            generation,
            before,
            after,
            missing,
        } = done;
        let Some(collection) = self
            .collections
            .get_mut(&collection)
            .filter(|c| c.generation == generation)
        else {
            return Vec::new();
        };
        if !collection.layers.starts_with(&before) {
            return Vec::new();
        }
        let Some(after) = after else {
            collection.surveyed = before.len();
            return Vec::new();
        };
        collection.surveyed = if stack_is_settled(&after) { 0 } else { after.len() };
        collection.layers.splice(..before.len(), after);
        missing
    }

    /// Begins an image of this instant. Its job writes everything; entries may be applied meanwhile. Counts as a spill:
    /// hand the job's spill to [`Head::finish_spill`].
    pub fn begin_image(&mut self, replica_set: &ReplicaSetId, incarnation: Incarnation) -> Result<ImageJob, HeadError> {
        if self.broken {
            return Err(HeadError::Broken);
        }
        let spill = self.begin_spill().unwrap_or(SpillJob { tables: Vec::new() });
        Ok(ImageJob {
            spill,
            definitions: self
                .collections
                .values()
                .map(|collection| collection.definition())
                .collect(),
            open_entries: self.interpreter.open_entries(),
            image: Image {
                replica_set: replica_set.clone(),
                incarnation,
                applied: self.applied,
                replay_from: self.replay_from(),
                begin_applying: self.begin_applying,
                consistent_from: self.consistent_from,
                source_version: self.source_version.clone(),
                totals: Totals::default(),
                catalog: None,
                open_transactions: None,
            },
        })
    }

    /// An image of this instant, done on the spot.
    pub async fn image(&mut self, replica_set: &ReplicaSetId, incarnation: Incarnation) -> Result<Image, HeadError> {
        let job = self.begin_image(replica_set, incarnation)?;
        let (image, spilled) = job.run(self.blocks.clone()).await?;
        self.finish_spill(spilled);
        Ok(image)
    }
}
