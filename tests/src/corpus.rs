//! A corpus for measurements: a small company's data, drawn from a seed, about 3 GB at scale 1.
//!
//! The same seed and scale give the same documents on every machine. Text is made of words, so that it compresses as
//! text does; the pictures do not compress.

use anyhow::Result;
use bson::oid::ObjectId;
use bson::spec::BinarySubtype;
use bson::{Binary, Bson, DateTime, RawDocumentBuf, doc};
use mongodb::Client;
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};
use tokio::task::JoinSet;

/// The database the corpus lies in.
pub const DATABASE: &str = "company";
/// How much goes over in one insert.
const BATCH_BYTES: usize = 4 << 20;
/// How many inserts are under way at once for one collection.
const IN_FLIGHT: usize = 3;

/// What to make.
#[derive(Clone, Copy, Debug)]
pub struct CorpusSpec {
    /// Decides every document.
    pub seed: u64,
    /// 1.0 for about 3 GB.
    pub scale: f64,
}

/// What was made.
#[derive(Clone, Copy, Debug, Default)]
pub struct Made {
    /// Collections.
    pub collections: u64,
    /// Documents.
    pub documents: u64,
    /// Bytes of BSON.
    pub bytes: u64,
}

/// One kind of document: collection, how many at scale 1, how one is made, and the indexes it has.
struct Kind {
    collection: &'static str,
    count: u64,
    make: fn(u64, &mut StdRng) -> bson::Document,
    indexes: &'static [&'static str],
}

const KINDS: [Kind; 6] = [
    Kind {
        collection: "customers",
        count: 700_000,
        make: customer,
        indexes: &["email", "address.city"],
    },
    Kind {
        collection: "orders",
        count: 1_900_000,
        make: order,
        indexes: &["customer", "placed"],
    },
    Kind {
        collection: "events",
        count: 7_500_000,
        make: event,
        indexes: &["at"],
    },
    Kind {
        collection: "articles",
        count: 110_000,
        make: article,
        indexes: &["tags"],
    },
    Kind {
        collection: "pictures",
        count: 5_500,
        make: picture,
        indexes: &[],
    },
    Kind {
        collection: "settings",
        count: 200,
        make: setting,
        indexes: &[],
    },
];

/// Writes the corpus into the database [`DATABASE`] of the server at `uri`.
pub async fn fill(uri: &str, spec: CorpusSpec) -> Result<Made> {
    let client = Client::with_uri_str(uri).await?;
    let mut made = Made::default();
    for (number, kind) in KINDS.iter().enumerate() {
        let count = ((kind.count as f64 * spec.scale) as u64).max(1);
        // One source of chance per kind: changing one collection leaves the others as they were.
        let rng = StdRng::seed_from_u64(spec.seed.wrapping_add(number as u64));
        made.bytes += fill_one(&client, kind, count, rng).await?;
        made.documents += count;
        made.collections += 1;
    }
    Ok(made)
}

async fn fill_one(client: &Client, kind: &Kind, count: u64, mut rng: StdRng) -> Result<u64> {
    let database = client.database(DATABASE);
    let collection = database.collection::<RawDocumentBuf>(kind.collection);
    let mut inserts = JoinSet::new();
    let mut total = 0;
    let mut batch: Vec<RawDocumentBuf> = Vec::new();
    let mut bytes = 0;
    for number in 0..count {
        let document = RawDocumentBuf::try_from(&(kind.make)(number, &mut rng))?;
        bytes += document.as_bytes().len();
        batch.push(document);
        if bytes >= BATCH_BYTES || number + 1 == count {
            total += bytes as u64;
            bytes = 0;
            while inserts.len() >= IN_FLIGHT {
                finish(inserts.join_next().await)?;
            }
            let (collection, batch) = (collection.clone(), std::mem::take(&mut batch));
            inserts.spawn(async move { collection.insert_many(batch).ordered(false).await });
        }
    }
    while !inserts.is_empty() {
        finish(inserts.join_next().await)?;
    }
    for field in kind.indexes {
        let index = doc! { "key": { *field: 1 }, "name": format!("{field}_1") };
        database
            .run_command(doc! { "createIndexes": kind.collection, "indexes": [index] })
            .await?;
    }
    Ok(total)
}

type Insert = Result<mongodb::error::Result<mongodb::results::InsertManyResult>, tokio::task::JoinError>;

fn finish(insert: Option<Insert>) -> Result<()> {
    insert.transpose()?.transpose()?;
    Ok(())
}

const STATES: [&str; 4] = ["open", "paid", "sent", "returned"];

const WORDS: [&str; 32] = [
    "river", "spring", "stone", "mill", "bridge", "water", "valley", "meadow", "harbour", "copper", "silver", "letter",
    "window", "garden", "winter", "summer", "market", "basket", "leather", "candle", "orange", "violet", "north",
    "south", "under", "over", "quick", "silent", "bright", "narrow", "the", "and",
];

fn word(rng: &mut StdRng) -> &'static str {
    WORDS[rng.gen_range(0..WORDS.len())]
}

fn words(rng: &mut StdRng, count: usize) -> String {
    let mut text = String::with_capacity(count * 8);
    for _ in 0..count {
        text.push_str(word(rng));
        text.push(' ');
    }
    text
}

fn moment(rng: &mut StdRng) -> DateTime {
    DateTime::from_millis(rng.gen_range(1_700_000_000_000..1_790_000_000_000))
}

fn object_id(number: u64, rng: &mut StdRng) -> ObjectId {
    // Ascending in front as a server's clock makes them, random behind.
    let mut bytes = [0; 12];
    bytes[..4].copy_from_slice(&(1_700_000_000 + (number / 50) as u32).to_be_bytes());
    rng.fill_bytes(&mut bytes[4..]);
    ObjectId::from_bytes(bytes)
}

fn customer(number: u64, rng: &mut StdRng) -> bson::Document {
    doc! {
        "_id": number as i64,
        "name": { "first": word(rng), "last": word(rng) },
        "email": format!("{}.{number}@example.com", word(rng)),
        "address": { "street": format!("{} {}", word(rng), rng.gen_range(1..200)), "city": word(rng), "zip": rng.gen_range(10_000..99_999) },
        "since": moment(rng),
        "balance": rng.gen_range(-1000.0..50_000.0),
        "newsletter": rng.gen_bool(0.4),
        "notes": words(rng, 12),
    }
}

fn order(number: u64, rng: &mut StdRng) -> bson::Document {
    let lines: Vec<Bson> = (0..rng.gen_range(1..9))
        .map(|_| {
            doc! { "article": rng.gen_range(0..60_000), "name": word(rng), "count": rng.gen_range(1..5), "price": rng.gen_range(1.0..500.0) }
                .into()
        })
        .collect();
    doc! {
        "_id": object_id(number, rng),
        "customer": rng.gen_range(0..400_000_i64),
        "placed": moment(rng),
        "state": STATES[rng.gen_range(0..STATES.len())],
        "lines": lines,
        "remark": if rng.gen_bool(0.2) { Bson::String(words(rng, 20)) } else { Bson::Null },
    }
}

fn event(number: u64, rng: &mut StdRng) -> bson::Document {
    doc! {
        "_id": object_id(number, rng),
        "at": moment(rng),
        "kind": word(rng),
        "user": rng.gen_range(0..400_000),
        "ms": rng.gen_range(0.0..900.0),
        "path": format!("/{}/{}", word(rng), word(rng)),
    }
}

fn article(number: u64, rng: &mut StdRng) -> bson::Document {
    let tags: Vec<Bson> = (0..rng.gen_range(0..6)).map(|_| word(rng).into()).collect();
    let length = rng.gen_range(100..1600);
    doc! { "_id": number as i32, "title": words(rng, 6), "tags": tags, "text": words(rng, length) }
}

fn picture(number: u64, rng: &mut StdRng) -> bson::Document {
    let mut bytes = vec![0; rng.gen_range(20_000..300_000)];
    rng.fill_bytes(&mut bytes);
    let pixels = Binary {
        subtype: BinarySubtype::Generic,
        bytes,
    };
    doc! { "_id": format!("{}/{number:06}.jpg", word(rng)), "article": rng.gen_range(0..60_000), "pixels": pixels }
}

fn setting(number: u64, rng: &mut StdRng) -> bson::Document {
    doc! { "_id": format!("{}.{number}", word(rng)), "value": words(rng, 5), "deep": { "a": { "b": { "c": [1, 2, { "d": number as i64 }] } } } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_corpus_is_about_three_gigabytes_at_scale_one() {
        let total: f64 = KINDS
            .iter()
            .map(|kind| {
                let mut rng = StdRng::seed_from_u64(1);
                let sample = 50.min(kind.count);
                let bytes: usize = (0..sample)
                    .map(|n| (kind.make)(n, &mut rng).to_vec().unwrap().len())
                    .sum();
                bytes as f64 / sample as f64 * kind.count as f64
            })
            .sum();
        assert!((2.5e9..3.5e9).contains(&total), "{total}");
    }
}
