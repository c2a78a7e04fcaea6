//! How a source is reached. The real way is [`super::driver`]; a simulation puts a model of a replica set here.

use std::time::Duration;

use async_trait::async_trait;
use bson::{Document, RawDocument, RawDocumentBuf};
use std::sync::Arc;

use super::error::SourceError;

/// Which server a command is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum To {
    /// A secondary if there is one.
    Secondary,
    /// The primary.
    Primary,
    /// The member with this address, in lower case.
    Member(String),
    /// The only server of a direct connection.
    Only,
}

/// Opens deployments.
#[async_trait]
pub trait Connect: Send + Sync {
    /// Reads a connection string; connections are made when first needed.
    async fn connect(&self, uri: &str) -> Result<Arc<dyn Servers>, SourceError>;
}

/// The servers of one deployment. Whoever calls limits the time.
#[async_trait]
pub trait Servers: Send + Sync {
    /// Whether the connection string asks for one server only.
    fn is_direct(&self) -> bool;

    /// Runs a command whose reply is small.
    async fn command(&self, to: &To, db: &str, command: Document) -> Result<Document, SourceError>;

    /// Runs a command that answers with a cursor; `wait` is how long an awaitData cursor may hold back an empty batch.
    async fn cursor(
        &self,
        to: &To,
        db: &str,
        command: RawDocumentBuf,
        wait: Option<Duration>,
    ) -> Result<Box<dyn Replies>, SourceError>;
}

/// A cursor. Dropping it closes it at its server.
#[async_trait]
pub trait Replies: Send {
    /// The next reply, with a possibly empty batch; `None` at the end. May be dropped and asked again without losing anything.
    async fn next(&mut self) -> Option<Result<Reply, SourceError>>;
}

/// One reply of a cursor: `{cursor: {firstBatch or nextBatch, …}}`.
pub enum Reply {
    /// The driver's own, as it came from the wire.
    Driver(super::driver::Reply),
    /// Made in this process.
    Made(RawDocumentBuf),
}

impl Reply {
    /// The whole reply.
    pub fn document(&self) -> &RawDocument {
        match self {
            Reply::Driver(reply) => reply.as_raw_document(),
            Reply::Made(reply) => reply,
        }
    }
}
