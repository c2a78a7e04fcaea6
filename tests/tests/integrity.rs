//! Checks, proofs and damage, with real processes: what is whole is said to be, and a flipped bit is found and never
//! restored silently.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use bson::{Document, doc};
use headwater_tests::proof::{until_complete, until_stored};
use headwater_tests::{Bed, Headwater, ReplicaSet, ReplicaSetSpec};
use serde_json::Value;

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
