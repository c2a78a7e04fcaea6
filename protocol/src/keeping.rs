//! The user's API for what stays and for how long: schedules, single snapshots, grooms. The routes are in [`crate::admin`].

use headwater_model::{DeploymentName, ReplicaSetId};
use serde::{Deserialize, Serialize};

use crate::admin::SnapshotView;

/// A deployment's schedule, and what it makes of its snapshots.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ScheduleView {
    /// Of which.
    pub deployment: DeploymentName,
    /// Seconds between snapshots.
    pub interval_seconds: u64,
    /// The time of the day that the timetable is reckoned from, `HH:MM`.
    pub reference: String,
    /// Its zone: an offset such as `+01:00`.
    pub zone: String,
    /// Days that every snapshot stays.
    pub snapshot_retention_days: u32,
    /// Days that the first of a day stays; 0 switches the tier off.
    pub daily_snapshot_retention_days: u32,
    /// Weeks that the first of a week stays.
    pub weekly_snapshot_retention_weeks: u32,
    /// Months that the first of a month stays.
    pub monthly_snapshot_retention_months: u32,
    /// Hours back in which every instant can be restored.
    pub point_in_time_window_hours: u32,
    /// Whether the balancer of a sharded cluster is stopped for checkpoints.
    #[serde(default)]
    pub stop_balancer: bool,
    /// When the next snapshots are due, RFC 3339.
    pub next: Vec<String>,
    /// The snapshots there are, oldest first.
    pub snapshots: Vec<SnapshotView>,
}

/// What is to be different in a schedule; what is left out stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScheduleChange {
    /// Seconds between snapshots, at least 60.
    #[serde(default)]
    pub interval_seconds: Option<u64>,
    /// `HH:MM`.
    #[serde(default)]
    pub reference: Option<String>,
    /// `UTC`, `Z`, or an offset such as `+01:00`.
    #[serde(default)]
    pub zone: Option<String>,
    /// See [`ScheduleView`].
    #[serde(default)]
    pub snapshot_retention_days: Option<u32>,
    /// See [`ScheduleView`].
    #[serde(default)]
    pub daily_snapshot_retention_days: Option<u32>,
    /// See [`ScheduleView`].
    #[serde(default)]
    pub weekly_snapshot_retention_weeks: Option<u32>,
    /// See [`ScheduleView`].
    #[serde(default)]
    pub monthly_snapshot_retention_months: Option<u32>,
    /// See [`ScheduleView`].
    #[serde(default)]
    pub point_in_time_window_hours: Option<u32>,
    /// See [`ScheduleView`].
    #[serde(default)]
    pub stop_balancer: Option<bool>,
}

/// What is to be different in a snapshot; what is left out stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotChange {
    /// Whether it stays whatever its date.
    #[serde(default)]
    pub keep: Option<bool>,
    /// Until when, in milliseconds since 1970.
    #[serde(default)]
    pub expires_ms: Option<i64>,
}

/// A groom is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroomRequest {
    /// Whether to count and plan only.
    #[serde(default)]
    pub dry_run: bool,
}

/// How the grooming of one replica set stands.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GroomView {
    /// Of which.
    pub replica_set: ReplicaSetId,
    /// What is decided, and why: `running`, or when the next one is due.
    pub decision: String,
    /// When the groom that is wanted was asked for, in milliseconds since 1970.
    pub asked_ms: Option<i64>,
    /// Packs that are known to go and not deleted yet.
    pub condemned: u64,
    /// The last groom that ended.
    pub last: Option<GroomDone>,
}

/// What a groom found and did. Bytes are bytes at rest.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GroomDone {
    /// The wish that it carried out, by when that was uttered.
    pub asked_ms: Option<i64>,
    /// RFC 3339.
    pub began: String,
    /// RFC 3339.
    pub ended: String,
    /// Milliseconds from begin to end.
    pub took_ms: i64,
    /// Why it began.
    pub why: String,
    /// Whether it only looked.
    pub dry_run: bool,
    /// Packs before it.
    pub packs: u64,
    /// Bytes of living blocks.
    pub living_bytes: u64,
    /// Bytes that nothing refers to.
    pub dead_bytes: u64,
    /// Packs that went, or would go.
    pub packs_removed: u64,
    /// Bytes written elsewhere for that, or that would be.
    pub copied_bytes: u64,
    /// Bytes of all packs before it.
    pub bytes_before: u64,
    /// Bytes of all packs after it; for one that only looked, what would be left.
    pub bytes_after: u64,
    /// Why it did not come to its end.
    pub error: Option<String>,
}
