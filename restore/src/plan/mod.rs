//! Which image and which oplog give the instant asked for. Pure.
//!
//! An instant T means: everything up to and including the entry at T, nothing after it. It is restorable within one
//! incarnation, from an image at or before T, when every oplog entry after the image up to T is proven to be there.
//! Entries of transactions that were open at an image travel in the image; nothing before it is read again.

pub mod ways;

use headwater_model::{Incarnation, Optime, SnapshotId, Ts};

/// An image that a restore can start from. Only images that showed a consistent state may be offered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    /// Its name in the image store.
    pub name: String,
    /// The snapshot it belongs to; `None` for a waypoint.
    pub snapshot: Option<SnapshotId>,
    /// Its history.
    pub incarnation: Incarnation,
    /// The last entry it shows.
    pub at: Optime,
    /// Documents in it.
    pub documents: u64,
    /// Bytes of BSON in it.
    pub bytes: u64,
}

/// Oplog that is stored without a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proven {
    /// Its history.
    pub incarnation: Incarnation,
    /// Entries after this one are stored…
    pub start: Optime,
    /// …up to and including this one.
    pub tip: Optime,
}

/// The instant wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The tip of the current incarnation.
    Latest,
    /// A snapshot.
    Snapshot(SnapshotId),
    /// Everything up to and including this position; it need not be that of an entry.
    Position(Ts),
    /// The last entry at or before the end of this second of the source's clock.
    WallClock {
        /// Milliseconds since 1970, of which the seconds count.
        ms: i64,
        /// For each incarnation the last stored entry at or before the end of that second (`OplogStore::find_wall`).
        found: Vec<(Incarnation, Optime)>,
    },
}

impl Wanted {
    /// The second of a [`Wanted::WallClock`], if a position can lie in it.
    pub fn second(ms: i64) -> Option<u32> {
        u32::try_from(ms.div_euclid(1000)).ok()
    }
}

/// How to restore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The image to open.
    pub base: Base,
    /// Entries after `base.at` up to and including this position are applied to it.
    pub until: Ts,
    /// The image was asked for by its name: it is shown as it is, also where of a transaction over several shards it is not
    /// known whether it had committed by then.
    pub as_it_is: bool,
}

impl Plan {
    /// The history it is in.
    pub fn incarnation(&self) -> Incarnation {
        self.base.incarnation
    }

    /// Whether the image alone is what is wanted.
    pub fn is_whole_image(&self) -> bool {
        self.until == self.base.at.ts
    }
}

/// A stretch of instants, each of which can be restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restorable {
    /// Its history.
    pub incarnation: Incarnation,
    /// First instant.
    pub from: Ts,
    /// Last instant.
    pub to: Ts,
}

/// The instant cannot be restored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}; {}", nearest(.before, .after))]
pub struct NotRestorable {
    /// Why.
    pub reason: Reason,
    /// The last restorable instant before the one wanted.
    pub before: Option<Ts>,
    /// The first restorable instant after the one wanted.
    pub after: Option<Ts>,
}

fn nearest(before: &Option<Ts>, after: &Option<Ts>) -> String {
    match (before, after) {
        (None, None) => "nothing can be restored yet: wait for the first snapshot".to_owned(),
        (Some(ts), None) => format!("the nearest restorable instant is {ts}"),
        (None, Some(ts)) => format!("the first restorable instant is {ts}"),
        (Some(before), Some(after)) => format!("the nearest restorable instants are {before} and {after}"),
    }
}

/// What stands against it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// No such snapshot, or not complete.
    #[error("there is no complete snapshot {0}")]
    NoSnapshot(SnapshotId),
    /// The current history has no image yet.
    #[error("the first copy of the current history {0} is not complete")]
    NotSynced(Incarnation),
    /// Outside every range.
    #[error("{0} lies outside of what can be restored")]
    Outside(Ts),
    /// A time of the clock outside every range, in milliseconds since 1970.
    #[error("{0} ms since 1970 lies outside of what can be restored")]
    OutsideClock(i64),
    /// Entries of the second of this time, in milliseconds since 1970, may still come.
    #[error("the oplog stored does not reach the end of second {}", .0.div_euclid(1000))]
    SecondNotOver(i64),
}

/// The stretches of instants that can be restored, oldest history first.
pub fn restorable(bases: &[Base], ranges: &[Proven]) -> Vec<Restorable> {
    let mut out: Vec<Restorable> = Vec::new();
    for base in bases {
        let to = reach(base, ranges);
        match out
            .iter_mut()
            .find(|r| r.incarnation == base.incarnation && touches(r, base.at.ts, to))
        {
            Some(r) => (r.from, r.to) = (r.from.min(base.at.ts), r.to.max(to)),
            None => out.push(Restorable {
                incarnation: base.incarnation,
                from: base.at.ts,
                to,
            }),
        }
    }
    out.sort_by_key(|r| (r.incarnation, r.from));
    out.dedup_by(|next, kept| {
        let joined = next.incarnation == kept.incarnation && touches(kept, next.from, next.to);
        if joined {
            kept.to = kept.to.max(next.to);
        }
        joined
    });
    out
}

fn touches(range: &Restorable, from: Ts, to: Ts) -> bool {
    from <= range.to && range.from <= to
}

/// How far one can get from an image: the tip, or no further than itself where the oplog after it is not stored.
fn reach(base: &Base, ranges: &[Proven]) -> Ts {
    ranges
        .iter()
        .filter(|r| r.incarnation == base.incarnation && r.start <= base.at && base.at <= r.tip)
        .map(|r| r.tip.ts)
        .max()
        .unwrap_or(base.at.ts)
}

/// Chooses the image and the end of the oplog, or says which instants are near. Where two histories reach the same
/// instant the newer one counts.
pub fn plan(bases: &[Base], ranges: &[Proven], current: Incarnation, wanted: &Wanted) -> Result<Plan, NotRestorable> {
    match wanted {
        Wanted::Snapshot(id) => {
            let base = bases.iter().find(|b| b.snapshot.as_ref() == Some(id));
            let base = base.ok_or_else(|| refusal(Reason::NoSnapshot(id.clone()), Ts::MAX, bases, ranges))?;
            Ok(Plan {
                base: base.clone(),
                until: base.at.ts,
                as_it_is: true,
            })
        }
        Wanted::Latest => {
            let newest = bases
                .iter()
                .filter(|b| b.incarnation == current)
                .map(|b| (reach(b, ranges), b))
                .max_by_key(
                    // Of the images that reach the tip the newest has the least to apply.
                    |(to, b)| (*to, b.at),
                );
            let (until, base) = newest.ok_or_else(|| refusal(Reason::NotSynced(current), Ts::MAX, bases, ranges))?;
            Ok(Plan {
                base: base.clone(),
                until,
                as_it_is: false,
            })
        }
        Wanted::Position(ts) => {
            reaching(bases, ranges, *ts).ok_or_else(|| refusal(Reason::Outside(*ts), *ts, bases, ranges))
        }
        Wanted::WallClock { ms, found } => at_wall_clock(bases, ranges, *ms, found),
    }
}

fn reaching(bases: &[Base], ranges: &[Proven], ts: Ts) -> Option<Plan> {
    let base = bases
        .iter()
        .filter(|b| b.at.ts <= ts && ts <= reach(b, ranges))
        .max_by_key(|b| (b.incarnation, b.at, b.snapshot.is_some()))?;
    Some(Plan {
        base: base.clone(),
        until: ts,
        as_it_is: false,
    })
}

fn at_wall_clock(
    bases: &[Base],
    ranges: &[Proven],
    ms: i64,
    found: &[(Incarnation, Optime)],
) -> Result<Plan, NotRestorable> {
    let Some(second) = Wanted::second(ms) else {
        let edge = if ms < 0 { Ts::ZERO } else { Ts::MAX };
        return Err(refusal(Reason::OutsideClock(ms), edge, bases, ranges));
    };
    let end = Ts::new(second, u32::MAX);
    // The same question must have the same answer later: the second is over only once a later entry is stored.
    let over = |i: Incarnation| ranges.iter().any(|r| r.incarnation == i && end < r.tip.ts);
    let mut newest_first: Vec<_> = found.iter().filter(|(i, _)| over(*i)).collect();
    newest_first.sort_by_key(|(i, _)| std::cmp::Reverse(*i));
    for (incarnation, optime) in newest_first {
        let of_it: Vec<_> = bases
            .iter()
            .filter(|b| b.incarnation == *incarnation)
            .cloned()
            .collect();
        if let Some(plan) = reaching(&of_it, ranges, optime.ts) {
            return Ok(plan);
        }
    }
    let begun = restorable(bases, ranges).iter().any(|r| r.from <= end);
    let later_stored = ranges.iter().any(|r| end < r.tip.ts);
    let reason = if begun && !later_stored {
        Reason::SecondNotOver(ms)
    } else {
        Reason::OutsideClock(ms)
    };
    Err(refusal(reason, end, bases, ranges))
}

fn refusal(reason: Reason, at: Ts, bases: &[Base], ranges: &[Proven]) -> NotRestorable {
    let restorable = restorable(bases, ranges);
    NotRestorable {
        reason,
        before: restorable.iter().map(|r| r.to).filter(|to| *to <= at).max(),
        after: restorable.iter().map(|r| r.from).filter(|from| *from > at).min(),
    }
}

#[cfg(test)]
mod tests;
