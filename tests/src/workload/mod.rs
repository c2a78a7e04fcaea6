//! A seeded random workload: every kind of operation that leaves a trace in an oplog, from several writers at once.
//!
//! The operations are drawn from the seed; how the writers interleave is up to the server, so two runs do not give the
//! same data. Many operations fail by design (a drop of nothing, a duplicate key, a write conflict): failures are
//! counted by their code.

mod crud;
mod ddl;
mod documents;
mod series;
mod transactions;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use bson::doc;
use mongodb::error::ErrorKind;
use mongodb::{Client, Database};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use crate::replica_set::ReplicaSet;
use documents::{COLLECTIONS, DATABASES};

/// What the workload does.
#[derive(Clone, Debug)]
pub struct WorkloadSpec {
    /// Decides the operations.
    pub seed: u64,
    /// Concurrent writers; only the first does DDL.
    pub writers: usize,
    /// Operations per second of all writers together; `None` for as many as the server takes.
    pub rate: Option<u32>,
    /// Whether collections, indexes, views and databases come and go.
    pub ddl: bool,
    /// Whether there are transactions…
    pub transactions: bool,
    /// …and among them prepared ones.
    pub prepared: bool,
}

impl WorkloadSpec {
    /// Four writers at full speed, everything on.
    pub fn seeded(seed: u64) -> Self {
        WorkloadSpec {
            seed,
            writers: 4,
            rate: None,
            ddl: true,
            transactions: true,
            prepared: true,
        }
    }

    /// At most so many operations per second.
    pub fn rate(mut self, per_second: u32) -> Self {
        self.rate = Some(per_second);
        self
    }

    /// Without DDL: collections stay what they were.
    pub fn without_ddl(mut self) -> Self {
        self.ddl = false;
        self
    }
}

/// What was done so far.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Operations that succeeded, by kind.
    pub done: BTreeMap<&'static str, u64>,
    /// Operations that failed, by code.
    pub failed: BTreeMap<String, u64>,
}

impl Report {
    /// All operations that succeeded.
    pub fn total(&self) -> u64 {
        self.done.values().sum()
    }
}

/// A running workload. Dropping it stops it at the next operation.
#[derive(Debug)]
pub struct Workload {
    shared: Arc<Shared>,
    writers: JoinSet<()>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    report: Mutex<Report>,
}

impl Shared {
    fn note(&self, kind: &'static str, outcome: &Result<()>) {
        let mut report = self.report.lock().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            Ok(()) => *report.done.entry(kind).or_default() += 1,
            Err(error) => *report.failed.entry(code_of(error)).or_default() += 1,
        }
    }
}

impl Workload {
    /// Fills the first collections and lets the writers go.
    pub async fn start(source: &ReplicaSet, spec: WorkloadSpec) -> Result<Workload> {
        Workload::start_at(&source.uri(), spec).await
    }

    /// The same, on any replica set.
    pub async fn start_at(uri: &str, spec: WorkloadSpec) -> Result<Workload> {
        let client = Client::with_uri_str(uri).await?;
        let server = ServerVersion::of(&client).await?;
        let mut rng = StdRng::seed_from_u64(spec.seed);
        crud::fill(&client, &mut rng)
            .await
            .context("cannot write the first documents")?;
        let shared = Arc::new(Shared::default());
        let mut writers = JoinSet::new();
        let pause = spec
            .rate
            .map(|rate| Duration::from_secs(1) * spec.writers as u32 / rate.max(1));
        for number in 0..spec.writers {
            // Each writer has its own connections, so that none waits for another's.
            let writer = Writer {
                client: Client::with_uri_str(uri).await?,
                rng: StdRng::seed_from_u64(rng.r#gen()),
                spec: spec.clone(),
                server,
                is_first: number == 0,
                pause,
            };
            writers.spawn(writer.run(shared.clone()));
        }
        Ok(Workload { shared, writers })
    }

    /// What was done so far.
    pub fn report(&self) -> Report {
        self.shared
            .report
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Lets it run until so many operations have succeeded.
    pub async fn reach(&self, operations: u64) -> Result<()> {
        crate::until(&format!("{operations} operations of the workload"), || async {
            Ok((self.report().total() >= operations).then_some(()))
        })
        .await
    }

    /// Lets every writer finish its operation; afterwards no transaction is open and nothing is written.
    pub async fn stop(mut self) -> Result<Report> {
        self.shared.stop.store(true, Ordering::Relaxed);
        while let Some(writer) = self.writers.join_next().await {
            writer.context("a writer of the workload panicked")?;
        }
        Ok(self.report())
    }
}

impl Drop for Workload {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

/// What decides which operations a server knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct ServerVersion(u32, u32);

impl ServerVersion {
    async fn of(client: &Client) -> Result<Self> {
        let reply = client.database("admin").run_command(doc! { "buildInfo": 1 }).await?;
        let mut parts = reply
            .get_str("version")?
            .split('.')
            .map(|part| part.parse().unwrap_or(0));
        Ok(ServerVersion(parts.next().unwrap_or(0), parts.next().unwrap_or(0)))
    }
}

struct Writer {
    client: Client,
    rng: StdRng,
    spec: WorkloadSpec,
    server: ServerVersion,
    /// Only one writer touches capped collections: under several, a primary's order may differ from its oplog's.
    is_first: bool,
    pause: Option<Duration>,
}

impl Writer {
    async fn run(mut self, shared: Arc<Shared>) {
        let mut next = Instant::now();
        while !shared.stop.load(Ordering::Relaxed) {
            if let Some(pause) = self.pause {
                next += pause;
                sleep_until(next).await;
            }
            let (kind, outcome) = self.step().await;
            if outcome
                .as_ref()
                .is_err_and(|error| code_of(error).starts_with("connection"))
            {
                // The primary is gone for a moment: do not count thousands of failures meanwhile.
                sleep(Duration::from_millis(100)).await;
            }
            shared.note(kind, &outcome);
        }
    }

    async fn step(&mut self) -> (&'static str, Result<()>) {
        match self.rng.gen_range(0..100) {
            0..12 if self.spec.transactions => self.transaction().await,
            12..24 if self.does_ddl() => self.ddl().await,
            24..28 if self.server >= ServerVersion(5, 0) => self.series().await,
            _ => self.crud().await,
        }
    }

    fn does_ddl(&self) -> bool {
        self.spec.ddl && self.is_first
    }

    fn database(&mut self) -> Database {
        let name = DATABASES.choose(&mut self.rng).copied().unwrap_or(DATABASES[0]);
        self.client.database(name)
    }

    fn collection_name(&mut self) -> &'static str {
        COLLECTIONS.choose(&mut self.rng).copied().unwrap_or(COLLECTIONS[0])
    }

    fn chance(&mut self, probability: f64) -> bool {
        self.rng.gen_bool(probability)
    }
}

/// A name for a failure: the server's, where it has one.
fn code_of(error: &anyhow::Error) -> String {
    let Some(error) = error.downcast_ref::<mongodb::error::Error>() else {
        return "other".to_owned();
    };
    match error.kind.as_ref() {
        ErrorKind::Command(command) => command.code_name.clone(),
        ErrorKind::Write(failure) => match failure {
            mongodb::error::WriteFailure::WriteError(write) => format!("write {}", write.code),
            _ => "write concern".to_owned(),
        },
        ErrorKind::InsertMany(_) => "insert".to_owned(),
        ErrorKind::Io(_) | ErrorKind::ServerSelection { .. } | ErrorKind::ConnectionPoolCleared { .. } => {
            "connection".to_owned()
        }
        _ => "other".to_owned(),
    }
}
