//! Metrics in Prometheus' text format, version 0.0.4; `docs/METRICS.md` is the table of them.
//!
//! What concerns a replica set is told by the node that owns it, so that nothing is counted twice over a cluster. No names
//! of namespaces, no addresses, no data.

use std::collections::BTreeMap;
use std::fmt::Write;

use headwater_cluster::RestoreState;
use headwater_cluster::integrity::{Check, CheckState};
use headwater_model::ReplicaSetId;

use crate::backup::Backup;

/// One family: its samples share name, help and type.
struct Family {
    help: &'static str,
    kind: &'static str,
    samples: Vec<(String, f64)>,
}

/// Families by name.
#[derive(Default)]
struct Page(BTreeMap<&'static str, Family>);

impl Page {
    fn add(&mut self, name: &'static str, kind: &'static str, help: &'static str, labels: &[(&str, &str)], value: f64) {
        let family = self.0.entry(name).or_insert_with(|| Family {
            help,
            kind,
            samples: Vec::new(),
        });
        family.samples.push((labels_text(labels), value));
    }

    fn gauge(&mut self, name: &'static str, help: &'static str, labels: &[(&str, &str)], value: f64) {
        self.add(name, "gauge", help, labels, value);
    }

    fn counter(&mut self, name: &'static str, help: &'static str, labels: &[(&str, &str)], value: f64) {
        self.add(name, "counter", help, labels, value);
    }

    fn text(self) -> String {
        let mut out = String::new();
        for (name, family) in self.0 {
            // Writing to a string cannot fail.
            let _ = writeln!(out, "# HELP {name} {}\n# TYPE {name} {}", family.help, family.kind);
            for (labels, value) in family.samples {
                let _ = writeln!(out, "{name}{labels} {value}");
            }
        }
        out
    }
}

fn labels_text(labels: &[(&str, &str)]) -> String {
    if labels.is_empty() {
        return String::new();
    }
    let escaped = |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let all: Vec<String> = labels
        .iter()
        .map(|(name, value)| format!("{name}=\"{}\"", escaped(value)))
        .collect();
    format!("{{{}}}", all.join(","))
}

impl Backup {
    /// Metrics in Prometheus' text format.
    pub async fn metrics(&self) -> String {
        let mut page = Page::default();
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        page.gauge(
            "headwater_build_info",
            "Always 1; the version is in the label.",
            &version,
            1.0,
        );
        self.of_cluster(&mut page);
        let state = self.node.ground.control.state();
        for (set, record) in &state.replica_sets {
            if self.node.owns(record) {
                self.of_set(&mut page, set).await;
            }
        }
        page.text()
    }

    fn of_cluster(&self, page: &mut Page) {
        let control = &self.node.ground.control;
        let state = control.state();
        let snapshots = state.snapshots.values().filter(|s| s.image.is_some()).count();
        let count = |n: usize| n as f64;
        page.gauge(
            "headwater_deployments",
            "Protected deployments.",
            &[],
            count(state.deployments.len()),
        );
        page.gauge(
            "headwater_replica_sets",
            "Protected replica sets.",
            &[],
            count(state.replica_sets.len()),
        );
        page.gauge("headwater_snapshots", "Complete snapshots.", &[], count(snapshots));
        page.gauge(
            "headwater_nodes",
            "Nodes of the cluster.",
            &[],
            count(state.nodes.len()),
        );
        let help = "Restores that are remembered, by how they stand.";
        for (name, wanted) in [
            ("running", RestoreState::Running),
            ("finished", RestoreState::Finished),
            ("failed", RestoreState::Failed),
            ("cancelled", RestoreState::Cancelled),
        ] {
            let found = state
                .restores
                .values()
                .filter(|restore| restore.state == wanted)
                .count();
            page.gauge("headwater_restores", help, &[("state", name)], count(found));
        }
        let help = "Open alerts, by kind.";
        for (kind, _) in headwater_cluster::alerts::KINDS {
            let open = state
                .alerts
                .values()
                .filter(|alert| alert.kind == kind && alert.ended_ms.is_none());
            page.gauge("headwater_alerts", help, &[("kind", kind)], count(open.count()));
        }
        let raft = control.figures();
        page.gauge(
            "headwater_raft_is_leader",
            "1 on the node that leads.",
            &[],
            f64::from(u8::from(control.is_leader())),
        );
        page.gauge(
            "headwater_raft_has_leader",
            "1 where a leader is known.",
            &[],
            f64::from(u8::from(control.leader().is_some())),
        );
        page.gauge("headwater_raft_term", "Raft's term here.", &[], raft.term as f64);
        page.counter(
            "headwater_raft_applied_entries_total",
            "Log entries applied here, by index.",
            &[],
            raft.applied as f64,
        );
        page.gauge(
            "headwater_raft_waiting_commands",
            "Commands waiting to be submitted.",
            &[],
            raft.waiting as f64,
        );
    }

    async fn of_set(&self, page: &mut Page, set: &ReplicaSetId) {
        let (Ok(status), Ok(open)) = (self.status_here(set).await, self.node.set(set).await) else {
            return;
        };
        let deployment = set.deployment().to_string();
        let of = [("deployment", deployment.as_str()), ("replica_set", set.set())];
        let mut gauge = |name, help, value: f64| page.gauge(name, help, &of, value);
        let last = |status: Option<headwater_protocol::admin::Position>| status.map(|at| f64::from(at.t));
        gauge(
            "headwater_incarnation",
            "Number of the present history.",
            status.incarnation.0 as f64,
        );
        gauge(
            "headwater_routine",
            "1 in routine operation, 0 during a first copy.",
            f64::from(u8::from(status.phase == headwater_model::Phase::Complete)),
        );
        gauge(
            "headwater_problem",
            "1 while something keeps the backup from going on.",
            f64::from(u8::from(status.problem.is_some())),
        );
        let seconds = [
            (
                "headwater_lag_seconds",
                "From the newest entry known at the source to the last one stored.",
                status.lag_seconds.map(|s| s as f64),
            ),
            (
                "headwater_tip_timestamp_seconds",
                "Time of the last oplog entry stored.",
                last(status.tip),
            ),
            (
                "headwater_applied_timestamp_seconds",
                "Time of the last oplog entry in the head.",
                last(status.applied),
            ),
            (
                "headwater_restorable_from_timestamp_seconds",
                "First instant that can be restored.",
                last(status.restorable.map(|r| r.from)),
            ),
            (
                "headwater_restorable_to_timestamp_seconds",
                "Last instant that can be restored.",
                last(status.restorable.map(|r| r.to)),
            ),
        ];
        for (name, help, value) in seconds {
            if let Some(value) = value {
                gauge(name, help, value);
            }
        }
        let state = self.node.ground.control.state();
        let of_set = state
            .snapshots
            .iter()
            .filter(|((id, _), snapshot)| id == set && snapshot.image.is_some());
        gauge(
            "headwater_set_snapshots",
            "Complete snapshots of the replica set.",
            of_set.clone().count() as f64,
        );
        if let Some(ms) = of_set.filter_map(|(_, snapshot)| snapshot.completed_ms).max() {
            gauge(
                "headwater_last_snapshot_timestamp_seconds",
                "When the last snapshot was completed.",
                ms as f64 / 1000.0,
            );
        }
        let blocks = open.repository.blocks().stats();
        gauge(
            "headwater_stored_bytes",
            "Bytes of blocks at rest.",
            blocks.stored_bytes as f64,
        );
        gauge(
            "headwater_raw_bytes",
            "The same before compression.",
            blocks.raw_bytes as f64,
        );
        gauge("headwater_blocks", "Blocks at rest.", blocks.blocks as f64);
        gauge("headwater_packs", "Packs at rest.", blocks.packs as f64);
        gauge(
            "headwater_pending_blocks",
            "Blocks put and not durable yet.",
            blocks.pending_blocks as f64,
        );
        gauge(
            "headwater_index_bytes",
            "Memory of the index of blocks.",
            blocks.index_memory as f64,
        );
        gauge(
            "headwater_memtable_bytes",
            "Changes that the head holds in memory, in bytes.",
            open.board.memtable_bytes() as f64,
        );
        let glance = &status.integrity;
        gauge(
            "headwater_damaged_objects",
            "Objects at rest known to be damaged.",
            glance.damaged_objects as f64,
        );
        gauge(
            "headwater_damaged_snapshots",
            "Snapshots that cannot be restored whole.",
            glance.damaged_snapshots.len() as f64,
        );
        let known = state.integrity_of(set);
        let newest = |wanted: &dyn Fn(&Check) -> bool| {
            let all = known
                .into_iter()
                .flat_map(|known| known.checks.values())
                .filter(|check| wanted(check));
            all.filter_map(|check| check.standing.ended_ms).max()
        };
        let sound = newest(&|c: &Check| {
            c.standing.state == CheckState::Finished && c.standing.faults == 0 && c.standing.proof.is_none()
        });
        if let Some(ms) = sound {
            gauge(
                "headwater_last_sound_check_timestamp_seconds",
                "When the last check without a fault ended.",
                ms as f64 / 1000.0,
            );
        }
        let proof = newest(&|c: &Check| c.standing.proof.as_ref().is_some_and(|proof| proof.agree));
        if let Some(ms) = proof {
            gauge(
                "headwater_last_proof_timestamp_seconds",
                "When the last proof restore that agreed ended.",
                ms as f64 / 1000.0,
            );
        }
        let written = blocks.stored_bytes_written as f64;
        page.counter(
            "headwater_written_bytes_total",
            "Bytes of blocks made durable since this node owns the replica set.",
            &of,
            written,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_labels_are_escaped_and_a_family_is_told_once() {
        let mut page = Page::default();
        page.gauge("headwater_x", "Help.", &[("a", "say \"no\"\n\\")], 1.5);
        page.gauge("headwater_x", "Help.", &[], 7.0);
        let want = "# HELP headwater_x Help.\n# TYPE headwater_x gauge\n\
                    headwater_x{a=\"say \\\"no\\\"\\n\\\\\"} 1.5\nheadwater_x 7\n";
        assert_eq!(page.text(), want);
    }
}
