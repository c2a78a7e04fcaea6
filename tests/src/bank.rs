//! The bank: money that moves within and between shards while chunks move, collections come and go, checkpoints are taken,
//! and daemons, agents, shards and config servers are killed. What is restored of any cluster time has the exact sum, every
//! document once, and is what the servers themselves say of that time.

pub mod kills;
pub mod latency;
pub mod money;
pub mod observe;
pub mod restored;
pub mod shapes;
pub mod truth;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use tokio::time::Instant;

pub use money::{Bank, Business, NS, add};
pub use truth::Truth;

use crate::bed::Bed;
use crate::headwater::Headwater;
use crate::sharded::{Cluster, Shared};
use crate::trio::Trio;
use kills::Kills;
use latency::{Latencies, shares};
use observe::Seen;
use restored::{Restored, instant};
use shapes::Diary;

const VERSION: &str = "6.0.5";
const ACCOUNTS_EACH: i64 = 60;
const TELLERS: u64 = 4;

/// What is to happen.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// For how long.
    pub lasts: Duration,
    /// On so many shards.
    pub shards: usize,
    /// Whether daemons, agents, shards and config servers are killed.
    pub kills: bool,
    /// Between checkpoints.
    pub every: Duration,
    /// So many other cluster times are restored.
    pub instants: u32,
    /// Decides about everything that is left to chance.
    pub seed: u64,
}

/// What came of it.
#[derive(Debug)]
pub struct Report {
    plan: Plan,
    seen: Seen,
    kills: Kills,
    transfers: u64,
    moves: u64,
    changes: usize,
    compared: usize,
    unmodelled: usize,
    during: Vec<Duration>,
    outside: Vec<Duration>,
}

/// Carries a plan out; fails when anything that was restored is not what it was.
pub async fn run(plan: Plan) -> Result<Report> {
    let bed = Bed::new().await?;
    let history = (plan.lasts.as_secs() + 3600).to_string();
    let parameters = [
        ("minSnapshotHistoryWindowInSeconds", history.as_str()),
        // A router that lost its connection leaves transactions open, which stand in the way of others.
        ("transactionLifetimeLimitSeconds", "10"),
    ];
    let cluster = Cluster::start_with(&bed, VERSION, plan.shards, &parameters).await?;
    let bank = Bank {
        shards: plan.shards,
        each: ACCOUNTS_EACH,
    };
    bank.open(&mut cluster.router().await?).await?;
    let (uri, cluster) = (cluster.uri(), Shared::new(cluster));
    let mut trio = Trio::start(bed.headwater()?, 3).await?;
    let mut commands = Headwater::find(trio.commands().folder().to_owned())?;
    commands.talk_to(&trio.commands().service());
    commands.json(&["deployment", "add", "shop", "--uri", &uri]).await?;
    for agent in 0..2 {
        trio.start_agent(agent)?;
    }
    observe::until_complete(&commands, plan.shards + 1)
        .await
        .with_context(|| trio.logs())?;

    let (business, latencies, mut diary) = (Business::default(), Latencies::default(), Diary::default());
    let began = Instant::now();
    let observe = async {
        let seen = observe::take_checkpoints(&commands, &cluster, &latencies, plan.every, plan.lasts).await;
        business.close();
        seen
    };
    let kills = async {
        match plan.kills {
            true => kills::kill(&business, &mut trio, &cluster, plan.shards, plan.seed).await,
            false => Ok(Kills::new()),
        }
    };
    let instants = observe::choose_instants(&business, &cluster, plan.lasts / plan.instants.max(1), plan.seed);
    let tellers = (0..TELLERS).map(|teller| business.transfer(&cluster, bank, plan.seed + teller));
    let work = futures::future::try_join5(
        observe,
        kills,
        instants,
        diary.write(&business, &cluster, plan.seed),
        futures::future::try_join3(
            try_join_all(tellers),
            business.move_chunks(&cluster, bank, plan.seed),
            business.probe(&cluster, &latencies),
        ),
    );
    let worked = work.await;
    let (mut seen, kills, instants, (), _) = worked.with_context(|| trio.logs())?;
    eprintln!("{:.0?} are over; now everything is restored", began.elapsed());
    seen.instants = instants;

    trio.until_whole().await?;
    let stored = observe::until_stored(&commands, observe::level(&cluster).await?).await;
    stored.with_context(|| trio.logs())?;
    let (during, outside) = latencies.split();
    let mut report = Report {
        plan,
        kills,
        transfers: business.transfers(),
        moves: business.moves(),
        changes: diary.changes(),
        compared: 0,
        unmodelled: 0,
        during,
        outside,
        seen,
    };
    ensure!(
        !report.seen.sealed.is_empty(),
        "no checkpoint was sealed: {:?}",
        report.seen.given_up
    );
    report
        .prove(&bed, &commands, bank, &diary)
        .await
        .with_context(|| trio.logs())?;
    Ok(report)
}

impl Report {
    /// Restores everything that was seen and compares it.
    async fn prove(&mut self, bed: &Bed, headwater: &Headwater, bank: Bank, diary: &Diary) -> Result<()> {
        let shards: Vec<String> = (0..bank.shards).map(|shard| format!("sh{shard}")).collect();
        let sealed = self
            .seen
            .sealed
            .iter()
            .map(|(id, truth)| (format!("snapshot:{id}"), truth));
        let chosen = self.seen.instants.iter().map(|truth| (instant(truth.at), truth));
        for (at, truth) in sealed.chain(chosen) {
            let folder = bed.new_folder("restored")?;
            let restored = Restored::of(headwater, &shards, &at, &folder).await?;
            let same = truth.is(bank, &restored.accounts(&shards)?);
            same.with_context(|| format!("restored at {at}"))?;
            let shapes = diary.holds(truth.at, &truth.routing, &restored);
            self.compared += shapes.with_context(|| format!("restored at {at}"))?;
            self.unmodelled += usize::from(truth.accounts.is_none());
            std::fs::remove_dir_all(&folder)?;
        }
        Ok(())
    }

    /// In lines of tables.
    pub fn text(&mut self) -> String {
        let checkpoints = format!(
            "| shards | checkpoints sealed | given up | asked → sealed: p50 | p99 | max | kills | transfers | moves | changes of collections | \
             restored exactly | of them without a model of the accounts |\n|---|---|---|---|---|---|---|---|---|---|---|---|\n\
             | {} | {} | {} | {} | {:?} | {} | {} | {} | {} instants, {} collections | {} |\n",
            self.plan.shards,
            self.seen.sealed.len(),
            self.seen.given_up.len(),
            shares(&mut self.seen.took),
            self.kills,
            self.transfers,
            self.moves,
            self.changes,
            self.seen.sealed.len() + self.seen.instants.len(),
            self.compared,
            self.unmodelled,
        );
        let stall = format!(
            "\n| a write at the source, majority | writes | p50 | p99 | max |\n|---|---|---|---|---|\n\
             | while a checkpoint is open | {} | {} |\n| while none is | {} | {} |\n",
            self.during.len(),
            shares(&mut self.during),
            self.outside.len(),
            shares(&mut self.outside),
        );
        checkpoints + &stall
    }
}
