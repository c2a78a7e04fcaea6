//! Transfers between accounts: in one entry where one shard has them all, else in two phases.
//!
//! Each participant prepares at a time of its own. When a majority of each has its prepare, the coordinator decides: commit at
//! the greatest of these times, or abort. The decision is durable before anybody is told, and told again until a majority of
//! each participant has it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bson::{Bson, Document, doc};
use headwater_model::{Optime, Ts};
use rand::Rng;
use tokio::time::Instant;

use super::cluster::Cluster;
use super::history::{Count, Effect};
use super::operations::{Place, write};
use super::set::{Mongo, lock};
use super::workload::{apply_ops, prepared, session};
use crate::trace;

/// A transaction over several shards.
pub struct Transfer {
    session: (Document, i64),
    parts: Vec<Part>,
    decision: Option<Decision>,
    begun: Instant,
    told: Ts,
}

struct Part {
    shard: usize,
    deltas: BTreeMap<i64, i64>,
    due: Instant,
    step: Step,
}

#[derive(Clone, Copy, PartialEq)]
enum Step {
    Begun,
    Prepared(Count, Optime),
    Voted(Ts),
    Told(Count, Optime),
    Done,
}

#[derive(Clone, Copy)]
struct Decision {
    commit: Option<Ts>,
    written: Option<(Count, Optime)>,
    is_durable: bool,
}

/// A coordinator waits for votes this long.
const PATIENCE: Duration = Duration::from_secs(30);

impl Transfer {
    /// The accounts it holds.
    pub fn accounts(&self) -> impl Iterator<Item = i64> {
        self.parts.iter().flat_map(|part| part.deltas.keys().copied())
    }

    fn name(&self) -> Document {
        doc! { "lsid": self.session.0.clone(), "txnNumber": self.session.1 }
    }

    fn votes(&self) -> Option<Ts> {
        let vote = |part: &Part| match part.step {
            Step::Voted(at) => Some(at),
            _ => None,
        };
        let votes: Option<Vec<Ts>> = self.parts.iter().map(vote).collect();
        votes?.into_iter().max()
    }
}

/// What a transfer does to the accounts of one shard; `None` if one is not there.
fn operations(bank: &Place, mongo: &Mongo, deltas: &BTreeMap<i64, i64>) -> Option<(Vec<Document>, Vec<Effect>)> {
    let one = |(account, delta): (&i64, &i64)| {
        let (record, document) = bank.find(mongo, &Bson::Int64(*account))?;
        let balance = document.get_i64("balance").ok()? + delta;
        Some(bank.set(record, document, "balance", Bson::Int64(balance)))
    };
    let all: Option<Vec<_>> = deltas.iter().map(one).collect();
    Some(all?.into_iter().unzip())
}

impl Cluster {
    /// Moves money between two to four accounts that nobody else works on.
    pub(super) fn begin_transfer(&mut self) {
        let busy = self.busy();
        let frozen = self.frozen();
        let is_free = |account: &i64| !busy.contains(account) && Some(self.chunk_of(*account)) != frozen;
        let mut free: Vec<i64> = (0..self.draw.accounts).filter(is_free).collect();
        let mut chosen = BTreeSet::new();
        for _ in 0..self.rng.gen_range(2..=4) {
            if !free.is_empty() {
                chosen.insert(free.swap_remove(self.rng.gen_range(0..free.len())));
            }
        }
        let mut parts: BTreeMap<usize, BTreeMap<i64, i64>> = BTreeMap::new();
        let mut rest = 0;
        for (left, account) in chosen
            .iter()
            .enumerate()
            .map(|(at, account)| (chosen.len() - at, *account))
        {
            let delta = if left == 1 { -rest } else { self.rng.gen_range(-20..20) };
            rest += delta;
            let owner = self.owners[self.chunk_of(account)];
            parts.entry(owner).or_default().insert(account, delta);
        }
        let session = session(&mut self.rng);
        match parts.len() {
            0 => {}
            1 => {
                for (shard, deltas) in parts {
                    self.at_once(shard, &deltas, &session);
                }
            }
            _ => self.in_two_phases(parts, session),
        }
    }

    fn at_once(&mut self, shard: usize, deltas: &BTreeMap<i64, i64>, session: &(Document, i64)) {
        let mut mongo = lock(&self.shards[shard]);
        if !mongo.is_writable() {
            return;
        }
        if let Some((operations, effects)) = operations(&self.bank, &mongo, deltas) {
            mongo.write(apply_ops(session, &operations, Document::new(), Optime::ZERO), effects);
        }
    }

    fn in_two_phases(&mut self, parts: BTreeMap<usize, BTreeMap<i64, i64>>, session: (Document, i64)) {
        trace::mark("source: transaction over several shards");
        let mut parts: Vec<Part> = parts
            .into_iter()
            .map(|(shard, deltas)| Part {
                shard,
                deltas,
                due: self.soon(),
                step: Step::Begun,
            })
            .collect();
        // Whoever comes first coordinates.
        let first = self.rng.gen_range(0..parts.len());
        parts.swap(0, first);
        let told = lock(&self.shards[parts[0].shard]).now();
        self.transfers.push(Transfer {
            session,
            parts,
            decision: None,
            begun: Instant::now(),
            told,
        });
    }

    /// When a message arrives that is sent now.
    pub(super) fn soon(&mut self) -> Instant {
        let most = self.draw.lag_ms * if self.rng.gen_ratio(1, 8) { 6 } else { 1 };
        Instant::now() + Duration::from_millis(self.rng.gen_range(0..=most))
    }

    pub(super) fn carry_transfers(&mut self) {
        let all = std::mem::take(&mut self.transfers);
        for mut transfer in all {
            match transfer.decision {
                None => self.gather(&mut transfer),
                Some(decision) if !decision.is_durable => self.write_down(&mut transfer, decision),
                Some(decision) => self.spread(&mut transfer, decision),
            }
            if !self.is_over(&transfer) {
                self.transfers.push(transfer);
            }
        }
    }

    /// The first phase: participants prepare and vote.
    fn gather(&mut self, transfer: &mut Transfer) {
        let mut is_lost = transfer.begun.elapsed() > PATIENCE;
        for part in &mut transfer.parts {
            let mut mongo = lock(&self.shards[part.shard]);
            match part.step {
                Step::Begun if Instant::now() >= part.due && mongo.is_writable() => {
                    let Some((operations, effects)) = operations(&self.bank, &mongo, &part.deltas) else {
                        is_lost = true;
                        continue;
                    };
                    mongo.learn(transfer.told);
                    let entry = apply_ops(&transfer.session, &operations, doc! { "prepare": true }, Optime::ZERO);
                    let (count, at) = prepared(&mut mongo, entry, &transfer.session, effects, true);
                    part.step = Step::Prepared(count, at);
                }
                Step::Prepared(count, at) => match mongo.is_durable((count, at)) {
                    Some(true) => part.step = Step::Voted(at.ts),
                    Some(false) => {}
                    None => is_lost = true,
                },
                _ => {}
            }
        }
        let votes = transfer.votes().filter(|_| !is_lost);
        if votes.is_none() && !is_lost {
            return;
        }
        let hesitates = self.rng.gen_range(0..100) < self.draw.aborts;
        transfer.decision = Some(Decision {
            commit: votes.filter(|_| !hesitates),
            written: None,
            is_durable: false,
        });
    }

    /// The coordinator makes its decision durable.
    fn write_down(&mut self, transfer: &mut Transfer, mut decision: Decision) {
        let coordinator = transfer.parts[0].shard;
        let place = &self.coordinators[coordinator];
        let mut mongo = lock(&self.shards[coordinator]);
        match decision.written.and_then(|written| mongo.is_durable(written)) {
            Some(true) => decision.is_durable = true,
            Some(false) => {}
            None if mongo.is_writable() => {
                let said = match decision.commit {
                    Some(time) => doc! { "decision": "commit", "commitTimestamp": bson::Timestamp::from(time) },
                    None => doc! { "decision": "abort" },
                };
                if let Some(time) = decision.commit {
                    mongo.learn(time);
                }
                let shards: Vec<String> = transfer.parts.iter().map(|part| format!("sh{}", part.shard)).collect();
                let row = doc! { "_id": transfer.name(), "participants": shards, "decision": said };
                let inserted = place.insert(&mut mongo, row);
                let count = write(&mut mongo, inserted);
                decision.written = Some((count, mongo.history.position(count)));
            }
            None => {}
        }
        drop(mongo);
        transfer.decision = Some(decision);
        if decision.is_durable {
            for part in &mut transfer.parts {
                part.due = self.soon();
            }
        }
    }

    /// The second phase: participants are told.
    fn spread(&mut self, transfer: &mut Transfer, decision: Decision) {
        for part in &mut transfer.parts {
            let mut mongo = lock(&self.shards[part.shard]);
            if let Step::Told(count, at) = part.step {
                match mongo.is_durable((count, at)) {
                    Some(true) => part.step = Step::Done,
                    Some(false) => continue,
                    None => trace::line("source: a decision was taken back and is told again"),
                }
            }
            if part.step == Step::Done || Instant::now() < part.due || !mongo.is_writable() {
                continue;
            }
            let mut all = mongo.history.transactions.iter();
            let open = all.position(|t| t.is_shared && t.decided.is_none() && t.session == transfer.session);
            let Some(open) = open else {
                // Never prepared here, or taken back: there is nothing to abort.
                part.step = Step::Done;
                continue;
            };
            if let Some(time) = decision.commit {
                mongo.learn(time);
            }
            let count = mongo.decide(open, decision.commit);
            part.step = Step::Told(count, mongo.history.position(count));
            trace::mark(match decision.commit {
                Some(_) => "source: transaction over several shards committed",
                None => "source: transaction over several shards aborted",
            });
        }
    }

    /// Whether all is done; then the coordinator forgets it.
    fn is_over(&mut self, transfer: &Transfer) -> bool {
        if transfer.parts.iter().any(|part| part.step != Step::Done) {
            return false;
        }
        let coordinator = transfer.parts[0].shard;
        let mut mongo = lock(&self.shards[coordinator]);
        let place = &self.coordinators[coordinator];
        if !mongo.is_writable() {
            return false;
        }
        if let Some((record, document)) = place.find(&mongo, &Bson::Document(transfer.name())) {
            let deleted = place.delete(record, &document);
            write(&mut mongo, deleted);
        }
        true
    }
}
