//! How long snapshots are kept, and the oplog between them.
//!
//! When a scheduled snapshot completes it is stamped once, by the policy of that moment: everything is kept as *base*; the
//! first of a UTC day also as *daily*, the first of a week (from Monday) as *weekly*, the first of a month as *monthly*; it
//! expires when the last of these ends. A policy that is made smaller therefore never deletes what exists. What keeps a
//! snapshot beyond its stamp: the user's `keep`, the point-in-time window that begins at it, and being the last good one.

use std::collections::BTreeSet;

use headwater_model::{Incarnation, Optime, SnapshotId};
use jiff::civil::{Date, Weekday};
use jiff::tz::Offset;
use jiff::{Span, Timestamp};
use serde::{Deserialize, Serialize};

const DAY_MS: i64 = 86_400_000;
const HOUR_MS: i64 = 3_600_000;

/// How long what is kept; names and first defaults are those of Ops Manager. 0 switches a tier off. At rest as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retention {
    /// Every snapshot, in days.
    pub snapshot_retention_days: u32,
    /// The first of a day, in days.
    pub daily_snapshot_retention_days: u32,
    /// The first of a week, in weeks.
    pub weekly_snapshot_retention_weeks: u32,
    /// The first of a month, in months.
    pub monthly_snapshot_retention_months: u32,
    /// How far back every instant can be restored, in hours.
    pub point_in_time_window_hours: u32,
}

impl Default for Retention {
    fn default() -> Self {
        Retention {
            snapshot_retention_days: 2,
            daily_snapshot_retention_days: 7,
            weekly_snapshot_retention_weeks: 4,
            monthly_snapshot_retention_months: 13,
            point_in_time_window_hours: 24,
        }
    }
}

/// What a snapshot was promoted to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Tier {
    /// Every snapshot.
    Base,
    /// The first of a UTC day.
    Daily,
    /// The first of a week, which begins on Monday.
    Weekly,
    /// The first of a month.
    Monthly,
}

/// What a snapshot gets when it completes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// As what it is kept.
    pub tiers: BTreeSet<Tier>,
    /// Until when, milliseconds since 1970.
    pub expires_ms: i64,
}

impl Stamp {
    /// The stamp of a snapshot that is outside of the schedule: it stays as long as every one does.
    pub fn base_only(retention: &Retention, completed_ms: i64) -> Stamp {
        Stamp {
            tiers: BTreeSet::from([Tier::Base]),
            expires_ms: completed_ms.saturating_add(i64::from(retention.snapshot_retention_days) * DAY_MS),
        }
    }
}

/// A complete snapshot as retention sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Which.
    pub id: SnapshotId,
    /// Of which history.
    pub incarnation: Incarnation,
    /// When it was complete, milliseconds since 1970.
    pub completed_ms: i64,
    /// The instant it holds.
    pub at: Optime,
    /// From where the oplog must be read to go on from it.
    pub replay_from: Optime,
    /// Until when; `None` for ever.
    pub expires_ms: Option<i64>,
    /// The user's wish that it stays whatever its date.
    pub keep: bool,
    /// Whether a running restore reads it.
    pub in_use: bool,
}

/// Why a snapshot stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// The user said so.
    Keep,
    /// Its date has not come.
    NotExpired,
    /// The point-in-time window reaches back beyond it, so restores begin at it.
    Window,
    /// It is the last good one of its replica set.
    LastGood,
    /// A restore reads it.
    InUse,
}

/// What is to become of one replica set's snapshots and oplog.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RetentionPlan {
    /// Those that stay, with every reason; in the order given.
    pub kept: Vec<(SnapshotId, BTreeSet<Reason>)>,
    /// Those to be dropped.
    pub dropped: Vec<SnapshotId>,
    /// Oplog of the present history before this is needed by no restorable point; `None`: all is needed.
    pub oplog_needed_from: Option<Optime>,
}

/// The day on which something happened, in UTC.
fn date(ms: i64) -> Date {
    let at = Timestamp::from_millisecond(ms).unwrap_or(Timestamp::UNIX_EPOCH);
    Offset::UTC.to_datetime(at).date()
}

fn week(date: Date) -> Date {
    let since_monday = date.weekday().since(Weekday::Monday);
    date.saturating_sub(Span::new().days(since_monday))
}

/// Stamps a snapshot that completes at `completed_ms`; `earlier` are the times at which the other scheduled snapshots of the
/// replica set completed, dropped ones left out.
pub fn stamp(retention: &Retention, earlier: impl IntoIterator<Item = i64>, completed_ms: i64) -> Stamp {
    let today = date(completed_ms);
    let (mut first_of_day, mut first_of_week, mut first_of_month) = (true, true, true);
    for other in earlier.into_iter().filter(|other| *other <= completed_ms).map(date) {
        first_of_day &= other != today;
        first_of_week &= week(other) != week(today);
        first_of_month &= other.first_of_month() != today.first_of_month();
    }
    let days = |count: u32| completed_ms.saturating_add(i64::from(count) * DAY_MS);
    let months = Span::new().try_months(retention.monthly_snapshot_retention_months);
    let months_later = months.map_or(Date::MAX, |months| today.saturating_add(months));
    let in_days = i64::from(today.until(months_later).map_or(i32::MAX, |span| span.get_days()));
    let tiers = [
        (Tier::Base, true, days(retention.snapshot_retention_days)),
        (Tier::Daily, first_of_day, days(retention.daily_snapshot_retention_days)),
        (
            Tier::Weekly,
            first_of_week,
            days(retention.weekly_snapshot_retention_weeks.saturating_mul(7)),
        ),
        (
            Tier::Monthly,
            first_of_month,
            completed_ms.saturating_add(in_days * DAY_MS),
        ),
    ];
    let given = tiers
        .into_iter()
        .filter(|(tier, first, until)| *first && (*tier == Tier::Base || *until > completed_ms));
    let (tiers, ends): (BTreeSet<Tier>, Vec<i64>) = given.map(|(tier, _, until)| (tier, until)).unzip();
    Stamp {
        tiers,
        expires_ms: ends.into_iter().max().unwrap_or(completed_ms),
    }
}

/// Where a head can be opened again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadAt {
    /// The instant of its waypoint.
    pub at: Optime,
    /// From where the oplog must be read to go on from it.
    pub replay_from: Optime,
    /// Whether it follows its source: a user has not stopped it.
    pub follows: bool,
}

impl HeadAt {
    /// The newest that it may show, by a clock that may have been set forward.
    fn newest_ms(self, now_ms: i64) -> i64 {
        now_ms.min(seconds(self.at) * 1000 + 999)
    }
}

/// The time by which things grow old: a clock that was set forward takes nothing away while the head follows its source.
pub(crate) fn today_ms(head: Option<HeadAt>, now_ms: i64) -> i64 {
    head.filter(|head| head.follows)
        .map_or(now_ms, |head| head.newest_ms(now_ms))
}

/// Decides what stays. While there is no head all oplog stays.
///
/// The window is reckoned from the head's own instant where that is earlier than the clock's, and so are dates while the
/// head follows its source: both stretch while a head lags or the source is silent, and a clock that was set forward takes
/// nothing away.
pub fn plan(
    retention: &Retention,
    held: &[Held],
    incarnation: Incarnation,
    head: Option<HeadAt>,
    now_ms: i64,
) -> RetentionPlan {
    let newest_ms = head.map_or(now_ms, |head| head.newest_ms(now_ms));
    let window_ms = newest_ms.saturating_sub(i64::from(retention.point_in_time_window_hours) * HOUR_MS);
    let today_ms = today_ms(head, now_ms);
    let of_history = || held.iter().filter(|snapshot| snapshot.incarnation == incarnation);
    let by_optime = |a: &&Held, b: &&Held| a.at.cmp(&b.at);
    // The latest one the window reaches back beyond; while there is none, the earliest: all that exists is in the window.
    let base = of_history()
        .filter(|snapshot| seconds(snapshot.at) * 1000 <= window_ms)
        .max_by(by_optime)
        .or_else(|| of_history().min_by(by_optime));
    let last_good = held
        .iter()
        .max_by_key(|snapshot| (snapshot.incarnation, snapshot.at, &snapshot.id));
    let mut plan = RetentionPlan::default();
    for snapshot in held {
        let is = |other: Option<&Held>| other.is_some_and(|other| other.id == snapshot.id);
        let reasons = [
            (Reason::Keep, snapshot.keep),
            (
                Reason::NotExpired,
                snapshot.expires_ms.is_none_or(|until| until > today_ms),
            ),
            (Reason::Window, is(base)),
            (Reason::LastGood, is(last_good)),
            (Reason::InUse, snapshot.in_use),
        ];
        let reasons: BTreeSet<Reason> = reasons
            .into_iter()
            .filter(|(_, holds)| *holds)
            .map(|(reason, _)| reason)
            .collect();
        if reasons.is_empty() {
            plan.dropped.push(snapshot.id.clone());
        } else {
            plan.kept.push((snapshot.id.clone(), reasons));
        }
    }
    plan.oplog_needed_from = match (base, head) {
        (Some(base), Some(head)) => Some(base.replay_from.min(head.replay_from)),
        _ => None,
    };
    plan
}

fn seconds(at: Optime) -> i64 {
    i64::from(at.ts.seconds())
}

#[cfg(test)]
mod tests {
    use headwater_model::Ts;

    use super::*;

    fn ms(text: &str) -> i64 {
        text.parse::<Timestamp>().unwrap().as_millisecond()
    }

    fn at(ms: i64) -> Optime {
        Optime {
            ts: Ts::new((ms / 1000) as u32, 1),
            term: 1,
        }
    }

    fn head(at: Optime) -> HeadAt {
        HeadAt {
            at,
            replay_from: at,
            follows: true,
        }
    }

    fn held(completed_ms: i64, expires_ms: Option<i64>) -> Held {
        Held {
            id: SnapshotId::new(&format!("s{completed_ms}")).unwrap(),
            incarnation: Incarnation(1),
            completed_ms,
            at: at(completed_ms),
            replay_from: at(completed_ms - 60_000),
            expires_ms,
            keep: false,
            in_use: false,
        }
    }

    /// A life of snapshots at an interval: what is there at the end, newest first, in whole hours of age.
    fn ages(retention: &Retention, interval_ms: i64, snapshots: i64) -> Vec<i64> {
        let start = ms("2024-01-01T00:00:00Z");
        let mut there: Vec<Held> = Vec::new();
        let mut now = start;
        for _ in 0..snapshots {
            let stamp = stamp(retention, there.iter().map(|s| s.completed_ms), now);
            there.push(held(now, Some(stamp.expires_ms)));
            let plan = plan(retention, &there, Incarnation(1), None, now);
            there.retain(|snapshot| !plan.dropped.contains(&snapshot.id));
            now += interval_ms;
        }
        let end = now - interval_ms;
        there.iter().rev().map(|s| (end - s.completed_ms) / HOUR_MS).collect()
    }

    #[test]
    fn after_years_the_default_policy_keeps_what_its_names_say() {
        let ages = ages(&Retention::default(), 6 * HOUR_MS, 4 * 365 * 3);
        let base = ages.iter().filter(|age| **age < 48).count();
        assert_eq!(base, 8, "two days of every six hours");
        let within = |from: i64, to: i64| ages.iter().filter(|age| (from * 24..to * 24).contains(*age)).count();
        assert_eq!(within(2, 7), 5, "then one a day");
        assert!((3..=4).contains(&within(7, 29)), "then one a week: {ages:?}");
        assert!((12..=13).contains(&within(29, 400)), "then one a month: {ages:?}");
        assert_eq!(within(400, 4000), 0);
    }

    #[test]
    fn the_first_of_a_period_is_promoted() {
        // 2026-03-01 is a Sunday.
        let table = [
            (
                "2026-03-01T00:05:00Z",
                vec!["2026-02-28T23:55:00Z"],
                vec![Tier::Base, Tier::Daily, Tier::Monthly],
            ),
            ("2026-03-01T06:05:00Z", vec!["2026-03-01T00:05:00Z"], vec![Tier::Base]),
            (
                "2026-03-02T00:05:00Z",
                vec!["2026-03-01T18:05:00Z"],
                vec![Tier::Base, Tier::Daily, Tier::Weekly],
            ),
            (
                "2026-03-02T00:05:00Z",
                vec![],
                vec![Tier::Base, Tier::Daily, Tier::Weekly, Tier::Monthly],
            ),
        ];
        for (completed, earlier, tiers) in table {
            let stamp = stamp(&Retention::default(), earlier.into_iter().map(ms), ms(completed));
            assert_eq!(stamp.tiers.into_iter().collect::<Vec<_>>(), tiers, "{completed}");
        }
    }

    #[test]
    fn a_month_is_one_of_the_calendar() {
        let retention = Retention {
            monthly_snapshot_retention_months: 1,
            ..Retention::default()
        };
        let stamp = stamp(&retention, [], ms("2026-01-31T10:00:00Z"));
        assert_eq!(stamp.expires_ms, ms("2026-02-28T10:00:00Z"));
    }

    #[test]
    fn tiers_that_are_off_promote_nothing() {
        let retention = Retention {
            daily_snapshot_retention_days: 0,
            weekly_snapshot_retention_weeks: 0,
            monthly_snapshot_retention_months: 0,
            ..Retention::default()
        };
        let stamp = stamp(&retention, [], ms("2026-01-31T10:00:00Z"));
        assert_eq!(stamp.tiers, BTreeSet::from([Tier::Base]));
        assert_eq!(stamp.expires_ms, ms("2026-02-02T10:00:00Z"));
    }

    #[test]
    fn the_last_good_one_the_kept_the_used_and_the_base_of_the_window_outlive_their_date() {
        let now = ms("2026-03-10T00:00:00Z");
        let hours_ago = |hours: i64| now - hours * HOUR_MS;
        let mut snapshots: Vec<Held> = [100, 60, 50, 40, 30, 20, 10]
            .into_iter()
            .map(|hours| held(hours_ago(hours), Some(hours_ago(1))))
            .collect();
        snapshots[0].keep = true;
        snapshots[2].in_use = true;
        let plan = plan(
            &Retention::default(),
            &snapshots,
            Incarnation(1),
            Some(head(at(hours_ago(1)))),
            now,
        );
        let kept: Vec<_> = plan
            .kept
            .iter()
            .map(|(id, reasons)| (id.clone(), reasons.iter().copied().collect::<Vec<_>>()))
            .collect();
        let id = |index: usize| snapshots[index].id.clone();
        assert_eq!(
            kept,
            [
                (id(0), vec![Reason::Keep]),
                (id(2), vec![Reason::InUse]),
                (id(4), vec![Reason::Window]),
                (id(6), vec![Reason::LastGood]),
            ]
        );
        assert_eq!(plan.dropped, [id(1), id(3), id(5)]);
        assert_eq!(plan.oplog_needed_from, Some(snapshots[4].replay_from));
    }

    #[test]
    fn a_clock_that_was_set_forward_expires_nothing_while_the_head_follows_its_source() {
        let today = ms("2026-03-10T00:00:00Z");
        let next_year = ms("2027-03-10T00:00:00Z");
        let snapshots: Vec<Held> = [60, 40, 20, 10]
            .map(|hours| held(today - hours * HOUR_MS, Some(today + HOUR_MS)))
            .into();
        let dropped = |follows, now| {
            let head = HeadAt {
                follows,
                ..head(at(today))
            };
            plan(&Retention::default(), &snapshots, Incarnation(1), Some(head), now).dropped
        };
        assert_eq!(dropped(true, next_year), []);
        assert_eq!(
            dropped(false, next_year).len(),
            2,
            "what is stopped grows old by the clock"
        );
    }

    #[test]
    fn the_oplog_is_kept_for_a_head_that_lags_and_whole_while_there_is_none() {
        let now = ms("2026-03-10T00:00:00Z");
        let snapshots = [held(now - 30 * HOUR_MS, None), held(now - HOUR_MS, None)];
        let needed = |head| plan(&Retention::default(), &snapshots, Incarnation(1), head, now).oplog_needed_from;
        let lagging = at(now - 90 * HOUR_MS);
        assert_eq!(needed(Some(head(lagging))), Some(lagging));
        assert_eq!(needed(None), None);
        let none = plan(&Retention::default(), &[], Incarnation(1), Some(head(lagging)), now);
        assert_eq!(
            none.oplog_needed_from, None,
            "without a snapshot every entry may be needed"
        );
    }

    #[test]
    fn the_last_good_one_of_an_older_history_goes_once_the_new_history_has_one() {
        let now = ms("2026-03-10T00:00:00Z");
        let mut old = held(now - 90 * HOUR_MS, Some(now - HOUR_MS));
        old.incarnation = Incarnation(0);
        let alone = plan(
            &Retention::default(),
            std::slice::from_ref(&old),
            Incarnation(1),
            None,
            now,
        );
        assert_eq!(alone.dropped, []);
        let new = held(now - HOUR_MS, None);
        let both = plan(&Retention::default(), &[old.clone(), new], Incarnation(1), None, now);
        assert_eq!(both.dropped, [old.id]);
    }
}
