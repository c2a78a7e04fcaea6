//! A real mongod of one member for a test, and reading a database back from it.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bson::{Bson, Document, RawDocumentBuf, doc};
use bytes::Bytes;
use futures::TryStreamExt;
use headwater_model::{CollectionUuid, Namespace};
use headwater_restore::source::{CollectionAtT, Held};
use mongodb::Client;

pub struct Mongod {
    child: Child,
    _folder: tempfile::TempDir,
    pub uri: String,
    pub host: String,
    pub client: Client,
}

fn program() -> PathBuf {
    let cache = std::env::var_os("HEADWATER_CACHE").map(PathBuf::from);
    let home = || PathBuf::from(std::env::var_os("HOME").expect("HOME is set")).join(".cache/headwater");
    let program = cache.unwrap_or_else(home).join("mongod/6.0.5/bin/mongod");
    assert!(
        program.exists(),
        "{} is missing; run: cargo xtask mongod install",
        program.display()
    );
    program
}

impl Mongod {
    pub async fn start() -> Mongod {
        Mongod::start_with(&[]).await
    }

    pub async fn start_with(arguments: &[&str]) -> Mongod {
        let folder = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = Command::new(program())
            .args([
                "--bind_ip",
                "127.0.0.1",
                "--replSet",
                "rs0",
                "--wiredTigerCacheSizeGB",
                "0.25",
            ])
            .args([
                "--setParameter",
                "ttlMonitorEnabled=false",
                "--port",
                &port.to_string(),
                "--dbpath",
            ])
            .arg(folder.path())
            .args(arguments)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let host = format!("127.0.0.1:{port}");
        let uri = format!("mongodb://{host}/?directConnection=true");
        let client = Client::with_uri_str(&uri).await.unwrap();
        let mongod = Mongod {
            child,
            _folder: folder,
            uri,
            host,
            client,
        };
        let mut members = doc! { "_id": "rs0", "members": [{ "_id": 0, "host": &mongod.host }] };
        if arguments.contains(&"--configsvr") {
            members.insert("configsvr", true);
        }
        mongod.run("admin", doc! { "replSetInitiate": members }).await;
        while !mongod
            .run("admin", doc! { "hello": 1 })
            .await
            .get_bool("isWritablePrimary")
            .unwrap()
        {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        mongod
    }

    pub async fn run(&self, db: &str, command: Document) -> Document {
        let reply = self.client.database(db).run_command(command.clone()).await;
        let reply = reply.unwrap_or_else(|e| panic!("{command}: {e}"));
        assert!(reply.get_array("writeErrors").is_err(), "{command}: {reply}");
        reply
    }

    /// The documents of a collection: in their natural order, or by `_id`.
    pub async fn documents(&self, namespace: &Namespace, natural: bool) -> Vec<Bytes> {
        let collection = self
            .client
            .database(&namespace.db)
            .collection::<RawDocumentBuf>(&namespace.coll);
        let order = if natural {
            doc! { "$natural": 1 }
        } else {
            doc! { "_id": 1 }
        };
        let found: Vec<_> = collection
            .find(doc! {})
            .sort(order)
            .await
            .unwrap()
            .try_collect()
            .await
            .unwrap();
        found.into_iter().map(|d| Bytes::from(d.into_bytes())).collect()
    }

    /// A database as a backup of it would show it: collections, buckets and system.views with all they hold.
    pub async fn database(&self, db: &str) -> Vec<(CollectionAtT, Vec<Bytes>)> {
        let listed = self
            .run(db, doc! { "listCollections": 1, "cursor": { "batchSize": 1000 } })
            .await;
        let listed = listed.get_document("cursor").unwrap().get_array("firstBatch").unwrap();
        let mut database = Vec::new();
        for info in listed.iter().map(|d| d.as_document().unwrap()) {
            if info.get_str("type").unwrap() != "collection" {
                continue;
            }
            let namespace = Namespace::new(db, info.get_str("name").unwrap());
            let Some(Bson::Binary(uuid)) = info.get_document("info").unwrap().get("uuid") else {
                panic!("{info}")
            };
            let options = info.get_document("options").unwrap().clone();
            let natural = options.contains_key("capped");
            let indexes = self.run(db, doc! { "listIndexes": &namespace.coll }).await;
            let indexes = indexes.get_document("cursor").unwrap().get_array("firstBatch").unwrap();
            let documents = self.documents(&namespace, natural).await;
            let collection = CollectionAtT {
                uuid: CollectionUuid::from_slice(&uuid.bytes).unwrap(),
                options,
                indexes: indexes.iter().map(|i| i.as_document().unwrap().clone()).collect(),
                documents: 0,
                bytes: 0,
                namespace,
            };
            database.push((collection, documents));
        }
        database.sort_by(|a, b| a.0.namespace.cmp(&b.0.namespace));
        database
    }
}

impl Drop for Mongod {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What was read as a source.
pub fn held(database: Vec<(CollectionAtT, Vec<Bytes>)>) -> Held {
    database
        .into_iter()
        .fold(Held::default(), |held, (collection, documents)| {
            held.with(collection, documents)
        })
}
