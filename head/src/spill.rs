//! Writing frozen tables as layers.

use std::sync::Arc;

use headwater_model::CollectionUuid;
use headwater_store::blocks::Blocks;

use crate::collection::Layer;
use crate::error::HeadError;
use crate::memtable::Table;
use crate::pace::Pace;
use crate::tree::TreeWriter;

/// Frozen tables to write. Holds no part of the head, so it may run while entries are applied.
#[derive(Clone)]
pub struct SpillJob {
    pub(crate) tables: Vec<FrozenTable>,
}

#[derive(Clone)]
pub(crate) struct FrozenTable {
    pub(crate) collection: CollectionUuid,
    pub(crate) generation: u64,
    pub(crate) table: Arc<Table>,
}

/// What a spill wrote; for [`crate::Head::finish_spill`].
pub struct SpillDone {
    pub(crate) layers: Vec<(FrozenTable, Option<Layer>)>,
}

impl SpillJob {
    /// About the bytes of memory it will free.
    pub fn bytes(&self) -> usize {
        self.tables.iter().map(|frozen| frozen.table.bytes()).sum()
    }

    /// Writes the layers. They are durable after a flush of the blocks only.
    ///
    /// After an error nothing is lost: the head gives out the same tables again.
    pub async fn run(self, blocks: Arc<dyn Blocks>) -> Result<SpillDone, HeadError> {
        let mut layers = Vec::with_capacity(self.tables.len());
        let mut pace = Pace::default();
        for frozen in self.tables {
            let layer = write(&frozen.table, &blocks, &mut pace).await?;
            layers.push((frozen, layer));
        }
        Ok(SpillDone { layers })
    }
}

async fn write(table: &Table, blocks: &Arc<dyn Blocks>, pace: &mut Pace) -> Result<Option<Layer>, HeadError> {
    let mut writer = TreeWriter::new(blocks.clone());
    let mut value = Vec::new();
    for (key, record) in table.from(None) {
        value.clear();
        record.encode(&mut value);
        writer.add(key.clone(), &value).await?;
        pace.step().await;
    }
    Ok(writer.finish().await?.map(|root| Layer {
        root,
        plain: table.is_plain(),
    }))
}
