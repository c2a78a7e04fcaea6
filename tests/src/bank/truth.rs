//! What the servers themselves say of one cluster time.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use bson::{Bson, Document, Timestamp, doc};

use super::money::{Bank, NS, OPENING_BALANCE};
use crate::sharded::{CONFIG, Router};
use crate::wire::first_batch;

/// Where the documents of sharded collections belong at one cluster time.
#[derive(Clone, Debug)]
pub struct Routing {
    collections: Vec<Document>,
    chunks: Vec<Document>,
}

impl Routing {
    /// As the config servers say.
    pub async fn at(router: &mut Router, at: Timestamp) -> Result<Routing> {
        Ok(Routing {
            collections: snapshot(router, CONFIG, "config", "collections", at).await?,
            chunks: snapshot(router, CONFIG, "config", "chunks", at).await?,
        })
    }

    fn uuid(&self, ns: &str) -> Option<&Bson> {
        let named = |collection: &&Document| collection.get_str("_id").is_ok_and(|id| id == ns);
        self.collections.iter().find(named)?.get("uuid")
    }

    /// Whether a collection is sharded.
    pub fn is_sharded(&self, ns: &str) -> bool {
        self.uuid(ns).is_some()
    }

    /// Whether a document of a sharded collection counts where a shard holds it: whether the shard owns its chunk.
    pub fn owns(&self, ns: &str, shard: &str, k: i64) -> bool {
        let uuid = self.uuid(ns);
        let mut chunks = self.chunks.iter().filter(|chunk| chunk.get("uuid") == uuid);
        chunks.any(|chunk| {
            chunk.get_str("shard").is_ok_and(|name| name == shard)
                && (bound(chunk, "min")..bound(chunk, "max")).contains(&i128::from(k))
        })
    }
}

fn bound(chunk: &Document, name: &str) -> i128 {
    match chunk.get_document(name).ok().and_then(|at| at.get("k")) {
        Some(Bson::MinKey) => i128::MIN,
        Some(Bson::MaxKey) => i128::MAX,
        Some(Bson::Int64(value)) => i128::from(*value),
        Some(Bson::Int32(value)) => i128::from(*value),
        _ => 0,
    }
}

/// The accounts on each shard, orphans included, in the order of their ids.
pub type Accounts = BTreeMap<String, Vec<Document>>;

/// What the servers say of one cluster time.
#[derive(Clone, Debug)]
pub struct Truth {
    /// Which.
    pub at: Timestamp,
    /// Where documents belong.
    pub routing: Routing,
    /// What every shard held; `None` when a shard has forgotten, because it was killed meanwhile.
    pub accounts: Option<Accounts>,
}

impl Truth {
    /// Asks the servers; every one of them must have reached that time.
    pub async fn of(router: &mut Router, at: Timestamp) -> Result<Truth> {
        let mut accounts = Accounts::new();
        for shard in router.shards() {
            let documents = snapshot(router, &shard, "bank", "accounts", at).await?;
            accounts.insert(shard, documents);
        }
        Ok(Truth {
            at,
            routing: Routing::at(router, at).await?,
            accounts: Some(accounts),
        })
    }

    /// Every account exactly once, and no money made or lost.
    pub fn is_sound(&self, bank: Bank, accounts: &Accounts) -> Result<()> {
        let (mut ids, mut sum) = (BTreeSet::new(), 0);
        for (shard, documents) in accounts {
            for document in documents {
                let id = document.get_i64("_id")?;
                if self.routing.owns(NS, shard, id) {
                    ensure!(ids.insert(id), "account {id} is there twice at {:?}", self.at);
                    sum += document.get_i64("balance")?;
                }
            }
        }
        let all = bank.accounts();
        ensure!(
            ids.len() as i64 == all && sum == OPENING_BALANCE * all,
            "{} of {all} accounts hold {sum} at {:?}",
            ids.len(),
            self.at
        );
        Ok(())
    }

    /// What was restored is sound, and what the shards held.
    pub fn is(&self, bank: Bank, restored: &Accounts) -> Result<()> {
        self.is_sound(bank, restored)?;
        let Some(wanted) = &self.accounts else { return Ok(()) };
        for (shard, wanted) in wanted {
            let found = restored
                .get(shard)
                .with_context(|| format!("{shard} was not restored"))?;
            ensure!(
                found == wanted,
                "{shard} at {:?} is not what it was:\n{found:?}\nwanted\n{wanted:?}",
                self.at
            );
        }
        Ok(())
    }
}

/// A small collection as it was at a cluster time.
async fn snapshot(
    router: &mut Router,
    member: &str,
    db: &str,
    collection: &str,
    at: Timestamp,
) -> Result<Vec<Document>> {
    let find = doc! {
        "find": collection, "sort": { "_id": 1 }, "batchSize": 100_000, "singleBatch": true,
        "readConcern": { "level": "snapshot", "atClusterTime": at },
    };
    first_batch(&router.on(member, db, find).await?)
}
