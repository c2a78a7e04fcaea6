//! When scheduled snapshots are due.
//!
//! A timetable is a grid of instants: an anchor and an interval. The user names a reference time of the day; a change
//! never brings the next snapshot forward (`reference/opsmanager.md` §8, whose four vectors are tests here).

use jiff::civil::Time;
use jiff::tz::Offset;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// The least interval between snapshots.
pub const INTERVAL_MIN_S: u64 = 60;
/// The greatest: a year.
pub const INTERVAL_MAX_S: u64 = 366 * 86_400;
/// Where nothing else is set: six hours, as Ops Manager began.
pub const INTERVAL_DEFAULT_S: u64 = 6 * 3600;

/// A time of the day in a zone of fixed offset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReferenceTime {
    /// Minutes after midnight, below 1440.
    pub minute: u16,
    /// Minutes east of UTC, from −1439 to 1439.
    pub offset_minutes: i16,
}

/// The grid of instants at which snapshots are due. At rest as it is; fields keep their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timetable {
    /// Seconds between two, from [`INTERVAL_MIN_S`] to [`INTERVAL_MAX_S`].
    pub interval_s: u64,
    /// What the grid was reckoned from, to show it again.
    pub reference: ReferenceTime,
    /// One instant of the grid, and the first that is due; milliseconds since 1970.
    pub anchor_ms: i64,
}

/// Settings that make no timetable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimetableFault {
    /// Too short or too long.
    #[error("an interval between snapshots has {INTERVAL_MIN_S} to {INTERVAL_MAX_S} seconds, not {0}")]
    Interval(u64),
    /// No time of the day, or no zone.
    #[error("a reference time is a time of the day, 00:00 to 23:59, in a zone between -23:59 and +23:59")]
    Reference,
}

impl Timetable {
    /// The timetable that holds after a change at `now_ms`; `old` is the one before, if there was one.
    ///
    /// With N the next snapshot so far and R the reference time on the day of the change, the first snapshot is due at the
    /// least R + k × interval, k ≥ 0, that is not before N.
    pub fn changed(
        old: Option<&Timetable>,
        interval_s: u64,
        reference: ReferenceTime,
        now_ms: i64,
    ) -> Result<Timetable, TimetableFault> {
        if !(INTERVAL_MIN_S..=INTERVAL_MAX_S).contains(&interval_s) {
            return Err(TimetableFault::Interval(interval_s));
        }
        let next_ms = old.map_or(now_ms, |old| old.next_after(now_ms));
        let reference_ms = reference.on_day_of(now_ms)?;
        let anchor_ms = if reference_ms >= next_ms {
            reference_ms
        } else {
            let grid = Timetable {
                interval_s,
                reference,
                anchor_ms: reference_ms,
            };
            grid.next_after(next_ms - 1)
        };
        Ok(Timetable {
            interval_s,
            reference,
            anchor_ms,
        })
    }

    /// The first instant of the grid that is later than `ms`; never before the anchor.
    pub fn next_after(&self, ms: i64) -> i64 {
        if ms < self.anchor_ms {
            return self.anchor_ms;
        }
        let interval_ms = self.interval_ms();
        let passed = (ms - self.anchor_ms) / interval_ms;
        self.anchor_ms
            .saturating_add(passed.saturating_add(1).saturating_mul(interval_ms))
    }

    /// The instants after `ms`, without end.
    pub fn after(&self, ms: i64) -> impl Iterator<Item = i64> {
        let grid = *self;
        std::iter::successors(Some(grid.next_after(ms)), move |last| Some(grid.next_after(*last)))
    }

    fn interval_ms(&self) -> i64 {
        i64::try_from(self.interval_s.max(1).saturating_mul(1000)).unwrap_or(i64::MAX)
    }
}

impl ReferenceTime {
    /// The instant of this time of the day, on the day that `ms` falls on in this zone; milliseconds since 1970.
    fn on_day_of(self, ms: i64) -> Result<i64, TimetableFault> {
        let fault = |_| TimetableFault::Reference;
        let (hour, minute) = (self.minute / 60, self.minute % 60);
        let time = Time::new(i8::try_from(hour).unwrap_or(i8::MAX), minute as i8, 0, 0).map_err(fault)?;
        let offset = Offset::from_seconds(i32::from(self.offset_minutes) * 60).map_err(fault)?;
        let day = offset
            .to_datetime(Timestamp::from_millisecond(ms).map_err(fault)?)
            .date();
        let local = day.to_datetime(time);
        let instant = offset.to_timestamp(local).map_err(fault)?;
        Ok(instant
            .duration_since(Timestamp::UNIX_EPOCH)
            .min(SignedDuration::MAX)
            .as_millis() as i64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(text: &str) -> i64 {
        text.parse::<Timestamp>().unwrap().as_millisecond()
    }

    fn utc(hour: u16) -> ReferenceTime {
        ReferenceTime {
            minute: hour * 60,
            offset_minutes: 0,
        }
    }

    const SIX_HOURS: u64 = 6 * 3600;

    #[test]
    fn a_change_of_the_reference_time_never_brings_the_next_snapshot_forward() {
        // (change at, new reference hour, first snapshot after it); the old reference is 12:00.
        let vectors = [
            ("2026-03-10T08:00:00Z", 10, "2026-03-10T16:00:00Z"),
            ("2026-03-10T23:00:00Z", 10, "2026-03-11T04:00:00Z"),
            ("2026-03-10T08:00:00Z", 19, "2026-03-10T19:00:00Z"),
            ("2026-03-10T20:00:00Z", 19, "2026-03-11T01:00:00Z"),
        ];
        for (change, hour, first) in vectors {
            let old = Timetable::changed(None, SIX_HOURS, utc(12), ms("2026-03-01T00:00:00Z")).unwrap();
            let new = Timetable::changed(Some(&old), SIX_HOURS, utc(hour), ms(change)).unwrap();
            assert_eq!(new.next_after(ms(change)), ms(first), "{change} to {hour}:00");
        }
    }

    #[test]
    fn whatever_is_changed_the_next_snapshot_is_not_before_it_would_have_been() {
        let start = ms("2026-03-01T00:00:00Z");
        for interval in [60, 3600, 7 * 3600, SIX_HOURS, 36 * 3600] {
            for minute in (0..1440).step_by(77) {
                for change_h in 0..60 {
                    let now = start + change_h * 3_601_000;
                    let old = Timetable::changed(None, SIX_HOURS, utc(12), start).unwrap();
                    let reference = ReferenceTime {
                        minute,
                        offset_minutes: 330,
                    };
                    let new = Timetable::changed(Some(&old), interval, reference, now).unwrap();
                    let (before, after) = (old.next_after(now), new.next_after(now));
                    assert!(after >= before && after > now);
                    assert!(after - before <= 1000 * (interval as i64).max(86_400));
                }
            }
        }
    }

    #[test]
    fn the_reference_time_is_one_of_its_zone() {
        let reference = ReferenceTime {
            minute: 150,
            offset_minutes: -300,
        };
        let table = Timetable::changed(None, 86_400, reference, ms("2026-03-10T03:00:00Z")).unwrap();
        // 03:00 UTC is 22:00 of the day before there; 02:30 of that day is past, so it is the next one's.
        let next: Vec<i64> = table.after(ms("2026-03-10T03:00:00Z")).take(2).collect();
        assert_eq!(next, [ms("2026-03-10T07:30:00Z"), ms("2026-03-11T07:30:00Z")]);
    }

    #[test]
    fn settings_that_make_no_timetable_are_refused() {
        for interval in [0, 59, INTERVAL_MAX_S + 1] {
            let refused = Timetable::changed(None, interval, utc(0), 0);
            assert_eq!(refused, Err(TimetableFault::Interval(interval)));
        }
        for reference in [
            utc(24),
            ReferenceTime {
                minute: 0,
                offset_minutes: i16::MAX,
            },
        ] {
            assert_eq!(
                Timetable::changed(None, 60, reference, 0),
                Err(TimetableFault::Reference)
            );
        }
    }
}
