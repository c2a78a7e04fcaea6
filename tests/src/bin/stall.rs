//! Measures what a checkpoint costs those who write at the source: `cargo xtask stall` runs this in release.
//!
//! Checkpoints alternate by chance with shams: as many commands over as long a time, that ask for nothing. Headwater's
//! programs step back behind the servers, so that what is left is what a checkpoint does at the source.

use std::time::Duration;

use anyhow::{Context, Result};
use headwater_tests::bank::latency::{Latencies, Span, shares};
use headwater_tests::bank::{Bank, Business, observe};
use headwater_tests::headwater::Headwater;
use headwater_tests::sharded::{Cluster, Shared};
use headwater_tests::{Bed, Trio};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::{Instant, sleep};

const VERSION: &str = "6.0.5";
const ACCOUNTS_EACH: i64 = 60;

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let rounds: usize = arguments.next().context("a number of rounds")?.parse()?;
    let shards: Vec<usize> = arguments.map(|text| text.parse()).collect::<Result<_, _>>()?;
    println!("| shards | a write at the source, majority | spans | writes | p50 | p99 | max |");
    println!("|---|---|---|---|---|---|---|");
    for shards in shards {
        measure(rounds, shards).await?;
    }
    Ok(())
}

async fn measure(rounds: usize, shards: usize) -> Result<()> {
    let bed = Bed::new().await?;
    let cluster = Cluster::start(&bed, VERSION, shards).await?;
    let each = ACCOUNTS_EACH;
    let bank = Bank { shards, each };
    bank.open(&mut cluster.router().await?).await?;
    let (uri, cluster) = (cluster.uri(), Shared::new(cluster));
    let mut trio = Trio::start(bed.headwater()?.stepping_back(), 3).await?;
    let mut commands = Headwater::find(trio.commands().folder().to_owned())?.stepping_back();
    commands.talk_to(&trio.commands().service());
    commands.json(&["deployment", "add", "shop", "--uri", &uri]).await?;
    trio.start_agent(0)?;
    observe::until_complete(&commands, shards + 1).await?;

    let (business, latencies) = (Business::default(), Latencies::default());
    let spans = async {
        let spans = spans(&commands, rounds).await;
        business.close();
        spans
    };
    let work = futures::future::try_join3(
        spans,
        business.transfer(&cluster, bank, 1),
        business.probe(&cluster, &latencies),
    );
    let ((checkpoints, shams), ..) = work.await.with_context(|| trio.logs())?;
    for (what, spans) in [("a checkpoint", checkpoints), ("a sham", shams)] {
        let (mut writes, _) = latencies.within(&spans);
        let (count, cells) = (writes.len(), shares(&mut writes));
        println!("| {shards} | during {what} | {} | {count} | {cells} |", spans.len());
    }
    Ok(())
}

/// When there were checkpoints, and when there were shams.
async fn spans(headwater: &Headwater, rounds: usize) -> Result<(Vec<Span>, Vec<Span>)> {
    let mut random = StdRng::seed_from_u64(7);
    let (mut checkpoints, mut shams) = (Vec::new(), Vec::new());
    let mut last = Duration::from_secs(1);
    for _ in 0..rounds {
        sleep(Duration::from_millis(random.gen_range(500..1500))).await;
        if random.gen_bool(0.5) {
            let (id, asked) = observe::ask(headwater).await?;
            if let Err(why) = observe::outcome(headwater, &id).await? {
                eprintln!("{why}");
            }
            last = asked.elapsed();
            checkpoints.push((asked, Instant::now()));
        } else {
            let from = Instant::now();
            while from.elapsed() < last {
                headwater.json(&["snapshot", "list", "shop"]).await?;
                sleep(Duration::from_millis(50)).await;
            }
            shams.push((from, Instant::now()));
        }
    }
    Ok((checkpoints, shams))
}
