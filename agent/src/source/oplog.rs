//! Single positions of the oplog, read with care: `reference/oplog.md` §5.1.

use std::time::Duration;

use bson::{Document, RawDocumentBuf, doc};
use headwater_model::{Optime, Ts};

use super::batch::Batches;
use super::error::SourceError;
use super::node::Node;

/// What a read may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    /// What this server has, whether or not it will stay.
    Local,
    /// What can no longer be rolled back.
    Majority,
}

impl Sight {
    fn concern(self) -> Document {
        doc! { "level": if self == Sight::Local { "local" } else { "majority" } }
    }
}

/// How long [`Node::reach`] waits for the majority.
const REACH_WITHIN: Duration = Duration::from_secs(60);
const REACH_STEP: Duration = Duration::from_millis(20);
/// How long an empty getMore of the tail is held back by the server.
const AWAIT_DATA: Duration = Duration::from_millis(1000);

impl Node {
    async fn one_entry(&self, filter: Document, direction: i32, sight: Sight) -> Result<Option<Optime>, SourceError> {
        let reply = self
            .command(
                "local",
                doc! {
                    "find": "oplog.rs", "filter": filter, "sort": { "$natural": direction }, "limit": 1,
                    "singleBatch": true, "projection": { "ts": 1, "t": 1 }, "readConcern": sight.concern(),
                },
            )
            .await?;
        let batch = reply.get_document("cursor").and_then(|c| c.get_array("firstBatch")).map_err(SourceError::answer)?;
        match batch.first().and_then(|entry| entry.as_document()) {
            None => Ok(None),
            Some(entry) => super::hello::optime(entry)
                .map(Some)
                .ok_or_else(|| SourceError::answer("an oplog entry has no timestamp")),
        }
    }

    /// The newest entry. Seen locally, there may still be holes before it.
    pub async fn newest(&self, sight: Sight) -> Result<Optime, SourceError> {
        self.one_entry(doc! {}, -1, sight).await?.ok_or_else(|| SourceError::answer("the oplog is empty"))
    }

    /// The oldest entry.
    pub async fn oldest(&self) -> Result<Optime, SourceError> {
        self.one_entry(doc! {}, 1, Sight::Majority).await?.ok_or_else(|| SourceError::answer("the oplog is empty"))
    }

    /// The newest majority-committed entry before `ts`.
    pub async fn entry_before(&self, ts: Ts) -> Result<Option<Optime>, SourceError> {
        self.one_entry(doc! { "ts": { "$lt": bson::Timestamp::from(ts) } }, -1, Sight::Majority).await
    }

    /// The oldest majority-committed entry at or after `ts`.
    pub async fn entry_from(&self, ts: Ts) -> Result<Option<Optime>, SourceError> {
        self.one_entry(doc! { "ts": { "$gte": bson::Timestamp::from(ts) } }, 1, Sight::Majority).await
    }

    /// Waits until this server's majority-committed view has come to `ts`; gives its newest entry then. Every later
    /// majority read at this server shows at least that much.
    pub async fn reach(&self, ts: Ts) -> Result<Optime, SourceError> {
        let give_up = tokio::time::Instant::now() + REACH_WITHIN;
        loop {
            let newest = self.newest(Sight::Majority).await?;
            if newest.ts >= ts {
                return Ok(newest);
            }
            if tokio::time::Instant::now() >= give_up {
                return Err(SourceError::Lost(format!(
                    "the majority-committed point at {} stays at {} and does not come to {ts}",
                    self.address(),
                    newest.ts
                )));
            }
            tokio::time::sleep(REACH_STEP).await;
        }
    }

    /// A tailing cursor of majority-committed entries from `ts` on.
    pub async fn tail(&self, ts: Ts) -> Result<Batches, SourceError> {
        let command = doc! {
            "find": "oplog.rs", "filter": { "ts": { "$gte": bson::Timestamp::from(ts) } },
            "tailable": true, "awaitData": true, "readConcern": Sight::Majority.concern(),
        };
        let command = RawDocumentBuf::try_from(&command).map_err(SourceError::answer)?;
        self.batches("local", command, Some(AWAIT_DATA)).await
    }
}
