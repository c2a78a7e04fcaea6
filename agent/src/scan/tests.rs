//! What a scan takes for dropped, on a source that shows drops which are then rolled back.

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use bson::Document;
use bytes::Bytes;
use headwater_host::Host;
use headwater_model::{Incarnation, Optime, Ts};

use super::*;
use crate::AgentSettings;
use crate::poll::Status;
use crate::shipping::{Call, Post, Service};
use crate::source::connect::Reply;
use crate::source::{Connect, Replies, Servers, Source, To, uuid};

const C: CollectionUuid = CollectionUuid([7; 16]);

fn at(n: u32, term: i64) -> Optime {
    Optime::new(Ts::new(n, 1), term)
}

/// One server with one collection.
#[derive(Default)]
struct Server {
    oplog: Vec<Optime>,
    is_listed: bool,
    /// Whether reads of the collection answer that it is not there.
    is_gone: bool,
    listings: u32,
    /// After how many listings the newest entry is rolled back and the collection is there again.
    rolls_back_after: Option<u32>,
}

impl Server {
    fn entries(&self, command: &Document) -> Document {
        let from = command
            .get_document("filter")
            .and_then(|filter| filter.get_document("ts")?.get_timestamp("$gte"))
            .map_or(Ts::ZERO, Ts::from);
        let mut found = self.oplog.iter().filter(|entry| entry.ts >= from);
        let backward = command.get_document("sort").unwrap().get_i32("$natural").unwrap() < 0;
        let entry = if backward { found.next_back() } else { found.next() };
        let batch: Vec<Document> = entry
            .map(|entry| doc! { "ts": bson::Timestamp::from(entry.ts), "t": entry.term })
            .into_iter()
            .collect();
        doc! { "cursor": { "firstBatch": batch } }
    }

    fn list(&mut self) -> Vec<Document> {
        self.listings += 1;
        let listed = self.is_listed;
        if self.rolls_back_after == Some(self.listings) {
            self.oplog.pop();
            self.oplog.push(at(100, 2));
            (self.is_listed, self.is_gone) = (true, false);
        }
        let collection = doc! { "name": "c", "type": "collection", "options": {}, "info": { "uuid": uuid(C) } };
        listed.then_some(collection).into_iter().collect()
    }
}

#[derive(Clone, Default)]
struct Model {
    server: Arc<Mutex<Server>>,
    posted: Arc<Mutex<Vec<Call>>>,
}

struct Once(Option<Document>);

#[async_trait]
impl Replies for Once {
    async fn next(&mut self) -> Option<Result<Reply, SourceError>> {
        let reply = RawDocumentBuf::try_from(&self.0.take()?).map_err(SourceError::answer);
        Some(reply.map(Reply::Made))
    }
}

#[async_trait]
impl Connect for Model {
    async fn connect(&self, _uri: &str) -> Result<Arc<dyn Servers>, SourceError> {
        Ok(Arc::new(self.clone()))
    }
}

#[async_trait]
impl Servers for Model {
    fn is_direct(&self) -> bool {
        true
    }

    async fn command(&self, _to: &To, _db: &str, command: Document) -> Result<Document, SourceError> {
        Ok(match command.keys().next().unwrap().as_str() {
            "hello" => doc! { "setName": "rs0", "isWritablePrimary": true },
            "listDatabases" => doc! { "databases": [{ "name": "shop" }] },
            "find" => self.server().entries(&command),
            _ => doc! {},
        })
    }

    async fn cursor(
        &self,
        _to: &To,
        _db: &str,
        command: RawDocumentBuf,
        _wait: Option<Duration>,
    ) -> Result<Box<dyn Replies>, SourceError> {
        let batch = match command.get("listCollections") {
            Ok(Some(_)) => self.server().list(),
            _ if self.server().is_gone => {
                return Err(SourceError::Server {
                    code: 26,
                    name: "NamespaceNotFound".to_owned(),
                    words: "no such collection".to_owned(),
                });
            }
            _ => vec![doc! { "_id": 1 }],
        };
        Ok(Box::new(Once(Some(doc! { "cursor": { "firstBatch": batch } }))))
    }
}

#[async_trait]
impl Post for Model {
    async fn post(&self, call: Call) -> Result<(u16, Bytes), String> {
        self.posted.lock().unwrap().push(call);
        Ok((200, Bytes::from_static(b"{}")))
    }
}

impl Model {
    fn of(server: Server) -> Model {
        let model = Model::default();
        *model.server() = Server {
            oplog: vec![at(1, 1), at(2, 1), at(9, 1)],
            ..server
        };
        model
    }

    fn server(&self) -> MutexGuard<'_, Server> {
        self.server.lock().unwrap()
    }

    /// Goes on with a first copy of which nothing has arrived; what it said at its end, if it came to one.
    async fn scan(&self) -> (Result<(), End>, Option<SyncEnd>) {
        let host = Host::real().unwrap();
        let settings = AgentSettings::new(vec!["http://s".to_owned()], "key", "agent-1");
        let conversation = Arc::new(Conversation {
            service: Service::new(host.clone(), &settings, Arc::new(self.clone())).unwrap(),
            source: Source::connect(self, "mongodb://h", Duration::from_secs(5))
                .await
                .unwrap(),
            set: "shop/rs0".parse().unwrap(),
            incarnation: Incarnation(1),
            server_version: "6.0.5".to_owned(),
            status: Status::default(),
            settings: Arc::new(settings),
            host,
        });
        let begun = SyncBegun {
            collections: vec![C],
            parts: Vec::new(),
            ended: false,
        };
        let outcome = run(&conversation, &begun).await;
        let posted = std::mem::take(&mut *self.posted.lock().unwrap());
        let mut ends = posted.iter().filter(|call| call.url.ends_with("sync/end"));
        let end = ends.next().map(|call| serde_json::from_slice(&call.body).unwrap());
        (outcome, end)
    }
}

#[tokio::test]
async fn a_collection_that_stays_dropped_is_named_with_the_end() {
    let model = Model::of(Server::default());
    let (outcome, end) = model.scan().await;
    assert!(outcome.is_ok(), "{outcome:?}");
    let end = end.unwrap();
    assert_eq!((end.dropped, end.stop), (vec![C], at(9, 1)));
}

#[tokio::test]
async fn a_collection_that_a_rollback_brought_back_is_scanned_before_the_end() {
    let model = Model::of(Server {
        is_listed: true,
        is_gone: true,
        ..Server::default()
    });
    let (outcome, end) = model.scan().await;
    assert!(
        matches!(&outcome, Err(End::Reopen(why)) if why.contains("shop.c")),
        "{outcome:?}"
    );
    assert!(end.is_none(), "the drop was believed");
    model.server().is_gone = false;
    let (outcome, end) = model.scan().await;
    assert!(outcome.is_ok(), "{outcome:?}");
    assert_eq!(end.unwrap().dropped, []);
}

#[tokio::test]
async fn a_drop_that_is_rolled_back_while_it_is_looked_at_is_not_believed() {
    // The second listing is the one at the end.
    for listing in [1, 2] {
        let model = Model::of(Server {
            rolls_back_after: Some(listing),
            ..Server::default()
        });
        let (outcome, end) = model.scan().await;
        assert!(
            matches!(&outcome, Err(End::Reopen(why)) if why.contains("rolled back")),
            "{outcome:?}"
        );
        assert!(end.is_none(), "the drop was believed");
        let (outcome, end) = model.scan().await;
        assert!(outcome.is_ok(), "{outcome:?}");
        assert_eq!(end.unwrap().dropped, []);
    }
}
