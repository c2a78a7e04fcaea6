//! Restores into a running MongoDB.
//!
//! Order, and what breaks if it is changed:
//! 1. the target is judged and names are claimed before anything is written, so that a refusal leaves no trace;
//! 2. all collections are made and the cursor is kept before any document is written, so that a resume knows which are
//!    its own, and what somebody else creates meanwhile is refused, not dropped;
//! 3. documents go into collections without secondary indexes, several collections and batches at once; capped
//!    collections one batch after the other, for their order is data;
//! 4. each collection is counted before its indexes are built and its expiry is switched on: a TTL index or
//!    `expireAfterSeconds` makes the server delete old documents within a minute, as it would have at the source;
//! 5. indexes, then views, then expiry; users and roles last, so that nobody works on half a database.
//!
//! Every write waits for a majority, but not for ever: then the load ends as if the target were away. [`Cursor`] says how far each collection is; a load that is given its cursor back
//! goes on there. Batches that may have arrived before are sent again, and a document that is there already is ours.
//! The user of the connection string needs the roles `restore` and `readWriteAnyDatabase`.

mod address;
pub(crate) mod batch;
mod begin;
mod create;
mod cursor;
pub(crate) mod documents;
mod fault;
mod finish;
mod ledger;
pub(crate) mod prepare;
pub(crate) mod target;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use headwater_model::Namespace;
use tokio::sync::Semaphore;

use crate::naming::{Chosen, Item, Kind};
use crate::source::Source;

pub use cursor::{Cursor, Stage};
pub use fault::LoadFault;
pub use target::{Hear, Target};

use create::Making;
use ledger::Ledger;

/// How a load is carried out.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Insert commands under way at once.
    pub writers: usize,
    /// Collections under way at once.
    pub collections: usize,
    /// Whether collections that exist at the target are dropped; without it they make the load refuse.
    pub drop: bool,
    /// `buildInfo.version` of the backup's source.
    pub source_version: String,
    /// Whether collections keep their UUIDs, as shards of one cluster must have them.
    pub keep_uuids: bool,
    /// `host:port` of the source's members: a target among them is refused. Empty to allow it.
    pub source_hosts: Vec<String>,
}

impl Settings {
    /// Four writers, four collections, nothing dropped.
    pub fn new(source_version: &str) -> Self {
        let source_version = source_version.to_owned();
        Settings {
            writers: 4,
            collections: 4,
            drop: false,
            keep_uuids: false,
            source_version,
            source_hosts: Vec::new(),
        }
    }
}

/// What a load is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The target is judged.
    Preparing,
    /// Documents are written and counted.
    Documents,
    /// Indexes are built, views and users made.
    Indexes,
    /// What is at the target is compared with the plan.
    Verifying,
}

impl Step {
    /// As users read it.
    pub fn text(self) -> &'static str {
        match self {
            Step::Preparing => "preparing",
            Step::Documents => "documents",
            Step::Indexes => "indexes",
            Step::Verifying => "verifying",
        }
    }
}

/// Whom a load tells of its progress.
#[async_trait]
pub trait Observer: Send + Sync {
    /// Keeps the cursor. Called at changes of stage and every few seconds; `Err` ends the load.
    async fn keep(&self, cursor: &Cursor) -> Result<(), String>;

    /// Documents and bytes of BSON at the target so far. Called after every batch.
    fn progress(&self, step: Step, documents: u64, bytes: u64);
}

/// Everything is at the target.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Loaded {
    /// One for each thing restored.
    pub collections: Vec<LoadedCollection>,
    /// What differs from the source, for people.
    pub notes: Vec<String>,
}

/// One collection, verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadedCollection {
    /// In the backup.
    pub from: Namespace,
    /// At the target.
    pub to: Namespace,
    /// Documents; as counted at the target.
    pub documents: u64,
    /// Bytes of BSON.
    pub bytes: u64,
    /// Secondary indexes.
    pub indexes: u64,
}

/// Restores `chosen` of `source` into `target`. `cursor` is empty, or the last one kept of an earlier try of exactly the
/// same plan.
pub async fn load(
    source: &dyn Source,
    chosen: &Chosen,
    target: &Target,
    settings: &Settings,
    cursor: Cursor,
    observer: &dyn Observer,
) -> Result<Loaded, LoadFault> {
    let load = Load {
        source,
        target,
        settings,
        writers: Semaphore::new(settings.writers.max(1)),
        resumed: cursor != Cursor::default(),
        ledger: Ledger::new(cursor, observer),
        items: chosen.items.iter().map(|item| (item, create::making(item))).collect(),
    };
    load.ledger.step(Step::Preparing);
    let about = load.prepare().await?;
    load.ledger.step(Step::Documents);
    load.each(|item, making| load.begin(item, making)).await?;
    load.ledger.keep().await?;
    load.each(|item, making| load.documents(item, making)).await?;
    // From here on documents may expire: none may be counted or written again after an interruption.
    load.ledger.keep().await?;
    load.ledger.step(Step::Indexes);
    load.each(|item, making| load.indexes(item, making, about.in_a_set))
        .await?;
    load.views().await?;
    load.expiry().await?;
    let mut notes = chosen.notes.clone();
    load.accounts(&mut notes).await?;
    load.ledger.step(Step::Verifying);
    load.each(|item, making| load.verify(item, making)).await?;
    load.finish(notes).await
}

struct Load<'a> {
    source: &'a dyn Source,
    target: &'a Target,
    settings: &'a Settings,
    writers: Semaphore,
    /// Whether an earlier try may have written something.
    resumed: bool,
    ledger: Ledger<'a>,
    items: Vec<(&'a Item, Making)>,
}

impl Load<'_> {
    /// Does something for every collection with documents of its own, several at once.
    async fn each<'s, F>(&'s self, act: impl Fn(&'s Item, &'s Making) -> F) -> Result<(), LoadFault>
    where
        F: Future<Output = Result<(), LoadFault>>,
    {
        let mut waiting = self.items.iter().filter(|(item, _)| is_own(item));
        let mut under_way = FuturesUnordered::new();
        let mut outcome = Ok(());
        loop {
            // After a failure nothing new is begun, and what is under way comes to its end.
            while outcome.is_ok()
                && under_way.len() < self.settings.collections.max(1)
                && let Some((item, making)) = waiting.next()
            {
                under_way.push(act(item, making));
            }
            match under_way.next().await {
                Some(result) => outcome = outcome.and(result),
                None => return outcome,
            }
        }
    }

    async fn finish(self, mut notes: Vec<String>) -> Result<Loaded, LoadFault> {
        let mut collections = Vec::new();
        for (item, making) in &self.items {
            notes.extend(making.notes.iter().cloned());
            let (documents, bytes) = self.ledger.stage(&item.to).map_or((0, 0), |s| s.amount());
            if is_own(item) {
                self.ledger.advance(&item.to, Stage::Done { documents, bytes }).await?;
            }
            let (from, to) = (item.from.clone(), item.to.clone());
            collections.push(LoadedCollection {
                from,
                to,
                documents,
                bytes,
                indexes: making.indexes.len() as u64,
            });
        }
        self.ledger.keep().await?;
        notes.extend(self.ledger.notes());
        Ok(Loaded { collections, notes })
    }
}

/// Whether the item becomes a collection of its own, with documents.
fn is_own(item: &Item) -> bool {
    matches!(item.kind, Kind::Collection | Kind::TimeSeries)
}
