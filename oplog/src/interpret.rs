//! Entries become effects: the commands, the transactions and the shapes of updates of every supported server.
//!
//! An [`Interpreter`] sees every entry of one history in order. What is undecided — the chain of a large transaction,
//! a prepared transaction — it holds until the deciding entry comes; everything else it forgets at once.

mod command;
mod crud;
mod outlook;
mod transactions;

use bytes::Bytes;
use headwater_model::{Optime, Ts};

use crate::diff::{DiffFault, NameOrder};
use crate::effect::Effect;
use crate::entry::{Entry, Op, position};
use crate::raw::BsonFault;
use crate::version::SourceVersion;

pub use outlook::Outlook;
use transactions::OpenTransactions;

/// An entry that cannot be followed. Nothing of it was applied. The copy is good up to the entry before; to go on, the
/// replica set must be synced anew.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the oplog entry at {at} cannot be followed: {what}")]
pub struct EntryFault {
    /// The entry; [`Optime::ZERO`] when it is not even readable.
    pub at: Optime,
    /// Why.
    pub what: EntryProblem,
}

/// Why an entry cannot be followed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryProblem {
    /// The entry or a document in it is damaged or lacks a field.
    #[error(transparent)]
    Bson(#[from] BsonFault),
    /// An update that no server wrote, or one that cannot be replayed.
    #[error(transparent)]
    Update(#[from] DiffFault),
    /// An operation other than `i u d c n`.
    #[error("an unknown kind of operation; a newer version of this program may know it")]
    UnknownOperation,
    /// A command this version does not know.
    #[error("the unknown command {0:?}; a newer version of this program may know it")]
    UnknownCommand(String),
    /// A command whose documents are not in the oplog.
    #[error("{0:?} brings documents that are not in the oplog; sync the replica set anew")]
    OutsideData(String),
    /// A command of a shape that is not known.
    #[error("the command {command:?} has no proper {field:?}")]
    Shape {
        /// The command.
        command: String,
        /// What is amiss.
        field: &'static str,
    },
    /// An operation on a collection without its UUID.
    #[error("an operation without collection UUID: servers before 3.6 are not supported")]
    NoUuid,
    /// A commit or a later part of a transaction whose beginning was not seen.
    #[error("a transaction goes on whose beginning is not known; sync the replica set anew")]
    UnknownTransaction,
    /// `applyOps` within `applyOps`, too often.
    #[error("applyOps nests too deep")]
    TooDeep,
}

/// Makes effects of entries.
#[derive(Clone, Debug)]
pub struct Interpreter {
    version: SourceVersion,
    open: OpenTransactions,
}

impl Interpreter {
    /// For a history written by a server of that version.
    pub fn new(version: SourceVersion) -> Self {
        Interpreter {
            version,
            open: OpenTransactions::default(),
        }
    }

    /// As it was when [`Interpreter::open_entries`] gave those entries.
    pub fn resume(version: SourceVersion, open_entries: Vec<Bytes>) -> Result<Self, EntryFault> {
        let mut interpreter = Interpreter::new(version);
        for entry in &open_entries {
            let read = Entry::read(entry).map_err(|fault| unreadable(entry, fault))?;
            // A commit is kept only when it took effect before its turn.
            match read.command().is_ok_and(|command| command.name == b"commitTransaction") {
                true => interpreter.open.note_early(entry, &read),
                false => _ = interpreter.remember(entry)?,
            }
        }
        Ok(interpreter)
    }

    /// The version the history is read as.
    pub fn version(&self) -> SourceVersion {
        self.version
    }

    /// Appends what the entry does to `effects`. On a fault nothing is appended, and the interpreter is as before.
    pub fn interpret(&mut self, entry: &Bytes, effects: &mut Vec<Effect>) -> Result<Optime, EntryFault> {
        let before = effects.len();
        let read = Entry::read(entry).map_err(|fault| unreadable(entry, fault))?;
        let done = match read.op {
            Op::Noop => Ok(()),
            Op::Command => self.top_command(entry, &read, effects),
            _ => crud::interpret(&self.crud_rules(false), entry, &read, effects),
        };
        done.map_err(|what| {
            effects.truncate(before);
            EntryFault {
                at: read.position,
                what,
            }
        })?;
        self.open.observe(read.position);
        Ok(read.position)
    }

    /// Takes note of an entry whose effects the copy already has: only transactions that commit later matter.
    pub fn remember(&mut self, entry: &Bytes) -> Result<Optime, EntryFault> {
        let read = Entry::read(entry).map_err(|fault| unreadable(entry, fault))?;
        if read.op == Op::Command && transactions::belongs(&read) {
            self.open.note(entry, &read).map_err(|fault| EntryFault {
                at: read.position,
                what: fault.into(),
            })?;
        }
        self.open.observe(read.position);
        Ok(read.position)
    }

    /// What must be seen of the entries after this cluster time to know which of the transactions that are prepared now
    /// belong to it.
    pub fn outlook(&self, cut: Ts) -> Outlook {
        Outlook::new(cut, self.open.prepared())
    }

    /// Appends what a commit does before its turn comes, for a cut that it belongs to; when its turn comes it does nothing.
    pub fn commit_early(&mut self, entry: &Bytes, effects: &mut Vec<Effect>) -> Result<(), EntryFault> {
        let before = effects.len();
        let read = Entry::read(entry).map_err(|fault| unreadable(entry, fault))?;
        let mut done = || -> Result<(), EntryProblem> {
            for part in self.open.decided_by(entry, &read)? {
                self.apply_ops(&part, effects)?;
            }
            Ok(())
        };
        done().map_err(|what| {
            effects.truncate(before);
            EntryFault {
                at: read.position,
                what,
            }
        })?;
        self.open.note_early(entry, &read);
        Ok(())
    }

    /// Whether a commit took effect before its turn, which has not come yet.
    pub fn is_ahead(&self) -> bool {
        self.open.is_ahead()
    }

    /// The oldest entry of a transaction that is still undecided.
    pub fn oldest_open(&self) -> Option<Optime> {
        self.open.oldest()
    }

    /// All entries of undecided transactions, in the order of the oplog, and the commits that took effect early.
    pub fn open_entries(&self) -> Vec<Bytes> {
        self.open.entries()
    }

    fn crud_rules(&self, upsert: bool) -> crud::Rules {
        let order = if self.version.major < 5 {
            NameOrder::Bytewise
        } else {
            NameOrder::Numeric
        };
        crud::Rules {
            order,
            upsert,
            forgets_in_silence: !self.version.logs_capped_overflow(),
        }
    }

    fn top_command(&mut self, bytes: &Bytes, entry: &Entry<'_>, effects: &mut Vec<Effect>) -> Result<(), EntryProblem> {
        match entry.command()?.name {
            b"applyOps" | b"commitTransaction" | b"abortTransaction" if transactions::belongs(entry) => {
                for part in self.open.decided_by(bytes, entry)? {
                    self.apply_ops(&part, effects)?;
                }
                self.open.note(bytes, entry)?;
            }
            b"applyOps" => self.apply_ops(bytes, effects)?,
            _ => command::interpret(bytes, entry, effects)?,
        }
        Ok(())
    }

    /// The operations within one `applyOps` entry.
    fn apply_ops(&self, bytes: &Bytes, effects: &mut Vec<Effect>) -> Result<(), EntryProblem> {
        self.inner_operations(bytes, &Entry::read(bytes)?, None, 0, effects)
    }

    fn inner_operations(
        &self,
        bytes: &Bytes,
        entry: &Entry<'_>,
        upsert: Option<bool>,
        depth: usize,
        effects: &mut Vec<Effect>,
    ) -> Result<(), EntryProblem> {
        const NESTING_MAX: usize = 10;
        if depth >= NESTING_MAX {
            return Err(EntryProblem::TooDeep);
        }
        let fault = || EntryProblem::Shape {
            command: "applyOps".into(),
            field: "applyOps",
        };
        let operations = entry.command()?.array().ok_or_else(fault)?;
        // Outside transactions inner updates are upserts, unless said otherwise.
        let upsert = match upsert {
            Some(upsert) => upsert,
            None => {
                let said = crate::raw::find(entry.o, "alwaysUpsert")?.is_none_or(|always| always.is_true());
                entry.txn_number.is_none() && said
            }
        };
        for operation in crate::raw::elements(operations) {
            let operation = Entry::read(operation?.document().ok_or_else(fault)?)?;
            match operation.op {
                Op::Noop => {}
                Op::Command if operation.command()?.name == b"applyOps" => {
                    self.inner_operations(bytes, &operation, Some(upsert), depth + 1, effects)?;
                }
                Op::Command => command::interpret(bytes, &operation, effects)?,
                _ => {
                    let rules = self.crud_rules(operation.upsert.unwrap_or(upsert));
                    crud::interpret(&rules, bytes, &operation, effects)?;
                }
            }
        }
        Ok(())
    }
}

fn unreadable(entry: &[u8], fault: BsonFault) -> EntryFault {
    EntryFault {
        at: position(entry).unwrap_or(Optime::ZERO),
        what: fault.into(),
    }
}
