//! Merging sorted runs: layers, slices of a first copy, changes in memory.
//!
//! The runs are given oldest first. Records of one key come out together. A subtree that no other run reaches into can
//! come out whole, unread, if the caller takes it; whether one can is found out by opening the smaller subtrees first.

use bytes::Bytes;

use crate::error::HeadError;
use crate::tree::{Cursor, Entry, Position};

/// One sorted run. `M` is what a run in memory holds under a key.
pub enum Run<M> {
    /// A tree.
    Tree(Cursor),
    /// Sorted by key, no key twice.
    Memory(std::vec::IntoIter<(Bytes, M)>),
}

/// A value as its run has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value<M> {
    /// From a tree.
    Stored(Bytes),
    /// From memory.
    Memory(M),
}

/// What comes next in the order of keys.
pub enum Step<M> {
    /// A key, and what the runs hold under it.
    Record {
        /// The key.
        key: Bytes,
        /// The oldest run that has it, and its value.
        oldest: (usize, Value<M>),
        /// The others, older before newer.
        newer: Vec<(usize, Value<M>)>,
    },
    /// A whole subtree of one run, which no other run reaches into.
    Subtree {
        /// The run.
        run: usize,
        /// The subtree's level.
        level: u8,
        /// The subtree.
        entry: Entry,
    },
}

/// The merge; holds one node per level of each tree in memory.
pub struct Merge<M> {
    runs: Vec<Run<M>>,
    /// The run that is known to be alone up to, but not including, the key. `None` as key: to the end.
    alone: Option<(usize, Option<Bytes>)>,
}

impl<M> Run<M> {
    /// A run in memory.
    pub fn memory(records: Vec<(Bytes, M)>) -> Self {
        Run::Memory(records.into_iter())
    }

    fn position(&self) -> Position<'_> {
        match self {
            Run::Tree(cursor) => cursor.position(),
            Run::Memory(records) => records
                .as_slice()
                .first()
                .map_or(Position::End, |(key, _)| Position::Record(key)),
        }
    }

    /// The greatest key known of what comes next.
    fn bound(&self) -> Option<&[u8]> {
        match self.position() {
            Position::Record(key) => Some(key),
            Position::Subtree { entry, .. } => Some(&entry.last),
            Position::End => None,
        }
    }

    /// The same, to keep.
    fn bound_to_keep(&self) -> Option<Bytes> {
        match self {
            Run::Tree(cursor) => cursor.bound(),
            Run::Memory(records) => records.as_slice().first().map(|(key, _)| key.clone()),
        }
    }

    async fn open(&mut self) -> Result<(), HeadError> {
        match self {
            Run::Tree(cursor) => cursor.open().await,
            Run::Memory(_) => Ok(()),
        }
    }

    fn take(&mut self) -> Option<(Bytes, Value<M>)> {
        match self {
            Run::Tree(cursor) => {
                let (key, value) = cursor.record()?;
                cursor.skip();
                Some((key, Value::Stored(value)))
            }
            Run::Memory(records) => records.next().map(|(key, held)| (key, Value::Memory(held))),
        }
    }
}

/// What to do next, found by looking at where the runs stand.
enum Choice {
    /// The run stands before something that no other run reaches into before the limit.
    Alone(usize, Option<Bytes>),
    /// Several runs stand before the same least key.
    Together,
    /// Too little is known: open this run's subtree.
    Open(usize),
    End,
}

impl<M> Merge<M> {
    /// Merges the runs, oldest first.
    pub fn new(runs: Vec<Run<M>>) -> Self {
        Merge { runs, alone: None }
    }

    /// The next step. `take` is asked whether a subtree of this run would be taken whole.
    pub async fn next(
        &mut self,
        take: impl Fn(usize, u8, &Entry) -> bool + Send,
    ) -> Result<Option<Step<M>>, HeadError> {
        loop {
            if let Some((run, limit)) = &self.alone {
                let run = *run;
                let below = |key: &[u8]| limit.as_ref().is_none_or(|limit| key < limit);
                match self.runs[run].position() {
                    Position::Record(key) if below(key) => {
                        return Ok(self.runs[run].take().map(|(key, value)| Step::Record {
                            key,
                            oldest: (run, value),
                            newer: Vec::new(),
                        }));
                    }
                    Position::Subtree { level, entry } if below(&entry.last) => {
                        if take(run, level, entry) {
                            let entry = entry.clone();
                            if let Run::Tree(cursor) = &mut self.runs[run] {
                                cursor.skip();
                            }
                            return Ok(Some(Step::Subtree { run, level, entry }));
                        }
                        self.runs[run].open().await?;
                        continue;
                    }
                    _ => self.alone = None,
                }
            }
            match self.choose(&take) {
                Choice::End => return Ok(None),
                Choice::Open(run) => self.runs[run].open().await?,
                Choice::Alone(run, limit) => self.alone = Some((run, limit)),
                Choice::Together => return Ok(self.take_together()),
            }
        }
    }

    fn choose(&self, take: &impl Fn(usize, u8, &Entry) -> bool) -> Choice {
        let mut least: Option<(usize, &[u8])> = None;
        let mut second: Option<(usize, &[u8])> = None;
        let (mut subtrees, mut smallest) = (0, (u64::MAX, 0));
        for (at, run) in self.runs.iter().enumerate() {
            let bound = match run.position() {
                Position::Record(key) => key,
                Position::Subtree { entry, .. } => {
                    subtrees += 1;
                    smallest = smallest.min((entry.bytes, at));
                    &entry.last[..]
                }
                Position::End => continue,
            };
            if least.is_none_or(|(_, least)| bound < least) {
                (least, second) = (Some((at, bound)), least);
            } else if second.is_none_or(|(_, second)| bound < second) {
                second = Some((at, bound));
            }
        }
        let Some((first, bound)) = least else {
            return Choice::End;
        };
        let is_subtree = match self.runs[first].position() {
            Position::Subtree { level, entry } if !take(first, level, entry) => return Choice::Open(first),
            position => matches!(position, Position::Subtree { .. }),
        };
        // All other bounds are at or above that of `first`, but a subtree among them may begin below it.
        if subtrees > usize::from(is_subtree) {
            return Choice::Open(smallest.1);
        }
        match second {
            Some((_, second)) if second == bound && is_subtree => Choice::Open(first),
            Some((_, second)) if second == bound => Choice::Together,
            Some((second, _)) => Choice::Alone(first, self.runs[second].bound_to_keep()),
            None => Choice::Alone(first, None),
        }
    }

    fn least_bound(&self) -> Option<usize> {
        let bounds = self
            .runs
            .iter()
            .enumerate()
            .filter_map(|(at, run)| Some((run.bound()?, at)));
        bounds.min().map(|(_, at)| at)
    }

    fn take_together(&mut self) -> Option<Step<M>> {
        let least = self.least_bound()?;
        let (key, value) = self.runs[least].take()?;
        let mut newer = Vec::new();
        for run in least + 1..self.runs.len() {
            if self.runs[run].bound() == Some(&key[..])
                && let Some((_, value)) = self.runs[run].take()
            {
                newer.push((run, value));
            }
        }
        Some(Step::Record {
            key,
            oldest: (least, value),
            newer,
        })
    }
}
