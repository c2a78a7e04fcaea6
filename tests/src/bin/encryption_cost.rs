//! Measures what encryption at rest costs: `cargo xtask encryption-cost [ROUNDS] [SCALE]`. One source is copied and restored with
//! and without, in turns, so that a busy moment of the machine meets both.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use headwater_tests::corpus::{self, CorpusSpec};
use headwater_tests::proof::{restore_into, until_complete};
use headwater_tests::{Bed, ReplicaSet, ReplicaSetSpec};

const VERSION: &str = "6.0.5";

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let rounds: usize = arguments.next().map_or(Ok(3), |text| text.parse()).context("rounds")?;
    let scale: f64 = arguments
        .next()
        .map_or(Ok(0.1), |text| text.parse())
        .context("a scale")?;
    let bed = Bed::new().await?;
    let source = bed
        .replica_set(ReplicaSetSpec::single(VERSION).not_replayable().oplog_mib(4096))
        .await?;
    let made = corpus::fill(&source.uri(), CorpusSpec { seed: 1, scale }).await?;
    println!(
        "{} documents, {:.2} GB of BSON",
        made.documents,
        made.bytes as f64 / 1e9
    );
    println!("| round | first copy, plain | encrypted | restore, plain | encrypted |\n|---|---|---|---|---|");
    let mut all = [Vec::new(), Vec::new(), Vec::new(), Vec::new()];
    for round in 0..rounds {
        let mut took = [0.0; 4];
        // The second of two finds warmer caches: whose turn that is changes.
        for encrypted in [round % 2 == 1, round % 2 == 0] {
            let (copy, restore) = once(&bed, &source, encrypted).await?;
            took[usize::from(encrypted)] = copy;
            took[2 + usize::from(encrypted)] = restore;
        }
        let [a, b, c, d] = took;
        println!("| {} | {a:.1} s | {b:.1} s | {c:.1} s | {d:.1} s |", round + 1);
        for (all, one) in all.iter_mut().zip(took) {
            all.push(one);
        }
    }
    let [a, b, c, d] = all.map(median);
    println!("| median | {a:.1} s | {b:.1} s | {c:.1} s | {d:.1} s |");
    println!(
        "cost: first copy {:+.1} %, restore {:+.1} %",
        percent(a, b),
        percent(c, d)
    );
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

fn percent(plain: f64, encrypted: f64) -> f64 {
    (encrypted / plain - 1.0) * 100.0
}

/// Seconds until the first restorable point, and of a restore to a server.
async fn once(bed: &Bed, source: &ReplicaSet, encrypted: bool) -> Result<(f64, f64)> {
    let keys = bed.new_folder("keys")?.join("master.keys");
    let mut headwater = bed
        .headwater()?
        .with_env("HEADWATER_ENCRYPTION_MASTER_KEY_FILE", &keys.display().to_string());
    let key = headwater.run(["key", "new"]).await?;
    ensure!(key.code == 0, "{}", key.stderr);
    std::fs::write(&keys, key.stdout)?;
    headwater.start_daemon().await?;
    headwater.start_agent().await?;
    let wish = if encrypted { "--encrypt" } else { "--no-encrypt" };
    let begun = now();
    headwater
        .json(&["deployment", "add", "default", "--uri", &source.uri(), wish])
        .await?;
    until_complete(&headwater).await?;
    let copy = begun.elapsed().as_secs_f64();
    let target = bed
        .replica_set(ReplicaSetSpec::single(VERSION).not_replayable())
        .await?;
    let begun = now();
    restore_into(&headwater, &target.uri(), "latest").await?;
    Ok((copy, begun.elapsed().as_secs_f64()))
}

#[expect(clippy::disallowed_methods, reason = "this program measures real time")]
fn now() -> Instant {
    Instant::now()
}
