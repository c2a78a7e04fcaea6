//! Data with some weight, and a writer that keeps changing it: so that phases last and memtables fill.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use bson::{Binary, Document, doc, spec::BinarySubtype};
use mongodb::{Client, Collection};
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};
use tokio::task::JoinHandle;

/// The database that the ballast lies in.
pub const DATABASE: &str = "ballast";
/// How many collections it is spread over.
pub const COLLECTIONS: u64 = 4;

/// Bytes that do not compress.
pub fn noise(rng: &mut StdRng, len: usize) -> Binary {
    let mut bytes = vec![0; len];
    rng.fill_bytes(&mut bytes);
    Binary {
        subtype: BinarySubtype::Generic,
        bytes,
    }
}

fn collection(client: &Client, number: u64) -> Collection<Document> {
    client.database(DATABASE).collection(&format!("c{number}"))
}

/// Writes `documents` of about `bytes` each, spread over the collections.
pub async fn fill(client: &Client, documents: u64, bytes: usize) -> Result<()> {
    let mut rng = StdRng::seed_from_u64(documents);
    for number in 0..COLLECTIONS {
        let collection = collection(client, number);
        let mut batch = Vec::new();
        for id in 0..documents / COLLECTIONS {
            batch.push(doc! { "_id": id as i64, "n": 0, "noise": noise(&mut rng, bytes) });
            if batch.len() * bytes > 4 << 20 {
                collection.insert_many(std::mem::take(&mut batch)).await?;
            }
        }
        if !batch.is_empty() {
            collection.insert_many(batch).await?;
        }
        collection
            .create_index(mongodb::IndexModel::builder().keys(doc! { "n": 1 }).build())
            .await?;
    }
    Ok(())
}

/// A writer that changes, replaces, deletes and inserts ballast until it is stopped.
#[derive(Debug)]
pub struct Churn {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    writer: JoinHandle<()>,
}

impl Churn {
    /// Starts it; it rests for `pause` between two writes.
    #[expect(
        clippy::disallowed_methods,
        reason = "a test's own writer, beside the processes under test"
    )]
    pub fn start(client: &Client, seed: u64, pause: Duration) -> Churn {
        let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let writer = tokio::spawn(write(client.clone(), seed, pause, stop.clone(), written.clone()));
        Churn { stop, written, writer }
    }

    /// How many writes there were.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Stops it and waits for its last write.
    pub async fn stop(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        Ok(self.writer.await?)
    }
}

async fn write(client: Client, seed: u64, pause: Duration, stop: Arc<AtomicBool>, written: Arc<AtomicU64>) {
    let mut rng = StdRng::seed_from_u64(seed);
    while !stop.load(Ordering::Relaxed) {
        let collection = collection(&client, rng.gen_range(0..COLLECTIONS));
        let id = doc! { "_id": rng.gen_range(0..2000_i64) };
        let bytes = rng.gen_range(500..30_000);
        let part = noise(&mut rng, bytes);
        let outcome = match rng.gen_range(0..10) {
            0 => collection.delete_one(id).await.map(drop),
            1..3 => {
                let new = doc! { "n": rng.gen_range(0..100), "noise": part };
                collection.replace_one(id, new).upsert(true).await.map(drop)
            }
            _ => {
                let change = doc! { "$set": { format!("part{}", rng.gen_range(0..3)): part }, "$inc": { "n": 1 } };
                collection.update_one(id, change).await.map(drop)
            }
        };
        if outcome.is_ok() {
            written.fetch_add(1, Ordering::Relaxed);
        }
        tokio::time::sleep(pause).await;
    }
}
