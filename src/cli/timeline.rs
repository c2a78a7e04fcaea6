//! `headwater timeline`: what can be restored.

use clap::Args;
use headwater_model::DeploymentName;
use headwater_protocol::admin::Timeline as TimelineView;

use crate::cli::snapshot;
use crate::client::Client;
use crate::failure::Outcome;
use crate::instants;
use crate::output::{Format, seconds, table};

/// Show what can be restored.
#[derive(Debug, Args)]
#[command(before_help = "Examples:\n  headwater timeline shop\n")]
pub struct Timeline {
    /// Which deployment
    name: DeploymentName,
}

impl Timeline {
    /// Carries it out.
    pub async fn run(self, client: &Client, format: Format) -> Outcome {
        let path = format!("/api/v1/deployments/{}/timeline", self.name);
        let timeline: TimelineView = client.get(&path).await?;
        format.print(&timeline, text)
    }
}

fn text(timeline: &TimelineView) -> String {
    let rows = timeline
        .ranges
        .iter()
        .map(|range| {
            let length = range.range.to.t.saturating_sub(range.range.from.t);
            vec![
                range.replica_set.to_string(),
                range.incarnation.to_string(),
                instants::position(range.range.from),
                instants::position(range.range.to),
                seconds(u64::from(length)),
            ]
        })
        .collect();
    let header = ["replica set", "incarnation", "any instant from", "to", "length"];
    let mut ranges = table(&header, rows, "Nothing can be restored yet; see headwater status.");
    for range in &timeline.whole_cluster {
        let (from, to) = (instants::position(range.from), instants::position(range.to));
        ranges.push_str(&format!("\nthe whole cluster: any instant from {from} to {to}"));
    }
    format!("{ranges}\n\n{}", snapshot::list_text(&timeline.snapshots))
}
