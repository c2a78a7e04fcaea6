//! `headwater status`: every backup at a glance.

use clap::Args;
use headwater_protocol::admin::{Phase, ReplicaSetStatus, Status as StatusView};

use crate::client::Client;
use crate::failure::Outcome;
use crate::instants;
use crate::output::{Format, bytes, seconds, table};

/// Show how every backup stands.
#[derive(Debug, Args)]
#[command(
    before_help = "Examples:\n  headwater status\n  headwater status --output json | jq '.replica_sets[].lag_seconds'\n"
)]
pub struct Status {}

impl Status {
    /// Carries it out.
    pub async fn run(self, client: &Client, format: Format) -> Outcome {
        let status: StatusView = client.get("/api/v1/status").await?;
        format.print(&status, text)
    }
}

fn text(status: &StatusView) -> String {
    let none = "Nothing is backed up yet.\nnext: headwater deployment add NAME --uri URI, and start an agent";
    let mut out = sets_text(&status.replica_sets, none);
    for alert in &status.alerts {
        out.push_str(&format!("\nalert: {alert}"));
    }
    for alert in &status.open_alerts {
        let seen = alert
            .acknowledged
            .as_ref()
            .map_or_else(String::new, |words| format!(" ({words})"));
        let what = super::alerts::what(alert);
        out.push_str(&format!("\nsince {}: {}: {what}{seen}", alert.begun, alert.id));
    }
    out
}

/// Replica sets as a table, with their problems below; `none` is said when there are none.
pub fn sets_text(sets: &[ReplicaSetStatus], none: &str) -> String {
    let rows = sets.iter().map(row).collect();
    let header = [
        "replica set",
        "phase",
        "restorable from",
        "restorable to",
        "lag",
        "last snapshot",
        "agent",
    ];
    let mut out = table(&header, rows, none);
    for set in sets {
        if let Some(role) = &set.role {
            out.push_str(&format!("\n{}: {role}", set.name));
        }
        if let Some(problem) = &set.problem {
            out.push_str(&format!("\nproblem: {}: {problem}", set.name));
        }
    }
    out
}

fn row(set: &ReplicaSetStatus) -> Vec<String> {
    let none = || "-".to_owned();
    let instant = |p| instants::wall_clock(i64::from(p) * 1000);
    vec![
        set.name.to_string(),
        phase(set),
        set.restorable.map_or_else(none, |range| instant(range.from.t)),
        set.restorable.map_or_else(none, |range| instant(range.to.t)),
        set.lag_seconds.map_or_else(none, seconds),
        set.last_snapshot
            .as_ref()
            .map_or_else(none, |s| format!("{} ({})", s.id, bytes(s.logical_bytes))),
        set.agent
            .as_ref()
            .map_or_else(none, |a| format!("{}, {} ago", a.host, seconds(a.seen_seconds_ago))),
    ]
}

/// The phase, with how far the scan is.
pub fn phase(set: &ReplicaSetStatus) -> String {
    match (set.phase, set.scan) {
        (Phase::Transferring, Some(scan)) if scan.bytes_estimated > 0 => {
            let percent = scan.bytes.min(scan.bytes_estimated) as f64 * 100.0 / scan.bytes_estimated as f64;
            format!("{} {percent:.0} %", set.phase.text())
        }
        _ => set.phase.text().to_owned(),
    }
}

#[cfg(test)]
pub mod samples {
    //! A status for tests of what is shown.

    use headwater_protocol::admin::{Position, Range};

    use super::*;

    /// A replica set in routine operation.
    pub fn set() -> ReplicaSetStatus {
        ReplicaSetStatus {
            name: "shop/rs0".parse().unwrap(),
            role: None,
            node: Some(1),
            incarnation: headwater_model::Incarnation(1),
            phase: Phase::Complete,
            tip: Some(Position { t: 1_795_343_600, i: 1 }),
            applied: Some(Position { t: 1_795_343_600, i: 1 }),
            lag_seconds: Some(1),
            restorable: Some(Range {
                from: Position { t: 1_795_343_500, i: 1 },
                to: Position { t: 1_795_343_600, i: 1 },
            }),
            last_snapshot: None,
            scan: None,
            problem: None,
            agent: None,
            integrity: Default::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use headwater_protocol::agent::ScanProgress;

    use super::*;

    #[test]
    fn a_problem_stands_below_the_table_in_full() {
        let set = ReplicaSetStatus {
            problem: Some("the source refuses; grant it".into()),
            ..samples::set()
        };
        let text = sets_text(&[set], "");
        assert!(
            text.ends_with("problem: shop/rs0: the source refuses; grant it"),
            "{text}"
        );
        assert!(text.contains("2026-11-22T10:31:40Z"), "{text}");
    }

    #[test]
    fn a_scan_never_shows_more_than_all_of_it() {
        let scan = ScanProgress {
            bytes: 30,
            bytes_estimated: 20,
            ..ScanProgress::default()
        };
        let set = ReplicaSetStatus {
            phase: Phase::Transferring,
            scan: Some(scan),
            ..samples::set()
        };
        assert_eq!(phase(&set), "transferring 100 %");
    }
}
