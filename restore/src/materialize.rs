//! A source of collections at one instant: an image, and the oplog after it.

mod rows;

use std::sync::Arc;

use async_trait::async_trait;
use bson::Document;
use bytes::Bytes;
use headwater_head::{Head, HeadError, HeadFault, Image};
use headwater_model::{BlockId, CollectionUuid, Namespace, Optime, Ts, limits};
use headwater_oplog::entry;
use headwater_oplog::interpret::Outlook;
use headwater_oplog::key::DocumentKey;
use headwater_protocol::slices::documents;
use headwater_store::blocks::Blocks;
use headwater_store::objects::StoreError;
use headwater_store::oplog_store::OplogStore;

use crate::source::{CollectionAtT, Rows, Source, SourceFault};
use rows::{CappedRows, KeyedRows, backup};

/// The instant cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum MaterializeFault {
    /// The image showed a state in the middle of a first copy.
    #[error("the image at {0} is not consistent and must not be restored; choose a later instant")]
    Inconsistent(Optime),
    /// The oplog ends before the instant.
    #[error("the oplog stored ends at {tip}, before {until}; choose an instant up to there")]
    OplogEnds {
        /// The last entry.
        tip: Ts,
        /// The instant wanted.
        until: Ts,
    },
    /// The image lies after the instant.
    #[error("the image at {at} lies after {until}; this is a fault in the plan, report it")]
    ImageTooNew {
        /// The image.
        at: Optime,
        /// The instant wanted.
        until: Ts,
    },
    /// A stored entry cannot be read.
    #[error("the oplog after {after} cannot be read: {detail}; run `headwater check`")]
    Entry {
        /// The last good entry.
        after: Optime,
        /// What does not fit.
        detail: String,
    },
    /// An entry cannot be applied.
    #[error(transparent)]
    Apply(#[from] HeadFault),
    /// The head failed.
    #[error(transparent)]
    Head(#[from] HeadError),
    /// The oplog store failed.
    #[error(transparent)]
    Oplog(#[from] StoreError),
    /// An image in the stores holds something that is no BSON.
    #[error("the definition of {namespace} cannot be read: {detail}; run `headwater check`")]
    Definition {
        /// Whose.
        namespace: Namespace,
        /// What does not fit.
        detail: String,
    },
}

/// Blocks of a repository, and new ones in a scratch place: nothing a restore makes gets into the repository.
struct Overlay {
    repository: Arc<dyn Blocks>,
    scratch: Arc<dyn Blocks>,
}

#[async_trait]
impl Blocks for Overlay {
    async fn put(&self, raw: Bytes) -> Result<BlockId, StoreError> {
        self.scratch.put(raw).await
    }

    async fn get(&self, id: BlockId) -> Result<Bytes, StoreError> {
        if self.scratch.contains(id) {
            self.scratch.get(id).await
        } else {
            self.repository.get(id).await
        }
    }

    fn contains(&self, id: BlockId) -> bool {
        self.scratch.contains(id) || self.repository.contains(id)
    }

    async fn flush(&self) -> Result<(), StoreError> {
        // Scratch blocks need not outlive the restore.
        Ok(())
    }
}

/// To which instant a transaction belongs that was prepared before and is committed after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prepared {
    /// To that of its commit's entry: an instant is a place in the oplog.
    AtEntry,
    /// To its `commitTimestamp`: an instant is a time of a sharded cluster, the same for all members.
    AtCommitTime,
}

/// All collections at one instant.
pub struct AtT {
    head: Head,
    collections: Vec<CollectionAtT>,
    source_version: String,
    undecided: Option<Undecided>,
}

/// Transactions of a sharded cluster that were prepared by an instant and are not decided in the oplog that is stored. None
/// of them is in what was made; on another shard they may have been committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Undecided {
    /// How many.
    pub count: usize,
    /// The entry that prepared the first of them: at every instant before it, none of them matters.
    pub from: Ts,
}

impl Undecided {
    fn of(outlook: &Outlook) -> Option<Undecided> {
        let count = outlook.undecided();
        outlook.undecided_from().map(|from| Undecided { count, from })
    }
}

/// Opens `image` and applies the oplog after it up to and including `until`. What does not fit into memory on the way goes
/// to `scratch`. `applied` is told after every slice how far it is.
///
/// `oplog` may be `None` when `until` is the instant of the image itself. With
/// [`Prepared::AtCommitTime`] it is read beyond `until` until transactions that were prepared by then are decided.
pub async fn materialize(
    repository: Arc<dyn Blocks>,
    scratch: Arc<dyn Blocks>,
    image: Image,
    oplog: Option<&Arc<OplogStore>>,
    until: Ts,
    prepared: Prepared,
    mut applied: impl FnMut(Optime) + Send,
) -> Result<AtT, MaterializeFault> {
    if image.consistent_from.is_none_or(|from| image.applied < from) {
        return Err(MaterializeFault::Inconsistent(image.applied));
    }
    if image.applied.ts > until {
        return Err(MaterializeFault::ImageTooNew {
            at: image.applied,
            until,
        });
    }
    let source_version = image.source_version.clone();
    let at = image.applied;
    let blocks: Arc<dyn Blocks> = Arc::new(Overlay { repository, scratch });
    let mut head = Head::open(blocks.clone(), image).await?;
    if at.ts < until {
        let oplog = oplog.ok_or(MaterializeFault::OplogEnds { tip: at.ts, until })?;
        let tip = oplog.range().map_or(at.ts, |(_, tip)| tip.ts);
        if tip < until {
            return Err(MaterializeFault::OplogEnds { tip, until });
        }
        apply(&mut head, &blocks, oplog, until, &mut applied).await?;
    }
    let undecided = match (prepared, oplog) {
        (Prepared::AtCommitTime, Some(oplog)) => decide(&mut head, oplog, until).await?,
        (Prepared::AtCommitTime, None) => Undecided::of(&head.outlook(until)),
        (Prepared::AtEntry, _) => None,
    };
    head.trim_capped(0).await?;
    // Readers of a head keep what is in memory; they are to keep little.
    spill(&mut head, &blocks).await?;
    let collections = head.collections().map(described).collect::<Result<_, _>>()?;
    Ok(AtT {
        head,
        collections,
        source_version,
        undecided,
    })
}

async fn apply(
    head: &mut Head,
    blocks: &Arc<dyn Blocks>,
    oplog: &Arc<OplogStore>,
    until: Ts,
    applied: &mut (impl FnMut(Optime) + Send),
) -> Result<(), MaterializeFault> {
    let mut reader = oplog.read(head.applied());
    while let Some(slice) = reader.next().await? {
        for raw in documents(&slice.payload) {
            let unreadable = |detail: String| MaterializeFault::Entry {
                after: head.applied(),
                detail,
            };
            let raw = raw.map_err(|e| unreadable(e.to_string()))?;
            let at = entry::position(raw).map_err(|e| unreadable(e.to_string()))?;
            if at.ts > until {
                return Ok(());
            }
            head.apply(slice.payload.slice_ref(raw))?;
        }
        applied(head.applied());
        if head.memtable_bytes() >= limits::MEMTABLE_BUDGET_BYTES {
            spill(head, blocks).await?;
            for job in head.plan_fold() {
                let done = job.run(blocks.clone()).await?;
                head.finish_fold(done);
            }
        }
        if slice.header.last.ts >= until {
            return Ok(());
        }
    }
    Err(MaterializeFault::OplogEnds {
        tip: reader.position().ts,
        until,
    })
}

/// Lets the transactions take effect that were prepared at or before `until` and commit there, wherever their commits lie.
/// Gives those that are not decided in what is stored: they do not count as committed.
async fn decide(head: &mut Head, oplog: &Arc<OplogStore>, until: Ts) -> Result<Option<Undecided>, MaterializeFault> {
    let mut outlook = head.outlook(until);
    let mut reader = oplog.read(head.applied());
    while outlook.undecided() > 0 {
        let slice = match reader.next().await {
            Ok(Some(slice)) => slice,
            // What is damaged decides nothing, as what is not there.
            Ok(None) | Err(StoreError::Damaged { .. }) => break,
            Err(e) => return Err(e.into()),
        };
        for raw in documents(&slice.payload) {
            let unreadable = |detail: String| MaterializeFault::Entry {
                after: head.applied(),
                detail,
            };
            let raw = raw.map_err(|e| unreadable(e.to_string()))?;
            let at = entry::position(raw).map_err(|e| unreadable(e.to_string()))?;
            if at.ts > until {
                let seen = outlook.see(&slice.payload.slice_ref(raw));
                seen.map_err(|e| unreadable(e.to_string()))?;
            }
        }
    }
    let undecided = Undecided::of(&outlook);
    head.commit_early(&outlook.into_commits())?;
    Ok(undecided)
}

async fn spill(head: &mut Head, blocks: &Arc<dyn Blocks>) -> Result<(), HeadError> {
    if let Some(job) = head.begin_spill() {
        let done = job.run(blocks.clone()).await?;
        head.finish_spill(done);
    }
    Ok(())
}

/// The oplog has the clustered index as it was asked for; `listIndexes` adds what tells it from others.
fn mark_clustered(index: &mut Document) {
    let on_id = index
        .get_document("key")
        .is_ok_and(|key| key.len() == 1 && key.contains_key("_id"));
    if on_id && !index.contains_key("clustered") {
        index.insert("clustered", true);
    }
}

fn described(collection: &headwater_head::Collection) -> Result<CollectionAtT, MaterializeFault> {
    let namespace = collection.namespace().clone();
    let document = |raw: &Bytes| {
        bson::deserialize_from_slice::<Document>(raw).map_err(|e| MaterializeFault::Definition {
            namespace: namespace.clone(),
            detail: e.to_string(),
        })
    };
    let options = document(collection.options())?;
    let mut indexes = collection
        .indexes()
        .iter()
        .map(document)
        .collect::<Result<Vec<_>, _>>()?;
    if options.contains_key("clusteredIndex") {
        indexes.iter_mut().for_each(mark_clustered);
    }
    Ok(CollectionAtT {
        uuid: collection.uuid(),
        options,
        indexes,
        documents: collection.documents(),
        bytes: collection.bytes(),
        namespace: namespace.clone(),
    })
}

impl AtT {
    /// The last entry that is in it.
    pub fn at(&self) -> Optime {
        self.head.applied()
    }

    /// What is not decided at this instant.
    pub fn undecided(&self) -> Option<Undecided> {
        self.undecided
    }

    /// `buildInfo.version` of the source.
    pub fn source_version(&self) -> &str {
        &self.source_version
    }

    /// The head itself, for other ways of reading.
    pub fn head(&self) -> &Head {
        &self.head
    }
}

#[async_trait]
impl Source for AtT {
    fn collections(&self) -> Vec<CollectionAtT> {
        self.collections.clone()
    }

    async fn rows<'a>(&'a self, uuid: CollectionUuid, after: Option<Bytes>) -> Result<Box<dyn Rows + 'a>, SourceFault> {
        let capped = self
            .head
            .collection(uuid)
            .ok_or(SourceFault::Unknown(uuid))?
            .is_capped();
        if capped {
            return Ok(Box::new(CappedRows::new(&self.head, uuid, after)));
        }
        let scan = self.head.scan(uuid, after.clone().map(DocumentKey)).map_err(backup)?;
        Ok(Box::new(KeyedRows::new(scan, after)))
    }
}

#[cfg(test)]
mod tests;
