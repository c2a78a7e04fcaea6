//! The oracles: what must hold, whatever happens. One file each, with a typed violation.
//!
//! They are told of promises when these leave a process, look at what lies in the store with nobody in between, and hold
//! it against the model of the source. They share no code with what they judge, save for reading formats at rest.

pub mod acknowledged;
pub mod applied;
pub mod catalog;
pub mod chain;
pub mod checkpoint;
pub mod cut;
pub mod integrity;
pub mod limits;
pub mod own_disk;
pub mod raft;
pub mod restored;
pub mod window;

use std::cell::RefCell;
use std::rc::Rc;

use bytes::Bytes;
use headwater_cluster::{Figures, State};
use headwater_model::{Incarnation, ReplicaSetId};
use headwater_protocol::admin::{Status, Timeline};
use headwater_protocol::agent::OplogAck;

use crate::mongo::Shared;
use crate::store::Store;
use crate::trace;

/// An invariant, by its name and the reason it must hold.
#[derive(Clone, Copy, Debug)]
pub struct Invariant {
    /// As violations name it.
    pub name: &'static str,
    /// What users would lose.
    pub reason: &'static str,
}

/// Every invariant that is watched.
pub const INDEX: [Invariant; 22] = [
    Invariant {
        name: "acknowledged means durable",
        reason: "the agent forgets what was acknowledged; the source may have dropped it from its oplog",
    },
    Invariant {
        name: "acknowledged survives",
        reason: "no crash, restart or error may lose what was promised",
    },
    Invariant {
        name: "the chain has no hole",
        reason: "a missing entry makes every later instant wrong, silently",
    },
    Invariant {
        name: "stored entries are the source's",
        reason: "an entry that was rolled back or altered restores data that never was",
    },
    Invariant {
        name: "the tip never goes back",
        reason: "a tip that goes back has forgotten what was acknowledged",
    },
    Invariant {
        name: "the head never leads the tip",
        reason: "a head may show only what can be replayed",
    },
    Invariant {
        name: "the catalog is monotone",
        reason: "epochs fence writers and incarnations name histories only if neither ever goes back",
    },
    Invariant {
        name: "a snapshot is whole or absent",
        reason: "a snapshot that is listed and cannot be read is found out in the night it is needed",
    },
    Invariant {
        name: "offered means restorable",
        reason: "the timeline is a promise",
    },
    Invariant {
        name: "a restore equals the source",
        reason: "it is what a backup is for",
    },
    Invariant {
        name: "a checkpoint is one cut",
        reason: "shards that are restored to different instants make or lose what moved between them",
    },
    Invariant {
        name: "a checkpoint is sealed for all or for none",
        reason: "a snapshot of a cluster without one of its shards is no snapshot of the cluster",
    },
    Invariant {
        name: "one writer per epoch",
        reason: "an owner that was replaced and does not know it must not be able to change anything",
    },
    Invariant {
        name: "one log",
        reason: "members that hold different entries under one index have different states, and each believes its own",
    },
    Invariant {
        name: "an entry has one content",
        reason: "two contents under one name make two states of one log, and nobody notices",
    },
    Invariant {
        name: "what is committed stays",
        reason: "a leader without a committed entry takes back what users were told is done",
    },
    Invariant {
        name: "a vote never goes back",
        reason: "a member that forgets its vote lets two lead, each of whom believes that most follow it",
    },
    Invariant {
        name: "a rotten disk is refused",
        reason: "a member that misreads what it promised breaks the promises of the whole cluster",
    },
    Invariant {
        name: "nothing grows without end",
        reason: "what is bounded nowhere ends a daemon some night, and the next one that takes over with it",
    },
    Invariant {
        name: "a check says what is so",
        reason: "who is told of damage that is not there resyncs for nothing, and believes no check any more",
    },
    Invariant {
        name: "everything converges",
        reason: "when faults end the backup must catch up without help",
    },
    Invariant {
        name: "nothing panics",
        reason: "a panic is a state nobody thought of; that a child is built anew does not make it right",
    },
];

/// Something that must never be.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Violation {
    /// See [`acknowledged`].
    #[error(transparent)]
    Acknowledged(#[from] acknowledged::Lost),
    /// See [`chain`].
    #[error(transparent)]
    Chain(#[from] chain::Broken),
    /// See [`applied`].
    #[error(transparent)]
    Applied(#[from] applied::Astray),
    /// See [`catalog`].
    #[error(transparent)]
    Catalog(#[from] catalog::Backwards),
    /// See [`raft`].
    #[error(transparent)]
    Raft(#[from] raft::Apart),
    /// See [`raft`].
    #[error(transparent)]
    Promise(#[from] raft::Broken),
    /// See [`own_disk`].
    #[error(transparent)]
    OwnDisk(#[from] own_disk::Trusted),
    /// See [`limits`].
    #[error(transparent)]
    Limits(#[from] limits::Beyond),
    /// See [`window`].
    #[error(transparent)]
    Window(#[from] window::Unkept),
    /// See [`restored`].
    #[error(transparent)]
    Restored(#[from] restored::Differs),
    /// See [`cut`].
    #[error(transparent)]
    Cut(#[from] cut::Torn),
    /// See [`checkpoint`].
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::Partial),
    /// See [`integrity`].
    #[error(transparent)]
    Integrity(#[from] integrity::Misjudged),
    /// Two processes wrote blocks under one epoch.
    #[error("one writer per epoch: two processes wrote under {0}")]
    SharedEpoch(String),
    /// The world does not come to rest.
    #[error("everything converges: after {0} s without faults {1}")]
    Stuck(u64, String),
    /// A panic.
    #[error("nothing panics: {0}")]
    Panic(String),
}

/// All oracles of a world. Clones are the same ones.
#[derive(Clone)]
pub struct Oracle {
    inner: Rc<RefCell<Inner>>,
    store: Store,
    sets: Vec<Shared>,
    promised: raft::Promised,
}

struct Inner {
    acknowledged: acknowledged::Acknowledged,
    applied: applied::Applied,
    catalog: catalog::Catalog,
    checkpoints: checkpoint::Checkpoints,
    violation: Option<Violation>,
}

impl Oracle {
    /// Oracles for a world with this store and this source.
    pub fn new(store: Store, sets: Vec<Shared>) -> Oracle {
        Oracle {
            inner: Rc::new(RefCell::new(Inner {
                acknowledged: acknowledged::Acknowledged::default(),
                applied: applied::Applied::default(),
                catalog: catalog::Catalog::default(),
                checkpoints: checkpoint::Checkpoints::default(),
                violation: None,
            })),
            store,
            sets,
            promised: raft::Promised::default(),
        }
    }

    /// Who listens to what Raft writes to a disk.
    pub fn promises(&self, owner: raft::Owner) -> raft::Promises {
        self.promised.of(owner)
    }

    /// Keeps the first violation.
    pub fn report(&self, violation: impl Into<Violation>) {
        let violation = violation.into();
        trace::line(&format!("VIOLATION {violation}"));
        let mut inner = self.inner.borrow_mut();
        if inner.violation.is_none() {
            inner.violation = Some(violation);
        }
    }

    /// What was found so far.
    pub fn violation(&self) -> Option<Violation> {
        let shared = self.store.shared_epoch().map(Violation::SharedEpoch);
        let broken = || self.promised.broken().map(Violation::Promise);
        self.inner.borrow().violation.clone().or(shared).or_else(broken)
    }

    /// The store, without troubles.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The source: one replica set, or the config servers and the shards of a cluster.
    pub fn sets(&self) -> &[Shared] {
        &self.sets
    }

    fn judge<V: Into<Violation>>(&self, judge: impl FnOnce(&mut Inner, &Store) -> Result<(), V>) {
        let judged = judge(&mut self.inner.borrow_mut(), &self.store);
        if let Err(violation) = judged {
            self.report(violation);
        }
    }

    /// A daemon is about to acknowledge an oplog slice.
    pub fn oplog_slice_acknowledged(&self, frame: &Bytes, ack: &OplogAck) {
        self.judge(|inner, store| inner.acknowledged.oplog(store, frame, ack));
    }

    /// A daemon is about to acknowledge a sync slice.
    pub fn sync_slice_acknowledged(&self, frame: &Bytes) {
        self.judge(|inner, store| inner.acknowledged.sync(store, frame));
    }

    /// A process of a daemon, one of `several`, says how it fares.
    pub fn status(&self, process: u64, several: bool, status: &Status) {
        self.judge(|inner, _| inner.applied.status(process, several, status));
    }

    /// The control state of a daemon is this now.
    pub fn state(&self, daemon: u64, state: &State) {
        self.judge(|inner, store| inner.catalog.state(daemon, state, store));
        self.judge(|inner, _| inner.checkpoints.state(daemon, state));
        self.judge(|_, _| limits::state(state));
    }

    /// A daemon says how its member of Raft fares.
    pub fn figures(&self, figures: Figures) {
        self.judge(|_, _| limits::figures(figures));
    }

    /// A daemon whose heads have a budget of so many bytes tells its metrics.
    pub fn metrics(&self, metrics: &str, budget: usize) {
        self.judge(|_, _| limits::memory(metrics, budget));
    }

    /// Whether a replica set has a history that ended.
    pub fn was_copied_anew(&self, set: &ReplicaSetId) -> bool {
        self.inner.borrow().catalog.was_copied_anew(set)
    }

    /// Whether all of an ended history was given up.
    pub fn is_given_up(&self, set: &ReplicaSetId, incarnation: Incarnation) -> bool {
        self.inner.borrow().catalog.is_given_up(set, incarnation)
    }

    /// A user is told what can be restored.
    pub fn offered(&self, timeline: &Timeline) {
        if self.sets.len() > 1 {
            self.judge(|_, _| checkpoint::offered(timeline, self.sets.len()));
        }
    }

    /// A user asked for this snapshot, or a deployment, to go.
    pub fn may_vanish(&self, snapshot: &headwater_model::SnapshotId) {
        self.inner.borrow_mut().catalog.may_vanish(snapshot.clone());
    }

    /// Whether every acknowledged slice lies within what is stored of its incarnation.
    pub fn acknowledged_within(&self, set: &ReplicaSetId, stored: &[chain::Stored]) -> Result<(), Violation> {
        let inner = self.inner.borrow();
        Ok(inner.acknowledged.within(set, stored, &inner.catalog.floors)?)
    }
}
