//! Migrations: a chunk is copied to its recipient, the config servers make the recipient its owner, the donor deletes it.
//!
//! What is copied is a majority's before the owner changes, and nobody writes to the chunk then. An election at either shard
//! before that ends the migration; what was copied is deleted.

use std::collections::BTreeSet;
use std::time::Duration;

use bson::{Bson, Document, doc};
use headwater_model::Optime;
use rand::Rng;
use tokio::time::Instant;

use super::cluster::{Cluster, tell};
use super::history::Count;
use super::operations::{Place, migrate};
use super::set::{Mongo, lock};
use crate::trace;

/// A chunk on its way.
pub struct Migration {
    chunk: usize,
    from: usize,
    to: usize,
    /// The terms of donor and recipient when it began.
    terms: (i64, i64),
    step: Step,
    begun: Instant,
    due: Instant,
}

#[derive(Clone, Copy)]
enum Step {
    /// Documents, and what changes meanwhile, are copied.
    Copying,
    /// Nobody writes to the chunk any more.
    Frozen,
    /// The recipient has all of it at this count.
    Copied(Count),
    /// The config servers were told.
    Routed(Option<(Count, Optime)>),
}

/// Documents of a chunk that a shard does not own, and deletes.
pub struct Deletion {
    shard: usize,
    chunk: usize,
    due: Instant,
}

/// How long a migration may take before its owner changes.
const PATIENCE: Duration = Duration::from_secs(40);
/// Documents copied or deleted at once.
const SOME: usize = 3;

fn there(bank: &Place, mongo: &Mongo, accounts: &BTreeSet<i64>) -> Vec<(i64, i64, Document)> {
    let all = mongo.history.documents(bank.uuid, mongo.history.count(), 0);
    let of_chunk = all.filter_map(|(record, document)| {
        let account = document
            .get_i64("_id")
            .ok()
            .filter(|account| accounts.contains(account))?;
        Some((account, record, document.clone()))
    });
    of_chunk.collect()
}

impl Cluster {
    fn accounts(&self, chunk: usize) -> BTreeSet<i64> {
        self.accounts_of(chunk).collect()
    }

    /// The chunk that nobody may write to.
    pub(super) fn frozen(&self) -> Option<usize> {
        let migration = self.migration.as_ref()?;
        (!matches!(migration.step, Step::Copying)).then_some(migration.chunk)
    }

    pub(super) fn begin_migration(&mut self) {
        let chunk = self.rng.gen_range(0..self.owners.len());
        let (from, to) = (self.owners[chunk], self.rng.gen_range(0..self.shards.len()));
        let is_wanted = |deletion: &Deletion| (deletion.shard, deletion.chunk) == (to, chunk);
        if from == to || self.deletions.iter().any(is_wanted) {
            return;
        }
        trace::mark("source: migration");
        let term = |shard: usize| lock(&self.shards[shard]).term;
        self.migration = Some(Migration {
            chunk,
            from,
            to,
            terms: (term(from), term(to)),
            step: Step::Copying,
            begun: Instant::now(),
            due: Instant::now(),
        });
    }

    pub(super) fn carry_migration(&mut self) {
        let Some(mut migration) = self.migration.take_if(|migration| Instant::now() >= migration.due) else {
            return;
        };
        let term = |shard: usize| lock(&self.shards[shard]).term;
        let is_routed = matches!(migration.step, Step::Routed(Some(_)));
        let is_torn = (term(migration.from), term(migration.to)) != migration.terms;
        if !is_routed && (is_torn || migration.begun.elapsed() > PATIENCE) {
            trace::mark("source: migration given up");
            return self.delete_soon(migration.to, migration.chunk);
        }
        let next = match migration.step {
            Step::Copying => self.copy(&migration),
            Step::Frozen => self.copy_last(&migration),
            Step::Copied(count) => match lock(&self.shards[migration.to]).committed >= count {
                true => Step::Routed(None),
                false => migration.step,
            },
            Step::Routed(written) => match self.route(&migration, written) {
                Some(step) => step,
                None => return self.hand_over(&migration),
            },
        };
        migration.step = next;
        migration.due = Instant::now() + Duration::from_millis(self.rng.gen_range(0..400));
        self.migration = Some(migration);
    }

    /// Brings some documents of the chunk at the recipient level with the donor's; whether all are.
    fn level(&self, migration: &Migration, most: usize) -> Option<bool> {
        let accounts = self.accounts(migration.chunk);
        let wanted = there(&self.bank, &lock(&self.shards[migration.from]), &accounts);
        tell(&self.shards[migration.from], &self.shards[migration.to]);
        let mut recipient = lock(&self.shards[migration.to]);
        if !recipient.is_writable() {
            return None;
        }
        let found = there(&self.bank, &recipient, &accounts);
        let mut left = most;
        for (account, _, document) in wanted {
            let known = found.iter().find(|(other, ..)| *other == account);
            let operation = match known {
                Some((_, _, known)) if *known == document => continue,
                Some((_, record, _)) => self.bank.replace(*record, document),
                None => self.bank.insert(&mut recipient, document),
            };
            if left == 0 {
                return Some(false);
            }
            left -= 1;
            migrate(&mut recipient, operation);
        }
        Some(true)
    }

    fn copy(&mut self, migration: &Migration) -> Step {
        match self.level(migration, SOME) {
            Some(true) if self.rng.gen_ratio(1, 3) => Step::Frozen,
            _ => Step::Copying,
        }
    }

    /// The last changes are copied once no transaction works on the chunk and a majority of the donor has all of it.
    fn copy_last(&mut self, migration: &Migration) -> Step {
        let (busy, accounts) = (self.busy(), self.accounts(migration.chunk));
        let is_durable = {
            let donor = lock(&self.shards[migration.from]);
            donor.committed >= donor.history.count()
        };
        if !busy.is_disjoint(&accounts) || !is_durable || self.level(migration, usize::MAX) != Some(true) {
            return Step::Frozen;
        }
        Step::Copied(lock(&self.shards[migration.to]).history.count())
    }

    /// The config servers write down who owns the chunk; `None` once a majority of them has it.
    fn route(&mut self, migration: &Migration, written: Option<(Count, Optime)>) -> Option<Step> {
        tell(&self.shards[migration.from], &self.config);
        tell(&self.shards[migration.to], &self.config);
        let mut config = lock(&self.config);
        match written.and_then(|written| config.is_durable(written)) {
            Some(true) => return None,
            Some(false) => return Some(migration.step),
            None if !config.is_writable() => return Some(migration.step),
            None => {}
        }
        let Some((record, _)) = self.routing.find(&config, &Bson::Int64(migration.chunk as i64)) else {
            return Some(migration.step);
        };
        let row = self.row(migration.chunk, &format!("sh{}", migration.to));
        let (mut operation, effect) = self.routing.replace(record, row);
        operation.insert("b", false);
        let entry = doc! { "op": "c", "ns": "admin.$cmd", "o": { "applyOps": [operation] } };
        let count = config.write(entry, vec![effect]);
        Some(Step::Routed(Some((count, config.history.position(count)))))
    }

    fn hand_over(&mut self, migration: &Migration) {
        trace::mark("source: chunk has a new owner");
        self.owners[migration.chunk] = migration.to;
        tell(&self.config, &self.shards[migration.from]);
        tell(&self.config, &self.shards[migration.to]);
        self.delete_soon(migration.from, migration.chunk);
    }

    fn delete_soon(&mut self, shard: usize, chunk: usize) {
        let due = Instant::now() + Duration::from_millis(self.rng.gen_range(0..8000));
        self.deletions.push(Deletion { shard, chunk, due });
    }

    /// Shards delete what they do not own, bit by bit, until a majority has nothing of it.
    pub(super) fn carry_deletions(&mut self) {
        let mut all = std::mem::take(&mut self.deletions);
        all.retain_mut(|deletion| {
            let mut mongo = lock(&self.shards[deletion.shard]);
            if Instant::now() < deletion.due || !mongo.is_writable() {
                return true;
            }
            let left = there(&self.bank, &mongo, &self.accounts(deletion.chunk));
            for (_, record, document) in left.iter().take(SOME) {
                let deleted = self.bank.delete(*record, document);
                migrate(&mut mongo, deleted);
            }
            deletion.due = Instant::now() + Duration::from_millis(self.rng.gen_range(0..600));
            !left.is_empty() || mongo.committed < mongo.history.count()
        });
        self.deletions = all;
    }
}
