//! The Sync child: from sync slices to a head that is proven complete.
//!
//! Each phase ends with a command, and begins from what the commands and stores hold: a crash anywhere resumes at the
//! begin of the phase it hit.

use std::collections::BTreeMap;
use std::sync::Arc;

use headwater_cluster::Command;
use headwater_cluster::ReplicaSet;
use headwater_head::{Head, Missing};
use headwater_model::{CollectionUuid, Incarnation, Namespace, Optime, Phase, limits};

use crate::commands::submit_as_child;
use crate::set::{Set, Stores};
use crate::work::first_copy::FirstCopy;
use crate::work::head_store::{HeadStore, fault};
use crate::work::oplog_apply::apply_slice;
use crate::worker::{Fault, Pace, Work};

/// See the module.
pub struct SyncWork {
    set: Arc<Set>,
    incarnation: Incarnation,
    stores: Stores,
    first_copy: Option<FirstCopy>,
    head: Option<HeadStore>,
    asked: Option<Asked>,
}

/// Requests for missing documents on their way.
struct Asked {
    observed: Optime,
    pass: bool,
}

impl SyncWork {
    /// Begins at the phase the control state names.
    pub async fn build(set: Arc<Set>) -> Result<Self, Fault> {
        let (_, record) = set.record().map_err(|r| Fault::Retry(r.message))?;
        let stores = set.stores(record.incarnation).await?;
        let head = match (&record.waypoint, record.phase) {
            (Some(image), phase) if phase > Phase::Building && image.incarnation == record.incarnation => {
                Some(HeadStore::open(set.clone(), image).await?)
            }
            _ => None,
        };
        set.board.forget_requests();
        if record.phase < Phase::Complete {
            // Who reads the log of a restarted daemon sees where it stands, though the phase was told by the one before.
            tracing::info!(set = %set.id, "first copy: {} (goes on)", record.phase.text());
        }
        Ok(SyncWork {
            incarnation: record.incarnation,
            set,
            stores,
            first_copy: None,
            head,
            asked: None,
        })
    }

    /// Builds beside the transfer what can be built of the slices that are there.
    async fn build_ahead(&mut self, record: &ReplicaSet) -> Result<Pace, Fault> {
        // An end may be durable though the store's answer was lost: then the agent does not send it again.
        if let Some(end) = self.stores.sync.ended().await? {
            let moved = self.set.transferred(record, end.stop).await;
            moved.map_err(|refusal| Fault::Retry(refusal.message))?;
            return Ok(Pace::Again);
        }
        if let Some(first_copy) = self.first_copy().await? {
            first_copy.tend(false).await?;
        }
        Ok(Pace::Idle)
    }

    async fn first_copy(&mut self) -> Result<Option<&mut FirstCopy>, Fault> {
        if self.first_copy.is_none() {
            self.first_copy = FirstCopy::open(&self.set, &self.stores.sync).await?;
        }
        Ok(self.first_copy.as_mut())
    }

    /// Sync slices → head at the begin of the scan.
    async fn build_head(&mut self, record: &ReplicaSet) -> Result<(), Fault> {
        let set = self.set.clone();
        self.stores.sync.look_again().await?;
        let Some(first_copy) = self.first_copy().await? else {
            return Err(Fault::Blocked(
                "the sync slices are gone; resync this replica set".into(),
            ));
        };
        let head = first_copy.finish(&set).await?;
        self.first_copy = None;
        self.head = None;
        self.head = Some(HeadStore::new(set, self.incarnation, head).await);
        self.publish(record, Phase::ApplyingOplog).await
    }

    /// Publishes the head as a waypoint, then moves on: reversed, a crash in between would leave a phase without a head.
    async fn publish(&mut self, record: &ReplicaSet, phase: Phase) -> Result<(), Fault> {
        let head = self.head.as_mut().ok_or_else(no_head)?;
        let cut = head.image(record.consistent_from).await?;
        let command = Command::PublishWaypoint {
            set: self.set.id.clone(),
            epoch: record.epoch,
            image: cut.image.clone(),
        };
        submit_as_child(&self.set.ground.control, command).await?;
        self.set.settled(&cut.image);
        drop(cut.unsettled);
        self.advance(record, phase).await
    }

    /// Applies what is stored up to `until`; whether it got there.
    async fn apply_until(&mut self, until: Optime) -> Result<bool, Fault> {
        let head = self.head.as_mut().ok_or_else(no_head)?;
        let mut reader = self.stores.oplog.read(head.head.applied());
        while head.head.applied() < until {
            let Some(slice) = reader.next().await? else {
                // A former owner may have stored more than this process has seen.
                if self.stores.oplog.look_ahead().await? {
                    continue;
                }
                return Ok(false);
            };
            apply_slice(head, &slice, Some(until))?;
            head.tend().await?;
            self.set.board.set_applied(head.head.applied());
        }
        Ok(true)
    }

    /// Oplog up to the stop optime, then one layer a collection: what was changed but never seen is asked for.
    async fn apply_oplog(&mut self, record: &ReplicaSet) -> Result<Pace, Fault> {
        let stop = record
            .sync_stop
            .ok_or_else(|| Fault::Blocked("the stop optime is not known; resync".into()))?;
        if !self.apply_until(stop).await? {
            return Ok(Pace::Idle);
        }
        self.require_dropped().await?;
        let head = self.head.as_mut().ok_or_else(no_head)?;
        let missing = head.fold_all().await?;
        self.ask_for(missing);
        self.advance(record, Phase::FetchingMissing).await?;
        Ok(Pace::Again)
    }

    /// Of what the scan saw as dropped parts may be lacking: at the stop optime the head must not have it either.
    async fn require_dropped(&self) -> Result<(), Fault> {
        let head = &self.head.as_ref().ok_or_else(no_head)?.head;
        let named = self.stores.sync.ended().await?.map(|end| end.dropped);
        let there = |uuid: &CollectionUuid| head.collection(*uuid).map(|there| there.namespace());
        match brought_back(&named.unwrap_or_default(), there) {
            Some(fault) => Err(fault),
            None => Ok(()),
        }
    }

    fn ask_for(&mut self, missing: Vec<Missing>) {
        let mut by_collection: BTreeMap<CollectionUuid, Vec<String>> = BTreeMap::new();
        for m in &missing {
            if let Some(id) = &m.id {
                by_collection.entry(m.collection).or_default().push(hex::encode(id));
            }
        }
        for (collection, ids) in by_collection {
            for batch in batches(ids) {
                self.set.board.request(collection, batch);
            }
        }
        if !missing.is_empty() {
            tracing::info!(set = %self.set.id, documents = missing.len(), "asking the source for documents the scan missed");
        }
        self.asked = Some(Asked {
            observed: Optime::ZERO,
            pass: false,
        });
    }

    async fn advance(&self, record: &ReplicaSet, phase: Phase) -> Result<(), Fault> {
        let command = Command::SetPhase {
            set: self.set.id.clone(),
            incarnation: self.incarnation,
            epoch: record.epoch,
            phase,
        };
        submit_as_child(&self.set.ground.control, command).await?;
        tracing::info!(set = %self.set.id, "first copy: {}", phase.text());
        Ok(())
    }

    /// Waits for the answers, puts them into the head, and lets it pass the optime of the last read.
    async fn fetch_missing(&mut self, record: &ReplicaSet) -> Result<Pace, Fault> {
        let Some(asked) = self.asked.as_mut() else {
            // After a restart the head is that of the waypoint before the oplog was applied: do that again. It leads back
            // to this phase from any later one, so that nothing is validated before what is missing was fetched.
            return self.apply_oplog(record).await;
        };
        let head = self.head.as_mut().ok_or_else(no_head)?;
        if !asked.pass {
            let (arrived, is_all) = self.set.board.take_arrived();
            for fetched in arrived {
                asked.observed = asked.observed.max(fetched.observed);
                for document in fetched.documents {
                    head.head
                        .put_document(fetched.collection, document)
                        .await
                        .map_err(fault)?;
                    head.tend().await?;
                }
            }
            if !is_all {
                return Ok(Pace::Idle);
            }
            asked.pass = true;
        }
        let observed = asked.observed;
        if !self.apply_until(observed).await? {
            return Ok(Pace::Idle);
        }
        self.advance(record, Phase::Validating).await?;
        Ok(Pace::Again)
    }

    /// Proves that the head is whole at rest; then the first snapshot may exist.
    async fn validate(&mut self, record: &ReplicaSet) -> Result<Pace, Fault> {
        // The phase alone says nothing of this head: a command that moves it may arrive late or twice.
        let Some(observed) = self
            .asked
            .as_ref()
            .filter(|asked| asked.pass)
            .map(|asked| asked.observed)
        else {
            return self.fetch_missing(record).await;
        };
        // An attempt that came further may have made a later position known.
        let stop = record.sync_stop.unwrap_or(Optime::ZERO);
        let from = observed.max(stop).max(record.consistent_from.unwrap_or(Optime::ZERO));
        if !self.apply_until(from).await? {
            return Ok(Pace::Idle);
        }
        let head = self.head.as_mut().ok_or_else(no_head)?;
        let left = head.fold_all().await?;
        if !left.is_empty() {
            // A change after the fetch met no document: more was missing than was asked for.
            self.ask_for(left);
            self.advance(record, Phase::FetchingMissing).await?;
            return Ok(Pace::Again);
        }
        validate_head(&head.head).await?;
        let command = Command::SetConsistentFrom {
            set: self.set.id.clone(),
            incarnation: self.incarnation,
            epoch: record.epoch,
            from,
        };
        submit_as_child(&self.set.ground.control, command).await?;
        let (_, record) = self.set.record().map_err(|r| Fault::Retry(r.message))?;
        self.publish(&record, Phase::Complete).await?;
        // Only now, and never before: until the waypoint is known the slices are the only copy.
        self.stores.sync.remove_all().await?;
        Ok(Pace::Idle)
    }
}

fn brought_back<'a>(
    dropped: &[CollectionUuid],
    there: impl Fn(&CollectionUuid) -> Option<&'a Namespace>,
) -> Option<Fault> {
    let mut there = dropped.iter().filter_map(there);
    let namespace = there.find(|namespace| namespace.is_kept())?;
    Some(Fault::Blocked(format!(
        "the scan took {namespace} for dropped, and the source's oplog still has it where the scan ended: a rollback brought it \
         back, and documents of it are missing. Resync this deployment"
    )))
}

/// Cuts ids into requests that the agent can put into one command.
fn batches(ids: Vec<String>) -> Vec<Vec<String>> {
    let mut batches: Vec<Vec<String>> = Vec::new();
    let mut bytes = 0;
    for id in ids {
        bytes += id.len();
        match batches.last_mut() {
            Some(batch) if batch.len() < limits::FETCH_BATCH && bytes <= limits::FETCH_BATCH_BYTES => batch.push(id),
            _ => {
                bytes = id.len();
                batches.push(vec![id]);
            }
        }
    }
    batches
}

/// Every node above the leaves is read, every leaf must be known, the counts must agree from the leaves to the catalog;
/// of the leaves themselves a share is read that keeps within [`limits::VALIDATE_READ_BYTES`], which is all of a small
/// set. (Each block was named by the hash of what was written, and its pack synced: reading all would cost as much as
/// the sync, and is the business of later checks.)
async fn validate_head(head: &Head) -> Result<(), Fault> {
    let bytes: u64 = head.collections().map(|collection| collection.bytes()).sum();
    let one_in = bytes.div_ceil(limits::VALIDATE_READ_BYTES).max(1);
    for collection in head.collections() {
        let audited = head.audit(collection.uuid(), one_in).await.map_err(fault)?;
        if audited.records != collection.documents() {
            let namespace = collection.namespace();
            let (found, counted) = (audited.records, collection.documents());
            return Err(Fault::Blocked(format!(
                "{namespace} holds {found} documents where its catalog counts {counted}: resync this deployment"
            )));
        }
    }
    Ok(())
}

fn no_head() -> Fault {
    Fault::Retry("the head is not open; it is opened from the last waypoint".into())
}

impl Work for SyncWork {
    async fn step(&mut self) -> Result<Pace, Fault> {
        let (_, record) = self.set.record().map_err(|r| Fault::Retry(r.message))?;
        match record.phase {
            Phase::Building => {
                self.build_head(&record).await?;
                Ok(Pace::Again)
            }
            Phase::ApplyingOplog => self.apply_oplog(&record).await,
            Phase::FetchingMissing => self.fetch_missing(&record).await,
            Phase::Validating => self.validate(&record).await,
            Phase::Transferring => self.build_ahead(&record).await,
            Phase::Starting | Phase::Complete => Ok(Pace::Idle),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collection_that_was_named_as_dropped_and_is_there_blocks_the_first_copy() {
        let (gone, back) = (CollectionUuid([1; 16]), CollectionUuid([2; 16]));
        for (name, blocks) in [("shop.orders", true), ("shop.system.drop.1i2.orders", false)] {
            let namespace = Namespace::parse(name).unwrap();
            let there = |uuid: &CollectionUuid| (*uuid == back).then_some(&namespace);
            assert!(brought_back(&[gone], there).is_none());
            let told = brought_back(&[gone, back], there).map(|fault| fault.to_string());
            assert_eq!(told.is_some_and(|told| told.contains(name)), blocks, "{name}");
        }
    }

    #[test]
    fn ids_are_asked_for_in_batches_bounded_by_number_and_bytes() {
        let sizes = |ids: Vec<String>| batches(ids).iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(sizes(vec![]), Vec::<usize>::new());
        assert_eq!(sizes(vec!["ab".into(); 2500]), [1000, 1000, 500]);
        let half = "a".repeat(limits::FETCH_BATCH_BYTES / 2);
        assert_eq!(sizes(vec![half; 5]), [2, 2, 1]);
        let huge = "a".repeat(2 * limits::FETCH_BATCH_BYTES);
        assert_eq!(sizes(vec![huge.clone(), "ab".into(), huge]), [1, 1, 1]);
    }
}
