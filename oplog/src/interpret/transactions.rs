//! Transactions that are not decided yet.
//!
//! Nothing of a transaction has an effect before its deciding entry: the last of a chain, or `commitTransaction` after
//! a prepare. Until then its entries are kept, as copies, so that they keep no slice of the oplog alive.

use std::collections::BTreeMap;

use bytes::Bytes;
use headwater_model::{Optime, Ts};

use super::EntryProblem;
use crate::entry::Entry;
use crate::raw::{self, BsonFault};

/// Whether the entry is a part of a transaction, or decides one.
pub fn belongs(entry: &Entry<'_>) -> bool {
    let named = matches!(
        entry.command().map(|command| command.name),
        Ok(b"applyOps" | b"commitTransaction" | b"abortTransaction")
    );
    named && entry.lsid.is_some() && entry.txn_number.is_some() && !entry.stands_alone
}

/// A transaction, by the session's whole document and the number within it.
pub type TransactionKey = (Vec<u8>, i64);

/// The transactions that are open.
#[derive(Clone, Debug, Default)]
pub struct OpenTransactions {
    chains: BTreeMap<TransactionKey, Chain>,
    /// Commits that took effect before their turn came; see [`super::outlook`].
    early: BTreeMap<TransactionKey, (Optime, Bytes)>,
    term: i64,
}

/// The entries of one transaction, oldest first, never none.
#[derive(Clone, Debug)]
struct Chain {
    entries: Vec<(Optime, Bytes)>,
    prepared: bool,
}

enum Role {
    Part { prepare: bool },
    Last,
    Commit,
    Abort,
}

impl Role {
    fn of(entry: &Entry<'_>) -> Result<Role, BsonFault> {
        let says = |name| Ok::<_, BsonFault>(raw::find(entry.o, name)?.is_some_and(|flag| flag.is_true()));
        Ok(match entry.command()?.name {
            b"commitTransaction" => Role::Commit,
            b"abortTransaction" => Role::Abort,
            _ if says("prepare")? => Role::Part { prepare: true },
            _ if says("partialTxn")? => Role::Part { prepare: false },
            _ => Role::Last,
        })
    }
}

/// Which transaction the entry is of.
pub fn key(entry: &Entry<'_>) -> TransactionKey {
    (
        entry.lsid.unwrap_or_default().to_vec(),
        entry.txn_number.unwrap_or_default(),
    )
}

fn begins(entry: &Entry<'_>) -> bool {
    entry.previous.is_none_or(|previous| previous == Ts::ZERO)
}

impl OpenTransactions {
    /// The entries that take effect now, oldest first. Changes nothing: [`OpenTransactions::note`] does.
    pub fn decided_by(&self, bytes: &Bytes, entry: &Entry<'_>) -> Result<Vec<Bytes>, EntryProblem> {
        let chain = self.chains.get(&key(entry));
        let linked = chain.filter(|chain| chain.is_before(entry));
        let role = Role::of(entry)?;
        match role {
            Role::Abort => Ok(Vec::new()),
            Role::Commit if self.is_early(entry) => Ok(Vec::new()),
            Role::Commit => {
                let chain = chain
                    .filter(|chain| chain.prepared)
                    .ok_or(EntryProblem::UnknownTransaction)?;
                Ok(chain.bytes().collect())
            }
            Role::Part { .. } | Role::Last if linked.is_none() && !begins(entry) => {
                Err(EntryProblem::UnknownTransaction)
            }
            Role::Part { .. } => Ok(Vec::new()),
            Role::Last => {
                let earlier = linked.filter(|_| !begins(entry)).into_iter().flat_map(Chain::bytes);
                Ok(earlier.chain([bytes.clone()]).collect())
            }
        }
    }

    /// Keeps a part, forgets what is decided. A part whose beginning was not seen is let go with its whole chain: if
    /// the transaction should commit, [`OpenTransactions::decided_by`] refuses.
    pub fn note(&mut self, bytes: &Bytes, entry: &Entry<'_>) -> Result<(), BsonFault> {
        let key = key(entry);
        self.early.remove(&key);
        let earlier = self
            .chains
            .remove(&key)
            .filter(|chain| !begins(entry) && chain.is_before(entry));
        let Role::Part { prepare } = Role::of(entry)? else {
            return Ok(());
        };
        let mut entries = match earlier {
            Some(chain) => chain.entries,
            None if begins(entry) => Vec::new(),
            None => return Ok(()),
        };
        entries.push((entry.position, Bytes::copy_from_slice(bytes)));
        self.chains.insert(
            key,
            Chain {
                entries,
                prepared: prepare,
            },
        );
        Ok(())
    }

    fn is_early(&self, entry: &Entry<'_>) -> bool {
        let early = self.early.get(&key(entry));
        early.is_some_and(|(position, _)| *position == entry.position)
    }

    /// Takes note of a commit that took effect already: when its turn comes it has none.
    pub fn note_early(&mut self, bytes: &Bytes, entry: &Entry<'_>) {
        let key = key(entry);
        self.chains.remove(&key);
        self.early.insert(key, (entry.position, Bytes::copy_from_slice(bytes)));
    }

    /// Whether a commit took effect whose turn has not come.
    pub fn is_ahead(&self) -> bool {
        !self.early.is_empty()
    }

    /// The transactions that are prepared and not decided, with the entries that prepared them.
    pub fn prepared(&self) -> BTreeMap<TransactionKey, Ts> {
        let prepared = self.chains.iter().filter(|(_, chain)| chain.prepared);
        let with_last = prepared.filter_map(|(key, chain)| Some((key.clone(), chain.entries.last()?.0.ts)));
        with_last.collect()
    }

    /// Sees where the oplog is. A new term ends every chain that is not prepared: its entries are written by one primary
    /// in one piece, so a chain cut by an election never goes on.
    pub fn observe(&mut self, position: Optime) {
        if position.term > self.term {
            self.term = position.term;
            self.chains
                .retain(|_, chain| chain.prepared || chain.term() == position.term);
        }
    }

    /// The oldest entry kept.
    pub fn oldest(&self) -> Option<Optime> {
        self.chains
            .values()
            .filter_map(|chain| chain.entries.first())
            .map(|(position, _)| *position)
            .min()
    }

    /// All entries kept, in the order of the oplog, commits that took effect early among them.
    pub fn entries(&self) -> Vec<Bytes> {
        let kept = self.chains.values().flat_map(|chain| &chain.entries);
        let mut all: Vec<_> = kept.chain(self.early.values()).cloned().collect();
        all.sort_by_key(|(position, _)| *position);
        all.into_iter().map(|(_, bytes)| bytes).collect()
    }
}

impl Chain {
    fn is_before(&self, entry: &Entry<'_>) -> bool {
        self.entries.last().map(|(position, _)| position.ts) == entry.previous
    }

    fn term(&self) -> i64 {
        self.entries.first().map_or(-1, |(position, _)| position.term)
    }

    fn bytes(&self) -> impl Iterator<Item = Bytes> {
        self.entries.iter().map(|(_, bytes)| bytes.clone())
    }
}
