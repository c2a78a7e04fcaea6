//! The bank, for minutes: `cargo xtask bank MINUTES` runs this.

use std::time::Duration;

use anyhow::{Context, Result};
use headwater_tests::bank::{self, Plan};

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [minutes, shards, every, instants, seed, kills] = arguments.as_slice() else {
        anyhow::bail!("MINUTES SHARDS SECONDS INSTANTS SEED KILLS; better: `cargo xtask bank --help`");
    };
    let plan = Plan {
        lasts: Duration::from_secs_f64(60.0 * minutes.parse::<f64>().context("minutes")?),
        shards: shards.parse().context("shards")?,
        kills: kills.parse().context("kills: true or false")?,
        every: Duration::from_secs(every.parse().context("seconds")?),
        instants: instants.parse().context("instants")?,
        seed: seed.parse().context("a seed")?,
    };
    let mut report = bank::run(plan).await?;
    println!("{}", report.text());
    Ok(())
}
