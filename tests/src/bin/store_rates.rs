//! Measures every backing store against what it is made of, in one run: `cargo xtask store-rates [ROUNDS]`.

use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use bson::{RawDocumentBuf, rawdoc};
use bytes::Bytes;
use futures::TryStreamExt;
use headwater_host::Host;
use headwater_store::backend::open::{Places, open};
use headwater_store::objects::Objects;
use headwater_tests::{Bed, ReplicaSetSpec, S3};
use rand::{RngCore, SeedableRng, rngs::StdRng};
use ring::digest::{SHA256, digest};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const OBJECT_BYTES: usize = 64 << 20;
/// What a block read from a pack takes.
const RANGE_BYTES: u64 = 64 << 10;
const RANGES: u64 = 200;
const DOCUMENT_BYTES: usize = 256 << 10;

#[tokio::main]
async fn main() -> Result<()> {
    let rounds = std::env::args()
        .nth(1)
        .map_or(Ok(6), |text| text.parse())
        .context("rounds")?;
    let mut bytes = vec![0; OBJECT_BYTES];
    StdRng::seed_from_u64(1).fill_bytes(&mut bytes);
    let bytes = Bytes::from(bytes);
    let bed = Bed::new().await?;
    println!("| store | put, raw | put, ours | ratio | get, raw | get, ours | ratio | one block of 64 KiB |");
    println!("|---|---|---|---|---|---|---|---|");
    let folder = bed.new_folder("store")?;
    let store = opened(&format!("file:{}", folder.join("ours").display())).await?;
    row("a directory", store.as_ref(), &bytes, rounds, &Raw::Directory(&folder)).await?;
    let service = S3::start().await?;
    let store = opened(&service.uri("ours")).await?;
    row("S3 (double)", store.as_ref(), &bytes, rounds, &Raw::S3(service.port())).await?;
    let set = bed.replica_set(ReplicaSetSpec::three("6.0.5").not_replayable()).await?;
    let store = opened(&set.store_uri("ours")).await?;
    let raw = set.client().database("raw").collection("documents");
    row(
        "MongoDB, three members",
        store.as_ref(),
        &bytes,
        rounds,
        &Raw::Mongodb(raw),
    )
    .await
}

async fn opened(uri: &str) -> Result<Arc<dyn Objects>> {
    let places = Places::one(uri.parse().map_err(|fault: String| anyhow!(fault))?);
    Ok(open(&places, &Host::real()?).await?.objects)
}

/// What a store is made of, used as plainly as can be.
enum Raw<'a> {
    Directory(&'a Path),
    S3(u16),
    Mongodb(mongodb::Collection<RawDocumentBuf>),
}

impl Raw<'_> {
    async fn put(&self, number: usize, bytes: &Bytes) -> Result<()> {
        match self {
            Raw::Directory(folder) => tokio::task::block_in_place(|| {
                let mut file = std::fs::File::create(folder.join(format!("raw-{number}")))?;
                file.write_all(bytes)?;
                Ok(file.sync_all()?)
            }),
            Raw::S3(port) => {
                let length = bytes.len();
                // The service takes nothing by plain HTTP whose signature does not cover this.
                let hash = hex::encode(digest(&SHA256, bytes));
                let head = format!(
                    "PUT /backups/raw/{number} HTTP/1.1\r\nContent-Length: {length}\r\nx-amz-content-sha256: {hash}\r\n"
                );
                http(*port, &head, bytes).await.map(drop)
            }
            Raw::Mongodb(collection) => {
                let documents = bytes.chunks(DOCUMENT_BYTES).zip(0_i32..).map(|(bytes, n)| {
                    let data = bson::Binary {
                        subtype: bson::spec::BinarySubtype::Generic,
                        bytes: bytes.to_vec(),
                    };
                    rawdoc! { "_id": { "o": number as i32, "n": n }, "d": data }
                });
                let majority = mongodb::options::WriteConcern::builder()
                    .w(mongodb::options::Acknowledgment::Majority)
                    .journal(true)
                    .build();
                collection.insert_many(documents).write_concern(majority).await?;
                Ok(())
            }
        }
    }

    async fn get(&self, number: usize) -> Result<usize> {
        match self {
            Raw::Directory(folder) => tokio::task::block_in_place(|| {
                let mut bytes = Vec::new();
                std::fs::File::open(folder.join(format!("raw-{number}")))?.read_to_end(&mut bytes)?;
                Ok(bytes.len())
            }),
            Raw::S3(port) => {
                let answer = http(*port, &format!("GET /backups/raw/{number} HTTP/1.1\r\n"), &[]).await?;
                let head = answer
                    .windows(4)
                    .position(|four| four == b"\r\n\r\n")
                    .context("no head")?;
                Ok(answer.len() - head - 4)
            }
            Raw::Mongodb(collection) => {
                let number = number as i32;
                let ids = bson::doc! { "$gte": { "o": number, "n": 0 }, "$lt": { "o": number + 1, "n": 0 } };
                let found: Vec<_> = collection.find(bson::doc! { "_id": ids }).await?.try_collect().await?;
                Ok(found
                    .iter()
                    .filter_map(|document| Some(document.get_binary("d").ok()?.bytes.len()))
                    .sum())
            }
        }
    }
}

async fn http(port: u16, head: &str, body: &[u8]) -> Result<Vec<u8>> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let head = format!(
        "{head}Host: 127.0.0.1\r\nAuthorization: AWS4-HMAC-SHA256 Credential=id/1/us-east-1/s3/aws4_request\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    ensure!(
        answer.get(9..12) == Some(b"200"),
        "{}",
        String::from_utf8_lossy(&answer[..answer.len().min(300)])
    );
    Ok(answer)
}

/// Raw and ours take turns, so that a busy moment of the machine meets both.
async fn row(name: &str, store: &dyn Objects, bytes: &Bytes, rounds: usize, raw: &Raw<'_>) -> Result<()> {
    let mut took = [Duration::ZERO; 4];
    for number in 0..rounds {
        let key = format!("packs/{number}");
        let begun = now();
        raw.put(number, bytes).await?;
        took[0] += begun.elapsed();
        let begun = now();
        store.put_new(&key, bytes.clone()).await?;
        took[1] += begun.elapsed();
        let begun = now();
        ensure!(
            raw.get(number).await? == bytes.len(),
            "the raw store gave something else"
        );
        took[2] += begun.elapsed();
        let begun = now();
        ensure!(store.get(&key).await?.len() == bytes.len());
        took[3] += begun.elapsed();
    }
    let begun = now();
    for n in 0..RANGES {
        let from = n * 7_919 * RANGE_BYTES / 13 % (bytes.len() as u64 - RANGE_BYTES);
        store.get_range("packs/0", from..from + RANGE_BYTES).await?;
    }
    let block = begun.elapsed().as_secs_f64() * 1000.0 / RANGES as f64;
    let rates = took.map(|took| (bytes.len() * rounds) as f64 / 1e6 / took.as_secs_f64());
    let [put_raw, put_ours, get_raw, get_ours] = rates;
    println!(
        "| {name} | {put_raw:.0} MB/s | {put_ours:.0} MB/s | {:.2} | {get_raw:.0} MB/s | {get_ours:.0} MB/s | {:.2} | {block:.2} ms |",
        put_ours / put_raw,
        get_ours / get_raw,
    );
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "this program measures real time")]
fn now() -> Instant {
    Instant::now()
}
