//! The members of a cluster hold one log, and keep what they promised.
//!
//! What a member made durable is a promise: a vote, or an entry that it says it has. The oracle hears of it when the flush
//! returns, before the promise leaves the process. In the mode of openraft that is used here a term may have several leaders
//! one after the other, of whom the one with the greater number overrides; so it is term *and* node that name a leader, and
//! with the index an entry.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use headwater_host::Op;
use headwater_host::memory::MemoryDisk;

use crate::trace;

/// Logs that are not one.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Apart {
    /// Two members hold different entries under one index.
    #[error("one log: d{one} and d{other} hold different entries under index {index}")]
    Entries {
        /// A member.
        one: usize,
        /// Another.
        other: usize,
        /// Where.
        index: u64,
    },
}

/// Where entries lie on a member's disk, by index; see `cluster/src/raft/disk.rs`.
const LOG: &[u8] = b"raft/log/";
/// Where its vote lies.
pub const VOTE: &[u8] = b"raft/vote";
const COMMITTED: &[u8] = b"raft/committed";

/// A disk: the number of a machine, and how many disks it had before.
pub type Owner = (usize, u64);

/// A leader: its term and its node.
type Leader = (u64, u64);

/// A promise that was not kept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// One name, two contents.
    #[error("an entry has one content: {index} of leader {leader:?} is durable with two, the other one on d{}", .owner.0 + 1)]
    Content {
        /// Whose entry.
        leader: Leader,
        /// Where.
        index: u64,
        /// Who has another.
        owner: Owner,
    },
    /// A member follows a lesser leader than it promised.
    #[error("a vote never goes back: that of d{} was {before:?} and is {now:?}", .owner.0 + 1)]
    VoteBack {
        /// Whose.
        owner: Owner,
        /// Term, node, and whether it leads.
        before: (u64, u64, bool),
        /// The same.
        now: (u64, u64, bool),
    },
    /// A leader has another entry where one was committed before it led.
    #[error("what is committed stays: at {index} the entry of {before:?} was committed, and {now:?} has another")]
    Lost {
        /// Where.
        index: u64,
        /// Whose entry was committed.
        before: Leader,
        /// Who leads without it.
        now: Leader,
    },
    /// Two entries are committed under one index.
    #[error("what is committed stays: at {index} entries of {one:?} and of {other:?} are committed")]
    Twice {
        /// Where.
        index: u64,
        /// Whose entry.
        one: Leader,
        /// And whose.
        other: Leader,
    },
}

/// What all members promised. Clones are the same.
#[derive(Clone, Default)]
pub struct Promised(Arc<Mutex<Known>>);

#[derive(Default)]
struct Known {
    /// Checksums of durable entries.
    entries: BTreeMap<(Leader, u64), u64>,
    votes: BTreeMap<Owner, (u64, u64, bool)>,
    committed: BTreeMap<u64, Leader>,
    broken: Option<Broken>,
}

/// What one process writes to its disk.
#[derive(Clone)]
pub struct Promises {
    owner: Owner,
    /// Not flushed yet.
    waiting: Arc<Mutex<Vec<Promise>>>,
    promised: Promised,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Promise {
    Entry { leader: Leader, index: u64, sum: u64 },
    Vote(u64, u64, bool),
}

impl Promised {
    /// Listens to a process that has the disk of `owner`.
    pub fn of(&self, owner: Owner) -> Promises {
        Promises {
            owner,
            waiting: Arc::default(),
            promised: self.clone(),
        }
    }

    /// The first promise that was not kept.
    pub fn broken(&self) -> Option<Broken> {
        lock(&self.0).broken.clone()
    }
}

impl Promises {
    /// The process wrote this.
    pub fn written(&self, batch: &[Op]) {
        for op in batch {
            let Op::Put { key, value } = op else { continue };
            if key == COMMITTED {
                if let Some((leader, index)) = committed(value) {
                    self.judge(|known| known.commit(leader, index));
                }
            } else if let Some(promise) = promise(key, value) {
                lock(&self.waiting).push(promise);
            }
        }
    }

    /// All that it wrote is durable.
    pub fn flushed(&self) {
        for promise in std::mem::take(&mut *lock(&self.waiting)) {
            self.judge(|known| known.keep(self.owner, promise));
        }
    }

    fn judge(&self, judge: impl FnOnce(&mut Known) -> Result<(), Broken>) {
        let mut known = lock(&self.promised.0);
        if let Err(broken) = judge(&mut known) {
            trace::line(&format!("VIOLATION {broken}"));
            known.broken.get_or_insert(broken);
        }
    }
}

impl Known {
    fn keep(&mut self, owner: Owner, promise: Promise) -> Result<(), Broken> {
        match promise {
            Promise::Entry { leader, index, sum } => {
                if *self.entries.entry((leader, index)).or_insert(sum) != sum {
                    return Err(Broken::Content { leader, index, owner });
                }
                // A former leader may have had another one there that no majority took.
                match self.committed.get(&index) {
                    Some(before) if *before < leader => Err(Broken::Lost {
                        index,
                        before: *before,
                        now: leader,
                    }),
                    _ => Ok(()),
                }
            }
            Promise::Vote(term, node, leads) => {
                let now = (term, node, leads);
                let before = self.votes.insert(owner, now).unwrap_or(now);
                match now < before {
                    true => Err(Broken::VoteBack { owner, before, now }),
                    false => Ok(()),
                }
            }
        }
    }

    fn commit(&mut self, leader: Leader, index: u64) -> Result<(), Broken> {
        let one = *self.committed.entry(index).or_insert(leader);
        match one == leader {
            true => Ok(()),
            false => Err(Broken::Twice {
                index,
                one,
                other: leader,
            }),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Version and checksum of a value; see `cluster/src/codec.rs`.
const SUM: std::ops::Range<usize> = 1..9;

fn promise(key: &[u8], value: &[u8]) -> Option<Promise> {
    let mut payload = value.get(SUM.end..)?;
    if key == VOTE {
        let (term, node) = (number(&mut payload)?, number(&mut payload)?);
        return Some(Promise::Vote(term, node, payload == [1]));
    }
    let index = u64::from_be_bytes(key.strip_prefix(LOG)?.try_into().ok()?);
    let leader = (number(&mut payload)?, number(&mut payload)?);
    let sum = u64::from_le_bytes(value.get(SUM)?.try_into().ok()?);
    Some(Promise::Entry { leader, index, sum })
}

fn committed(value: &[u8]) -> Option<(Leader, u64)> {
    let mut payload = value.get(SUM.end..)?.strip_prefix(&[1])?;
    let leader = (number(&mut payload)?, number(&mut payload)?);
    Some((leader, number(&mut payload)?))
}

/// Takes a number of bincode's from the front: one byte, or 251 to 253 and 2, 4 or 8 bytes, little-endian.
fn number(bytes: &mut &[u8]) -> Option<u64> {
    let (first, rest) = bytes.split_first()?;
    let length = match first {
        0..=250 => 0,
        251 => 2,
        252 => 4,
        253 => 8,
        _ => return None,
    };
    let (taken, rest) = rest.split_at_checked(length)?;
    *bytes = rest;
    let folded = taken.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
    Some(if length == 0 { u64::from(*first) } else { folded })
}

/// Holds the logs of all members against each other. For a cluster at rest: while it works, entries that no majority took
/// may differ.
pub fn check(disks: &[(usize, MemoryDisk)]) -> Result<(), Apart> {
    let logs: Vec<_> = disks.iter().map(|(number, disk)| (*number, disk.durable())).collect();
    for (at, (one, log)) in logs.iter().enumerate() {
        for (other, other_log) in &logs[at + 1..] {
            for (key, entry) in log.iter().filter(|(key, _)| key.starts_with(LOG)) {
                if other_log.get(key).is_some_and(|found| found != entry) {
                    let index = key[LOG.len()..].try_into().map_or(0, u64::from_be_bytes);
                    return Err(Apart::Entries {
                        one: one + 1,
                        other: other + 1,
                        index,
                    });
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(known: &mut Known, leader: Leader, index: u64, sum: u64) -> Result<(), Broken> {
        known.keep((0, 0), Promise::Entry { leader, index, sum })
    }

    #[test]
    fn entries_of_a_stale_leader_may_differ_and_those_of_a_later_one_must_not() {
        let mut known = Known::default();
        entry(&mut known, (1, 1), 5, 7).unwrap();
        entry(&mut known, (2, 3), 5, 8).unwrap();
        known.commit((2, 3), 5).unwrap();
        entry(&mut known, (2, 1), 5, 9).unwrap();
        assert!(matches!(entry(&mut known, (2, 3), 5, 9), Err(Broken::Content { .. })));
        assert!(matches!(entry(&mut known, (3, 1), 5, 9), Err(Broken::Lost { .. })));
        assert!(matches!(known.commit((3, 1), 5), Err(Broken::Twice { .. })));
    }

    #[test]
    fn a_vote_grows_by_term_then_node_then_leadership_and_a_new_disk_begins_anew() {
        let mut known = Known::default();
        for (term, node, leads) in [(1, 2, false), (1, 2, true), (1, 3, false), (2, 1, false)] {
            known.keep((0, 0), Promise::Vote(term, node, leads)).unwrap();
        }
        known.keep((0, 1), Promise::Vote(1, 1, false)).unwrap();
        let back = known.keep((0, 0), Promise::Vote(1, 3, true));
        assert!(matches!(back, Err(Broken::VoteBack { .. })));
    }

    #[test]
    fn numbers_are_read_as_they_are_written() {
        use headwater_cluster::codec;
        for wanted in [0, 250, 251, 65_535, 65_536, u64::from(u32::MAX), 1 << 40] {
            let bytes = codec::encode("number", &wanted).unwrap();
            let mut rest = &bytes[..];
            assert_eq!((number(&mut rest), rest.len()), (Some(wanted), 0));
        }
        let vote = codec::frame(VOTE, &codec::encode("vote", &(3u64, 300u64, true)).unwrap());
        assert_eq!(promise(VOTE, &vote), Some(Promise::Vote(3, 300, true)));
    }
}
