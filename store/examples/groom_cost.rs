//! What a groom of packs costs: time, bytes read and written, space before and after, by the share of living bytes.
//!
//! `cargo run --release -p headwater-store --example groom_cost [MIB]`

use std::error::Error;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use headwater_host::Host;
use headwater_model::{BlockId, Epoch, limits};
use headwater_store::backend::directory::DirectoryObjects;
use headwater_store::blocks::Blocks;
use headwater_store::objects::{ObjectMeta, Objects, Put, StoreError};
use headwater_store::pack::groom::{self, Thresholds};
use headwater_store::pack::{PackSettings, PackStore};

/// A backing store that counts.
struct Counted {
    inner: DirectoryObjects,
    read: AtomicU64,
    written: AtomicU64,
}

#[async_trait]
impl Objects for Counted {
    async fn put_new(&self, key: &str, bytes: Bytes) -> Result<Put, StoreError> {
        self.written.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.inner.put_new(key, bytes).await
    }

    async fn put(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
        self.written.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.inner.put(key, bytes).await
    }

    async fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        let bytes = self.inner.get(key).await?;
        self.read.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(bytes)
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.read.fetch_add(range.end - range.start, Ordering::Relaxed);
        self.inner.get_range(key, range).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectMeta>, StoreError> {
        self.inner.list(prefix).await
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.inner.delete(key).await
    }
}

/// A block that does not compress, about as large as a leaf.
fn block(n: u64) -> Bytes {
    let mut bytes = vec![0; limits::LEAF_TARGET_BYTES];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&n.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes.into()
}

/// Whether block `n` lives when `percent` do. Dead ones lie in runs, as what was written together dies together, or are
/// scattered.
fn lives(n: u64, percent: u64, run: u64) -> bool {
    let hash = blake3::hash(&(n / run).to_le_bytes());
    u64::from(hash.as_bytes()[0]) * 100 < percent * 256
}

const MIB: f64 = (1 << 20) as f64;

async fn measure(blocks: u64, percent: u64, run: u64, thresholds: (&str, Thresholds)) -> Result<(), Box<dyn Error>> {
    let host = Host::real()?;
    let folder = std::env::temp_dir().join(format!("headwater-groom-cost-{}", std::process::id()));
    let objects = Arc::new(Counted {
        inner: DirectoryObjects::open(&folder, host.blocking.clone()).await?,
        read: AtomicU64::new(0),
        written: AtomicU64::new(0),
    });
    let store = PackStore::open(objects.clone(), &host, "rs/", Epoch(1), PackSettings::default()).await?;
    let mut ids: Vec<BlockId> = Vec::new();
    for n in 0..blocks {
        ids.push(store.put(block(n)).await?);
    }
    store.flush().await?;
    let (_, before) = store.at_rest().await?;
    objects.written.store(0, Ordering::Relaxed);
    objects.read.store(0, Ordering::Relaxed);
    let began = tokio::time::Instant::now();
    let census = store.begin_census().ok_or("another census runs")?;
    for (_, id) in (0..).zip(&ids).filter(|(n, _)| lives(*n, percent, run)) {
        census.mark(*id)?;
    }
    let plan = groom::plan(&census.weigh().await?, thresholds.1);
    for batch in groom::batches(&plan, limits::PACK_TARGET_BYTES as u64, 64) {
        census.condemn(&batch).await?;
        census.remove(&batch).await?;
    }
    drop(census);
    let took = began.elapsed().as_secs_f64();
    let (_, after) = store.at_rest().await?;
    let mib = |bytes: u64| format!("{:.0} MiB", bytes as f64 / MIB);
    println!(
        "| {percent} %, {} | {} | {took:.2} s | {} | {} | {} | {} | {} |",
        if run == 1 { "scattered" } else { "in runs of 16 MiB" },
        thresholds.0,
        mib(objects.read.load(Ordering::Relaxed)),
        mib(objects.written.load(Ordering::Relaxed)),
        mib(before),
        mib(after),
        mib(plan.living_bytes),
    );
    host.blocking(move || std::fs::remove_dir_all(folder).ok()).await;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mib: u64 = std::env::args().nth(1).map_or(Ok(512), |text| text.parse())?;
    let blocks = (mib << 20) / limits::LEAF_TARGET_BYTES as u64;
    let thorough = ("asked for", Thresholds::thorough());
    let by_itself = ("by itself", Thresholds::default());
    println!("| living | groom | time | read | written | before | after | living bytes |");
    println!("|---|---|---|---|---|---|---|---|");
    for percent in [90, 10] {
        for run in [1, 256] {
            for thresholds in [by_itself, thorough] {
                measure(blocks, percent, run, thresholds).await?;
            }
        }
    }
    Ok(())
}
