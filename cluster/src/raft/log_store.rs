//! Raft's log and vote on the key-value disk.
//!
//! What is acknowledged is durable: votes and appended entries are flushed before openraft hears of them. The log has no
//! gaps: an append that would make one is refused, and one found on the disk ends the process.
//!
//! `purge` waits until the durable control image covers what is to be removed. This version of openraft asks for a purge
//! without waiting for the image it just received to be installed; a crash in between would leave a node that has
//! neither the entries nor an image of them (`reference/simulation.md` §2.4).

use std::fmt::Debug;
use std::ops::RangeBounds;

use headwater_host::Op;
use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{ErrorSubject, ErrorVerb, LogState, OptionalSend, RaftLogReader};
use tokio::sync::watch;

use super::disk::{COMMITTED, Disk, DiskError, PURGED, VOTE, log_key, put};
use super::records::{EntryRecord, LogIdRecord, VoteRecord};
use super::{Entry, LogId, StorageError, TypeConfig, Vote};

/// The log. Clones read the same one.
#[derive(Clone)]
pub(crate) struct LogStore {
    disk: Disk,
    /// The number of entries that the durable control image covers; `None` where no image guards the log.
    covered: Option<watch::Receiver<u64>>,
}

impl LogStore {
    /// Reads all of the log once, so that damage shows now and not in the middle of an election.
    ///
    /// `covered` is how many entries, counted from the first one ever, the durable control image covers.
    pub(crate) fn open(disk: &Disk, covered: Option<watch::Receiver<u64>>) -> Result<Self, DiskError> {
        let store = LogStore {
            disk: disk.clone(),
            covered,
        };
        let purged = store.purged()?;
        let mut first = None;
        disk.walk(.., |entry| {
            first.get_or_insert(entry.id.index);
        })?;
        let covers = store.covered.as_ref().map(|covered| *covered.borrow());
        let start = purged.map_or(0, |id| id.index + 1);
        if first.is_some_and(|first| first != start) {
            return Err(DiskError::Wrong(format!(
                "the log does not begin at {start}, where it was cut off"
            )));
        }
        if covers.is_some_and(|covers| covers < start) {
            return Err(DiskError::Wrong(format!(
                "the log begins at {start}, but no control image reaches that far"
            )));
        }
        disk.get::<VoteRecord>("vote", VOTE)?;
        Ok(store)
    }

    fn purged(&self) -> Result<Option<LogIdRecord>, DiskError> {
        self.disk.get("purge position", PURGED)
    }

    async fn write_flushed(&self, batch: Vec<Op>) -> Result<(), DiskError> {
        self.disk.write(batch)?;
        self.disk.flush().await
    }

    async fn append_entries(&self, entries: &[EntryRecord]) -> Result<(), DiskError> {
        let Some(first) = entries.first() else { return Ok(()) };
        let before = match self.disk.last_entry()? {
            Some(last) => Some(last.id.index),
            None => self.purged()?.map(|id| id.index),
        };
        let start = before.map_or(0, |index| index + 1);
        let follow = entries
            .iter()
            .zip(start..)
            .all(|(entry, expected)| entry.id.index == expected);
        if !follow {
            let wrong = format!(
                "entries from {} on do not follow the log, which ends before {start}",
                first.id.index
            );
            return Err(DiskError::Wrong(wrong));
        }
        let puts = entries
            .iter()
            .map(|entry| put("log entry", &log_key(entry.id.index), entry));
        self.write_flushed(puts.collect::<Result<_, _>>()?).await
    }

    fn truncate_from(&self, from: u64) -> Result<(), DiskError> {
        let keys = self.disk.entry_keys(from..)?;
        // Nothing was promised yet; what is appended instead is flushed with this.
        self.disk.write(keys.into_iter().map(Op::delete).collect())
    }

    async fn purge_through(&self, id: LogId) -> Result<(), DiskError> {
        if let Some(covered) = &self.covered {
            let reached = covered.clone().wait_for(|covers| *covers > id.index).await.map(|_| ());
            reached.map_err(|_| DiskError::Wrong("the state machine ended before a purge".to_owned()))?;
        }
        let mut batch = vec![put("purge position", PURGED, &LogIdRecord::from(id))?];
        batch.extend(self.disk.entry_keys(..=id.index)?.into_iter().map(Op::delete));
        self.write_flushed(batch).await
    }

    fn state(&self) -> Result<LogState<TypeConfig>, DiskError> {
        let purged = self.purged()?;
        let last = self.disk.last_entry()?.map(|entry| entry.id).or(purged);
        Ok(LogState {
            last_purged_log_id: purged.map(LogId::from),
            last_log_id: last.map(LogId::from),
        })
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, StorageError> {
        let entries = self
            .disk
            .or_stop(ErrorSubject::Logs, ErrorVerb::Read, self.disk.entries(range))?;
        Ok(entries.into_iter().map(Entry::from).collect())
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = LogStore;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, StorageError> {
        self.disk.or_stop(ErrorSubject::Logs, ErrorVerb::Read, self.state())
    }

    async fn get_log_reader(&mut self) -> LogStore {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        let written = match put("vote", VOTE, &VoteRecord::from(vote)) {
            Ok(op) => self.write_flushed(vec![op]).await,
            Err(error) => Err(error),
        };
        self.disk.or_stop(ErrorSubject::Vote, ErrorVerb::Write, written)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        let vote = self.disk.get::<VoteRecord>("vote", VOTE);
        Ok(self
            .disk
            .or_stop(ErrorSubject::Vote, ErrorVerb::Read, vote)?
            .map(Vote::from))
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), StorageError> {
        // Not flushed: a node that forgets how far it had got learns it again from the leader.
        let record = committed.map(LogIdRecord::from);
        let written = put("commit position", COMMITTED, &record).and_then(|op| self.disk.write(vec![op]));
        self.disk.or_stop(ErrorSubject::Logs, ErrorVerb::Write, written)
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, StorageError> {
        let committed = self.disk.get::<Option<LogIdRecord>>("commit position", COMMITTED);
        let committed = self.disk.or_stop(ErrorSubject::Logs, ErrorVerb::Read, committed)?;
        Ok(committed.flatten().map(LogId::from))
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<TypeConfig>) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<EntryRecord> = entries.into_iter().map(|entry| EntryRecord::from(&entry)).collect();
        let appended = self.append_entries(&entries).await;
        let appended = self.disk.or_stop(ErrorSubject::Logs, ErrorVerb::Write, appended);
        callback.log_io_completed(
            appended
                .as_ref()
                .map(|_| ())
                .map_err(|error| std::io::Error::other(error.to_string())),
        );
        appended
    }

    async fn truncate(&mut self, id: LogId) -> Result<(), StorageError> {
        self.disk
            .or_stop(ErrorSubject::Log(id), ErrorVerb::Delete, self.truncate_from(id.index))
    }

    async fn purge(&mut self, id: LogId) -> Result<(), StorageError> {
        let purged = self.purge_through(id).await;
        self.disk.or_stop(ErrorSubject::Log(id), ErrorVerb::Delete, purged)
    }
}
