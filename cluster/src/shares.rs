//! Which share of the store is read and verified when. Decides, never acts.
//!
//! A pass reads every pack once within [`Rhythm::pass_days`] days, in as many shares, one a day. The oplog is read by every
//! share as far as it came since the last one: it does not live long enough to wait for its turn. The first share is due
//! a day after the first look.

use crate::integrity::{CheckKind, Integrity, Pass};

const DAY_MS: i64 = 86_400_000;

/// How quickly everything is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rhythm {
    /// Days in which every pack is read once; at least 1. 0 reads nothing.
    pub pass_days: u64,
}

impl Default for Rhythm {
    /// A week, as Ops Manager's integrity check.
    fn default() -> Self {
        Rhythm { pass_days: 7 }
    }
}

/// What is to be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// Begin a pass: nothing is known of one, it is over, or the clock was set back.
    Begin,
    /// Read packs of so many bytes in all, and the oplog that is new.
    Read {
        /// How many bytes; more, by less than one pack, is fine.
        bytes: u64,
    },
    /// Nothing before this instant, milliseconds since 1970.
    Wait {
        /// When.
        until_ms: i64,
    },
    /// Never.
    Off,
}

/// Decides by the pass so far, the bytes of all packs, and the time.
pub fn due(pass: Option<&Pass>, packs_bytes: u64, rhythm: Rhythm, now_ms: i64) -> Share {
    if rhythm.pass_days == 0 {
        return Share::Off;
    }
    let Some(pass) = pass.filter(|pass| pass.begun_ms <= now_ms.saturating_add(DAY_MS)) else {
        return Share::Begin;
    };
    let days = i64::try_from(rhythm.pass_days).unwrap_or(i64::MAX / DAY_MS).min(36_500);
    let ends_ms = pass.begun_ms.saturating_add(days * DAY_MS);
    if pass.whole && now_ms >= ends_ms {
        return Share::Begin;
    }
    let day = (now_ms - pass.begun_ms).div_euclid(DAY_MS);
    let day_begins_ms = pass.begun_ms + day * DAY_MS;
    let read_today = pass.share_ms.is_some_and(|share| share >= day_begins_ms);
    if day < 1 || read_today {
        return Share::Wait {
            until_ms: day_begins_ms + DAY_MS,
        };
    }
    let due_bytes = match day >= days {
        true => packs_bytes,
        false => (u128::from(packs_bytes) * day as u128).div_ceil(days as u128) as u64,
    };
    Share::Read {
        bytes: due_bytes.saturating_sub(pass.bytes),
    }
}

/// When the next proof is due, milliseconds since 1970: an interval after the last was asked for, or after the first look.
/// `None` for never.
pub fn proof_due(known: &Integrity, interval_s: u64) -> Option<i64> {
    if interval_s == 0 {
        return None;
    }
    let proofs = known
        .checks
        .values()
        .filter(|check| matches!(check.kind, CheckKind::Proof(_)));
    let last = proofs.map(|check| check.asked_ms).max();
    let last = last.or_else(|| known.pass.as_ref().map(|pass| pass.begun_ms))?;
    Some(last.saturating_add(i64::try_from(interval_s.saturating_mul(1000)).unwrap_or(i64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::integrity::{Check, Standing};

    fn pass(bytes: u64, whole: bool, share_day: Option<i64>) -> Pass {
        Pass {
            begun_ms: 1000,
            bytes,
            whole,
            share_ms: share_day.map(|day| 1000 + day * DAY_MS),
            ..Pass::default()
        }
    }

    fn at(day: i64) -> i64 {
        1000 + day * DAY_MS
    }

    #[test]
    fn a_seventh_is_read_a_day_and_everything_within_a_week() {
        let week = Rhythm::default();
        let wait = |day| Share::Wait { until_ms: at(day) };
        let read = |bytes| Share::Read { bytes };
        for (so_far, now_ms, want) in [
            (None, at(0), Share::Begin),
            (Some(pass(0, false, None)), at(0), wait(1)),
            (Some(pass(0, false, None)), at(1) - 1, wait(1)),
            (Some(pass(0, false, None)), at(1), read(100)),
            (Some(pass(100, false, Some(1))), at(1) + 5, wait(2)),
            (Some(pass(100, false, Some(1))), at(2), read(100)),
            // Days on which the node was down are made up for.
            (Some(pass(100, false, Some(1))), at(5), read(400)),
            (Some(pass(600, false, Some(6))), at(7), read(100)),
            (Some(pass(700, true, Some(6))), at(6) + 9, wait(7)),
            (Some(pass(700, true, Some(7))), at(7) + 9, Share::Begin),
            // Longer away than a whole pass: what is left is read at once.
            (Some(pass(100, false, Some(1))), at(30), read(600)),
            // The clock was set back by more than a day.
            (Some(pass(100, false, Some(1))), at(-2), Share::Begin),
            (Some(pass(100, false, Some(1))), at(0) - 5, wait(0)),
        ] {
            assert_eq!(due(so_far.as_ref(), 700, week, now_ms), want, "{so_far:?} {now_ms}");
        }
        assert_eq!(due(None, 700, Rhythm { pass_days: 0 }, at(3)), Share::Off);
        assert_eq!(
            due(Some(&pass(0, false, None)), 700, Rhythm { pass_days: 1 }, at(1)),
            Share::Read { bytes: 700 }
        );
    }

    #[test]
    fn a_proof_is_due_an_interval_after_the_last() {
        let mut known = Integrity::default();
        assert_eq!(proof_due(&known, 60), None, "nothing was looked at yet");
        known.pass = Some(pass(0, false, None));
        assert_eq!(proof_due(&known, 60), Some(61_000));
        assert_eq!(proof_due(&known, 0), None);
        for (number, asked_ms) in [(1, 90_000), (2, 70_000)] {
            let check = Check {
                token: number,
                kind: CheckKind::Proof(None),
                snapshot: None,
                asked_ms,
                standing: Standing::default(),
            };
            known.checks.insert(number, check);
        }
        assert_eq!(proof_due(&known, 60), Some(150_000));
    }

    #[test]
    fn a_store_that_grows_is_still_read_to_its_end() {
        let (mut packs, mut read, mut share) = (1000_u64, 0_u64, None);
        for day in 0..7 {
            packs += 500;
            let so_far = pass(read, false, share);
            if let Share::Read { bytes } = due(Some(&so_far), packs, Rhythm::default(), at(day)) {
                read += bytes;
                share = Some(day);
            }
        }
        let last = due(Some(&pass(read, false, share)), packs, Rhythm::default(), at(7));
        assert_eq!(last, Share::Read { bytes: packs - read });
    }
}
