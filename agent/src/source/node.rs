//! One server of the source, and commands to it.

use std::sync::Arc;
use std::time::Duration;

use bson::{Document, RawDocumentBuf, doc};

use super::batch::Batches;
use super::connect::{Servers, To};
use super::error::SourceError;
use super::hello::Hello;

/// One server. Cheap to clone.
#[derive(Clone)]
pub struct Node {
    servers: Arc<dyn Servers>,
    to: To,
    address: Arc<str>,
    timeout: Duration,
}

impl Node {
    pub(super) fn new(servers: Arc<dyn Servers>, to: To, address: &str, timeout: Duration) -> Self {
        Node {
            servers,
            to,
            address: address.into(),
            timeout,
        }
    }

    /// `host:port`, for people.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Runs a command whose reply is small.
    pub async fn command(&self, db: &str, command: Document) -> Result<Document, SourceError> {
        let running = self.servers.command(&self.to, db, command);
        match tokio::time::timeout(self.timeout, running).await {
            Ok(result) => result,
            Err(_) => Err(self.silent()),
        }
    }

    /// Runs a command that answers with a cursor. `wait` is how long the server may hold back an empty batch of an
    /// awaitData cursor.
    pub async fn batches(
        &self,
        db: &str,
        command: RawDocumentBuf,
        wait: Option<Duration>,
    ) -> Result<Batches, SourceError> {
        let running = self.servers.cursor(&self.to, db, command, wait);
        match tokio::time::timeout(self.timeout, running).await {
            Ok(Ok(replies)) => Ok(Batches::new(replies, self.clone(), self.timeout)),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(self.silent()),
        }
    }

    fn silent(&self) -> SourceError {
        SourceError::Lost(format!(
            "{} did not answer within {} s",
            self.address,
            self.timeout.as_secs()
        ))
    }

    /// What the server says about itself.
    pub async fn hello(&self) -> Result<Hello, SourceError> {
        Ok(Hello::of(&self.command("admin", doc! { "hello": 1 }).await?))
    }

    /// `buildInfo.version`.
    pub async fn version(&self) -> Result<String, SourceError> {
        let reply = self.command("admin", doc! { "buildInfo": 1 }).await?;
        reply.get_str("version").map(str::to_owned).map_err(SourceError::answer)
    }
}
