//! The scan: the first copy of every collection, shipped as sync slices.
//!
//! Collections are read by UUID, several at once, large ones in parts; each part is read, sealed and shipped in steps that run
//! at once with bounded queues in between. The scan is no snapshot: what changes under it comes by the tail. It may be
//! killed at any moment: every slice carries the place where its part goes on.
//!
//! A server shows its catalog as it is, whatever the read concern: a drop may be seen that is rolled back later. So a
//! collection counts as dropped only if a listing that can no longer be rolled back, made at the end, does not have it.

pub mod begin;
pub mod listing;
pub mod node;
pub mod part;
pub mod plan;
pub mod read;
pub mod views;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bson::{RawDocumentBuf, doc, rawdoc};
use futures::{StreamExt, TryStreamExt};
use headwater_model::CollectionUuid;
use headwater_protocol::agent::{SyncBegun, SyncEnd};
use headwater_protocol::slices::PartProgress;

use self::listing::{Found, Listing};
use self::node::ScanNode;
use self::part::{Job, Outcome, Turn};
use self::plan::{Left, Method, Part};
use crate::source::oplog::Sight;
use crate::source::{Node, SourceError};
use crate::stream::{Conversation, End};

/// Documents sampled for each part that is wanted.
const SAMPLE_PER_PART: u32 = 24;

/// Goes on with a first copy until its end was accepted.
pub async fn run(conversation: &Arc<Conversation>, begun: &SyncBegun) -> Result<(), End> {
    let nodes = Arc::new(ScanNode::new(conversation.clone()));
    let node = nodes.get().await?;
    let listing = lasting(conversation, &node).await?;
    let (jobs, mut dropped) = plan(conversation, &node, &listing, begun).await?;
    let shared = conversation.clone();
    let outcomes = futures::stream::iter(jobs)
        .map(move |job| part::run(shared.clone(), nodes.clone(), job))
        .buffer_unordered(conversation.settings.scans_at_once.max(1));
    let outcomes: Vec<(CollectionUuid, Outcome)> = outcomes.try_collect().await?;
    dropped.extend(
        outcomes
            .into_iter()
            .filter(|(_, outcome)| *outcome == Outcome::Dropped)
            .map(|(uuid, _)| uuid),
    );
    let (node, _) = conversation.source.level(conversation.status.floor()).await?;
    require_dropped(conversation, &node, &dropped).await?;
    let stop = node.newest(Sight::Majority).await?;
    let end = SyncEnd {
        incarnation: conversation.incarnation,
        stop,
        dropped: dropped.into_iter().collect(),
    };
    tracing::info!(set = %conversation.set, stop = %end.stop, dropped = end.dropped.len(), "the scan is complete");
    conversation.service.sync_end(&conversation.set, &end).await?;
    Ok(())
}

/// Lists everything, and makes sure that no rollback takes it back.
async fn lasting(conversation: &Conversation, node: &Node) -> Result<Listing, End> {
    let before = node.newest(Sight::Local).await?;
    let listing = listing::list(node, &conversation.server_version).await?;
    begin::stayed(node, before).await?;
    Ok(listing)
}

/// Goes back to what was seen as dropped and is there: named as dropped, it would be kept with what arrived of it.
async fn require_dropped(
    conversation: &Conversation,
    node: &Node,
    dropped: &BTreeSet<CollectionUuid>,
) -> Result<(), End> {
    if dropped.is_empty() {
        return Ok(());
    }
    let listing = lasting(conversation, node).await?;
    match dropped.iter().find_map(|uuid| listing.collections.get(uuid)) {
        None => Ok(()),
        Some(found) => Err(End::Reopen(format!(
            "collection {} was seen as dropped, and a rollback brought it back: it is scanned now",
            found.namespace
        ))),
    }
}

/// What is to be scanned, the largest first; and what is gone.
async fn plan(
    conversation: &Conversation,
    node: &Node,
    listing: &Listing,
    begun: &SyncBegun,
) -> Result<(Vec<Job>, BTreeSet<CollectionUuid>), End> {
    let mut progress: BTreeMap<CollectionUuid, Vec<PartProgress>> = BTreeMap::new();
    for part in &begun.parts {
        progress.entry(part.collection).or_default().push(part.clone());
    }
    let mut sized: Vec<(u64, Vec<Job>)> = Vec::new();
    let mut dropped = BTreeSet::new();
    for uuid in &begun.collections {
        let stored = progress.remove(uuid).unwrap_or_default();
        let left = plan::left(*uuid, &stored)?;
        count_stored(conversation, &stored);
        if left == Left::Parts(Vec::new()) {
            continue;
        }
        let Some(found) = listing.collections.get(uuid) else {
            dropped.insert(*uuid);
            continue;
        };
        let views = (found.namespace.coll == "system.views")
            .then(|| listing.views.get(&found.namespace.db).cloned().unwrap_or_default());
        let size = size(conversation, node, found).await;
        let parts: Vec<(Part, Turn)> = match left {
            Left::Parts(parts) => parts.into_iter().map(|part| (part, Turn::Now)).collect(),
            Left::Everything => {
                let parts = plan::fresh(*uuid, method(conversation, node, found, size).await?);
                let turns = Turn::fresh(parts.len());
                parts.into_iter().zip(turns).collect()
            }
        };
        let job = |(part, turn)| Job {
            part,
            db: found.namespace.db.clone(),
            name: found.namespace.to_string(),
            tokens: !found.is_clustered() || views::major(&conversation.server_version) >= 6,
            views: views.clone(),
            turn,
        };
        sized.push((size, parts.into_iter().map(job).collect()));
    }
    sized.sort_by_key(|(size, _)| std::cmp::Reverse(*size));
    Ok((sized.into_iter().flat_map(|(_, jobs)| jobs).collect(), dropped))
}

fn count_stored(conversation: &Conversation, stored: &[PartProgress]) {
    for part in stored {
        let counted = plan::counted(&part.resume);
        conversation.status.scan(|scan| {
            scan.documents += counted.documents;
            scan.bytes += counted.bytes;
        });
    }
}

/// Bytes of BSON by the collection's statistics, which are also added to the estimates; 0 when there are none.
async fn size(conversation: &Conversation, node: &Node, found: &Found) -> u64 {
    let command = doc! { "collStats": &found.namespace.coll };
    // A rename may have come in between. An estimate is not worth more trouble.
    let stats = node.command(&found.namespace.db, command).await.unwrap_or_default();
    let number = |name: &str| match stats.get(name) {
        Some(bson::Bson::Int32(number)) => (*number).max(0) as u64,
        Some(bson::Bson::Int64(number)) => (*number).max(0) as u64,
        Some(bson::Bson::Double(number)) => *number as u64,
        _ => 0,
    };
    conversation.status.scan(|scan| {
        scan.documents_estimated += number("count");
        scan.bytes_estimated += number("size");
    });
    number("size")
}

async fn method(conversation: &Conversation, node: &Node, found: &Found, size: u64) -> Result<Method, End> {
    let settings = &conversation.settings;
    let parts = plan::parts_wanted(size, settings.split_over_bytes, settings.split_max_parts);
    if parts == 1 || !found.may_split() {
        return Ok(Method::Natural);
    }
    let bounds = plan::boundaries(&sample(node, found, parts * SAMPLE_PER_PART).await?, parts);
    Ok(if bounds.is_empty() {
        Method::Natural
    } else {
        Method::Ranges(bounds)
    })
}

/// Random `{_id: …}` documents in the order of the index; none if the collection was renamed or dropped meanwhile.
async fn sample(node: &Node, found: &Found, size: u32) -> Result<Vec<RawDocumentBuf>, SourceError> {
    let command = rawdoc! {
        "aggregate": found.namespace.coll.as_str(),
        "pipeline": [{ "$sample": { "size": i64::from(size) } }, { "$project": { "_id": 1 } }, { "$sort": { "_id": 1 } }],
        "cursor": { "batchSize": 10_000 },
        "readConcern": { "level": "majority" },
    };
    let mut ids = Vec::new();
    let mut batches = node.batches(&found.namespace.db, command, None).await?;
    while let Some(batch) = batches.next().await? {
        for id in batch.documents()? {
            ids.push(id?.to_owned());
        }
    }
    Ok(ids)
}

#[cfg(test)]
mod tests;
