//! One server of the source, and commands to it.

use std::sync::Arc;
use std::time::Duration;

use bson::{Document, RawDocumentBuf, doc};
use mongodb::Client;
use mongodb::options::{RunCommandOptions, RunCursorCommandOptions, SelectionCriteria};

use super::batch::Batches;
use super::error::SourceError;
use super::hello::Hello;
use super::redact::Redactor;

/// One server. Cheap to clone.
#[derive(Clone)]
pub struct Node {
    client: Client,
    criteria: Option<SelectionCriteria>,
    address: Arc<str>,
    redactor: Arc<Redactor>,
    timeout: Duration,
}

impl Node {
    pub(super) fn new(
        client: Client,
        criteria: Option<SelectionCriteria>,
        address: &str,
        redactor: Arc<Redactor>,
        timeout: Duration,
    ) -> Self {
        Node { client, criteria, address: address.into(), redactor, timeout }
    }

    /// `host:port`, for people.
    pub fn address(&self) -> &str {
        &self.address
    }

    pub(super) fn told(&self, error: &mongodb::error::Error) -> SourceError {
        SourceError::of_driver(error, &self.redactor)
    }

    /// Runs a command whose reply is small.
    pub async fn command(&self, db: &str, command: Document) -> Result<Document, SourceError> {
        let mut options = RunCommandOptions::default();
        options.selection_criteria = self.criteria.clone();
        let db = self.client.database(db);
        let running = db.run_command(command).with_options(options);
        match tokio::time::timeout(self.timeout, running).await {
            Ok(result) => result.map_err(|e| self.told(&e)),
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
        let mut options = RunCursorCommandOptions::default();
        options.selection_criteria = self.criteria.clone();
        options.max_time = wait;
        let db = self.client.database(db);
        let running = db.run_raw_cursor_command(command).with_options(options).batch();
        match tokio::time::timeout(self.timeout, running).await {
            Ok(Ok(cursor)) => Ok(Batches::new(cursor, self.clone(), self.timeout)),
            Ok(Err(error)) => Err(self.told(&error)),
            Err(_) => Err(self.silent()),
        }
    }

    fn silent(&self) -> SourceError {
        SourceError::Lost(format!("{} did not answer within {} s", self.address, self.timeout.as_secs()))
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
