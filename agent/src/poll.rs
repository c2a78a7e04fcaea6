//! The poll: reports how the stream fares and answers requests for single documents.

use std::convert::Infallible;
use std::sync::{Mutex, PoisonError};

use bson::{RawArrayBuf, RawDocument, RawDocumentBuf, rawdoc};
use headwater_model::{CollectionUuid, Optime, Ts, limits};
use headwater_protocol::agent::{FetchRequest, PollRequest, ScanProgress, StreamFault};
use headwater_protocol::frame::{self, FrameKind};
use headwater_protocol::slices::DocumentsHeader;

use crate::scan::listing;
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
        };
        let reply = conversation.service.poll(&conversation.set, &request).await?;
        if reply.reopen {
            return Err(End::Reopen("the service asks for it".to_owned()));
        }
        for request in reply.fetch {
            answer(conversation, request).await?;
        }
        tokio::time::sleep(conversation.settings.poll_every).await;
    }
}

/// Reads the documents of one request and ships them.
async fn answer(conversation: &Conversation, request: FetchRequest) -> Result<(), End> {
    // The head may be ahead of a lagging server: what that one does not have yet must not pass for missing.
    let (node, _) = conversation.source.level(conversation.status.floor()).await?;
    let mut payload = Vec::new();
    let mut count = 0;
    match listing::database_of(&node, request.collection).await? {
        Some(db) => {
            let ids = ids(&request).map_err(|why| End::Reopen(format!("a fetch request is malformed: {why}")))?;
            match read(&node, &db, request.collection, ids).await {
                Ok(found) => (payload, count) = found,
                Err(error) if error.is_dropped() || error.is_plan_killed() => {
                    tracing::info!(collection = %request.collection, "asked for documents of a collection that goes: {error}");
                }
                Err(error) => return Err(error.into()),
            }
        }
        None => tracing::info!(collection = %request.collection, "asked for documents of a collection that is gone"),
    }
    let header = DocumentsHeader {
        replica_set: conversation.set.clone(),
        incarnation: conversation.incarnation,
        request: request.request,
        collection: request.collection,
        observed: node.newest(Sight::Majority).await?,
        count,
    };
    let frame = conversation.host.blocking(move || frame::seal(FrameKind::Documents, &header, &payload)).await;
    let frame = frame.map_err(|e| End::Reopen(format!("documents cannot be framed: {e}")))?;
    conversation.service.documents(&conversation.set, frame).await?;
    Ok(())
}

/// The `_id` values asked for, as they stand in the hexadecimal documents.
fn ids(request: &FetchRequest) -> Result<RawArrayBuf, String> {
    let mut ids = RawArrayBuf::new();
    for text in &request.ids {
        let bytes = hex::decode(text).map_err(|e| e.to_string())?;
        let document = RawDocument::from_bytes(&bytes).map_err(|e| e.to_string())?;
        let id = document.get("_id").map_err(|e| e.to_string())?.ok_or("an id has no field _id")?;
        ids.push(id);
    }
    Ok(ids)
}

async fn read(
    node: &Node,
    db: &str,
    collection: CollectionUuid,
    ids: RawArrayBuf,
) -> Result<(Vec<u8>, u32), SourceError> {
    let command: RawDocumentBuf = rawdoc! {
        "find": crate::source::uuid(collection),
        "filter": { "_id": { "$in": ids } },
        // Ids are compared as the head compares them, whatever collation the collection has.
        "collation": { "locale": "simple" },
        "readConcern": { "level": "majority" },
    };
    let mut batches = node.batches(db, command, None).await?;
    let (mut payload, mut count) = (Vec::new(), 0);
    while let Some(batch) = batches.next().await? {
        for document in batch.documents()? {
            payload.extend_from_slice(document?.as_bytes());
            count += 1;
        }
        if payload.len() > limits::FRAME_MAX_RAW_BYTES {
            return Err(SourceError::Answer(format!(
                "the {count} documents asked for do not fit one frame; the service must ask for fewer at once"
            )));
        }
    }
    Ok((payload, count))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::doc;

    #[test]
    fn ids_are_taken_byte_by_byte_from_the_request() {
        let hex = |document: bson::Document| hex::encode(bson::serialize_to_vec(&document).unwrap());
        let request = FetchRequest {
            request: 1,
            collection: CollectionUuid([0; 16]),
            ids: vec![hex(doc! { "_id": 5_i64 }), hex(doc! { "_id": { "a": "x" } })],
        };
        let ids = ids(&request).unwrap();
        let back: Vec<bson::Bson> =
            ids.into_iter().map(|id| bson::Bson::try_from(id.unwrap().to_raw_bson()).unwrap()).collect();
        assert_eq!(back, [bson::Bson::Int64(5), bson::Bson::Document(doc! { "a": "x" })]);
    }
}
