//! Schedules: when snapshots of a deployment are taken and how long they stay.

use headwater_model::DeploymentName;
use serde::{Deserialize, Serialize};

use crate::apply::Answer;
use crate::command::{RefusalKind, Response};
use crate::deployments;
use crate::retention::Retention;
use crate::state::State;
use crate::timetable::{INTERVAL_MAX_S, INTERVAL_MIN_S, ReferenceTime, Timetable, TimetableFault};

/// A deployment's schedule. At rest as it is; fields keep their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    /// When snapshots are due.
    pub timetable: Timetable,
    /// How long they stay.
    pub retention: Retention,
}

/// The longest retention of any tier: ten years, in days, weeks and months.
const DAYS_MAX: u32 = 3660;
const WEEKS_MAX: u32 = 523;
const MONTHS_MAX: u32 = 120;
/// The longest point-in-time window: a year, in hours.
const WINDOW_MAX_H: u32 = 366 * 24;

/// The schedule of a deployment that begins: from midnight, in UTC, with the defaults of [`Retention`].
pub(crate) fn begin(interval_s: u64, now_ms: i64) -> Result<Schedule, Response> {
    let timetable = Timetable::changed(None, interval_s, ReferenceTime::default(), now_ms).map_err(refusal)?;
    Ok(Schedule {
        timetable,
        retention: Retention::default(),
    })
}

pub(crate) fn set(
    state: &mut State,
    name: &DeploymentName,
    interval_s: u64,
    reference: ReferenceTime,
    retention: Retention,
    now_ms: i64,
) -> Answer {
    let schedule = &mut deployments::find(state, name)?.schedule;
    check_retention(&retention)?;
    let old = schedule.timetable;
    // Whoever changes the retention only must not move the timetable.
    if (old.interval_s, old.reference) != (interval_s, reference) {
        schedule.timetable = Timetable::changed(Some(&old), interval_s, reference, now_ms).map_err(refusal)?;
    }
    schedule.retention = retention;
    Ok(Response::Done)
}

pub(crate) fn check_interval(seconds: u64) -> Result<(), Response> {
    match (INTERVAL_MIN_S..=INTERVAL_MAX_S).contains(&seconds) {
        true => Ok(()),
        false => Err(refusal(TimetableFault::Interval(seconds))),
    }
}

fn refusal(fault: TimetableFault) -> Response {
    Response::refused(RefusalKind::Limit, fault.to_string())
}

fn check_retention(retention: &Retention) -> Result<(), Response> {
    let tiers = [
        ("base", "days", retention.snapshot_retention_days, DAYS_MAX),
        ("daily", "days", retention.daily_snapshot_retention_days, DAYS_MAX),
        ("weekly", "weeks", retention.weekly_snapshot_retention_weeks, WEEKS_MAX),
        (
            "monthly",
            "months",
            retention.monthly_snapshot_retention_months,
            MONTHS_MAX,
        ),
        (
            "the point-in-time window",
            "hours",
            retention.point_in_time_window_hours,
            WINDOW_MAX_H,
        ),
    ];
    match tiers.into_iter().find(|(_, _, given, max)| given > max) {
        None => Ok(()),
        Some((tier, unit, given, max)) => {
            let message = format!("{tier} has at most {max} {unit}, not {given}");
            Err(Response::refused(RefusalKind::Limit, message))
        }
    }
}
