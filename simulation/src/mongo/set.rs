//! The members: who has how much of the oplog, who leads, what a majority has.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bson::doc;
use headwater_model::{CollectionUuid, Optime, Ts};
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};
use tokio::time::Instant;

use super::history::{Count, Effect, History};
use crate::entropy::BEGIN_SECONDS;
use crate::{time, trace};

/// What a replica set is made of.
#[derive(Clone, Debug)]
pub struct MongoDraw {
    /// Members, 1 to 5.
    pub members: usize,
    /// `buildInfo.version`.
    pub version: &'static str,
    /// The longest a command takes, in milliseconds.
    pub latency_ms: u64,
    /// The longest a secondary usually lags, in milliseconds.
    pub lag_ms: u64,
    /// Documents in one batch of a cursor.
    pub batch: usize,
    /// Scans may miss documents that are changed while they run.
    pub scan_misses: bool,
    /// Seconds that its clocks are ahead.
    pub skew_s: u32,
}

/// What a replica set is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// One by itself.
    Plain,
    /// The config servers of a sharded cluster.
    ConfigServers,
    /// A shard, called as its replica set is.
    Shard,
}

/// One server.
#[derive(Clone, Debug)]
pub struct Member {
    /// `host:port`.
    pub address: String,
    /// How much of the oplog it has.
    pub applied: Count,
    /// How much of it this member knows to be majority-committed.
    pub known: Count,
    /// When it answers again, if it is down or cut off.
    pub down_until: Option<Instant>,
    /// Replication stands still until then.
    pub stuck_until: Option<Instant>,
    /// Changes when its cursors die.
    pub boot: u64,
}

/// A replica set. See the module.
pub struct Mongo {
    /// What it was drawn to be.
    pub draw: MongoDraw,
    /// Its name.
    pub name: String,
    /// What it is.
    pub role: Role,
    /// The greatest cluster time it was told of by others.
    pub clock: Ts,
    /// The oplog of the primary, and the state it makes.
    pub history: History,
    /// The members.
    pub members: Vec<Member>,
    /// Which of them leads.
    pub primary: usize,
    /// The election term.
    pub term: i64,
    /// What a majority has.
    pub committed: Count,
    /// How much oplog there was when somebody listed all collections last: the oplog of a first copy begins before.
    pub listed: Count,
    rng: StdRng,
    last_write: Option<Instant>,
    /// Numbers collections.
    pub next_name: u32,
}

/// A replica set that several hold.
pub type Shared = Arc<Mutex<Mongo>>;

/// The replica set.
pub fn lock(mongo: &Shared) -> MutexGuard<'_, Mongo> {
    mongo.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An oplog is never silent for longer.
const NOOP_EVERY: Duration = Duration::from_secs(10);

impl Mongo {
    /// A replica set that was just initiated.
    pub fn new(seed: u64, name: &str, role: Role, draw: MongoDraw) -> Mongo {
        let prefix = if role == Role::Plain {
            String::new()
        } else {
            format!("{name}-")
        };
        let members = (0..draw.members).map(|at| Member {
            address: format!("{prefix}m{at}:27017"),
            applied: 0,
            known: 0,
            down_until: None,
            stuck_until: None,
            boot: 0,
        });
        let mut mongo = Mongo {
            members: members.collect(),
            draw,
            name: name.to_owned(),
            role,
            clock: Ts::ZERO,
            history: History::default(),
            primary: 0,
            term: 1,
            committed: 0,
            listed: 0,
            rng: StdRng::seed_from_u64(seed),
            last_write: None,
            next_name: 0,
        };
        mongo.noop("initiating set");
        mongo.noop("new primary");
        mongo.level();
        mongo
    }

    /// Every member has everything now.
    pub fn level(&mut self) {
        let newest = self.history.count();
        for member in &mut self.members {
            member.applied = newest;
        }
        self.settle();
    }

    /// Whether update entries carry diffs.
    pub fn writes_diffs(&self) -> bool {
        !self.draw.version.starts_with("4.")
    }

    /// Whether inserts carry `o2`.
    pub fn writes_insert_keys(&self) -> bool {
        !self.draw.version.starts_with("4.") && !self.draw.version.starts_with("5.")
    }

    /// A new collection's identity.
    pub fn new_uuid(&mut self) -> CollectionUuid {
        let mut bytes = [0; 16];
        self.rng.fill_bytes(&mut bytes);
        CollectionUuid(bytes)
    }

    /// The primary writes an entry.
    pub fn write(&mut self, fields: bson::Document, effects: Vec<Effect>) -> Count {
        let seconds = u32::try_from(BEGIN_SECONDS + (time::elapsed_ms() / 1000) as i64).unwrap_or(u32::MAX);
        let seconds = seconds.saturating_add(self.draw.skew_s);
        let count = self.history.push(seconds, self.clock, self.term, fields, effects);
        self.members[self.primary].applied = count;
        self.last_write = Some(Instant::now());
        self.settle();
        count
    }

    fn noop(&mut self, message: &str) {
        self.write(doc! { "op": "n", "ns": "", "o": { "msg": message } }, Vec::new());
    }

    /// The cluster time as it knows it.
    pub fn now(&self) -> Ts {
        self.clock.max(self.history.position(self.history.count()).ts)
    }

    /// Is told a cluster time: whatever is written from now on comes after it.
    pub fn learn(&mut self, time: Ts) {
        self.clock = self.clock.max(time);
    }

    /// Whether an entry is there as it was written; `None` when it was taken back, and whether a majority has it.
    pub fn is_durable(&self, (count, position): (Count, Optime)) -> Option<bool> {
        (self.history.position(count) == position).then_some(self.committed >= count)
    }

    /// Whether a member answers.
    pub fn is_up(&self, member: usize) -> bool {
        self.members[member]
            .down_until
            .is_none_or(|until| Instant::now() >= until)
    }

    /// Whether the primary takes writes.
    pub fn is_writable(&self) -> bool {
        self.is_up(self.primary)
    }

    /// Recomputes what a majority has.
    fn settle(&mut self) {
        let mut applied: Vec<Count> = self.members.iter().map(|member| member.applied).collect();
        applied.sort_unstable();
        self.committed = self.committed.max(applied[(applied.len() - 1) / 2]);
        if self.members.len() == 1 {
            self.members[0].known = self.committed;
        }
    }

    /// A moment passes: secondaries copy, learn what is committed; the primary keeps the oplog going.
    pub fn tick(&mut self) {
        let now = Instant::now();
        let newest = self.history.count();
        for at in 0..self.members.len() {
            let stuck = self.members[at].stuck_until.is_some_and(|until| now < until);
            if !self.is_up(at) || stuck || !self.is_up(self.primary) {
                continue;
            }
            let most = self.draw.lag_ms.max(1);
            let behind = newest - self.members[at].applied.min(newest);
            let copies = behind.min(1 + self.rng.gen_range(0..=(behind * 100 / most as usize).max(3)));
            let member = &mut self.members[at];
            member.applied += copies;
            member.known = member.known.max(self.committed.min(member.applied));
        }
        self.settle();
        if self.is_writable() && self.last_write.is_none_or(|last| last.elapsed() >= NOOP_EVERY) {
            self.noop("periodic noop");
        }
    }

    /// Another member leads: what it does not have is taken back everywhere.
    pub fn elect(&mut self) {
        let candidates: Vec<usize> = (0..self.members.len())
            .filter(|at| self.is_up(*at) && self.members[*at].applied >= self.committed)
            .collect();
        if candidates.is_empty() {
            return;
        }
        self.primary = candidates[self.rng.gen_range(0..candidates.len())];
        self.term += 1;
        let kept = self.members[self.primary].applied;
        if kept < self.history.count() {
            trace::mark("source: rollback");
        }
        trace::mark("source: election");
        trace::line(&format!(
            "source: {} leads term {}, {} entries are taken back",
            self.members[self.primary].address,
            self.term,
            self.history.count() - kept
        ));
        self.history.roll_back(kept);
        for member in &mut self.members {
            if member.applied > kept {
                member.applied = kept;
                member.boot += 1;
            }
        }
        self.noop("new primary");
        self.abort_open();
    }

    /// A new primary ends the transactions that the old one had begun to write and not prepared.
    fn abort_open(&mut self) {
        let now = self.history.count();
        let open: Vec<usize> = (0..self.history.transactions.len())
            .filter(|at| {
                let transaction = &self.history.transactions[*at];
                transaction.decided.is_none() && !transaction.prepared && transaction.first.0 <= now
            })
            .collect();
        for at in open {
            trace::mark("source: transaction aborted by an election");
            self.decide(at, None);
        }
    }

    /// Writes the end of an open transaction: it is committed at a cluster time, or aborted.
    pub fn decide(&mut self, at: usize, commit: Option<Ts>) -> Count {
        let transaction = self.history.transactions[at].clone();
        let (session, number) = transaction.session.clone();
        let o = match commit {
            Some(time) => doc! { "commitTransaction": 1, "commitTimestamp": bson::Timestamp::from(time) },
            None => doc! { "abortTransaction": 1 },
        };
        let fields = doc! {
            "op": "c", "ns": "admin.$cmd", "o": o, "lsid": session, "txnNumber": number,
            "prevOpTime": { "ts": bson::Timestamp::from(transaction.last.1.ts), "t": transaction.last.1.term },
        };
        let effects = if commit.is_some() {
            transaction.effects
        } else {
            Vec::new()
        };
        let count = self.write(fields, effects);
        let transaction = &mut self.history.transactions[at];
        (transaction.decided, transaction.commit) = (Some(count), commit);
        count
    }

    /// Ends a transaction of this replica set alone.
    pub fn decide_alone(&mut self, at: usize, commit: bool) {
        let prepared = self.history.transactions[at].last.1.ts;
        self.decide(at, commit.then_some(prepared));
    }

    /// A member is restarted: it is away for a while, and then knows less of what is committed than before.
    pub fn restart(&mut self, at: usize, span: Duration) {
        trace::mark("source: member restarted");
        trace::line(&format!(
            "source: {} is away for {} ms",
            self.members[at].address,
            span.as_millis()
        ));
        let forgets = self.rng.gen_range(0..20);
        let member = &mut self.members[at];
        member.down_until = Some(Instant::now() + span);
        member.known = member.known.saturating_sub(forgets).max(2.min(member.known));
        member.boot += 1;
    }

    /// A member no longer replicates for a while.
    pub fn stick(&mut self, at: usize, span: Duration) {
        trace::mark("source: member lags");
        self.members[at].stuck_until = Some(Instant::now() + span);
    }

    /// The oldest part of the oplog goes.
    pub fn truncate(&mut self, keep: Count) {
        let upto = self.committed.saturating_sub(keep);
        if upto > self.history.truncated {
            trace::mark("source: oplog truncated");
            self.history.truncated = upto;
        }
    }

    /// Everything answers and replicates from now on.
    pub fn heal(&mut self) {
        for member in &mut self.members {
            (member.down_until, member.stuck_until) = (None, None);
        }
    }
}
