//! The remote backing stores keep the promises of `Objects` on real services, and when those have mishaps.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bson::{Document, doc};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use headwater_host::real::SystemClock;
use headwater_host::{Host, WallClock};
use headwater_store::backend::open::{Places, open};
use headwater_store::conformance;
use headwater_store::objects::{Objects, Put, StoreError};
use headwater_tests::http_front::{HttpFront, Mishap, Request};
use headwater_tests::{Azure, Bed, ReplicaSetSpec, S3, azure, s3};

type Opening = BoxFuture<'static, Result<Arc<dyn Objects>, StoreError>>;

fn opener(blocks: &str, oplog: Option<&str>) -> Result<impl Fn() -> Opening + use<>> {
    let host = Host::real()?;
    let read = |uri: &str| uri.parse().map_err(|fault: String| anyhow::anyhow!(fault));
    let places = Places {
        blocks: read(blocks)?,
        oplog: oplog.map(read).transpose()?,
        sync: None,
    };
    Ok(move || {
        let (places, host) = (places.clone(), host.clone());
        async move { Ok(open(&places, &host).await?.objects) }.boxed()
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_conforms() -> Result<()> {
    let service = S3::start().await?;
    conformance::check(&opener(&service.uri("some/prefix"), None)?).await?;
    // Without a prefix, too.
    let store = opener(&service.uri(""), None)?().await?;
    store.put_new("a/b", Bytes::from_static(b"x")).await?;
    ensure!(store.list("").await?.iter().any(|object| object.key == "a/b"));
    Ok(())
}

/// There is no double of Google's service for the interface we use, but it is Amazon's with another word for the condition.
#[tokio::test(flavor = "multi_thread")]
async fn google_conforms_on_a_double_that_knows_its_condition() -> Result<()> {
    let service = S3::start().await?;
    let front = HttpFront::before(service.port(), |_| Mishap::None).await?;
    let folder = tempfile::tempdir()?;
    let key = folder.path().join("key.json");
    let account = r#"{"private_key":"", "private_key_id":"", "client_email":"", "disable_oauth":true}"#;
    std::fs::write(&key, account)?;
    let uri = |port: u16| {
        let (bucket, key) = (s3::BUCKET, key.display());
        format!("gs://{bucket}/some/prefix?credentialsFile={key}&endpoint=http://127.0.0.1:{port}")
    };
    conformance::check(&opener(&uri(front.port()), None)?).await?;
    let objects = opener(&service.uri("some/prefix"), None)?().await?;
    objects.put_new("a/b", Bytes::from_static(b"x")).await?;
    let found = opener(&uri(front.port()), None)?().await?.get("a/b").await?;
    ensure!(found == Bytes::from_static(b"x"), "it is another place");
    let careless = HttpFront::before(service.port(), |_| Mishap::Unconditional).await?;
    let refused = opener(&uri(careless.port()), None)?().await.map(drop);
    ensure!(
        refused
            .as_ref()
            .is_err_and(|e| e.to_string().contains("does not keep conditional writes")),
        "{refused:?}"
    );
    Ok(())
}

/// Run where the double is installed (`cargo xtask azure`): it needs Node.
#[tokio::test(flavor = "multi_thread")]
async fn azure_conforms_also_when_the_service_has_mishaps() -> Result<()> {
    let Some(service) = Azure::start().await? else {
        eprintln!("NOT RUN: the double of Azure is not installed; `cargo xtask azure` does that");
        return Ok(());
    };
    let folder = tempfile::tempdir()?;
    let key = folder.path().join("key");
    std::fs::write(&key, format!("{}\n", xtask::azure_double::KEY))?;
    conformance::check(&opener(&azure::uri(service.port(), "some/prefix", &key), None)?).await?;
    let shaken = HttpFront::before(service.port(), mishaps).await?;
    conformance::check(&opener(&azure::uri(shaken.port(), "p", &key), None)?).await?;
    ensure!(shaken.mishaps() > 50, "only {} mishaps", shaken.mishaps());
    let missing = azure::uri(service.port(), "p", &key).replace("az://backups", "az://nowhere");
    let error = opener(&missing, None)?().await.err().context("it opened")?;
    ensure!(!error.to_string().contains(xtask::azure_double::KEY), "{error}");
    Ok(())
}

/// Never a lost answer to a write that only one may win: then nobody would be told to have won.
fn mishaps(request: &Request) -> Mishap {
    match (request.number % 13, request.method.as_str()) {
        (1, _) => Mishap::Throttled,
        (3, _) => Mishap::FailedBefore,
        (4, "GET" | "HEAD") => Mishap::Cut,
        (5, "GET" | "DELETE") => Mishap::Unanswered,
        (6, "GET") => Mishap::Slow,
        _ => Mishap::None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_conforms_when_the_service_has_mishaps() -> Result<()> {
    let service = S3::start().await?;
    let front = HttpFront::before(service.port(), mishaps).await?;
    conformance::check(&opener(&s3::uri(front.port(), "p"), None)?).await?;
    ensure!(front.mishaps() > 50, "only {} mishaps", front.mishaps());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_whose_answer_is_lost_is_found_by_its_own_repetition() -> Result<()> {
    let service = S3::start().await?;
    let lost = |request: &Request| match request.method == "PUT" && request.target.contains("lost") {
        true if request.number.is_multiple_of(2) => Mishap::Unanswered,
        true => Mishap::FailedAfter,
        false => Mishap::None,
    };
    let front = HttpFront::before(service.port(), lost).await?;
    let direct = opener(&service.uri("p"), None)?().await?;
    let shaken = opener(&s3::uri(front.port(), "p"), None)?().await?;
    for n in 0..6 {
        let (key, bytes) = (format!("lost/{n}"), Bytes::from(vec![n; 1000]));
        // Whatever the first call says, another must settle it.
        let first = shaken.put_new(&key, bytes.clone()).await;
        ensure!(!matches!(first, Ok(Put::Created)), "nobody can have said so");
        ensure!(direct.get(&key).await? == bytes, "it is not there");
        ensure!(direct.put_new(&key, Bytes::from_static(b"x")).await? == Put::Exists);
        ensure!(direct.get(&key).await? == bytes, "it was replaced");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_is_not_there_and_a_service_that_ignores_conditions_are_refused_at_the_start() -> Result<()> {
    let service = S3::start().await?;
    let missing = service.uri("p").replace("@backups", "@nowhere");
    let error = opener(&missing, None)?().await.err().context("it opened")?;
    ensure!(error.to_string().contains("bucket does not exist"), "{error}");
    ensure!(!error.to_string().contains("secret"), "{error}");
    let careless = HttpFront::before(service.port(), |_| Mishap::Unconditional).await?;
    let uri = s3::uri(careless.port(), "p");
    let error = opener(&uri, None)?().await.err().context("it opened")?;
    ensure!(
        error.to_string().contains("does not keep conditional writes"),
        "{error}"
    );
    opener(&format!("{uri}&conditions=warn"), None)?().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn mongodb_conforms() -> Result<()> {
    let bed = Bed::new().await?;
    let set = bed
        .replica_set(ReplicaSetSpec::single("6.0.5").not_replayable())
        .await?;
    conformance::check(&opener(&set.store_uri("backups"), None)?).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_stores_behind_one_conform() -> Result<()> {
    let bed = Bed::new().await?;
    let set = bed
        .replica_set(ReplicaSetSpec::single("6.0.5").not_replayable())
        .await?;
    let folder = bed.new_folder("store")?;
    let blocks = format!("file:{}", folder.display());
    let open = opener(&blocks, Some(&set.store_uri("oplog")))?;
    conformance::check(&open).await?;
    let store = open().await?;
    for key in ["rs/d/s/oplog/1/a", "rs/d/s/blocks/a", "rs/d/s/sync/1/a"] {
        store.put_new(key, Bytes::from_static(b"x")).await?;
    }
    ensure!(store.list("rs/").await?.len() == 3);
    ensure!(store.list("rs/d/s/oplog/").await?.len() == 1);
    ensure!(!folder.join("rs/d/s/oplog").exists() && folder.join("rs/d/s/sync/1/a").is_file());
    Ok(())
}

/// Writes go on while the primary of the backing set steps down again and again; everything acknowledged is there
/// afterwards, once, and whole.
#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::disallowed_methods, reason = "writers run beside one another")]
async fn a_mongodb_store_works_through_elections_of_its_set() -> Result<()> {
    let bed = Bed::new().await?;
    let set = bed.replica_set(ReplicaSetSpec::three("6.0.5").not_replayable()).await?;
    let open = opener(&set.store_uri("backups"), None)?;
    let writers = (0..4_u8).map(|writer| {
        let opened = open();
        tokio::spawn(async move {
            let store = opened.await?;
            let mut acknowledged = Vec::new();
            for n in 0..40_u32 {
                let len = if n % 3 == 0 { 700_000 } else { 900 } + n as usize;
                let (key, bytes) = (format!("w/{writer}/{n:04}"), Bytes::from(vec![writer + 1; len]));
                // An error may be told; trying again settles it.
                let mut tries = 0;
                while let Err(error) = store.put_new(&key, bytes.clone()).await {
                    tries += 1;
                    ensure!(tries < 10, "{error}");
                }
                ensure!(store.get(&key).await? == bytes, "{key} is not as it was written");
                acknowledged.push((key, bytes));
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Ok(acknowledged)
        })
    });
    let writers: Vec<_> = writers.collect();
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        set.step_down().await?;
    }
    let store = open().await?;
    let mut due = Vec::new();
    for writer in writers {
        for (key, bytes) in writer.await?? {
            ensure!(store.get(&key).await? == bytes, "{key} is lost or damaged");
            due.push((key, bytes.len() as u64));
        }
    }
    let listed = store.list("w/").await?;
    ensure!(listed.into_iter().map(|meta| (meta.key, meta.size)).collect::<Vec<_>>() == due);
    Ok(())
}

/// Its clock is two hours ahead: every write that is under way looks to it like one that was given up.
struct Ahead;

impl WallClock for Ahead {
    fn now_ms(&self) -> i64 {
        SystemClock.now_ms() + 7_200_000
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_beside_a_commit_leaves_the_bytes_of_the_object_alone() -> Result<()> {
    let bed = Bed::new().await?;
    let set = bed
        .replica_set(ReplicaSetSpec::single("6.0.5").not_replayable())
        .await?;
    let uri = set.store_uri("backups");
    let store = opener(&uri, None)?().await?;
    let data = doc! { "failCommands": ["commitTransaction"], "blockConnection": true, "blockTimeMS": 4000 };
    let held_up = doc! { "configureFailPoint": "failCommand", "mode": { "times": 1 }, "data": data };
    set.client().database("admin").run_command(held_up).await?;
    let bytes = Bytes::from(vec![7; 700_000]);
    let sweep = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let pending = set.client().database("backups").collection::<Document>("pending");
        ensure!(
            pending.count_documents(doc! {}).await? == 1,
            "the write is not under way"
        );
        let places = Places {
            blocks: uri.parse().map_err(|fault: String| anyhow::anyhow!(fault))?,
            oplog: None,
            sync: None,
        };
        let host = Host {
            clock: Arc::new(Ahead),
            ..Host::real()?
        };
        let opened = open(&places, &host).await?;
        // It sweeps in the background: until the commit is through, and then some.
        tokio::time::sleep(Duration::from_secs(5)).await;
        drop(opened);
        Ok(())
    };
    let (put, swept) = futures::join!(store.put_new("k", bytes.clone()), sweep);
    swept?;
    ensure!(put? == Put::Created);
    ensure!(store.get("k").await? == bytes);
    Ok(())
}
