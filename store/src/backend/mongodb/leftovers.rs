//! Bytes that no object names: of writes that never came to their end, and of objects that were replaced or removed by
//! a process that ended right then.

use bson::{RawDocumentBuf, doc};
use futures::TryStreamExt;

use super::{Apart, MongodbObjects, failure};
use crate::objects::StoreError;

/// A write younger than this is left alone. An older one that is still under way is refused at its end and tried again.
const AGE_MS: u64 = 3_600_000;

impl MongodbObjects {
    /// Removes them.
    pub(super) async fn remove_leftovers(&self) -> Result<(), StoreError> {
        let now = u64::try_from(self.host.clock.now_ms()).unwrap_or(0);
        self.remove_leftovers_made_before(now.saturating_sub(AGE_MS)).await
    }

    async fn remove_leftovers_made_before(&self, before_ms: u64) -> Result<(), StoreError> {
        const KEY: &str = "unfinished writes";
        let failed = |error: mongodb::error::Error| failure::of(KEY, &error);
        let entries = self.pending.find(doc! {}).await.map_err(failed)?;
        let entries: Vec<RawDocumentBuf> = entries.try_collect().await.map_err(failed)?;
        for entry in entries {
            let Some(apart) = entry
                .get_binary("_id")
                .ok()
                .and_then(|id| id.bytes.try_into().ok().map(Apart))
            else {
                continue;
            };
            let dropped = entry.get_bool("dropped").unwrap_or(false);
            if dropped || apart.made_ms() < before_ms {
                self.drop_chunks(KEY, apart).await?;
            }
        }
        Ok(())
    }
}
