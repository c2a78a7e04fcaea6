//! Encryption at rest, as a thief of the store and an operator with keys see it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use bson::{Document, doc};
use headwater_model::Ts;
use headwater_tests::proof::{comes_back, position, until_complete};
use headwater_tests::{Bed, Headwater, ReplicaSet, ReplicaSetSpec, Trio};
use serde_json::Value;

const VERSION: &str = "6.0.5";
const PLANTED: [&str; 4] = ["vaultdatabase", "ledgercollection", "PLANTEDWORD", "plantedfield"];

async fn source(bed: &Bed) -> Result<ReplicaSet> {
    let source = bed
        .replica_set(ReplicaSetSpec::single(VERSION).not_replayable())
        .await?;
    plant(&source, 0).await?;
    Ok(source)
}

/// Documents whose words must not be seen.
async fn plant(source: &ReplicaSet, from: i32) -> Result<()> {
    let ledger: mongodb::Collection<Document> = source.client().database(PLANTED[0]).collection(PLANTED[1]);
    let documents = (from..from + 500).map(|n| doc! { "_id": n, PLANTED[3]: format!("{} {n}", PLANTED[2]) });
    ledger.insert_many(documents).await?;
    Ok(())
}

/// Every file below a folder with its bytes, by its path from there.
fn files(root: &Path, at: &Path, found: &mut BTreeMap<PathBuf, Vec<u8>>) -> Result<()> {
    for entry in std::fs::read_dir(at)? {
        let path = entry?.path();
        match path.is_dir() {
            true => files(root, &path, found)?,
            false => _ = found.insert(path.strip_prefix(root)?.to_owned(), std::fs::read(&path)?),
        }
    }
    Ok(())
}

fn stored(headwater: &Headwater) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
    let root = headwater.node_folder().join("store");
    let mut found = BTreeMap::new();
    files(&root, &root, &mut found)?;
    found.retain(|path, _| !path.starts_with(".tmp"));
    Ok(found)
}

fn shown_in(path: &Path, bytes: &[u8]) -> Option<&'static str> {
    let name = path.to_string_lossy().into_owned();
    let is_in = |word: &&str| name.contains(word) || bytes.windows(word.len()).any(|window| window == word.as_bytes());
    PLANTED.into_iter().find(is_in)
}

/// What a thief of the store has of the two deployments.
fn look_as_a_thief(headwater: &Headwater, source: &ReplicaSet) -> Result<()> {
    let all = stored(headwater)?;
    let address = source.member(0).address();
    let (mut sealed, mut plain) = (0, 0);
    for (path, bytes) in &all {
        let shown = shown_in(path, bytes);
        if path.starts_with("rs/plain") {
            plain += usize::from(!bytes.starts_with(b"HWSEAL"));
            continue;
        }
        ensure!(shown.is_none(), "{} shows {shown:?}", path.display());
        let shows_source = bytes.windows(address.len()).any(|window| window == address.as_bytes());
        ensure!(!shows_source, "{} shows where the source is", path.display());
        if path.starts_with("rs/default") {
            ensure!(bytes.starts_with(b"HWSEAL"), "{} is not sealed", path.display());
            sealed += 1;
        }
    }
    ensure!(sealed > 5, "only {sealed} objects were looked at");
    ensure!(plain > 5, "only {plain} objects of the other deployment are there");
    ensure!(
        all.keys().any(|path| path.starts_with("keys/default")),
        "the store alone would not do"
    );
    Ok(())
}

/// The standing of one deployment's replica set.
fn set_of<'a>(status: &'a Value, deployment: &str) -> Option<&'a Value> {
    let sets = status.get("replica_sets")?.as_array()?;
    let is_it = |set: &&Value| set.get("name").and_then(Value::as_str) == Some(&format!("{deployment}/rs0"));
    sets.iter().find(is_it)
}

async fn until_stored(headwater: &Headwater, deployment: &str, ts: Ts) -> Result<()> {
    let wanted = (u64::from(ts.seconds()), u64::from(ts.ordinal()));
    let stored = |status: &Value| {
        let to = set_of(status, deployment)?.pointer("/restorable/to")?;
        (position(to)? >= wanted).then_some(())
    };
    headwater
        .until("the newest entry of the source", &["status"], stored)
        .await
}

async fn restart(headwater: &mut Headwater) -> Result<()> {
    headwater.daemon()?.kill()?;
    headwater.start_daemon().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thief_sees_nothing_and_without_its_key_a_deployment_stays_shut_while_others_go_on() -> Result<()> {
    let bed = Bed::new().await?;
    let (hidden, open) = (source(&bed).await?, source(&bed).await?);
    let keys = bed.path().join("master.keys");
    let variable = ("HEADWATER_ENCRYPTION_MASTER_KEY_FILE", keys.display().to_string());
    let mut headwater = bed.headwater()?.with_env(variable.0, &variable.1);
    headwater.start_daemon().await?;

    // Without a master key nothing is promised.
    let add = ["deployment", "add", "default", "--uri", &hidden.uri(), "--encrypt"];
    let refused = headwater.run(add).await?;
    ensure!(
        refused.code != 0 && refused.stderr.contains("master.keys"),
        "{}",
        refused.stderr
    );
    let first = headwater.run(["key", "new", "first"]).await?.stdout;
    std::fs::write(&keys, &first)?;
    headwater.json(&add).await?;
    headwater
        .json(&["deployment", "add", "plain", "--uri", &open.uri()])
        .await?;
    headwater.start_agent().await?;
    until_complete(&headwater).await?;
    plant(&hidden, 1000).await?;
    plant(&open, 1000).await?;
    headwater.json(&["snapshot", "take", "default", "--wait"]).await?;
    restart(&mut headwater).await?;
    plant(&hidden, 2000).await?;
    comes_back(&bed, &headwater, &hidden).await?;
    until_stored(&headwater, "plain", open.mark("seen").await?).await?;
    look_as_a_thief(&headwater, &hidden)?;
    let check = headwater.run(["check", "default", "--data"]).await?;
    ensure!(check.code == 0, "{}{}", check.stdout, check.stderr);

    // Other bytes under the same name, then no such key at all: that one is shut, the other goes on.
    let other = headwater.run(["key", "new", "first"]).await?.stdout;
    for (content, due) in [(other, "not the one of that name"), (String::new(), "holds no key")] {
        std::fs::write(&keys, content)?;
        restart(&mut headwater).await?;
        let told = |status: &Value| {
            let problem = set_of(status, "default")?.get("problem")?.as_str()?;
            (problem.contains("is encrypted and cannot be opened") && problem.contains(due)).then_some(())
        };
        headwater.until("the word that it is shut", &["status"], told).await?;
        let target = bed.new_folder("dump")?.join("d").display().to_string();
        let restore = headwater
            .run(["restore", "default", "--at", "latest", "--to-dir", &target])
            .await?;
        ensure!(
            restore.code != 0 && restore.stderr.contains("cannot be opened"),
            "{}",
            restore.stderr
        );
        plant(&open, if due.contains("name") { 3000 } else { 4000 }).await?;
        until_stored(&headwater, "plain", open.mark("goes on").await?).await?;
    }

    // The key is there again, behind a new one: no restart is needed; and then the old one may go.
    let second = headwater.run(["key", "new", "second"]).await?.stdout;
    std::fs::write(&keys, format!("{second}{first}"))?;
    comes_back(&bed, &headwater, &hidden).await?;
    let before = stored(&headwater)?;
    let rotated = headwater.json(&["key", "rotate"]).await?;
    ensure!(rotated.pointer("/0/changed") == Some(&Value::Bool(true)), "{rotated}");
    let again = headwater.json(&["key", "rotate", "default"]).await?;
    ensure!(again.pointer("/0/changed") == Some(&Value::Bool(false)), "{again}");
    let after = stored(&headwater)?;
    let packs = |all: &BTreeMap<PathBuf, Vec<u8>>| -> BTreeMap<PathBuf, Vec<u8>> {
        let packs = all
            .iter()
            .filter(|(path, _)| path.extension().is_some_and(|e| e == "pack"));
        packs.map(|(path, bytes)| (path.clone(), bytes.clone())).collect()
    };
    let (before, after) = (packs(&before), packs(&after));
    ensure!(
        before.iter().all(|(path, bytes)| after.get(path) == Some(bytes)),
        "packs were written anew"
    );
    std::fs::write(&keys, second)?;
    restart(&mut headwater).await?;
    plant(&hidden, 5000).await?;
    comes_back(&bed, &headwater, &hidden).await?;
    look_as_a_thief(&headwater, &hidden)?;
    let log = std::fs::read_to_string(headwater.log("daemon"))?;
    let secret = first.split_whitespace().nth(1).context("no key")?;
    ensure!(!log.contains(secret), "a master key is in the log");
    let removed = headwater.run(["deployment", "remove", "default", "--yes"]).await?;
    ensure!(removed.code == 0, "{}", removed.stderr);
    headwater
        .until("the end of the data key", &["status"], |_| {
            let all = stored(&headwater).ok()?;
            all.keys().all(|path| !path.starts_with("keys/default")).then_some(())
        })
        .await
}

/// Three daemons, of which the owner is killed: the next opens what it sealed, and what comes back is what was there.
#[tokio::test(flavor = "multi_thread")]
async fn a_successor_opens_what_its_predecessor_sealed() -> Result<()> {
    let bed = Bed::new().await?;
    let source = source(&bed).await?;
    let keys = bed.path().join("master.keys");
    let variable = ("HEADWATER_ENCRYPTION_MASTER_KEY_FILE", keys.display().to_string());
    let headwater = bed
        .headwater()?
        .with_env(variable.0, &variable.1)
        .with_env("HEADWATER_ENCRYPTION_DEPLOYMENTS", "on");
    std::fs::write(&keys, headwater.run(["key", "new"]).await?.stdout)?;
    let mut trio = Trio::start(headwater, 3).await?;
    let add = ["deployment", "add", "default", "--uri", &source.uri()];
    let added = trio.commands().json(&add).await?;
    ensure!(added.pointer("/encryption/data_key").is_some(), "{added}");
    trio.start_agent(0)?;
    trio.until_complete().await?;
    trio.until_snapshot_taken().await?;
    let owner = trio.owner().await?;
    trio.daemon(owner)?.kill()?;
    plant(&source, 1000).await?;
    trio.until_applied(source.mark("after the kill").await?).await?;
    ensure!(trio.owner().await? != owner);
    trio.start_daemon(owner).await?;
    trio.comes_back(&bed, &source).await
}

/// Every daemon is lost: store and master key are enough, and the store without it is not.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_sealed_comes_back_from_the_store_with_its_master_key_and_not_without() -> Result<()> {
    let bed = Bed::new().await?;
    let source = source(&bed).await?;
    let keys = bed.path().join("master.keys");
    let variable = ("HEADWATER_ENCRYPTION_MASTER_KEY_FILE", keys.display().to_string());
    let headwater = bed.headwater()?.with_env(variable.0, &variable.1);
    let line = headwater.run(["key", "new"]).await?.stdout;
    std::fs::write(&keys, &line)?;
    let mut trio = Trio::start(headwater, 3).await?;
    let add = ["deployment", "add", "default", "--uri", &source.uri(), "--encrypt"];
    trio.commands().json(&add).await?;
    trio.start_agent(0)?;
    trio.until_complete().await?;
    trio.until_snapshot_taken().await?;
    plant(&source, 1000).await?;
    let instant = source.mark("before the loss").await?;
    trio.until_applied(instant).await?;
    trio.lose_everything()?;

    std::fs::write(&keys, "")?;
    let refused = trio.recover().await;
    ensure!(
        refused
            .as_ref()
            .is_err_and(|e| format!("{e:#}").contains("--master-key-file")),
        "{refused:?}"
    );
    std::fs::write(&keys, line)?;
    let told = trio.recover().await?;
    ensure!(told["done"] == true, "{told}");
    for number in 0..trio.daemons() {
        trio.start_daemon(number).await?;
    }
    trio.until_whole().await?;
    trio.start_agent(0)?;
    plant(&source, 2000).await?;
    trio.until_applied(source.mark("after the recovery").await?).await?;
    trio.comes_back(&bed, &source).await
}
