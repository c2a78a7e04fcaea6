//! Checks, proofs and damage, with real processes: what is whole is said to be, and a flipped bit is found and never
//! restored silently.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use bson::{Document, doc};
use headwater_tests::proof::{until_complete, until_stored};
use headwater_tests::{Authority, Bed, Headwater, Hook, ReplicaSet, ReplicaSetSpec};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const VERSION: &str = "6.0.5";

async fn backed_up(bed: &Bed) -> Result<(ReplicaSet, Headwater)> {
    let source = bed
        .replica_set(ReplicaSetSpec::single(VERSION).not_replayable())
        .await?;
    let shop: mongodb::Collection<Document> = source.client().database("shop").collection("orders");
    let text = |id: i32| format!("{:x}", md5_like(id)).repeat(20);
    shop.insert_many((0..4000).map(|id| doc! { "_id": id, "text": text(id) }))
        .await?;
    let mut headwater = bed.headwater()?;
    headwater.start_quickstart(&source.uri(), "default").await?;
    until_complete(&headwater).await?;
    until_stored(&headwater, source.mark("begun").await?).await?;
    Ok((source, headwater))
}

/// Numbers that do not compress well.
fn md5_like(id: i32) -> u64 {
    (id as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23)
}

/// All files of a kind in the store of this node, the largest first.
fn objects(headwater: &Headwater, part: &str) -> Result<Vec<PathBuf>> {
    fn walk(folder: &Path, found: &mut Vec<(u64, PathBuf)>) -> Result<()> {
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            match entry.file_type()?.is_dir() {
                true => walk(&entry.path(), found)?,
                false => found.push((entry.metadata()?.len(), entry.path())),
            }
        }
        Ok(())
    }
    let mut found = Vec::new();
    walk(&headwater.node_folder().join("store"), &mut found)?;
    found.sort();
    let paths = found.into_iter().rev().map(|(_, path)| path);
    Ok(paths.filter(|path| path.to_string_lossy().contains(part)).collect())
}

fn flip(file: &Path, at: impl Fn(usize) -> usize) -> Result<()> {
    let mut bytes = std::fs::read(file)?;
    let at = at(bytes.len());
    *bytes.get_mut(at).context("no such byte")? ^= 0x10;
    Ok(std::fs::write(file, bytes)?)
}

async fn check(headwater: &Headwater, arguments: &[&str]) -> Result<(i32, Value)> {
    let all = ["check", "default"]
        .iter()
        .chain(arguments)
        .chain(&["--output", "json"]);
    let ended = headwater.run(all.copied()).await?;
    let view = serde_json::from_str(&ended.stdout).with_context(|| format!("{}\n{}", ended.stdout, ended.stderr))?;
    Ok((ended.code, view))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_in_a_block_is_found_and_never_restored_silently() -> Result<()> {
    let bed = Bed::new().await?;
    let (source, mut headwater) = backed_up(&bed).await?;
    for arguments in [&[][..], &["--data"]] {
        let (code, view) = check(&headwater, arguments).await?;
        ensure!(code == 0 && view["state"] == "sound", "{view}");
        ensure!(
            view["images"].as_u64() > Some(0) && view["leaves"].as_u64() > Some(3),
            "{view}"
        );
    }
    let (_, view) = check(&headwater, &["--data"]).await?;
    ensure!(
        view["bytes"].as_u64() > Some(10_000) && view["entries"].as_u64() > Some(0),
        "{view}"
    );

    // Damaged while nobody has the block in memory.
    headwater.daemon()?.kill()?;
    let packs = objects(&headwater, "/blocks/")?;
    let pack = packs.first().context("no packs")?;
    flip(pack, |len| len / 2)?;
    let name = pack.file_name().context("no name")?.to_string_lossy().into_owned();
    headwater.start_quickstart(&source.uri(), "default").await?;
    let (code, view) = check(&headwater, &["--data"]).await?;
    ensure!(code == 10 && view["state"] == "damaged", "{code} {view}");
    ensure!(view["findings"].to_string().contains(&name), "{view}");

    let status = headwater.json(&["check", "status", "default"]).await?;
    let damage = &status["damage"][0];
    ensure!(
        damage["object"].as_str().is_some_and(|o| o.ends_with(&name)),
        "{status}"
    );
    let snapshots = headwater.json(&["snapshot", "list", "default"]).await?;
    let damaged = damage["snapshots"].as_array().context("no list")?;
    ensure!(
        !damaged.is_empty() && snapshots[0]["damaged"].is_string(),
        "{status}\n{snapshots}"
    );
    let shown = headwater.json(&["status"]).await?;
    ensure!(shown["alerts"].to_string().contains("damage"), "{shown}");

    let folder = bed.new_folder("dump")?.join("out");
    let to = folder.to_str().context("a path that is no text")?;
    let at = format!("snapshot:{}", snapshots[0]["id"].as_str().context("no id")?);
    for at in [at.as_str(), "latest"] {
        let ended = headwater
            .run(["restore", "default", "--at", at, "--to-dir", to])
            .await?;
        ensure!(ended.code != 0, "a damaged backup was restored: {}", ended.stdout);
        ensure!(ended.stderr.contains("damaged"), "{}", ended.stderr);
    }
    Ok(())
}

/// `GET path`, without a key.
async fn get(headwater: &Headwater, path: &str) -> Result<String> {
    let service = headwater.service();
    let address = service.strip_prefix("http://").context("no address")?;
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.0\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no answer")?;
    ensure!(head.contains(" 200 "), "{head}");
    Ok(body.to_owned())
}

/// Reads a page of metrics as strictly as its format is written: families one by one, each told once, every sample in its
/// family. Gives the samples with their labels as written.
fn parse(page: &str) -> Result<BTreeMap<String, f64>> {
    let is_name = |name: &str| {
        !name.is_empty()
            && name
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    };
    let (mut family, mut kind) = (String::new(), String::new());
    let (mut families, mut samples) = (BTreeSet::new(), BTreeMap::new());
    ensure!(page.ends_with('\n'), "the last line is not ended");
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').context("no help")?;
            ensure!(is_name(name) && help.ends_with('.'), "{line}");
            ensure!(families.insert(name.to_owned()), "{name} is told twice");
            (family, kind) = (name.to_owned(), String::new());
            continue;
        }
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, of) = rest.split_once(' ').context("no type")?;
            ensure!(
                name == family && kind.is_empty() && matches!(of, "gauge" | "counter"),
                "{line}"
            );
            ensure!((of == "counter") == name.ends_with("_total"), "{line}");
            kind = of.to_owned();
            continue;
        }
        let (sample, value) = line.rsplit_once(' ').context("no value")?;
        let (name, labels) = sample.split_once('{').unwrap_or((sample, "}"));
        ensure!(name == family && !kind.is_empty(), "{line} is not of {family}");
        for label in labels
            .strip_suffix('}')
            .context("open braces")?
            .split(',')
            .filter(|l| !l.is_empty())
        {
            let (name, value) = label.split_once('=').context("no label")?;
            ensure!(
                is_name(name) && value.len() >= 2 && value.starts_with('"') && value.ends_with('"'),
                "{line}"
            );
        }
        let value: f64 = value.parse()?;
        ensure!(
            samples.insert(sample.to_owned(), value).is_none(),
            "{sample} is told twice"
        );
    }
    Ok(samples)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instant_is_proven_metrics_tell_it_and_a_webhook_hears_of_damage_once() -> Result<()> {
    let bed = Bed::new().await?;
    let hook = Hook::start().await?;
    let source = bed
        .replica_set(ReplicaSetSpec::single(VERSION).not_replayable())
        .await?;
    let shop: mongodb::Collection<Document> = source.client().database("shop").collection("orders");
    shop.insert_many((0..500).map(|id| doc! { "_id": id, "text": md5_like(id) as i64 }))
        .await?;
    let mut headwater = bed.headwater()?.with_env("HEADWATER_ALERTS_WEBHOOK", &hook.url("http"));
    headwater.start_quickstart(&source.uri(), "default").await?;
    until_complete(&headwater).await?;

    // One image is one way; two make a proof.
    for round in 0..2 {
        shop.update_many(doc! {}, doc! { "$inc": { "n": 1 } }).await?;
        until_stored(&headwater, source.mark(&format!("round {round}")).await?).await?;
        headwater.json(&["snapshot", "take", "default", "--wait"]).await?;
    }
    shop.delete_one(doc! { "_id": 7 }).await?;
    until_stored(&headwater, source.mark("after").await?).await?;
    for at in [&["--at", "latest"][..], &[]] {
        let arguments: Vec<&str> = ["proof", "run", "default"].iter().chain(at).copied().collect();
        let proof = headwater.json(&arguments).await?;
        ensure!(proof["state"] == "sound" && proof["proof"]["agree"] == true, "{proof}");
        ensure!(
            at.is_empty() || proof["proof"]["documents"].as_u64() >= Some(499),
            "{proof}"
        );
    }
    let (code, view) = check(&headwater, &["--data"]).await?;
    ensure!(code == 0, "{view}");

    let samples = parse(&get(&headwater, "/metrics").await?)?;
    let of_set = |name: &str| format!("{name}{{deployment=\"default\",replica_set=\"rs0\"}}");
    for name in [
        "headwater_last_proof_timestamp_seconds",
        "headwater_last_sound_check_timestamp_seconds",
        "headwater_tip_timestamp_seconds",
        "headwater_stored_bytes",
        "headwater_written_bytes_total",
    ] {
        ensure!(
            samples.get(&of_set(name)).is_some_and(|value| *value > 0.0),
            "{name}: {samples:?}"
        );
    }
    ensure!(samples.get("headwater_raft_is_leader") == Some(&1.0), "{samples:?}");
    ensure!(samples.contains_key("process_resident_memory_bytes"), "{samples:?}");
    let documented = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/METRICS.md"))?;
    for sample in samples.keys() {
        let name = sample.split('{').next().unwrap_or_default();
        ensure!(documented.contains(&format!("`{name}")), "{name} is not documented");
    }

    // Damage begins, is told once though the first call failed, and ends.
    hook.refuse_next();
    headwater.daemon()?.kill()?;
    let pack = objects(&headwater, "/blocks/")?
        .into_iter()
        .next()
        .context("no packs")?;
    flip(&pack, |len| len / 3)?;
    headwater.start_quickstart(&source.uri(), "default").await?;
    let (code, view) = check(&headwater, &["--data"]).await?;
    ensure!(code == 10, "{view}");
    let id = "damage:default/rs0";
    hook.until_told("begin", id).await?;
    let acknowledged = headwater.json(&["alerts", "ack", id, "--comment", "tonight"]).await?;
    ensure!(acknowledged["acknowledged"] == "tonight", "{acknowledged}");
    let status = headwater.json(&["status"]).await?;
    ensure!(status["open_alerts"][0]["id"] == id, "{status}");
    flip(&pack, |len| len / 3)?;
    let (code, view) = check(&headwater, &["--data"]).await?;
    ensure!(code == 0, "{view}");
    hook.until_told("end", id).await?;
    let about: Vec<_> = hook.told().into_iter().filter(|(_, told)| told == id).collect();
    ensure!(about.len() == 2, "{about:?}");
    let listed = headwater.json(&["alerts", "list"]).await?;
    ensure!(listed[0]["ended"].is_string(), "{listed}");
    let log = std::fs::read_to_string(headwater.log("daemon"))?;
    ensure!(!log.contains("verysecret"), "the address of the webhook is in the log");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_by_tls_hears_of_alerts_once_its_certificate_is_believed() -> Result<()> {
    let bed = Bed::new().await?;
    let authority = Authority::new(&bed.new_folder("authority")?)?;
    let system = Authority::new(&bed.new_folder("system")?)?;
    let stranger = Authority::new(&bed.new_folder("stranger")?)?;
    let hook = Hook::start().await?;
    hook.speak_tls(&stranger.sign("hook")?)?;
    let source = bed
        .replica_set(ReplicaSetSpec::single(VERSION).not_replayable())
        .await?;
    let mut headwater = bed
        .headwater()?
        .with_tls(&authority.file(), &authority.sign("daemon")?)
        .with_env("SSL_CERT_FILE", &system.file().display().to_string())
        .with_env("HEADWATER_ALERTS_WEBHOOK", &hook.url("https"))
        .with_env("HEADWATER_ALERTS_AGENT_DOWN", "10s");
    headwater.start_daemon().await?;
    headwater
        .json(&["deployment", "add", "default", "--uri", &source.uri()])
        .await?;
    headwater.start_agent().await?;
    until_complete(&headwater).await?;
    headwater.agent()?.kill()?;

    let id = "agent_down:default/rs0";
    let untold = |alerts: &Value| alerts[0]["untold"].as_str().map(str::to_owned);
    let why = headwater
        .until("a webhook that is not believed", &["alerts", "list"], untold)
        .await?;
    ensure!(why.contains("certificate") && why.contains("net.tls.caFile"), "{why}");
    for command in ["alerts list", "status"] {
        let shown = headwater.run(command.split(' ')).await?;
        ensure!(shown.code == 0 && shown.stdout.contains(&why), "{}", shown.stdout);
    }
    ensure!(hook.told().is_empty(), "{:?}", hook.told());

    // One that the system believes in is as good as one of the cluster's own authority.
    hook.speak_tls(&system.sign("hook")?)?;
    hook.until_told("begin", id).await?;
    let told = |alerts: &Value| alerts[0]["untold"].is_null().then_some(());
    headwater
        .until("the alert to be told", &["alerts", "list"], told)
        .await?;
    hook.speak_tls(&authority.sign("hook")?)?;
    headwater.start_agent().await?;
    hook.until_told("end", id).await?;
    let log = std::fs::read_to_string(headwater.log("daemon"))?;
    ensure!(!log.contains("verysecret"), "the address of the webhook is in the log");
    ensure!(!log.contains("panicked"), "the daemon panicked");
    Ok(())
}
