//! Cursors that give whole raw batches: documents are never decoded.

use std::time::Duration;

use bson::{RawBsonRef, RawDocument, RawDocumentBuf};
use futures::StreamExt;
use mongodb::raw_batch_cursor::{RawBatch, RawBatchCursor};

use super::error::SourceError;
use super::node::Node;

/// A cursor at one server. Dropping it closes it there.
pub struct Batches {
    cursor: RawBatchCursor,
    node: Node,
    timeout: Duration,
}

/// One reply of a cursor.
pub struct Batch {
    reply: RawBatch,
}

impl Batches {
    pub(super) fn new(cursor: RawBatchCursor, node: Node, timeout: Duration) -> Self {
        Batches { cursor, node, timeout }
    }

    /// The next batch, possibly an empty one; `None` when the cursor has come to its end. May be dropped and asked again
    /// without losing anything.
    pub async fn next(&mut self) -> Result<Option<Batch>, SourceError> {
        match tokio::time::timeout(self.timeout, self.cursor.next()).await {
            Ok(None) => Ok(None),
            Ok(Some(Ok(reply))) => Ok(Some(Batch { reply })),
            Ok(Some(Err(error))) => Err(self.node.told(&error)),
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
        let items = self.reply.doc_slices().map_err(SourceError::answer)?;
        Ok(items.into_iter().map(|item| match item {
            Ok(RawBsonRef::Document(document)) => Ok(document),
            Ok(other) => Err(SourceError::answer(format!("a batch holds a {:?}", other.element_type()))),
            Err(e) => Err(SourceError::answer(e)),
        }))
    }

    /// Where a scan in natural order could go on after this batch, when it was asked for.
    pub fn resume_token(&self) -> Option<RawDocumentBuf> {
        let cursor = self.reply.as_raw_document().get_document("cursor").ok()?;
        Some(cursor.get_document("postBatchResumeToken").ok()?.to_owned())
    }
}
