//! The beginning of a first copy, in mongod's own order: `reference/oplog.md` §4.1, steps 2 to 6.
//!
//! What breaks if the order is changed: the open transactions must be read before `begin_applying` is taken, or a transaction
//! that commits in between is neither in the scan nor complete in the tail; everything listed must be read after the
//! server's majority-committed view has come to `begin_applying`, or the scan misses what lies before it.

use std::convert::Infallible;

use bson::{Bson, doc};
use headwater_model::{Optime, Ts};
use headwater_protocol::agent::{CollectionMeta, StreamFault, SyncBeginHeader};
use headwater_protocol::frame::{self, FrameKind};

use super::listing;
use crate::source::hello::optime;
use crate::source::oplog::Sight;
use crate::source::{Node, SourceError};
use crate::stream::{Conversation, End};

/// A read that waits for a cluster time may wait on a prepared document; it is given up after this.
const BARRIER_MS: i64 = 10_000;

/// The feature compatibility version.
pub struct Compatibility {
    /// The version in force.
    pub version: String,
    /// Whether it is being changed just now.
    pub changing: bool,
}

/// Reads the feature compatibility version, with everything up to `after` visible.
pub async fn compatibility(node: &Node, after: Option<Ts>) -> Result<Compatibility, SourceError> {
    let find = |after: Option<Ts>| {
        let mut concern = doc! { "level": "majority" };
        if let Some(ts) = after {
            concern.insert("afterClusterTime", bson::Timestamp::from(ts));
        }
        doc! {
            "find": "system.version", "filter": { "_id": "featureCompatibilityVersion" }, "limit": 1,
            "singleBatch": true, "readConcern": concern, "maxTimeMS": BARRIER_MS,
        }
    };
    let reply = match node.command("admin", find(after)).await {
        Err(error) if error.is_time_limit() && after.is_some() => node.command("admin", find(None)).await?,
        other => other?,
    };
    let batch = reply
        .get_document("cursor")
        .and_then(|c| c.get_array("firstBatch"))
        .map_err(SourceError::answer)?;
    let document = batch.first().and_then(Bson::as_document);
    let document = document.ok_or_else(|| SourceError::answer("there is no featureCompatibilityVersion"))?;
    let version = document.get_str("version").map_err(SourceError::answer)?.to_owned();
    Ok(Compatibility {
        version,
        changing: document.contains_key("targetVersion"),
    })
}

/// Where the oldest undecided transaction begins that has left entries in the oplog already.
async fn oldest_open_transaction(node: &Node, after: Ts) -> Result<Option<Optime>, SourceError> {
    let reply = node
        .command(
            "config",
            doc! {
                "find": "transactions", "filter": { "state": { "$in": ["prepared", "inProgress"] } },
                "sort": { "startOpTime": 1 }, "limit": 1, "singleBatch": true, "maxTimeMS": BARRIER_MS,
                "readConcern": { "level": "local", "afterClusterTime": bson::Timestamp::from(after) },
            },
        )
        .await?;
    let batch = reply
        .get_document("cursor")
        .and_then(|c| c.get_array("firstBatch"))
        .map_err(SourceError::answer)?;
    Ok(batch
        .first()
        .and_then(Bson::as_document)
        .and_then(|row| row.get_document("startOpTime").ok())
        .and_then(optime))
}

/// Makes the beginning and sends it; on success the stream is to be opened again, which brings the tail's order.
pub async fn begin(conversation: &Conversation) -> Result<Infallible, End> {
    let (node, _) = conversation.source.reader().await?;
    let newest = node.newest(Sight::Local).await?;
    let open = oldest_open_transaction(&node, newest.ts).await?;
    let begin_fetching = open.unwrap_or(newest);
    let seen = node.newest(Sight::Local).await?;
    let begin_applying = node.reach(seen.ts).await?;
    let fcv = compatibility(&node, Some(begin_applying.ts)).await?;
    if fcv.changing {
        return Err(End::Fault(StreamFault::Refused {
            detail: "the source's feature compatibility version is being changed".to_owned(),
            cure: "wait until setFeatureCompatibilityVersion has finished, or run it again to finish it".to_owned(),
        }));
    }
    let listing = listing::list(&node, &conversation.server_version).await?;
    let mut payload = Vec::new();
    let mut count = 0;
    for found in listing.collections.values() {
        let Some(indexes) = listing::indexes(&node, found).await? else {
            continue;
        };
        let meta = CollectionMeta {
            db: found.namespace.db.clone(),
            name: found.namespace.coll.clone(),
            uuid: found.uuid,
            options: found.options.clone(),
            indexes,
        };
        payload.extend(bson::serialize_to_vec(&meta).map_err(SourceError::answer)?);
        count += 1;
    }
    stayed(&node, newest).await?;
    let tail_after = match node.entry_before(begin_fetching.ts).await? {
        Some(entry) => entry,
        // The very first entry of an oplog; nobody needs what it says.
        None if open.is_none() => begin_fetching,
        None => {
            return Err(End::Reopen(
                "the oplog before an open transaction is truncated; waiting for its end".into(),
            ));
        }
    };
    let header = SyncBeginHeader {
        replica_set: conversation.set.clone(),
        incarnation: conversation.incarnation,
        server_version: conversation.server_version.clone(),
        fcv: fcv.version,
        tail_after,
        begin_applying,
    };
    let frame = conversation
        .host
        .blocking(move || frame::seal(FrameKind::SyncBegin, &header, &payload))
        .await;
    let frame = frame.map_err(|e| {
        End::Fault(StreamFault::Refused {
            detail: format!("what describes the {count} collections and their indexes is too much to begin with: {e}"),
            cure: "drop collections and indexes that are not needed".to_owned(),
        })
    })?;
    conversation.service.sync_begin(&conversation.set, frame).await?;
    Err(End::Reopen(format!(
        "a first copy of {count} collections was begun, tailing after {tail_after}"
    )))
}

/// What was read locally holds only if no rollback took it back: `early` and the newest entry now must come to be
/// majority-committed as they are.
pub async fn stayed(node: &Node, early: Optime) -> Result<(), End> {
    let late = node.newest(Sight::Local).await?;
    node.reach(late.ts).await?;
    for seen in [early, late] {
        if node.entry_from(seen.ts).await? != Some(seen) {
            return Err(End::Reopen(format!(
                "{} rolled back {seen} during the listing",
                node.address()
            )));
        }
    }
    Ok(())
}
