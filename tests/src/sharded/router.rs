//! What a mongos does: routes by the chunks, tells shards which version it knows, and looks again when that is stale.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bson::{Bson, Document, Timestamp, doc};

use super::CONFIG;
use super::table::{Table, ZERO, unsharded};
use crate::wire::{Wire, first_batch, is_done};

/// How often a stale version is read anew before that is an error.
const ATTEMPTS: usize = 100;

pub(super) fn majority() -> Document {
    doc! { "w": "majority", "wtimeout": 60_000 }
}

/// See the module. One at a time uses it; make several for several at once.
#[derive(Debug, Default)]
pub struct Router {
    wires: BTreeMap<String, Wire>,
    tables: BTreeMap<String, Option<Table>>,
}

impl Router {
    pub(super) async fn connect(&mut self, name: &str, address: &str) -> Result<()> {
        self.wires.insert(name.to_owned(), Wire::connect(address).await?);
        Ok(())
    }

    fn wire(&mut self, member: &str) -> Result<&mut Wire> {
        let wire = self.wires.get_mut(member);
        wire.with_context(|| format!("the router has no connection to {member}"))
    }

    /// The shards it is connected to.
    pub fn shards(&self) -> Vec<String> {
        self.wires.keys().filter(|name| *name != CONFIG).cloned().collect()
    }

    /// A command to one member, exactly as given, which must succeed.
    pub async fn on(&mut self, member: &str, db: &str, command: Document) -> Result<Document> {
        self.wire(member)?.command(db, &command).await
    }

    /// Whether every member answers; if not, the connections are of no use any more.
    pub async fn answers(&mut self) -> bool {
        for wire in self.wires.values_mut() {
            if wire.ask("admin", &doc! { "ping": 1 }).await.is_err() {
                return false;
            }
        }
        true
    }

    pub(super) async fn config(&mut self, collection: &str, filter: Document) -> Result<Vec<Document>> {
        self.wire(CONFIG)?.find("config", collection, filter).await
    }

    pub(super) async fn database(&mut self, db: &str) -> Result<Document> {
        let found = self.config("databases", doc! { "_id": db }).await?;
        found.into_iter().next().with_context(|| format!("no database {db}"))
    }

    /// Creates a database with its primary shard.
    pub async fn create_database(&mut self, db: &str, primary: &str) -> Result<()> {
        let command = doc! { "_configsvrCreateDatabase": db, "primaryShardId": primary, "writeConcern": majority() };
        self.on(CONFIG, "admin", command).await.map(drop)
    }

    /// Shards a new collection by a field that holds integers.
    pub async fn shard_collection(&mut self, ns: &str, field: &str) -> Result<()> {
        self.shard_collection_by(ns, doc! { "shardKey": { field: 1 }, "unique": false })
            .await
    }

    /// Shards a new collection as `how` says: `shardKey` and what else the command takes.
    pub async fn shard_collection_by(&mut self, ns: &str, how: Document) -> Result<()> {
        let (db, collection) = split(ns)?;
        let database = self.database(db).await?;
        let mut command = doc! { "_shardsvrCreateCollection": collection };
        command.extend(how);
        command.insert("databaseVersion", database.get_document("version")?.clone());
        command.insert("writeConcern", majority());
        let primary = database.get_str("primary")?.to_owned();
        self.on(&primary, db, command).await?;
        self.tables.remove(ns);
        Ok(())
    }

    /// The routing table; `None` for a collection that is not sharded.
    async fn table(&mut self, ns: &str) -> Result<Option<Table>> {
        if let Some(known) = self.tables.get(ns) {
            return Ok(known.clone());
        }
        let collections = self.config("collections", doc! { "_id": ns }).await?;
        let table = match collections.first() {
            None => None,
            Some(collection) => {
                let uuid = collection.get("uuid").cloned().context("a collection without UUID")?;
                let chunks = self.config("chunks", doc! { "uuid": uuid }).await?;
                Some(Table::new(collection, &chunks)?)
            }
        };
        self.tables.insert(ns.to_owned(), table.clone());
        Ok(table)
    }

    async fn sharded(&mut self, ns: &str) -> Result<Table> {
        self.table(ns).await?.with_context(|| format!("{ns} is not sharded"))
    }

    /// The shard that holds a value of the shard key, or the whole collection where it is not sharded.
    pub async fn owner(&mut self, ns: &str, value: i64) -> Result<String> {
        match self.table(ns).await? {
            Some(table) => Ok(table.chunk(value)?.shard.clone()),
            None => Ok(self.database(split(ns)?.0).await?.get_str("primary")?.to_owned()),
        }
    }

    /// Splits the chunk that holds `at` in two, the second of which begins there.
    pub async fn split(&mut self, ns: &str, at: i64) -> Result<()> {
        self.tables.remove(ns);
        let table = self.sharded(ns).await?;
        let chunk = table.chunk(at)?;
        let command = doc! {
            "splitChunk": ns, "from": &chunk.shard, "min": chunk.min.clone(), "max": chunk.max.clone(),
            "keyPattern": { &table.field: 1 }, "splitKeys": [{ &table.field: at }],
            "epoch": table.epoch, "timestamp": table.timestamp,
        };
        self.on(&chunk.shard, "admin", command).await?;
        self.tables.remove(ns);
        Ok(())
    }

    /// Moves the chunk that holds `at` to another shard, and waits until the old one has deleted it.
    pub async fn move_chunk(&mut self, ns: &str, at: i64, to: &str) -> Result<()> {
        self.tables.remove(ns);
        let table = self.sharded(ns).await?;
        let chunk = table.chunk(at)?;
        let command = doc! {
            "_configsvrMoveRange": ns, "toShard": to, "min": chunk.min.clone(), "max": chunk.max.clone(),
            "waitForDelete": true, "writeConcern": majority(),
        };
        self.on(CONFIG, "admin", command).await?;
        self.tables.remove(ns);
        Ok(())
    }

    /// A command on a collection, to the shard that `pick` names by the present table. Goes on trying while the shard says
    /// that the table is out of date.
    pub async fn versioned(&mut self, ns: &str, value: i64, command: &Document) -> Result<Document> {
        for _ in 0..ATTEMPTS {
            let shard = self.owner(ns, value).await?;
            let reply = self.once(ns, &shard, command).await?;
            if !is_stale(&reply) {
                return done(reply, command);
            }
            self.look_again(ns).await;
        }
        bail!("the shards went on calling {ns} stale")
    }

    /// The same to one shard, whatever it holds.
    pub async fn on_shard(&mut self, ns: &str, shard: &str, command: &Document) -> Result<Document> {
        for _ in 0..ATTEMPTS {
            let reply = self.once(ns, shard, command).await?;
            if !is_stale(&reply) {
                return done(reply, command);
            }
            self.look_again(ns).await;
        }
        bail!("{shard} went on calling {ns} stale")
    }

    /// The shards that hold chunks of a sharded collection.
    pub(super) async fn owners(&mut self, ns: &str) -> Result<BTreeSet<String>> {
        let table = self.sharded(ns).await?;
        Ok(table.chunks.iter().map(|chunk| chunk.shard.clone()).collect())
    }

    /// One attempt; the reply may say that it failed.
    pub(super) async fn once(&mut self, ns: &str, shard: &str, command: &Document) -> Result<Document> {
        let db = split(ns)?.0;
        let mut command = command.clone();
        match self.table(ns).await? {
            Some(table) => command.insert("shardVersion", table.shard_version(shard)),
            None => {
                let database = self.database(db).await?;
                command.insert("databaseVersion", database.get_document("version")?.clone());
                command.insert("shardVersion", unsharded())
            }
        };
        self.wire(shard)?.ask(db, &command).await
    }

    pub(crate) async fn look_again(&mut self, ns: &str) {
        self.tables.remove(ns);
        // The shard refreshes itself by the attempt that it refused.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    /// Inserts a document of a sharded collection, or one that is on its database's primary shard.
    pub async fn insert(&mut self, ns: &str, value: i64, document: Document) -> Result<()> {
        let command = doc! { "insert": split(ns)?.1, "documents": [document], "writeConcern": majority() };
        self.versioned(ns, value, &command).await.map(drop)
    }

    /// Every document, as the owners of the chunks show them at one cluster time.
    pub async fn read_at(&mut self, ns: &str, at: Timestamp) -> Result<Vec<Document>> {
        let mut documents = Vec::new();
        for shard in self.shards() {
            let command = doc! {
                "find": split(ns)?.1, "batchSize": 100_000, "singleBatch": true,
                "readConcern": { "level": "snapshot", "atClusterTime": at },
            };
            documents.extend(first_batch(&self.on_shard(ns, &shard, &command).await?)?);
        }
        Ok(documents)
    }

    /// Brings the clocks of all members to one time, with an entry at or after it in every oplog; answers that time.
    pub async fn level(&mut self) -> Result<Timestamp> {
        let members: Vec<String> = self.wires.keys().cloned().collect();
        let mut latest = (ZERO, None);
        // Twice, so that the first ones hear of what the last ones said.
        let mut level = ZERO;
        for _ in 0..2 {
            for member in &members {
                let mut command =
                    doc! { "appendOplogNote": 1, "data": { "level": 1 }, "writeConcern": { "w": "majority" } };
                if let (_, Some(time)) = &latest {
                    command.insert("$clusterTime", Bson::clone(time));
                }
                let reply = self.on(member, "admin", command).await?;
                let at = reply.get_timestamp("operationTime")?;
                if at > latest.0 {
                    latest = (at, reply.get("$clusterTime").cloned());
                }
            }
            level = if level == ZERO { latest.0 } else { level };
        }
        Ok(level)
    }
}

/// `db.collection` in two.
pub(super) fn split(ns: &str) -> Result<(&str, &str)> {
    ns.split_once('.').with_context(|| format!("{ns} is no namespace"))
}

fn done(reply: Document, command: &Document) -> Result<Document> {
    if is_done(&reply) {
        return Ok(reply);
    }
    bail!("{command} was refused: {reply}")
}

/// Whether a shard says that the router's table is out of date.
fn is_stale(reply: &Document) -> bool {
    const STALE: [i32; 3] = [13388, 63, 249];
    let says = |document: &Document| document.get_i32("code").is_ok_and(|code| STALE.contains(&code));
    let errors = reply.get_array("writeErrors").map(Vec::as_slice).unwrap_or_default();
    says(reply) || errors.iter().filter_map(Bson::as_document).any(says)
}
