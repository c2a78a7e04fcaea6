//! One cursor and one count of progress out of those of several shards.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;

use crate::load::{Cursor, LoadFault, Observer, Step};

/// See the module.
pub(super) struct Whole<'a> {
    state: Mutex<State>,
    /// Held while keeping, so that an older cursor never follows a newer one.
    keeps: tokio::sync::Mutex<()>,
    observer: &'a dyn Observer,
}

struct State {
    cursor: Cursor,
    amounts: BTreeMap<String, (u64, u64)>,
}

/// The observer of one shard's load.
pub(super) struct OfShard<'a> {
    whole: &'a Whole<'a>,
    shard: String,
}

impl<'a> Whole<'a> {
    pub fn new(cursor: Cursor, observer: &'a dyn Observer) -> Self {
        let amounts = BTreeMap::new();
        Whole {
            state: Mutex::new(State { cursor, amounts }),
            keeps: tokio::sync::Mutex::new(()),
            observer,
        }
    }

    pub fn of_shard(&'a self, shard: &str) -> OfShard<'a> {
        OfShard {
            whole: self,
            shard: shard.to_owned(),
        }
    }

    pub fn cursor_of(&self, shard: &str) -> Cursor {
        self.lock().cursor.of_shard(shard)
    }

    pub fn step(&self, step: Step) {
        let (documents, bytes) = self.amount();
        self.observer.progress(step, documents, bytes);
    }

    pub async fn keep(&self) -> Result<(), LoadFault> {
        self.told().await.map_err(LoadFault::Keep)
    }

    async fn told(&self) -> Result<(), String> {
        let _one_after_the_other = self.keeps.lock().await;
        let cursor = self.lock().cursor.clone();
        self.observer.keep(&cursor).await
    }

    fn amount(&self) -> (u64, u64) {
        let state = self.lock();
        let amounts = state.amounts.values();
        amounts.fold((0, 0), |(documents, bytes), (d, b)| (documents + d, bytes + b))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Observer for OfShard<'_> {
    async fn keep(&self, cursor: &Cursor) -> Result<(), String> {
        self.whole.lock().cursor.set_shard(&self.shard, cursor.clone());
        self.whole.told().await
    }

    fn progress(&self, step: Step, documents: u64, bytes: u64) {
        let mut state = self.whole.lock();
        state.amounts.insert(self.shard.clone(), (documents, bytes));
        drop(state);
        // What ends for one shard goes on for the others.
        let step = match step {
            Step::Verifying => Step::Indexes,
            other => other,
        };
        self.whole.step(step);
    }
}
