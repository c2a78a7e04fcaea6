//! A replica set to play with: `cargo xtask mongod start` runs this.

use anyhow::{Context, Result};
use headwater_tests::{Bed, ReplicaSetSpec};

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let version = arguments
        .next()
        .context("give a version of mongod and a number of members")?;
    let members = arguments.next().context("give a number of members")?.parse()?;
    let bed = Bed::new().await?;
    let spec = ReplicaSetSpec {
        members,
        ..ReplicaSetSpec::single(&version)
    };
    let set = bed.replica_set(spec.not_replayable()).await?;
    println!("{}", set.uri());
    eprintln!(
        "mongod {version}, data in {}; Ctrl-C ends it and removes the data",
        bed.path().display()
    );
    tokio::signal::ctrl_c().await?;
    Ok(())
}
