//! `headwater schedule`: when snapshots are taken, and how long they stay.

use clap::builder::BoolishValueParser;
use clap::{Args, Subcommand};
use headwater_config::quantity::{duration_text, milliseconds};
use headwater_model::DeploymentName;
use headwater_protocol::keeping::{ScheduleChange, ScheduleView};

use crate::cli::snapshot;
use crate::client::Client;
use crate::failure::Outcome;
use crate::output::{Format, pairs, table};

/// See and change when snapshots are taken and how long they stay.
#[derive(Debug, Subcommand)]
#[command(before_help = "Examples:
  headwater schedule show shop
  headwater schedule set shop --interval 1h --base 2 --daily 7 --weekly 4 --monthly 13
  headwater schedule set shop --reference 04:30 --zone +01:00\n")]
pub enum Schedule {
    /// Show the schedule, the next ten snapshots, and why each existing one is kept
    #[command(before_help = "Examples:\n  headwater schedule show shop\n")]
    Show {
        /// Of which deployment
        name: DeploymentName,
    },
    /// Change the schedule; snapshots that exist keep their dates
    #[command(before_help = "Examples:
  headwater schedule set shop --interval 1h
  headwater schedule set shop --base 5 --daily 30 --weekly 0 --monthly 0 --window 48\n")]
    Set {
        /// Of which deployment
        name: DeploymentName,
        /// What is to be different
        #[command(flatten)]
        change: Change,
    },
}

/// What is left out stays as it is.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub struct Change {
    /// Time between snapshots, at least a minute
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    interval: Option<u64>,
    /// Time of the day that snapshots are reckoned from
    #[arg(long, value_name = "HH:MM")]
    reference: Option<String>,
    /// Zone of that time: UTC, or an offset such as +01:00
    #[arg(long, value_name = "ZONE", allow_hyphen_values = true)]
    zone: Option<String>,
    /// Days that every snapshot stays
    #[arg(long, value_name = "DAYS")]
    base: Option<u32>,
    /// Days that the first snapshot of a day stays; 0 for no such tier
    #[arg(long, value_name = "DAYS")]
    daily: Option<u32>,
    /// Weeks that the first snapshot of a week stays
    #[arg(long, value_name = "WEEKS")]
    weekly: Option<u32>,
    /// Months that the first snapshot of a month stays
    #[arg(long, value_name = "MONTHS")]
    monthly: Option<u32>,
    /// Hours back in which every instant can be restored
    #[arg(long, value_name = "HOURS")]
    window: Option<u32>,
    /// Whether the balancer of a sharded cluster is stopped while a checkpoint is taken
    #[arg(long, value_name = "yes|no", value_parser = BoolishValueParser::new())]
    stop_balancer: Option<bool>,
}

fn seconds(text: &str) -> Result<u64, String> {
    milliseconds(text).map(|ms| ms / 1000).map_err(|e| e.to_string())
}

impl Schedule {
    /// Carries it out.
    pub async fn run(self, client: &Client, format: Format) -> Outcome {
        let place = |name: &DeploymentName| format!("/api/v1/deployments/{name}/schedule");
        let view: ScheduleView = match self {
            Schedule::Show { name } => client.get(&place(&name)).await?,
            Schedule::Set { name, change } => {
                let wanted = ScheduleChange {
                    interval_seconds: change.interval,
                    reference: change.reference,
                    zone: change.zone,
                    snapshot_retention_days: change.base,
                    daily_snapshot_retention_days: change.daily,
                    weekly_snapshot_retention_weeks: change.weekly,
                    monthly_snapshot_retention_months: change.monthly,
                    point_in_time_window_hours: change.window,
                    stop_balancer: change.stop_balancer,
                };
                client.post(&place(&name), &wanted).await?
            }
        };
        format.print(&view, text)
    }
}

fn text(view: &ScheduleView) -> String {
    let tier = |count: u32, unit: &str| match count {
        0 => "off".to_owned(),
        count => format!("{count} {unit}"),
    };
    let facts = pairs(&[
        ("deployment", view.deployment.to_string()),
        (
            "snapshots every",
            duration_text(view.interval_seconds.saturating_mul(1000)),
        ),
        ("reckoned from", format!("{} at {}", view.reference, view.zone)),
        ("every snapshot stays", tier(view.snapshot_retention_days, "days")),
        ("the first of a day", tier(view.daily_snapshot_retention_days, "days")),
        (
            "the first of a week",
            tier(view.weekly_snapshot_retention_weeks, "weeks"),
        ),
        (
            "the first of a month",
            tier(view.monthly_snapshot_retention_months, "months"),
        ),
        (
            "any instant of the last",
            tier(view.point_in_time_window_hours, "hours"),
        ),
        (
            "stops the balancer",
            if view.stop_balancer { "yes" } else { "no" }.to_owned(),
        ),
    ]);
    let rows = view.snapshots.iter().map(|snapshot| {
        vec![
            snapshot.id.to_string(),
            snapshot.created.clone(),
            match snapshot.tiers.is_empty() {
                true => snapshot.reason.clone(),
                false => snapshot.tiers.join(", "),
            },
            snapshot::stays(snapshot),
            snapshot::because(snapshot),
        ]
    });
    let header = ["snapshot", "created", "kept as", "stays", "because"];
    let kept = table(&header, rows.collect(), "There is no snapshot yet.");
    format!("{facts}\nNext snapshots:\n  {}\n\n{kept}", view.next.join("\n  "))
}
