//! `headwater timeline`: what can be restored.

use clap::Args;
use headwater_model::DeploymentName;
use headwater_protocol::admin::{At, Position, Timeline as TimelineView};

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
        let timeline = of(client, &self.name).await?;
        format.print(&timeline, text)
    }
}

/// The timeline of a deployment.
pub async fn of(client: &Client, name: &DeploymentName) -> Outcome<TimelineView> {
    client.get(&format!("/api/v1/deployments/{name}/timeline")).await
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
    let ranges = table(&header, rows, "Nothing can be restored yet; see headwater status.");
    format!("{ranges}\n\n{}", snapshot::list_text(&timeline.snapshots))
}

/// The instants on either side of one that lies in no range; `None` when it does lie in one, or when the timeline
/// cannot tell. `set` narrows to one replica set.
pub fn nearest_to(at: &At, timeline: &TimelineView, set: Option<&str>) -> Option<Vec<Position>> {
    let ranges = || {
        timeline
            .ranges
            .iter()
            .filter(|r| set.is_none_or(|s| r.replica_set.set() == s))
            .map(|r| r.range)
    };
    let asked = match at {
        At::Position(p) => *p,
        // A time means the end of its second.
        At::WallClock(ms) => Position {
            t: u32::try_from(ms.div_euclid(1000)).ok()?,
            i: u32::MAX,
        },
        At::Latest => return ranges().next().is_none().then(Vec::new),
        At::Snapshot(_) => return None,
    };
    let second_after = |p: Position| matches!(at, At::WallClock(_)) && p.t == asked.t;
    if ranges().any(|r| (r.from <= asked && asked <= r.to) || second_after(r.to)) {
        return None;
    }
    let before = ranges().map(|r| r.to).filter(|to| *to < asked).max();
    let after = ranges().map(|r| r.from).filter(|from| *from > asked).min();
    Some(before.into_iter().chain(after).collect())
}

#[cfg(test)]
mod tests {
    use headwater_protocol::admin::{Range, TimelineRange};

    use super::*;

    fn timeline(ranges: &[(u32, u32)]) -> TimelineView {
        let ranges = ranges
            .iter()
            .map(|(from, to)| TimelineRange {
                replica_set: "shop/rs0".parse().unwrap(),
                incarnation: headwater_model::Incarnation(1),
                range: Range {
                    from: Position { t: *from, i: 5 },
                    to: Position { t: *to, i: 5 },
                },
            })
            .collect();
        TimelineView {
            ranges,
            snapshots: vec![],
        }
    }

    fn near(at: At, ranges: &[(u32, u32)]) -> Option<Vec<u32>> {
        nearest_to(&at, &timeline(ranges), None).map(|found| found.iter().map(|p| p.t).collect())
    }

    #[test]
    fn an_instant_in_a_range_is_restorable_and_the_others_have_neighbours() {
        let at = |t, i| At::Position(Position { t, i });
        let ranges = [(10, 20), (30, 40)];
        for (instant, found) in [
            (at(15, 0), None),
            (at(10, 5), None),
            (at(20, 5), None),
            (at(10, 4), Some(vec![10])),
            (at(20, 6), Some(vec![20, 30])),
            (at(25, 0), Some(vec![20, 30])),
            (at(50, 0), Some(vec![40])),
            (At::WallClock(20_999), None),
            (At::WallClock(21_000), Some(vec![20, 30])),
            (At::WallClock(10_000), None),
            (At::WallClock(9_999), Some(vec![10])),
            (At::Latest, None),
        ] {
            assert_eq!(near(instant.clone(), &ranges), found, "{instant:?}");
        }
    }

    #[test]
    fn where_nothing_is_restorable_there_are_no_neighbours() {
        assert_eq!(near(At::Latest, &[]), Some(vec![]));
        assert_eq!(near(At::WallClock(5), &[]), Some(vec![]));
    }
}
