//! The official driver. `mongodb` types are named in this file and in [`super::error`] only.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bson::{Document, RawDocumentBuf};
use futures::StreamExt;
use mongodb::Client;
use mongodb::options::{ClientOptions, ReadPreference, RunCommandOptions, RunCursorCommandOptions, SelectionCriteria};
use mongodb::raw_batch_cursor::RawBatchCursor;

use super::connect::{self, Connect, Replies, Servers, To};
use super::error::SourceError;
use super::redact::Redactor;

/// A reply as the driver gives it.
pub type Reply = mongodb::raw_batch_cursor::RawBatch;

const SELECT_WITHIN: Duration = Duration::from_secs(10);
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
const CONNECTIONS: u32 = 64;

/// Connects by the driver.
#[derive(Clone, Copy, Debug, Default)]
pub struct Driver;

struct Deployment {
    client: Client,
    direct: bool,
    redactor: Arc<Redactor>,
}

struct Cursor {
    cursor: RawBatchCursor,
    redactor: Arc<Redactor>,
}

#[async_trait]
impl Connect for Driver {
    async fn connect(&self, uri: &str) -> Result<Arc<dyn Servers>, SourceError> {
        let redactor = Arc::new(Redactor::of_uri(uri));
        let told = |e: mongodb::error::Error| SourceError::of_driver(&e, &redactor);
        let mut options = ClientOptions::parse(uri).await.map_err(told)?;
        options.app_name = Some("headwater-agent".to_owned());
        options.server_selection_timeout = Some(SELECT_WITHIN);
        options.connect_timeout = Some(CONNECT_WITHIN);
        options.max_pool_size = Some(CONNECTIONS);
        let direct = options.direct_connection == Some(true);
        let client = Client::with_options(options).map_err(told)?;
        Ok(Arc::new(Deployment {
            client,
            direct,
            redactor,
        }))
    }
}

fn criteria(to: &To) -> Option<SelectionCriteria> {
    match to {
        To::Secondary => Some(SelectionCriteria::ReadPreference(ReadPreference::SecondaryPreferred {
            options: None,
        })),
        To::Primary => Some(SelectionCriteria::ReadPreference(ReadPreference::Primary)),
        To::Member(wanted) => {
            let wanted = wanted.clone();
            Some(SelectionCriteria::Predicate(Arc::new(move |server| {
                server.address().to_string().to_lowercase() == wanted
            })))
        }
        To::Only => None,
    }
}

#[async_trait]
impl Servers for Deployment {
    fn is_direct(&self) -> bool {
        self.direct
    }

    async fn command(&self, to: &To, db: &str, command: Document) -> Result<Document, SourceError> {
        let options = RunCommandOptions::builder().selection_criteria(criteria(to)).build();
        let db = self.client.database(db);
        let running = db.run_command(command).with_options(options);
        running.await.map_err(|e| SourceError::of_driver(&e, &self.redactor))
    }

    async fn cursor(
        &self,
        to: &To,
        db: &str,
        command: RawDocumentBuf,
        wait: Option<Duration>,
    ) -> Result<Box<dyn Replies>, SourceError> {
        let options = RunCursorCommandOptions::builder()
            .selection_criteria(criteria(to))
            .max_time(wait)
            .build();
        let db = self.client.database(db);
        let running = db.run_raw_cursor_command(command).with_options(options).batch();
        let cursor = running.await.map_err(|e| SourceError::of_driver(&e, &self.redactor))?;
        Ok(Box::new(Cursor {
            cursor,
            redactor: self.redactor.clone(),
        }))
    }
}

#[async_trait]
impl Replies for Cursor {
    async fn next(&mut self) -> Option<Result<connect::Reply, SourceError>> {
        let reply = self.cursor.next().await?;
        Some(match reply {
            Ok(reply) => Ok(connect::Reply::Driver(reply)),
            Err(error) => Err(SourceError::of_driver(&error, &self.redactor)),
        })
    }
}
