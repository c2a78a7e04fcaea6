//! Decides, from what a store says, with what a new cluster begins. Pure.
//!
//! The newest catalog that is whole says what is protected. What it names and the store does not hold is not taken in and
//! told. When newer catalogs are damaged, or there is none, the store's own evidence fills the gap: every image whose manifest
//! says that it is consistent becomes a snapshot that is kept until a user decides, and a deployment that nobody knows any more
//! comes back stopped and without a connection string.

use std::collections::{BTreeMap, BTreeSet};

use headwater_cluster::catalog::{Catalog, Piece, unknown_deployment};
use headwater_cluster::retention::Tier;
use headwater_cluster::{Deployment, ImageRef, NodeId, ReplicaSet, Snapshot};
use headwater_model::{DeploymentName, Epoch, Incarnation, Phase, ReplicaSetId, SnapshotId, Ts, redact};
use serde::Serialize;

use super::look::{Found, FoundHistory, FoundImage, FoundSet};

/// How far epochs go on above the highest that the store shows: the lost cluster may have given some that left no trace.
const EPOCHS_APART: u64 = 1 << 20;

/// What a recovery would do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveryPlan {
    /// What the control state begins with, [`Piece::Begin`] and [`Piece::End`] included.
    pub pieces: Vec<Piece>,
    /// The same for users.
    pub report: Report,
}

/// What comes back, what does not, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The cluster whose store it is.
    pub former_cluster: Option<String>,
    /// The catalog that is believed; none when only images and oplog are left.
    pub catalog: Option<String>,
    /// How often the store was recovered, this time included.
    pub recoveries: u64,
    /// What is protected.
    pub deployments: Vec<DeploymentReport>,
    /// Their replica sets.
    pub replica_sets: Vec<SetReport>,
    /// What is lost, missing or damaged, in words.
    pub losses: Vec<String>,
}

/// One deployment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeploymentReport {
    /// Its name.
    pub name: DeploymentName,
    /// Its source, without secrets.
    pub source: String,
    /// Whether it is streamed as soon as an agent is there.
    pub active: bool,
    /// Whether its connection string must be given again.
    pub needs_source: bool,
}

/// One replica set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SetReport {
    /// Which.
    pub set: ReplicaSetId,
    /// The history with which it goes on.
    pub incarnation: Incarnation,
    /// How far its backup is.
    pub phase: Phase,
    /// Whether everything must be copied anew.
    pub copied_anew: bool,
    /// The instant of the image that its head begins with, `T,I`.
    pub head: Option<String>,
    /// The stored oplog of that history: after the first, up to the second.
    pub oplog: Option<(String, String)>,
    /// Its snapshots.
    pub snapshots: Vec<SnapshotReport>,
}

/// One snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SnapshotReport {
    /// Its id.
    pub id: SnapshotId,
    /// Its instant, `T,I`.
    pub at: String,
    /// Of which history.
    pub incarnation: Incarnation,
    /// Whether no catalog names it, and the image itself is the evidence.
    pub by_evidence: bool,
}

/// The store holds nothing of ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("nothing can be recovered from this store: neither a catalog nor anything of a replica set is in it")]
pub struct NothingThere;

/// Decides. `now_ms` is when schedules of deployments begin of which nothing is known.
pub fn plan_recovery(found: &Found, now_ms: i64) -> Result<RecoveryPlan, NothingThere> {
    if found.catalogs.is_empty() && found.sets.is_empty() {
        return Err(NothingThere);
    }
    let mut losses = Vec::new();
    let (mut base, mut believed) = (Catalog::default(), None);
    for (name, read) in &found.catalogs {
        match read {
            Ok(catalog) => (base, believed) = (catalog.clone(), Some(name.key())),
            Err(fault) => losses.push(format!("a catalog is of no use: {fault}")),
        }
    }
    if found.catalogs.is_empty() {
        losses.push("there is no catalog: images and oplog are all the evidence".to_owned());
    }
    let exact = found.catalogs.first().is_some_and(|(_, read)| read.is_ok());
    let named = found.catalogs.iter().map(|(name, _)| name.recoveries).max();
    let recoveries = named.unwrap_or_default().max(base.recoveries) + 1;
    let epochs = found.sets.values().map(|set| set.epoch);
    let last_epoch = Epoch(epochs.fold(base.last_epoch, Epoch::max).0.saturating_add(EPOCHS_APART));

    let mut known = Known::of(&base);
    if !exact {
        known.add_evidence(found, now_ms, &mut losses);
    }
    for (set, record) in &mut known.sets {
        let there = found.sets.get(set).cloned().unwrap_or_default();
        *record = settled(set, record, &there, &mut losses);
    }
    known.settle_snapshots(found, &mut losses);
    for (name, deployment) in &mut known.deployments {
        deployment.key = found.keys.get(name).cloned().or(deployment.key.take());
        deployment.active &= !redact::is_withheld(&deployment.uri);
    }
    let report = Report {
        former_cluster: found.claimed.clone(),
        catalog: believed,
        recoveries,
        losses,
        ..known.report(found)
    };
    let begin = Piece::Begin {
        recoveries,
        last_epoch,
        last_restore: base.last_restore,
    };
    let pieces = std::iter::once(begin)
        .chain(known.pieces())
        .chain([Piece::End])
        .collect();
    Ok(RecoveryPlan { pieces, report })
}

/// A catalog taken apart.
struct Known {
    deployments: BTreeMap<DeploymentName, Deployment>,
    sets: BTreeMap<ReplicaSetId, ReplicaSet>,
    snapshots: BTreeMap<(ReplicaSetId, SnapshotId), Snapshot>,
    retired: BTreeSet<ReplicaSetId>,
    /// Everything else, taken over as it is.
    rest: Vec<Piece>,
    /// Snapshots that only the images themselves tell of.
    by_evidence: BTreeSet<(ReplicaSetId, SnapshotId)>,
}

impl Known {
    fn of(catalog: &Catalog) -> Known {
        let mut known = Known {
            deployments: BTreeMap::new(),
            sets: BTreeMap::new(),
            snapshots: BTreeMap::new(),
            retired: BTreeSet::new(),
            rest: Vec::new(),
            by_evidence: BTreeSet::new(),
        };
        for piece in catalog.pieces.iter().cloned() {
            match piece {
                Piece::Deployment { name, deployment } => _ = known.deployments.insert(name, deployment),
                Piece::ReplicaSet { set, record } => _ = known.sets.insert(set, record),
                Piece::Snapshot { set, id, snapshot } => _ = known.snapshots.insert((set, id), snapshot),
                Piece::Retired { ref set, .. } => {
                    known.retired.insert(set.clone());
                    known.rest.push(piece);
                }
                Piece::Begin { .. } | Piece::End => {}
                Piece::OplogFloor { .. } | Piece::Condemned { .. } | Piece::Damage { .. } => known.rest.push(piece),
            }
        }
        known
    }

    /// Takes in what no catalog says, but images do. What was removed stays removed.
    fn add_evidence(&mut self, found: &Found, now_ms: i64, losses: &mut Vec<String>) {
        for (set, there) in &found.sets {
            if self.retired.contains(set) || there.histories.is_empty() {
                continue;
            }
            if !self.sets.contains_key(set) {
                self.sets.insert(set.clone(), record_by_evidence(there));
                losses.push(format!(
                    "no catalog tells of {set}: it comes back as its images and its oplog say"
                ));
            }
            if !self.deployments.contains_key(set.deployment())
                && let Some(unknown) = unknown_deployment(now_ms)
            {
                self.deployments.insert(set.deployment().clone(), unknown);
                losses.push(format!(
                    "the source and the schedule of {} are not known any more",
                    set.deployment()
                ));
            }
            self.add_images(set, there);
        }
    }

    fn add_images(&mut self, set: &ReplicaSetId, there: &FoundSet) {
        let own = self.snapshots.iter().filter(|((of, _), _)| of == set);
        let named: BTreeSet<(Incarnation, String)> = own
            .filter_map(|(_, snapshot)| snapshot.image.as_ref())
            .map(|image| (image.incarnation, image.name.clone()))
            .collect();
        for image in there.histories.values().flat_map(consistent) {
            if named.contains(&(image.incarnation, image.name.clone())) {
                continue;
            }
            let ts = image.at.ts;
            let id = format!("recovered-{}-{}-{}", image.incarnation, ts.seconds(), ts.ordinal());
            let Ok(id) = SnapshotId::new(&id) else { continue };
            let at_ms = i64::from(ts.seconds()) * 1000;
            let snapshot = Snapshot {
                incarnation: image.incarnation,
                image: Some(image.clone()),
                asked_ms: at_ms,
                completed_ms: Some(at_ms),
                reason: "recovered".to_owned(),
                stored_bytes: 0,
                tiers: BTreeSet::from([Tier::Base]),
                expires_ms: None,
                keep: true,
                checkpoint: None,
                possibly_inconsistent: None,
            };
            self.by_evidence.insert((set.clone(), id.clone()));
            self.snapshots.insert((set.clone(), id), snapshot);
        }
    }

    /// Lets go of snapshots whose image is not there, and of wishes that nobody can fulfil.
    fn settle_snapshots(&mut self, found: &Found, losses: &mut Vec<String>) {
        let sets = &self.sets;
        let mut torn = BTreeSet::new();
        self.snapshots.retain(|(set, id), snapshot| match &snapshot.image {
            None => sets
                .get(set)
                .is_some_and(|record| record.incarnation == snapshot.incarnation && record.phase == Phase::Complete),
            Some(image) => match image_there(found.sets.get(set), image) {
                Ok(()) => true,
                Err(fault) => {
                    losses.push(format!("snapshot {id} of {set} is lost: {fault}"));
                    torn.insert((set.deployment().clone(), id.clone()));
                    false
                }
            },
        });
        // What is left of a cluster's checkpoint are snapshots of single members.
        for ((set, id), snapshot) in &mut self.snapshots {
            if torn.contains(&(set.deployment().clone(), id.clone())) {
                snapshot.checkpoint = None;
            }
        }
    }

    fn report(&self, found: &Found) -> Report {
        let deployments = self.deployments.iter().map(|(name, deployment)| DeploymentReport {
            name: name.clone(),
            source: redact::uri(&deployment.uri),
            active: deployment.active,
            needs_source: redact::is_withheld(&deployment.uri),
        });
        let sets = self.sets.iter().map(|(set, record)| SetReport {
            set: set.clone(),
            incarnation: record.incarnation,
            phase: record.phase,
            copied_anew: record.phase == Phase::Starting,
            head: record.waypoint.as_ref().map(|image| image.at.ts.to_string()),
            oplog: history(found.sets.get(set), record.incarnation)
                .and_then(|history| history.oplog)
                .map(|(from, to)| (from.ts.to_string(), to.ts.to_string())),
            snapshots: self.snapshot_reports(set),
        });
        Report {
            deployments: deployments.collect(),
            replica_sets: sets.collect(),
            ..Report::default()
        }
    }

    fn snapshot_reports(&self, set: &ReplicaSetId) -> Vec<SnapshotReport> {
        let mut own: Vec<(Ts, SnapshotReport)> = self
            .snapshots
            .iter()
            .filter(|((of, _), _)| of == set)
            .filter_map(|(key, snapshot)| {
                let at = snapshot.image.as_ref()?.at.ts;
                let report = SnapshotReport {
                    id: key.1.clone(),
                    at: at.to_string(),
                    incarnation: snapshot.incarnation,
                    by_evidence: self.by_evidence.contains(key),
                };
                Some((at, report))
            })
            .collect();
        own.sort_by(|a, b| (a.0, &a.1.id).cmp(&(b.0, &b.1.id)));
        own.into_iter().map(|(_, report)| report).collect()
    }

    fn pieces(self) -> impl Iterator<Item = Piece> {
        let deployments = self.deployments.into_iter();
        let sets = self.sets.into_iter();
        let snapshots = self.snapshots.into_iter();
        deployments
            .map(|(name, deployment)| Piece::Deployment { name, deployment })
            .chain(sets.map(|(set, record)| Piece::ReplicaSet { set, record }))
            .chain(snapshots.map(|((set, id), snapshot)| Piece::Snapshot { set, id, snapshot }))
            .chain(self.rest)
    }
}

fn history(there: Option<&FoundSet>, incarnation: Incarnation) -> Option<&FoundHistory> {
    there?.histories.get(&incarnation)
}

/// The images of a history that may be restored, the newest last; of several of one instant the one of the last owner.
fn consistent(history: &FoundHistory) -> Vec<&ImageRef> {
    let whole = history.images.values().filter_map(|image| image.as_ref().ok());
    let usable = whole.filter(|image| is_consistent(image));
    let by_instant: BTreeMap<_, _> = usable.map(|found| (found.image.at, &found.image)).collect();
    by_instant.into_values().collect()
}

fn is_consistent(found: &FoundImage) -> bool {
    found.consistent_from.is_some_and(|from| found.image.at >= from)
}

fn image_there(there: Option<&FoundSet>, image: &ImageRef) -> Result<(), String> {
    match history(there, image.incarnation).and_then(|history| history.images.get(&image.name)) {
        Some(Ok(_)) => Ok(()),
        Some(Err(fault)) => Err(fault.clone()),
        None => Err(format!("image {} is not in the store", image.name)),
    }
}

/// What images and oplog alone say of a replica set: its newest history goes on.
fn record_by_evidence(there: &FoundSet) -> ReplicaSet {
    let newest = there.histories.last_key_value();
    let incarnation = newest.map_or(Incarnation(1), |(incarnation, _)| *incarnation);
    let image = newest.and_then(|(_, history)| consistent(history).pop());
    let described = image.and_then(|image| newest?.1.images.get(&image.name)?.as_ref().ok());
    ReplicaSet {
        incarnation,
        epoch: Epoch::default(),
        node: NodeId::default(),
        phase: Phase::Complete,
        source_version: described.map_or_else(|| "unknown".to_owned(), |found| found.source_version.clone()),
        sync_stop: None,
        consistent_from: described.and_then(|found| found.consistent_from),
        waypoint: image.cloned(),
        problem: None,
        next_snapshot_ms: None,
    }
}

/// How a replica set goes on: with its history where an image and the oplog after it are there, else with a new one.
fn settled(set: &ReplicaSetId, record: &ReplicaSet, there: &FoundSet, losses: &mut Vec<String>) -> ReplicaSet {
    let newest = there.histories.keys().next_back().copied().unwrap_or_default();
    if newest > record.incarnation {
        losses.push(format!(
            "{set} had begun history {newest}, of which no catalog tells: it is copied anew"
        ));
        return anew(record, newest);
    }
    if record.waypoint.is_none() && record.phase < Phase::Complete {
        // Its first copy goes on from what is in the stores, as after a crash.
        return record.clone();
    }
    let Some(history) = there.histories.get(&record.incarnation) else {
        losses.push(format!("nothing of {set} is in the store: it is copied anew"));
        return anew(record, record.incarnation);
    };
    let stored = match (&history.oplog, &history.oplog_fault) {
        (Some(range), None) => range,
        (_, fault) => {
            let fault = fault.clone().unwrap_or_else(|| "there is none".to_owned());
            losses.push(format!("the oplog of {set} is of no use: {fault}; it is copied anew"));
            return anew(record, record.incarnation);
        }
    };
    let named = record.waypoint.as_ref();
    let whole = |image: &&ImageRef| image_there(Some(there), image).is_ok();
    let newest = || consistent(history).into_iter().next_back();
    match named.filter(whole).or_else(newest).filter(|image| image.at >= stored.0) {
        Some(image) => ReplicaSet {
            waypoint: Some(image.clone()),
            ..record.clone()
        },
        None => {
            losses.push(format!("no image of {set} meets the stored oplog: it is copied anew"));
            anew(record, record.incarnation)
        }
    }
}

fn anew(record: &ReplicaSet, after: Incarnation) -> ReplicaSet {
    ReplicaSet {
        incarnation: Incarnation(after.0 + 1),
        phase: Phase::Starting,
        sync_stop: None,
        consistent_from: None,
        waypoint: None,
        problem: None,
        ..record.clone()
    }
}

#[cfg(test)]
mod tests;
