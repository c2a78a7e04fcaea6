//! The poll: reports how the stream fares and answers requests for single documents.

use std::convert::Infallible;
use std::sync::{Mutex, PoisonError};

use bson::{RawArrayBuf, RawDocument, RawDocumentBuf, doc, rawdoc};
use headwater_model::{Optime, Ts, limits};
use headwater_protocol::agent::{BalancerWord, FetchRequest, NoteOrder, Noted, PollRequest, ScanProgress, StreamFault};
use headwater_protocol::frame::{self, FrameKind};
use headwater_protocol::slices::DocumentsHeader;
use tokio::time::Instant;

use crate::balancer;
use crate::scan::{begin, listing};
use crate::slicer::{Cut, Slicer};
use crate::source::oplog::Sight;
use crate::source::{Node, SourceError};
use crate::stream::{Conversation, End};

/// What the poll reports; written by the tail and the scan.
#[derive(Debug, Default)]
pub struct Status(Mutex<Told>);

#[derive(Clone, Debug, Default)]
struct Told {
    source_last: Option<Optime>,
    scan: Option<ScanProgress>,
    fault: Option<StreamFault>,
    noted: Option<Noted>,
    balancer: Option<BalancerWord>,
}

impl Status {
    fn change<T>(&self, with: impl FnOnce(&mut Told) -> T) -> T {
        with(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The source has come to this position.
    pub fn source_at(&self, at: Optime) {
        self.change(|told| told.source_last = told.source_last.max(Some(at)));
    }

    /// A trouble that the stream tries to get over by itself; `None` when it did.
    pub fn trouble(&self, fault: Option<StreamFault>) {
        self.change(|told| told.fault = fault);
    }

    /// Changes the progress of the scan.
    pub fn scan(&self, with: impl FnOnce(&mut ScanProgress)) {
        self.change(|told| with(told.scan.get_or_insert_default()));
    }

    /// The newest position the source is known to have committed by majority.
    pub fn floor(&self) -> Ts {
        self.change(|told| told.source_last.map_or(Ts::ZERO, |last| last.ts))
    }

    fn told(&self) -> Told {
        self.change(|told| told.clone())
    }
}

/// Polls until the service wants the stream opened again.
pub async fn run(conversation: &Conversation) -> Result<Infallible, End> {
    loop {
        // The source may be silent for a while without the stream being at its end: the tail decides that.
        if let Ok((_, hello)) = conversation.source.reader().await
            && let Some(at) = hello.majority
        {
            conversation.status.source_at(at);
        }
        let told = conversation.status.told();
        let request = PollRequest {
            agent: conversation.settings.agent_id.clone(),
            incarnation: conversation.incarnation,
            source_last: told.source_last,
            scan: told.scan,
            fault: told.fault,
            noted: told.noted,
            balancer: told.balancer,
        };
        let asked = Instant::now();
        let reply = conversation.service.poll(&conversation.set, &request).await?;
        if reply.reopen {
            return Err(End::Reopen("the service asks for it".to_owned()));
        }
        for request in reply.fetch {
            answer(conversation, request).await?;
        }
        if let Some(order) = reply.balancer
            && asked.elapsed() < balancer::ORDER_HOLDS
            && let Some(word) = balancer::carry_out(&conversation.source, &order).await
        {
            conversation.status.change(|told| told.balancer = Some(word));
            // A checkpoint waits for it.
            continue;
        }
        if let Some(order) = reply.note
            && let Some(noted) = note(conversation, &order).await
        {
            let is_late_enough = noted.at >= order.at_least;
            conversation.status.change(|told| told.noted = Some(noted));
            if is_late_enough {
                // Heads stand still until it is told.
                continue;
            }
        }
        tokio::time::sleep(conversation.settings.poll_every).await;
    }
}

/// How long a majority may take to commit a note before it is asked for again.
const NOTE_WITHIN_MS: i32 = 5_000;

/// Writes a note for a checkpoint, unless the one that was written for it lies late enough. `None`: nothing new to tell.
async fn note(conversation: &Conversation, order: &NoteOrder) -> Option<Noted> {
    let known = conversation.status.told().noted;
    let is_done = |noted: Noted| {
        let same = noted.checkpoint == order.checkpoint && noted.attempt == order.attempt;
        same && noted.at >= order.at_least
    };
    if known.is_some_and(is_done) {
        return None;
    }
    let command = doc! {
        "appendOplogNote": 1, "data": { "headwater": order.checkpoint.as_str() },
        "writeConcern": { "w": "majority", "wtimeout": NOTE_WITHIN_MS },
    };
    let reply = match conversation.source.primary().await {
        Ok((primary, _)) => primary.command("admin", command).await,
        Err(error) => Err(error),
    };
    let at = match &reply {
        // Not committed by a majority: it may be rolled back.
        Ok(reply) if reply.contains_key("writeConcernError") => None,
        Ok(reply) => reply.get_timestamp("operationTime").ok(),
        Err(_) => None,
    };
    match at {
        Some(at) => Some(Noted {
            checkpoint: order.checkpoint.clone(),
            attempt: order.attempt,
            at: Ts::from(at),
        }),
        None => {
            tracing::warn!(set = %conversation.set, ?reply, "a note for a checkpoint was not written; it is tried again");
            None
        }
    }
}

/// Reads the documents of one request and ships them, in as many frames as they need.
async fn answer(conversation: &Conversation, request: FetchRequest) -> Result<(), End> {
    // The head may be ahead of a lagging server: what that one does not have yet must not pass for missing.
    let (node, _) = conversation.source.level(conversation.status.floor()).await?;
    let before = node.newest(Sight::Local).await?;
    let rest = match listing::database_of(&node, request.collection).await? {
        Some(db) => match ship_all_but_the_last(conversation, &node, &db, &request).await {
            Ok(rest) => rest,
            Err(Stop::Gone) => None,
            Err(Stop::End(end)) => return Err(end),
        },
        None => None,
    };
    if rest.is_none() {
        // A drop is seen before a majority has it, and may be taken back.
        begin::stayed(&node, before).await?;
        tracing::info!(collection = %request.collection, "asked for documents that are gone");
    }
    ship(conversation, &node, &request, rest.unwrap_or_default(), false).await
}

/// Why the documents of a request could not be read.
enum Stop {
    /// Their collection was dropped.
    Gone,
    /// The request must be tried again.
    End(End),
}

impl From<SourceError> for Stop {
    fn from(error: SourceError) -> Self {
        // A rename kills the cursor too, but the documents are still there: that is tried again.
        if error.is_dropped() {
            Stop::Gone
        } else {
            Stop::End(error.into())
        }
    }
}

/// Ships full frames as they fill and gives what is left for the last one.
async fn ship_all_but_the_last(
    conversation: &Conversation,
    node: &Node,
    db: &str,
    request: &FetchRequest,
) -> Result<Option<Cut>, Stop> {
    let malformed = |why| Stop::End(End::Reopen(format!("a fetch request is malformed: {why}")));
    let mut batches = node.batches(db, find(request).map_err(malformed)?, None).await?;
    let mut slicer = Slicer::new(conversation.settings.slice_bytes, limits::SYNC_SLICE_MAX_BYTES);
    while let Some(batch) = batches.next().await? {
        for document in batch.documents()? {
            let document = document?.as_bytes();
            for full in slicer.make_room(document.len()).into_iter().chain(slicer.add(document)) {
                ship(conversation, node, request, full, true).await.map_err(Stop::End)?;
            }
        }
    }
    Ok(slicer.close())
}

async fn ship(
    conversation: &Conversation,
    node: &Node,
    request: &FetchRequest,
    cut: Cut,
    more: bool,
) -> Result<(), End> {
    let header = DocumentsHeader {
        replica_set: conversation.set.clone(),
        incarnation: conversation.incarnation,
        request: request.request,
        collection: request.collection,
        observed: node.newest(Sight::Majority).await?,
        count: cut.count,
        more,
    };
    let frame = conversation
        .host
        .blocking(move || frame::seal(FrameKind::Documents, &header, &cut.payload))
        .await;
    let frame = frame.map_err(|e| End::Reopen(format!("documents cannot be framed: {e}")))?;
    conversation.service.documents(&conversation.set, frame).await?;
    Ok(())
}

/// The command that reads the documents asked for.
fn find(request: &FetchRequest) -> Result<RawDocumentBuf, String> {
    Ok(rawdoc! {
        "find": crate::source::uuid(request.collection),
        "filter": { "_id": { "$in": ids(request)? } },
        // Ids are compared as the head compares them, whatever collation the collection has.
        "collation": { "locale": "simple" },
        "readConcern": { "level": "majority" },
    })
}

/// The `_id` values asked for, as they stand in the hexadecimal documents.
fn ids(request: &FetchRequest) -> Result<RawArrayBuf, String> {
    let mut ids = RawArrayBuf::new();
    for text in &request.ids {
        let bytes = hex::decode(text).map_err(|e| e.to_string())?;
        let document = RawDocument::from_bytes(&bytes).map_err(|e| e.to_string())?;
        let id = document
            .get("_id")
            .map_err(|e| e.to_string())?
            .ok_or("an id has no field _id")?;
        ids.push(id);
    }
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::doc;
    use headwater_model::CollectionUuid;

    #[test]
    fn ids_are_taken_byte_by_byte_from_the_request() {
        let hex = |document: bson::Document| hex::encode(bson::serialize_to_vec(&document).unwrap());
        let request = FetchRequest {
            request: 1,
            collection: CollectionUuid([0; 16]),
            ids: vec![hex(doc! { "_id": 5_i64 }), hex(doc! { "_id": { "a": "x" } })],
        };
        let ids = ids(&request).unwrap();
        let back: Vec<bson::Bson> = ids
            .into_iter()
            .map(|id| bson::Bson::try_from(id.unwrap()).unwrap())
            .collect();
        assert_eq!(back, [bson::Bson::Int64(5), bson::Bson::Document(doc! { "a": "x" })]);
    }
}
