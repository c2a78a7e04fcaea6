//! What users may say about what stays and for how long: schedules, single snapshots, grooms.

use headwater_cluster::retention::{RetentionPlan, Tier};
use headwater_cluster::timetable::ReferenceTime;
use headwater_cluster::{Command, GroomReport, Retention};
use headwater_model::{DeploymentName, ReplicaSetId, SnapshotId};
use headwater_protocol::admin::SnapshotView;
use headwater_protocol::agent::{Refusal, RefusalKind};
use headwater_protocol::keeping::{GroomDone, GroomRequest, GroomView, ScheduleChange, ScheduleView, SnapshotChange};

use crate::backup::{Backup, not_found};
use crate::commands::submit;
use crate::peers::Ask;
use crate::times::rfc3339;

/// How many coming snapshots a schedule shows.
const NEXT_SHOWN: usize = 10;

impl Backup {
    /// A deployment's schedule, when its next snapshots are due, and why each of its snapshots is kept.
    pub async fn schedule(&self, name: &DeploymentName) -> Result<ScheduleView, Refusal> {
        let state = self.node.ground.control.state();
        let deployment = state.deployments.get(name);
        let deployment = deployment.ok_or_else(|| not_found("deployment", name))?;
        let schedule = deployment.schedule;
        let (reference, zone) = reference_text(schedule.timetable.reference);
        let retention = schedule.retention;
        Ok(ScheduleView {
            deployment: name.clone(),
            interval_seconds: schedule.timetable.interval_s,
            reference,
            zone,
            snapshot_retention_days: retention.snapshot_retention_days,
            daily_snapshot_retention_days: retention.daily_snapshot_retention_days,
            weekly_snapshot_retention_weeks: retention.weekly_snapshot_retention_weeks,
            monthly_snapshot_retention_months: retention.monthly_snapshot_retention_months,
            point_in_time_window_hours: retention.point_in_time_window_hours,
            stop_balancer: deployment.balancer.stop,
            next: schedule
                .timetable
                .after(self.now_ms())
                .take(NEXT_SHOWN)
                .map(rfc3339)
                .collect(),
            snapshots: self.snapshot_views(name),
        })
    }

    /// Changes a deployment's schedule. Snapshots that exist keep their dates.
    pub async fn set_schedule(&self, name: &DeploymentName, change: ScheduleChange) -> Result<ScheduleView, Refusal> {
        let state = self.node.ground.control.state();
        let deployment = state.deployments.get(name);
        let old = deployment.ok_or_else(|| not_found("deployment", name))?.schedule;
        let reference = reference(old.timetable.reference, &change)?;
        let was = old.retention;
        let command = Command::SetSchedule {
            name: name.clone(),
            interval_s: change.interval_seconds.unwrap_or(old.timetable.interval_s),
            reference,
            retention: Retention {
                snapshot_retention_days: change.snapshot_retention_days.unwrap_or(was.snapshot_retention_days),
                daily_snapshot_retention_days: change
                    .daily_snapshot_retention_days
                    .unwrap_or(was.daily_snapshot_retention_days),
                weekly_snapshot_retention_weeks: change
                    .weekly_snapshot_retention_weeks
                    .unwrap_or(was.weekly_snapshot_retention_weeks),
                monthly_snapshot_retention_months: change
                    .monthly_snapshot_retention_months
                    .unwrap_or(was.monthly_snapshot_retention_months),
                point_in_time_window_hours: change
                    .point_in_time_window_hours
                    .unwrap_or(was.point_in_time_window_hours),
            },
            now_ms: self.now_ms(),
        };
        submit(&self.node.ground.control, command).await?;
        if let Some(stop) = change.stop_balancer {
            self.set_stop_balancer(name, stop).await?;
        }
        self.schedule(name).await
    }

    /// Says how long one snapshot stays.
    pub async fn change_snapshot(
        &self,
        name: &DeploymentName,
        id: &SnapshotId,
        change: SnapshotChange,
    ) -> Result<SnapshotView, Refusal> {
        let set = self.snapshot(name, id).await?.replica_set;
        let state = self.node.ground.control.state();
        let snapshot = state.snapshots.get(&(set.clone(), id.clone()));
        let snapshot = snapshot.ok_or_else(|| not_found("snapshot", id))?;
        let command = Command::UpdateSnapshot {
            set,
            id: id.clone(),
            keep: change.keep.unwrap_or(snapshot.keep),
            expires_ms: change.expires_ms.or(snapshot.expires_ms),
        };
        submit(&self.node.ground.control, command).await?;
        self.snapshot(name, id).await
    }

    /// How grooming stands, for each replica set of the deployment.
    pub async fn grooms(&self, name: &DeploymentName) -> Result<Vec<GroomView>, Refusal> {
        self.known(name)?;
        let mut views = Vec::new();
        for set in self.sets_of(name) {
            let decision = match self.groom_decision(&set).await {
                Ok(decision) => decision,
                Err(refusal) => refusal.message,
            };
            let state = self.node.ground.control.state();
            let grooming = state.grooms.get(&set).cloned().unwrap_or_default();
            views.push(GroomView {
                replica_set: set,
                decision,
                asked_ms: grooming.asked.map(|asked| asked.at_ms),
                condemned: grooming.condemned.len() as u64,
                last: grooming.last.map(done),
            });
        }
        Ok(views)
    }

    async fn groom_decision(&self, set: &ReplicaSetId) -> Result<String, Refusal> {
        let question = Ask::GroomDecision(set.clone());
        self.at_owner(set, question, bytes::Bytes::new(), crate::route::SHORT)
            .await
    }

    /// Asks for a groom of every replica set of the deployment; [`Backup::grooms`] shows when it is done.
    pub async fn run_groom(&self, name: &DeploymentName, request: GroomRequest) -> Result<Vec<GroomView>, Refusal> {
        self.known(name)?;
        for set in self.sets_of(name) {
            let command = Command::RequestGroom {
                set: set.clone(),
                dry_run: request.dry_run,
                asked_ms: self.now_ms(),
            };
            submit(&self.node.ground.control, command).await?;
        }
        self.grooms(name).await
    }
}

fn done(report: GroomReport) -> GroomDone {
    GroomDone {
        asked_ms: report.asked_ms,
        began: rfc3339(report.began_ms),
        ended: rfc3339(report.ended_ms),
        took_ms: report.ended_ms - report.began_ms,
        why: report.why,
        dry_run: report.dry_run,
        packs: report.packs,
        living_bytes: report.living_bytes,
        dead_bytes: report.dead_bytes,
        packs_removed: report.packs_removed,
        copied_bytes: report.copied_bytes,
        bytes_before: report.bytes_before,
        bytes_after: report.bytes_after,
        error: report.error,
    }
}

/// Adds to the view of a snapshot why it is kept.
pub(crate) fn explain(view: &mut SnapshotView, plan: Option<&RetentionPlan>) {
    let kept = plan.and_then(|plan| plan.kept.iter().find(|(id, _)| *id == view.id));
    view.kept_because = kept.map_or_else(Vec::new, |(_, reasons)| {
        reasons.iter().map(|reason| reason.text().to_owned()).collect()
    });
}

/// A tier in a word.
pub(crate) fn tier_text(tier: &Tier) -> String {
    match tier {
        Tier::Base => "base",
        Tier::Daily => "daily",
        Tier::Weekly => "weekly",
        Tier::Monthly => "monthly",
    }
    .to_owned()
}

fn reference_text(reference: ReferenceTime) -> (String, String) {
    let sign = if reference.offset_minutes < 0 { '-' } else { '+' };
    let offset = reference.offset_minutes.unsigned_abs();
    (
        format!("{:02}:{:02}", reference.minute / 60, reference.minute % 60),
        format!("{sign}{:02}:{:02}", offset / 60, offset % 60),
    )
}

/// Minutes of `HH:MM`; hours up to 23.
fn minutes(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let two_digits = |text: &str| (text.len() == 2).then(|| text.parse::<u16>().ok()).flatten();
    let (hours, minutes) = (two_digits(hours)?, two_digits(minutes)?);
    (hours < 24 && minutes < 60).then_some(hours * 60 + minutes)
}

fn reference(old: ReferenceTime, change: &ScheduleChange) -> Result<ReferenceTime, Refusal> {
    let invalid = |message: String| Refusal::new(RefusalKind::Invalid, message);
    let minute = match &change.reference {
        None => old.minute,
        Some(text) => minutes(text).ok_or_else(|| invalid(format!("{text:?} is no time of the day such as 04:30")))?,
    };
    let offset_minutes = match change.zone.as_deref() {
        None => old.offset_minutes,
        Some("Z" | "UTC" | "utc") => 0,
        Some(text) => {
            let offset = match text.split_at_checked(1) {
                Some(("+", rest)) => minutes(rest).map(|minutes| minutes as i16),
                Some(("-", rest)) => minutes(rest).map(|minutes| -(minutes as i16)),
                _ => None,
            };
            offset.ok_or_else(|| invalid(format!("{text:?} is no zone: write UTC, or an offset such as +01:00")))?
        }
    };
    Ok(ReferenceTime { minute, offset_minutes })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(reference: Option<&str>, zone: Option<&str>) -> ScheduleChange {
        ScheduleChange {
            reference: reference.map(str::to_owned),
            zone: zone.map(str::to_owned),
            ..ScheduleChange::default()
        }
    }

    #[test]
    fn a_reference_time_is_read_as_it_is_shown() {
        let old = ReferenceTime {
            minute: 270,
            offset_minutes: -330,
        };
        assert_eq!(reference_text(old), ("04:30".to_owned(), "-05:30".to_owned()));
        assert_eq!(reference(old, &change(None, None)).unwrap(), old);
        for (time, zone, minute, offset_minutes) in [
            (None, Some("UTC"), 270, 0),
            (Some("23:59"), None, 1439, -330),
            (Some("00:00"), Some("+14:00"), 0, 840),
            (None, Some("-05:30"), 270, -330),
        ] {
            let read = reference(old, &change(time, zone)).unwrap();
            assert_eq!((read.minute, read.offset_minutes), (minute, offset_minutes));
        }
        for (time, zone) in [
            (Some("24:00"), None),
            (Some("1:00"), None),
            (Some("noon"), None),
            (None, Some("01:00")),
            (None, Some("Europe/Berlin")),
            (None, Some("")),
        ] {
            assert!(reference(old, &change(time, zone)).is_err(), "{time:?} {zone:?}");
        }
    }
}
