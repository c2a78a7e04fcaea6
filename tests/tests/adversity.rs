//! What goes wrong around a service: no keys, hostile bodies, a source that is away, a disk that is full. It answers in
//! words, loses nothing, and goes on.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail, ensure};
use bson::{Document, doc};
use bytes::Bytes;
use headwater_protocol::frame::{FrameKind, seal};
use headwater_tests::proof::{comes_back, restored, set_of, until_complete};
use headwater_tests::{Bed, Headwater, LogWatch, ReplicaSetSpec, ballast, until};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const VERSION: &str = "6.0.5";

/// The first alert that holds `words`.
fn alert(status: &Value, words: &str) -> Option<String> {
    let alerts = status.get("alerts")?.as_array()?;
    let found = alerts
        .iter()
        .filter_map(Value::as_str)
        .find(|alert| alert.contains(words))?;
    Some(found.to_owned())
}

/// Sends a request as it is written and gives the answer's status; 0 when the connection was closed without one.
async fn posted(headwater: &Headwater, path: &str, key: &str, declared: usize, body: &[u8]) -> Result<u16> {
    let address = headwater.service();
    let mut socket = TcpStream::connect(address.trim_start_matches("http://")).await?;
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\nconnection: close\r\n\
         content-type: application/octet-stream\r\ncontent-length: {declared}\r\n\r\n"
    );
    socket.write_all(head.as_bytes()).await?;
    // A service that has heard enough may close before everything was sent.
    let _ = socket.write_all(body).await;
    let _ = socket.shutdown().await;
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer).await;
    let text = String::from_utf8_lossy(&answer);
    Ok(text
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .unwrap_or(0))
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_keys_and_hostile_bodies_are_refused_and_the_service_goes_on() -> Result<()> {
    let bed = Bed::new().await?;
    let source = bed
        .replica_set(ReplicaSetSpec::single(VERSION).not_replayable())
        .await?;
    ballast::fill(source.client(), 40, 1000).await?;
    let mut headwater = bed.headwater()?;
    headwater.start_quickstart(&source.uri(), "default").await?;
    until_complete(&headwater).await?;
    let wrong = bed.new_folder("key")?.join("wrong.key");
    std::fs::write(&wrong, "0123456789abcdef0123456789abcdef\n")?;
    let status = headwater
        .command(["status"])
        .env("HEADWATER_KEY_FILE", &wrong)
        .output()?;
    ensure!(
        status.status.code() == Some(6),
        "{}",
        String::from_utf8_lossy(&status.stderr)
    );
    let agent_key = std::fs::read_to_string(headwater.node_folder().join("agent.key"))?;
    let agent_key = agent_key.trim();
    let by_agent = headwater
        .command(["status"])
        .env("HEADWATER_KEY_FILE", headwater.node_folder().join("agent.key"))
        .output()?;
    ensure!(by_agent.status.code() == Some(6), "an agent's key opens the user's API");

    let oplog = "/agent/v1/default/rs0/oplog";
    ensure!(posted(&headwater, oplog, "nobody", 4, b"oops").await? == 401);
    ensure!(posted(&headwater, oplog, &headwater.admin_key()?, 4, b"oops").await? == 403);
    ensure!(posted(&headwater, oplog, agent_key, 4, b"oops").await? == 400);
    ensure!(posted(&headwater, oplog, agent_key, 1 << 30, b"large").await? == 413);
    let nested = (0..400).fold(bson::rawdoc! {}, |inner, _| bson::rawdoc! { "a": inner });
    let bodies: [(&str, Bytes); 4] = [
        ("a bomb", seal(FrameKind::OplogSlice, &doc! {}, &vec![0; 50 << 20])?),
        (
            "deep nesting",
            seal(FrameKind::OplogSlice, &doc! {}, nested.as_bytes())?,
        ),
        (
            "a lying length",
            seal(FrameKind::OplogSlice, &doc! {}, &[255, 255, 255, 127, 0])?,
        ),
        ("another kind", seal(FrameKind::Image, &doc! {}, &[5, 0, 0, 0, 0])?),
    ];
    for (what, body) in &bodies {
        let status = posted(&headwater, oplog, agent_key, body.len(), body).await?;
        ensure!(status == 400, "{what} was answered with {status}");
        let cut = posted(&headwater, oplog, agent_key, body.len(), &body[..body.len() / 2]).await?;
        ensure!(matches!(cut, 0 | 400), "half of {what} was answered with {cut}");
    }
    comes_back(&bed, &headwater, &source).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_is_away_is_told_and_taken_up_again_when_it_is_back() -> Result<()> {
    let bed = Bed::new().await?;
    let mut source = bed
        .replica_set(ReplicaSetSpec::single(VERSION).not_replayable())
        .await?;
    ballast::fill(source.client(), 40, 1000).await?;
    let mut headwater = bed.headwater()?;
    headwater.start_daemon().await?;
    headwater
        .json(&["deployment", "add", "default", "--uri", &source.uri()])
        .await?;
    let nobody = "mongodb://127.0.0.1:1/?replicaSet=rs0&serverSelectionTimeoutMS=1000";
    headwater
        .json(&["deployment", "add", "nobody", "--uri", nobody])
        .await?;
    headwater.start_agent().await?;
    // The one that cannot be reached does not hold up the other.
    until_complete(&headwater).await?;
    let told = headwater
        .until("an alert", &["status"], |status| alert(status, "not reachable"))
        .await?;
    ensure!(told.contains("nobody"), "{told}");
    headwater.run(["deployment", "remove", "nobody", "--yes"]).await?;

    source.member_mut(0).kill()?;
    let told = headwater
        .until("an alert", &["status"], |status| alert(status, "default"))
        .await?;
    eprintln!("{told}");
    source.member_mut(0).start_again().await?;
    source.primary().await?;
    source
        .client()
        .database("later")
        .collection::<Document>("c")
        .insert_one(doc! { "_id": 1 })
        .await?;
    comes_back(&bed, &headwater, &source).await?;
    let silent = |status: &Value| alert(status, "default").is_none().then_some(());
    headwater.until("no alert any more", &["status"], silent).await
}

/// A small file system of its own; `None` where this machine does not let us mount one.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(folder: PathBuf, mebibytes: u32) -> Option<SmallDisk> {
        let size = format!("size={mebibytes}m");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(&folder)
            .output();
        mounted
            .is_ok_and(|output| output.status.success())
            .then_some(SmallDisk(folder))
    }

    /// Takes all the space there is.
    fn fill(&self) -> Result<PathBuf> {
        let filler = self.0.join("filler");
        // Ends with an error, as it shall.
        let _ = std::fs::write(&filler, vec![1; 200 << 20]);
        ensure!(filler.exists(), "nothing was written");
        Ok(filler)
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_store_is_told_loses_nothing_and_is_taken_up_again_when_there_is_space() -> Result<()> {
    let bed = Bed::new().await?;
    let Some(disk) = SmallDisk::mount(bed.new_folder("disk")?, 128) else {
        eprintln!("NOT RUN: this machine does not let us mount a small disk");
        return Ok(());
    };
    let source = bed
        .replica_set(ReplicaSetSpec::single(VERSION).not_replayable())
        .await?;
    ballast::fill(source.client(), 400, 10_000).await?;
    let store = format!("file:{}", disk.path().join("store").display());
    let mut headwater = bed.headwater()?.with_env("HEADWATER_STORE_URI", &store);
    headwater.start_daemon().await?;
    headwater
        .json(&["deployment", "add", "default", "--uri", &source.uri()])
        .await?;
    headwater.start_agent().await?;
    until_complete(&headwater).await?;
    let before = comes_back(&bed, &headwater, &source).await?;
    let filler = disk.fill()?;
    let mut agent_log = LogWatch::from_now(&headwater.log("agent"))?;
    let more: mongodb::Collection<Document> = source.client().database("more").collection("c");
    for id in 0..50 {
        more.insert_one(doc! { "_id": id, "text": "more ".repeat(5000) })
            .await?;
    }
    agent_log.until_logged("full").await?;
    let told = headwater
        .until("an alert", &["status"], |status| alert(status, "full"))
        .await?;
    eprintln!("{told}");
    // Asked for now, it is taken once there is space.
    headwater.json(&["snapshot", "take", "default"]).await?;
    // A restart on a full disk neither loses nor breaks anything.
    headwater.daemon()?.kill()?;
    if headwater.start_daemon().await.is_err() {
        bail!(
            "the daemon does not start on a full store: {}",
            headwater.log_tail("daemon")
        );
    }
    std::fs::remove_file(&filler)?;
    until("the alert to go", || async {
        let status = headwater.json(&["status"]).await?;
        ensure!(set_of(&status).is_some(), "the replica set is forgotten");
        Ok(alert(&status, "full").is_none().then_some(()))
    })
    .await?;
    comes_back(&bed, &headwater, &source).await?;
    let old = restored(&bed, &headwater, VERSION, &before.to_string()).await?;
    let names = old.client().list_database_names().await?;
    ensure!(!names.contains(&"more".to_owned()), "{names:?}");
    Ok(())
}
