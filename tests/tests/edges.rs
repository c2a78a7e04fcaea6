//! Data at the edge of what MongoDB takes: thousands of collections, the largest documents, ids of every type, odd names.

use anyhow::{Context, Result, ensure};
use bson::{Bson, Document, doc};
use futures::{StreamExt, TryStreamExt, stream};
use headwater_tests::proof::{comes_back, compare, restore_into, until_complete, until_stored};
use headwater_tests::{Bed, Headwater, ReplicaSet, ReplicaSetSpec};
use mongodb::{Client, Collection, Database};
use tokio::time::Instant;

const VERSION: &str = "6.0.5";
const MIB: usize = 1 << 20;

/// Ten thousand in the long run (`HEADWATER_LONG=1`), a tenth of it otherwise.
fn many() -> usize {
    if std::env::var_os("HEADWATER_LONG").is_some() {
        10_000
    } else {
        1000
    }
}

async fn backed_up(bed: &Bed, source: &ReplicaSet) -> Result<Headwater> {
    let mut headwater = bed.headwater()?;
    headwater.start_quickstart(&source.uri(), "default").await?;
    until_complete(&headwater).await?;
    Ok(headwater)
}

async fn source(bed: &Bed) -> Result<ReplicaSet> {
    bed.replica_set(ReplicaSetSpec::single(VERSION).not_replayable()).await
}

/// The most memory a process had, in MiB.
fn peak_mib(process: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmHWM"));
    let kib = line
        .and_then(|line| line.split_whitespace().nth(1))
        .context("no VmHWM")?;
    Ok(kib.parse::<u64>()? / 1024)
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_collections_come_back() -> Result<()> {
    let bed = Bed::new().await?;
    let mut spec = ReplicaSetSpec::single(VERSION).not_replayable();
    // Files are closed once a checkpoint has what was written to them, and each collection has two.
    spec.mongod.arguments.extend(["--syncdelay", "5"].map(str::to_owned));
    let source = bed.replica_set(spec.clone()).await?;
    let make = |n: usize| {
        let collection = source.client().database(&format!("many{}", n % 10));
        let collection: Collection<Document> =
            collection.collection(&format!("collection {n} with a name of some length"));
        async move {
            collection
                .insert_one(doc! { "_id": n as i64, "text": "a little" })
                .await?;
            Ok::<_, anyhow::Error>(())
        }
    };
    stream::iter((0..many()).map(make))
        .buffer_unordered(8)
        .try_collect::<Vec<()>>()
        .await?;
    let began = Instant::now();
    let mut headwater = backed_up(&bed, &source).await?;
    eprintln!("{} collections: first copy in {:.1?}", many(), began.elapsed());
    let began = Instant::now();
    let end = source.mark("end").await?;
    until_stored(&headwater, end).await?;
    let target = bed.replica_set(spec).await?;
    restore_into(&headwater, &target.uri(), &end.to_string()).await?;
    compare(source.client(), target.client(), "the end").await?;
    eprintln!(
        "{} collections: stored, restored and compared in {:.1?}",
        many(),
        began.elapsed()
    );
    let daemon = headwater.daemon()?.id();
    eprintln!(
        "{} collections: daemon and agent had at most {} MiB",
        many(),
        peak_mib(daemon)?
    );
    Ok(())
}

/// A document of exactly the largest size the server takes.
fn largest(id: i32) -> Document {
    let empty = doc! { "_id": id, "text": "" };
    let rest = 16 * MIB - bson::serialize_to_vec(&empty).map_or(0, |bytes| bytes.len());
    doc! { "_id": id, "text": format!("{id}").repeat(rest)[..rest].to_owned() }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_largest_documents_come_back_from_scan_oplog_and_transaction() -> Result<()> {
    let bed = Bed::new().await?;
    let mut roomy = ReplicaSetSpec::single(VERSION).not_replayable();
    roomy.mongod.cache_mib = 1024;
    let source = bed.replica_set(roomy).await?;
    let large: Collection<Document> = source.client().database("large").collection("documents");
    for id in 0..3 {
        large.insert_one(largest(id)).await?;
    }
    let headwater = backed_up(&bed, &source).await?;
    large.insert_one(largest(10)).await?;
    // As large as before, by a diff and by a replacement.
    let half = 8 * MIB;
    let change = doc! { "$set": { "text": "x".repeat(half), "more": "y".repeat(half - 100) } };
    large.update_one(doc! { "_id": 0 }, change).await?;
    let mut other = largest(11);
    other.insert("_id", 1);
    other.insert("text", "z".repeat(16 * MIB - 200));
    large.replace_one(doc! { "_id": 1 }, other).await?;
    // More than one oplog entry holds.
    let mut session = source.client().start_session().await?;
    session.start_transaction().await?;
    large
        .insert_one(doc! { "_id": 20, "text": "t".repeat(9 * MIB) })
        .session(&mut session)
        .await?;
    large
        .insert_one(doc! { "_id": 21, "text": "u".repeat(8 * MIB) })
        .session(&mut session)
        .await?;
    session.commit_transaction().await?;
    let end = comes_back(&bed, &headwater, &source).await?;
    let folder = bed.new_folder("dump")?.join("out");
    let to = folder.to_str().context("a path that is no text")?;
    let ended = headwater
        .run(["restore", "default", "--at", &end.to_string(), "--to-dir", to])
        .await?;
    ensure!(ended.code == 0, "{}", ended.stderr);
    let dumped = std::fs::metadata(folder.join("large").join("documents.bson"))?;
    ensure!(dumped.len() > 80 * MIB as u64, "only {} bytes", dumped.len());
    Ok(())
}

fn ids() -> Vec<Bson> {
    let binary = |subtype, bytes| Bson::Binary(bson::Binary { subtype, bytes });
    vec![
        Bson::MinKey,
        Bson::MaxKey,
        Bson::Null,
        Bson::Boolean(false),
        Bson::Boolean(true),
        Bson::Int32(-7),
        Bson::Int64(i64::MIN),
        Bson::Int64(i64::MAX),
        Bson::Double(0.5),
        Bson::Double(f64::NAN),
        Bson::Double(f64::INFINITY),
        Bson::Double(f64::NEG_INFINITY),
        Bson::Double(-0.0),
        Bson::Decimal128("1E-6000".parse().unwrap_or(bson::Decimal128::from_bytes([1; 16]))),
        Bson::Decimal128("0.10".parse().unwrap_or(bson::Decimal128::from_bytes([2; 16]))),
        Bson::String(String::new()),
        Bson::String("a\0b".to_owned()),
        Bson::String("ÄÖÜ 💧".to_owned()),
        Bson::String("x".repeat(100_000)),
        Bson::Symbol("symbol".to_owned()),
        Bson::Document(doc! {}),
        Bson::Document(doc! { "b": 1, "a": [1, { "c": Bson::Null }] }),
        binary(bson::spec::BinarySubtype::Generic, vec![]),
        binary(bson::spec::BinarySubtype::Uuid, vec![9; 16]),
        binary(bson::spec::BinarySubtype::UserDefined(0x90), vec![1, 2, 3]),
        Bson::ObjectId(bson::oid::ObjectId::from_bytes([3; 12])),
        Bson::DateTime(bson::DateTime::from_millis(i64::MIN)),
        Bson::DateTime(bson::DateTime::from_millis(1)),
        Bson::Timestamp(bson::Timestamp { time: 1, increment: 0 }),
        Bson::JavaScriptCode("f()".to_owned()),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_of_every_type_and_odd_names_come_back() -> Result<()> {
    let bed = Bed::new().await?;
    let source = source(&bed).await?;
    let mut databases = Vec::new();
    for name in ["Ümläut", "a-b_c", "1234", "UPPER", "x".repeat(60).as_str()] {
        databases.push(source.client().database(name));
    }
    let long = "n".repeat(180);
    let names = [
        "plain",
        "with space",
        "dots.in.it",
        "per%cent",
        "quote\"'`",
        "back\\slash",
        "sl/ash",
        "tab\tline\nend",
        "💧",
        "-",
        "UPPER",
        "upper",
        "a+b&c=d?e#f",
        "a..b",
        &long,
        "system.js",
    ];
    for database in &databases {
        for name in names {
            let made = database
                .collection::<Document>(name)
                .insert_one(doc! { "_id": name, "name": name })
                .await;
            made.with_context(|| format!("{name:?} in {}", database.name()))?;
        }
    }
    let all: Collection<Document> = databases[0].collection("ids");
    let clustered = doc! { "create": "clustered", "clusteredIndex": { "key": { "_id": 1 }, "unique": true } };
    databases[0].run_command(clustered).await?;
    let clustered: Collection<Document> = databases[0].collection("clustered");
    for (n, id) in ids().into_iter().enumerate() {
        for collection in [&all, &clustered] {
            collection
                .insert_one(doc! { "_id": id.clone(), "n": n as i32, "": "empty", "a.b": 1, "$c": 2 })
                .await
                .with_context(|| format!("{id:?}"))?;
        }
    }
    let headwater = backed_up(&bed, &source).await?;
    change_everything(&all, &databases).await?;
    let end = comes_back(&bed, &headwater, &source).await?;
    through_an_archive(&bed, &headwater, &end.to_string()).await?;
    let again = bed
        .replica_set(ReplicaSetSpec::single(VERSION).not_replayable())
        .await?;
    restore_into(&headwater, &again.uri(), &end.to_string()).await?;
    compare(source.client(), again.client(), "the second target").await
}

async fn change_everything(all: &Collection<Document>, databases: &[Database]) -> Result<()> {
    for id in ids() {
        all.update_one(doc! { "_id": id }, doc! { "$inc": { "n": 1000 } })
            .await?;
    }
    // The same value in another number type: the bytes of the id change.
    all.replace_one(doc! { "_id": -7 }, doc! { "_id": -7.0, "was": "an integer" })
        .await?;
    for database in databases {
        let rename = doc! {
            "renameCollection": format!("{}.sl/ash", database.name()),
            "to": format!("{}.renamed 💧", database.name()),
        };
        client_of(database).database("admin").run_command(rename).await?;
    }
    Ok(())
}

fn client_of(database: &Database) -> Client {
    database.client().clone()
}

/// Every odd name survives the way through an archive into a directory.
async fn through_an_archive(bed: &Bed, headwater: &Headwater, at: &str) -> Result<()> {
    let folder = bed.new_folder("archive")?;
    let path = |name: &str| folder.join(name).to_string_lossy().into_owned();
    let (file, dir) = (path("all.archive"), path("dump"));
    for to in [["--to-archive", &file], ["--to-dir", &dir]] {
        let ended = headwater
            .run(["restore", "default", "--at", at].into_iter().chain(to))
            .await?;
        ensure!(ended.code == 0, "{to:?}: {}", ended.stderr);
    }
    let databases = std::fs::read_dir(&dir)?.count();
    ensure!(databases >= 5, "{databases} databases in the directory");
    Ok(())
}
