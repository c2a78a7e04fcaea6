//! Capped collections of sources before 5.0: those servers let the oldest documents fall out of a full collection
//! without logging it, so the copy does the same by itself.
//!
//! It need not happen after each insert. Nothing but inserts changes what is in such a collection (its documents cannot
//! be deleted one by one, nor change their size), so the documents that are left are always the longest row of the
//! newest ones that fits: trimming late gives the same as trimming at once.

use headwater_model::CollectionUuid;
use headwater_oplog::collection::Capped;
use headwater_oplog::record::Record;

use super::Head;
use crate::error::HeadError;

impl Head {
    /// Lets the oldest documents fall out of full capped collections, where the source does so without logging it.
    ///
    /// `slack_percent`: collections whose layers hold no more than so much above their bounds are left as they are. 0 trims all of them, for an image that is to be read; more bounds the work of a head
    /// that goes on.
    pub async fn trim_capped(&mut self, slack_percent: u64) -> Result<(), HeadError> {
        if self.interpreter.version().logs_capped_overflow() {
            return Ok(());
        }
        let capped: Vec<CollectionUuid> = self.collections().filter(|c| c.is_capped()).map(|c| c.uuid()).collect();
        for uuid in capped {
            self.trim(uuid, slack_percent).await?;
        }
        Ok(())
    }

    async fn trim(&mut self, uuid: CollectionUuid, slack_percent: u64) -> Result<(), HeadError> {
        let Some(collection) = self.collections.get(&uuid) else {
            return Ok(());
        };
        let unusable = |fault: headwater_oplog::raw::BsonFault| HeadError::Document {
            collection: uuid,
            detail: fault.to_string(),
        };
        let Some(bounds) = Capped::of(collection.options()).map_err(unusable)? else {
            return Ok(());
        };
        let above = |bound: u64| bound.saturating_add(bound.saturating_mul(slack_percent) / 100);
        // Records of several layers may be of one document: these are the most that there can be, and a fold makes them
        // exact.
        let records: u64 = collection.layers().iter().map(|layer| layer.root.records).sum();
        let bytes: u64 = collection.layers().iter().map(|layer| layer.root.bytes).sum();
        let is_large = bytes.saturating_add(collection.memory() as u64) > above(bounds.size);
        if slack_percent > 0 && !is_large && (bounds.max == 0 || records <= above(bounds.max)) {
            return Ok(());
        }
        let mut oldest_first = Vec::new();
        let mut scan = self.scan(uuid, None)?;
        loop {
            let batch = scan.next_batch().await?;
            if batch.is_empty() {
                break;
            }
            oldest_first.extend(
                batch
                    .into_iter()
                    .map(|(key, doc, place)| (place, doc.len() as u64, key)),
            );
        }
        oldest_first.sort_by_key(|(place, ..)| *place);
        let fallen = bounds.overflow(oldest_first.iter().rev().map(|(_, bytes, _)| *bytes));
        for (_, _, key) in oldest_first
            .into_iter()
            .take(usize::try_from(fallen).unwrap_or(usize::MAX))
        {
            let Some(collection) = self.collections.get_mut(&uuid) else {
                return Ok(());
            };
            let put = collection.put(key.0.clone(), Record::Deleted);
            let grown = put.map_err(|fault| HeadError::Change {
                collection: uuid,
                key,
                fault,
            })?;
            self.memory = self.memory.saturating_add_signed(grown);
        }
        Ok(())
    }
}
