//! How fast a head applies, spills, builds, folds and scans, on one core, with blocks in memory. Time is that of the
//! processor, so that a busy machine does not matter.
//!
//! `cargo run --release -p headwater-head --example apply_rate`

use std::collections::VecDeque;
use std::error::Error;
use std::sync::Arc;

use async_trait::async_trait;
use bson::{Document, doc};
use bytes::Bytes;
use headwater_head::{Begin, Builder, Head, SlicePayload, SliceSource};
use headwater_model::{CollectionUuid, Incarnation, Optime, Ts, limits};
use headwater_protocol::agent::CollectionMeta;
use headwater_store::blocks::Blocks;
use headwater_store::memory_blocks::MemoryBlocks;
use headwater_store::objects::StoreError;

type Outcome<T> = Result<T, Box<dyn Error>>;

const COLLECTION: CollectionUuid = CollectionUuid([7; 16]);

/// Spreads numbers, so that ids come in no order.
fn scattered(n: u64) -> [u8; 12] {
    let mut id = [0; 12];
    id[..8].copy_from_slice(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    id
}

fn object_id(bytes: [u8; 12]) -> bson::oid::ObjectId {
    bson::oid::ObjectId::from_bytes(bytes)
}

fn ascending(n: u64) -> [u8; 12] {
    let mut id = [0; 12];
    id[4..].copy_from_slice(&n.to_be_bytes());
    id
}

fn order(id: [u8; 12], n: u64) -> Document {
    doc! { "_id": object_id(id), "customer": n as i64, "status": "shipped", "total": 12.5, "note": "x".repeat(120) }
}

fn entry(ts: u64, op: &str, o: Document, o2: Option<Document>) -> Outcome<Bytes> {
    let uuid = bson::Binary {
        subtype: bson::spec::BinarySubtype::Uuid,
        bytes: COLLECTION.0.to_vec(),
    };
    let mut entry = doc! { "op": op, "ns": "shop.orders", "ui": uuid, "o": o };
    if let Some(o2) = o2 {
        entry.insert("o2", o2);
    }
    entry.insert(
        "ts",
        bson::Timestamp {
            time: (ts >> 32) as u32,
            increment: ts as u32,
        },
    );
    entry.insert("t", 1i64);
    entry.insert("v", 2i64);
    entry.insert("wall", bson::DateTime::from_millis(0));
    Ok(bson::serialize_to_vec(&entry)?.into())
}

struct Slices(VecDeque<SlicePayload>);

#[async_trait]
impl SliceSource for Slices {
    async fn next(&mut self) -> Result<Option<SlicePayload>, StoreError> {
        Ok(self.0.pop_front())
    }
}

async fn build(blocks: &Arc<MemoryBlocks>, head: &mut Head, documents: u64) -> Outcome<()> {
    let mut slices = Vec::new();
    let mut bytes = 0;
    for (number, start) in (0..).zip((0..documents).step_by(40_000)) {
        let mut payload = Vec::new();
        for n in start..(start + 40_000).min(documents) {
            payload.extend(bson::serialize_to_vec(&order(scattered(n), n))?);
        }
        bytes += payload.len();
        slices.push(SlicePayload {
            number,
            payload: payload.into(),
        });
    }
    let meta = CollectionMeta {
        db: "shop".into(),
        name: "orders".into(),
        uuid: COLLECTION,
        options: bson::RawDocumentBuf::new(),
        indexes: Vec::new(),
    };
    let start = processor_seconds();
    let builder = Builder::new(blocks.clone());
    let mut runs = Vec::new();
    for slice in slices {
        runs.push(builder.run(&meta, &mut Slices([slice].into())).await?);
    }
    let built = builder.merge(runs).await?;
    report("build, ids in no order", documents, bytes, start);
    head.add_collection(&meta, built);
    Ok(())
}

/// Seconds this process has run on a processor, as Linux counts them.
fn processor_seconds() -> f64 {
    let schedstat = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    schedstat
        .split(' ')
        .next()
        .and_then(|nanos| nanos.parse::<f64>().ok())
        .unwrap_or(f64::NAN)
        / 1e9
}

fn report(what: &str, count: u64, bytes: usize, start: f64) {
    let seconds = processor_seconds() - start;
    let (rate, mib) = (count as f64 / seconds, bytes as f64 / seconds / limits::MIB as f64);
    println!("{what:32} {count:9} in {seconds:6.2} s  {rate:10.0}/s  {mib:7.0} MiB/s");
}

async fn apply(
    blocks: &Arc<MemoryBlocks>,
    head: &mut Head,
    what: &str,
    make: impl Fn(u64) -> Outcome<Bytes>,
) -> Outcome<()> {
    let first = head.applied().ts.0 + 1;
    let entries = (first..first + 400_000).map(make).collect::<Outcome<Vec<_>>>()?;
    let (count, bytes) = (entries.len() as u64, entries.iter().map(Bytes::len).sum());
    let start = processor_seconds();
    for entry in entries {
        head.apply(entry)?;
    }
    report(what, count, bytes, start);
    let memory = head.memtable_bytes();
    let start = processor_seconds();
    if let Some(job) = head.begin_spill() {
        let done = job.run(blocks.clone()).await?;
        head.finish_spill(done);
    }
    report("  spill", count, memory, start);
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome<()> {
    const DOCUMENTS: u64 = 2_000_000;
    let blocks = Arc::new(MemoryBlocks::new());
    let begin = Optime::new(Ts(1), 1);
    let mut head = Head::new(
        blocks.clone(),
        "6.0.5",
        Begin {
            tail_after: begin,
            begin_applying: begin,
        },
    )?;
    build(&blocks, &mut head, DOCUMENTS).await?;
    apply(&blocks, &mut head, "insert, ascending ids", |n| {
        entry(n, "i", order(ascending(n), n), None)
    })
    .await?;
    apply(&blocks, &mut head, "insert, ids in no order", |n| {
        entry(n, "i", order(scattered(n + DOCUMENTS), n), None)
    })
    .await?;
    apply(&blocks, &mut head, "update, ids in no order", |n| {
        let o = doc! { "$v": 2, "diff": { "u": { "status": "returned" } } };
        entry(
            n,
            "u",
            o,
            Some(doc! { "_id": object_id(scattered(n * 7919 % DOCUMENTS)) }),
        )
    })
    .await?;
    apply(&blocks, &mut head, "update, 1000 hot documents", |n| {
        let o = doc! { "$v": 2, "diff": { "u": { "total": n as f64 } } };
        entry(n, "u", o, Some(doc! { "_id": object_id(scattered(n * 7919 % 1000)) }))
    })
    .await?;
    for what in ["fold of the stack", "scan and digest"] {
        let start = processor_seconds();
        if what.starts_with("fold") {
            for job in head.force_folds() {
                let done = job.run(blocks.clone()).await?;
                assert!(head.finish_fold(done).is_empty());
            }
        } else {
            head.digest(COLLECTION).await?;
        }
        let (count, bytes) = head
            .collections()
            .map(|c| (c.documents(), c.bytes() as usize))
            .next()
            .unwrap_or_default();
        report(what, count, bytes, start);
    }
    let set = "shop/rs0".parse()?;
    for n in 0..20u64 {
        let ts = head.applied().ts.0 + 1;
        let o = doc! { "$v": 2, "diff": { "u": { "status": "returned" } } };
        head.apply(entry(
            ts,
            "u",
            o,
            Some(doc! { "_id": object_id(scattered(n * 7919 % DOCUMENTS)) }),
        )?)?;
    }
    let (before, start) = (blocks.traffic(), processor_seconds());
    head.image(&set, Incarnation(1)).await?;
    let written = blocks.traffic().new_bytes - before.new_bytes;
    report("image after 20 updates", 20, written as usize, start);
    let _: Arc<dyn Blocks> = blocks;
    Ok(())
}
