//! Cursors that give whole raw batches: documents are never decoded.

use std::time::Duration;

use bson::{RawArray, RawBsonRef, RawDocument, RawDocumentBuf};

use super::connect::{Replies, Reply};
use super::error::SourceError;
use super::node::Node;

/// A cursor at one server. Dropping it closes it there.
pub struct Batches {
    replies: Box<dyn Replies>,
    node: Node,
    timeout: Duration,
}

/// One reply of a cursor.
pub struct Batch {
    reply: Reply,
}

impl Batches {
    pub(super) fn new(replies: Box<dyn Replies>, node: Node, timeout: Duration) -> Self {
        Batches { replies, node, timeout }
    }

    /// The next batch, possibly an empty one; `None` when the cursor has come to its end. May be dropped and asked again
    /// without losing anything.
    pub async fn next(&mut self) -> Result<Option<Batch>, SourceError> {
        match tokio::time::timeout(self.timeout, self.replies.next()).await {
            Ok(None) => Ok(None),
            Ok(Some(Ok(reply))) => Ok(Some(Batch { reply })),
            Ok(Some(Err(error))) => Err(error),
            Err(_) => Err(SourceError::Lost(format!(
                "{} did not answer within {} s",
                self.node.address(),
                self.timeout.as_secs()
            ))),
        }
    }
}

impl Batch {
    /// The documents, in order.
    pub fn documents(&self) -> Result<impl Iterator<Item = Result<&RawDocument, SourceError>>, SourceError> {
        let items = self.slices()?;
        Ok(items.into_iter().map(|item| match item {
            Ok(RawBsonRef::Document(document)) => Ok(document),
            Ok(other) => Err(SourceError::answer(format!(
                "a batch holds a {:?}",
                other.element_type()
            ))),
            Err(e) => Err(SourceError::answer(e)),
        }))
    }

    fn slices(&self) -> Result<&RawArray, SourceError> {
        let cursor = self
            .reply
            .document()
            .get_document("cursor")
            .map_err(SourceError::answer)?;
        let batch = cursor
            .get_array("firstBatch")
            .or_else(|_| cursor.get_array("nextBatch"));
        batch.map_err(SourceError::answer)
    }

    /// Where a scan in natural order could go on after this batch, when it was asked for.
    pub fn resume_token(&self) -> Option<RawDocumentBuf> {
        let cursor = self.reply.document().get_document("cursor").ok()?;
        Some(cursor.get_document("postBatchResumeToken").ok()?.to_owned())
    }
}
