//! Accounts on several shards, and money that moves between them and with them. The sum never changes.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use bson::{Document, doc};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::{Instant, sleep};

use super::latency::Latencies;
use crate::sharded::{Router, Shared, Transaction};

/// The collection of accounts: `_id`, the same as the shard key `k`, and `balance`.
pub const NS: &str = "bank.accounts";
/// What every account has at the beginning.
pub const OPENING_BALANCE: i64 = 100;

/// How many accounts there are: `each` on every shard at the beginning, those of `sh0` from 0, of `sh1` from `each`.
#[derive(Clone, Copy, Debug)]
pub struct Bank {
    /// Shards `sh0`, `sh1`, …
    pub shards: usize,
    /// Accounts for each.
    pub each: i64,
}

impl Bank {
    /// All accounts.
    pub fn accounts(self) -> i64 {
        self.shards as i64 * self.each
    }

    /// Makes the accounts: two chunks on each shard.
    pub async fn open(self, router: &mut Router) -> Result<()> {
        router.create_database("bank", "sh0").await?;
        router.shard_collection(NS, "k").await?;
        for shard in 1..self.shards {
            let first = shard as i64 * self.each;
            router.split(NS, first).await?;
            router.move_chunk(NS, first, &format!("sh{shard}")).await?;
        }
        for shard in 0..self.shards {
            router.split(NS, self.middle_of(shard)).await?;
        }
        for k in 0..self.accounts() {
            let account = doc! { "_id": k, "k": k, "balance": OPENING_BALANCE };
            router.insert(NS, k, account).await?;
        }
        Ok(())
    }

    /// Where the second chunk of a shard begins.
    pub fn middle_of(self, shard: usize) -> i64 {
        shard as i64 * self.each + self.each / 2
    }
}

/// What goes on at the bank, and whether it shall go on.
#[derive(Debug, Default)]
pub struct Business {
    stop: AtomicBool,
    transfers: AtomicU64,
    moves: AtomicU64,
}

impl Business {
    /// Ends it.
    pub fn close(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Whether it goes on.
    pub fn is_open(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    /// Transfers that went through.
    pub fn transfers(&self) -> u64 {
        self.transfers.load(Ordering::Relaxed)
    }

    /// Chunks that were moved.
    pub fn moves(&self) -> u64 {
        self.moves.load(Ordering::Relaxed)
    }

    /// Transfers between accounts, within shards and across.
    pub async fn transfer(&self, cluster: &Shared, bank: Bank, seed: u64) -> Result<()> {
        let mut router = cluster.router().await?;
        let mut random = StdRng::seed_from_u64(seed);
        while self.is_open() {
            let (from, to) = (
                random.gen_range(0..bank.accounts()),
                random.gen_range(0..bank.accounts()),
            );
            let amount = random.gen_range(1..20_i64);
            let mut transfer = Transaction::default();
            let taken = transfer.run(&mut router, NS, from, &add(from, -amount)).await;
            let given = match taken {
                Ok(_) => transfer.run(&mut router, NS, to, &add(to, amount)).await,
                refused => refused,
            };
            match given {
                Ok(_) => match transfer.commit(&mut router).await {
                    Ok(()) => _ = self.transfers.fetch_add(1, Ordering::Relaxed),
                    // Whether it was committed is for the servers to know; the sum holds either way.
                    Err(_) => router = cluster.router().await?,
                },
                Err(_) => {
                    if !router.answers().await {
                        router = cluster.router().await?;
                    }
                    transfer.abort(&mut router).await;
                }
            }
        }
        Ok(())
    }

    /// Moves the second chunks of shards to and fro.
    pub async fn move_chunks(&self, cluster: &Shared, bank: Bank, seed: u64) -> Result<()> {
        let mut router = cluster.router().await?;
        let mut random = StdRng::seed_from_u64(seed);
        while self.is_open() {
            let at = bank.middle_of(random.gen_range(0..bank.shards));
            let to = format!("sh{}", random.gen_range(0..bank.shards));
            // Refused now and then because a transaction or another migration is in the way, or because it is there.
            match router.move_chunk(NS, at, &to).await {
                Ok(()) => _ = self.moves.fetch_add(1, Ordering::Relaxed),
                Err(_) if router.answers().await => {}
                Err(_) => router = cluster.router().await?,
            }
            sleep(Duration::from_millis(random.gen_range(100..900))).await;
        }
        Ok(())
    }

    /// Writes to one shard after the other, committed by the majority, and notes how long each took.
    pub async fn probe(&self, cluster: &Shared, latencies: &Latencies) -> Result<()> {
        let mut router = cluster.router().await?;
        while self.is_open() {
            for shard in router.shards() {
                let began = Instant::now();
                let write = doc! {
                    "update": "probe", "updates": [{ "q": { "_id": 1 }, "u": { "$inc": { "n": 1_i64 } }, "upsert": true }],
                    "writeConcern": { "w": "majority", "wtimeout": 60_000 },
                };
                match router.on(&shard, "probe", write).await {
                    Ok(_) => latencies.note(began),
                    Err(_) => {
                        router = cluster.router().await?;
                        break;
                    }
                }
                sleep(Duration::from_millis(10)).await;
            }
        }
        Ok(())
    }
}

/// The statement that changes the balance of an account.
pub fn add(k: i64, amount: i64) -> Document {
    doc! { "update": "accounts", "updates": [{ "q": { "_id": k, "k": k }, "u": { "$inc": { "balance": amount } } }] }
}
