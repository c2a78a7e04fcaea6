//! The outcome of transactions that were prepared before a cut.
//!
//! In a sharded cluster a prepared transaction belongs to the cluster time at which it commits on all shards, its
//! `commitTimestamp`, wherever the entry lies that tells one shard of it. So who wants the state at one cluster time reads on
//! after it, until every transaction that was prepared by then is decided. Nobody else can write its documents in between.

use std::collections::BTreeMap;

use bytes::Bytes;
use headwater_model::Ts;

use super::transactions::{self, TransactionKey};
use crate::entry::{Entry, Op};
use crate::raw::{self, BsonFault};

/// See the module. Made by [`super::Interpreter::outlook`]; sees every entry after the cut, in order.
#[derive(Clone, Debug)]
pub struct Outlook {
    cut: Ts,
    undecided: BTreeMap<TransactionKey, Ts>,
    commits: Vec<Bytes>,
}

impl Outlook {
    pub(super) fn new(cut: Ts, undecided: BTreeMap<TransactionKey, Ts>) -> Self {
        Outlook {
            cut,
            undecided,
            commits: Vec::new(),
        }
    }

    /// Takes note of what the entry decides.
    pub fn see(&mut self, entry: &Bytes) -> Result<(), BsonFault> {
        if self.undecided.is_empty() {
            return Ok(());
        }
        let read = Entry::read(entry)?;
        let name = match read.op {
            Op::Command => read.command()?.name,
            _ => return Ok(()),
        };
        let decides = matches!(name, b"commitTransaction" | b"abortTransaction") && transactions::belongs(&read);
        if !decides || self.undecided.remove(&transactions::key(&read)).is_none() || name == b"abortTransaction" {
            return Ok(());
        }
        let time = raw::find(read.o, "commitTimestamp")?.and_then(|time| time.timestamp());
        let time = time.ok_or(BsonFault::NoField("commitTimestamp"))?;
        if Ts(time) <= self.cut {
            self.commits.push(Bytes::copy_from_slice(entry));
        }
        Ok(())
    }

    /// How many transactions are still undecided; none: there is no need to read on.
    pub fn undecided(&self) -> usize {
        self.undecided.len()
    }

    /// The entry that prepared the first of them: before it none of them was.
    pub fn undecided_from(&self) -> Option<Ts> {
        self.undecided.values().min().copied()
    }

    /// The entries after the cut that commit at or before it, for [`super::Interpreter::commit_early`].
    pub fn into_commits(self) -> Vec<Bytes> {
        self.commits
    }
}
