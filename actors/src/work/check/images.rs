//! Checking images: manifests, and everything they refer to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use headwater_cluster::integrity::{CheckKind, DamageKind};
use headwater_cluster::{ImageRef, State};
use headwater_head::Image;
use headwater_head::inspect::{BlockFault, Inspection};
use headwater_model::{Incarnation, ReplicaSetId, SnapshotId};
use headwater_store::blocks::Blocks;
use headwater_store::objects::StoreError;

use super::damage::{Finding, LOST_PACK};
use super::run::Run;
use crate::work::head_store::{fault, manifest};
use crate::worker::Fault;

/// Who needs an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Needed {
    pub snapshots: BTreeSet<SnapshotId>,
    pub head: bool,
    pub image: Option<ImageRef>,
}

/// How many waypoints that replace one another while they are walked are looked at.
const WAYPOINTS_MOST: u32 = 3;

/// The images that live, each once.
pub(super) fn living(state: &State, set: &ReplicaSetId) -> BTreeMap<(Incarnation, String), Needed> {
    let mut images: BTreeMap<(Incarnation, String), Needed> = BTreeMap::new();
    let mut note = |image: &ImageRef, snapshot: Option<&SnapshotId>| {
        let needed = images.entry((image.incarnation, image.name.clone())).or_default();
        needed.image = Some(image.clone());
        match snapshot {
            Some(id) => _ = needed.snapshots.insert(id.clone()),
            None => needed.head = true,
        }
    };
    for ((_, id), snapshot) in state.snapshots.iter().filter(|((of, _), _)| of == set) {
        if let Some(image) = &snapshot.image {
            note(image, Some(id));
        }
    }
    if let Some(waypoint) = state.replica_sets.get(set).and_then(|record| record.waypoint.as_ref()) {
        note(waypoint, None);
    }
    images
}

impl Run {
    /// Walks every living image, or the one of the snapshot that is asked for.
    pub async fn images(&mut self) -> Result<(), Fault> {
        let store = self.set.repository.blocks().clone();
        let at_rest = Arc::new(store.read_at_rest().await?);
        let blocks: Arc<dyn Blocks> = at_rest.clone();
        let mut inspection = Inspection::default();
        if self.kind == CheckKind::Data && self.snapshot.is_some() {
            inspection.read_leaves = true;
        }
        let before = self.standing.counts;
        let (mut walked, mut waypoints, mut all_read) = (BTreeSet::new(), 0, true);
        loop {
            let state = self.state()?;
            let wanted = |needed: &Needed| match &self.snapshot {
                Some(id) => needed.snapshots.contains(id),
                None => !needed.snapshots.is_empty() || waypoints < WAYPOINTS_MOST,
            };
            let mut left = living(&state, &self.set.id).into_iter();
            let Some((name, needed)) = left.find(|(name, needed)| !walked.contains(name) && wanted(needed)) else {
                break;
            };
            waypoints += u32::from(needed.head);
            walked.insert(name.clone());
            let image = self.manifest(&name, &needed).await?;
            all_read &= image.is_some();
            if let Some(image) = image {
                let known = inspection.faults.len();
                inspection.image(&blocks, &image).await.map_err(fault)?;
                let now = self.state()?;
                if inspection.faults.len() > known && !living(&now, &self.set.id).contains_key(&name) {
                    // Dropped while it was walked: its blocks may go.
                    inspection.faults.truncate(known);
                }
            }
            let counts = &mut self.standing.counts;
            counts.images = before.images + walked.len() as u64;
            counts.nodes = before.nodes + inspection.nodes;
            counts.leaves = before.leaves + inspection.leaves;
            counts.bytes = before.bytes + inspection.bytes;
            self.tell().await?;
        }
        if self.snapshot.is_some() && walked.is_empty() {
            return Err(Fault::Blocked(
                "the snapshot is not complete, or was dropped".to_owned(),
            ));
        }
        // What the head has written again since its pack was lost counts as there: only now it is, for other nodes too.
        store.flush().await?;
        let extent = (self.snapshot.is_some(), self.snapshot.is_none() && all_read);
        let mut findings = by_object(
            inspection.faults,
            |id| store.pack_of(&id),
            &store.damaged_packs(),
            extent,
        );
        for (key, wrong) in at_rest.unsound() {
            let finding = findings.entry(key.clone()).or_insert_with(|| Finding::blocks(key, ""));
            finding.detail = wrong.clone();
            finding.lost.extend(store.blocks_in(key));
        }
        for (_, mut finding) in findings {
            if finding.object == LOST_PACK {
                finding.object = format!("{}blocks", headwater_store::repository::prefix(&self.set.id));
            }
            self.find(finding).await?;
        }
        Ok(())
    }

    /// Reads the manifest of an image, and compares it with what the control state says of it.
    async fn manifest(&mut self, name: &(Incarnation, String), needed: &Needed) -> Result<Option<Image>, Fault> {
        let read = manifest(&self.set, name.0, &name.1).await;
        let decoded = match read {
            Ok(bytes) => Image::decode(&bytes).map_err(|error| error.to_string()),
            Err(StoreError::Damaged { detail, .. }) => Err(detail),
            Err(StoreError::NotFound(_)) => Err("it is missing".to_owned()),
            Err(other) => return Err(other.into()),
        };
        let object = format!(
            "{}images/{:016x}/{}",
            headwater_store::repository::prefix(&self.set.id),
            name.0.0,
            name.1
        );
        let wrong = match &decoded {
            Ok(image) => needed.image.as_ref().and_then(|named| disagreement(image, named)),
            Err(detail) => Some(detail.clone()),
        };
        let Some(detail) = wrong else {
            self.sound(&object).await?;
            return Ok(decoded.ok());
        };
        let now = self.state()?;
        if living(&now, &self.set.id).contains_key(name) {
            self.find(Finding {
                object,
                kind: DamageKind::Image,
                detail,
                lost: BTreeSet::new(),
                oplog: None,
                needed: Some(needed.clone()),
                is_needless: false,
            })
            .await?;
        }
        Ok(None)
    }
}

/// What an image says of itself otherwise than the control state does.
fn disagreement(image: &Image, named: &ImageRef) -> Option<String> {
    let own = (image.applied, image.replay_from, image.incarnation);
    let counts = (image.totals.documents, image.totals.collections, image.totals.bytes);
    let told = (named.at, named.replay_from, named.incarnation);
    let told_counts = (named.documents, named.collections, named.logical_bytes);
    ((own, counts) != (told, told_counts)).then(|| {
        format!(
            "it holds {counts:?} documents, collections and bytes at {}, where {told_counts:?} at {} are known",
            image.applied, named.at
        )
    })
}

/// Gathers faulty blocks by the pack that they should be in. Unless the walk `is_partial`, something is found of every pack
/// whose index cannot be read; if it `is_complete`, and nothing is missing, nothing that lives is in those packs.
fn by_object(
    faults: Vec<BlockFault>,
    pack_of: impl Fn(headwater_model::BlockId) -> Option<String>,
    damaged: &[String],
    (is_partial, is_complete): (bool, bool),
) -> BTreeMap<String, Finding> {
    let mut findings: BTreeMap<String, Finding> = BTreeMap::new();
    let is_needless = is_complete && faults.iter().all(|fault| pack_of(fault.id).is_some());
    for fault in faults {
        let (object, kind) = match (pack_of(fault.id), damaged.first()) {
            (Some(pack), _) => (pack, DamageKind::Blocks),
            // Where a pack's index cannot be read, what is missing was most likely in it.
            (None, Some(pack)) => (pack.clone(), DamageKind::PackIndex),
            (None, None) => (LOST_PACK.to_owned(), DamageKind::Blocks),
        };
        let detail = format!("block {}: {}", fault.id, fault.detail);
        let finding = findings
            .entry(object.clone())
            .or_insert_with(|| Finding::blocks(&object, &detail));
        finding.kind = kind;
        finding.lost.insert(fault.id);
    }
    for pack in damaged {
        if is_partial && !findings.contains_key(pack) {
            continue;
        }
        let detail = "its index cannot be read";
        let finding = findings
            .entry(pack.clone())
            .or_insert_with(|| Finding::blocks(pack, detail));
        finding.kind = DamageKind::PackIndex;
        finding.detail = detail.to_owned();
        finding.is_needless = is_needless;
    }
    findings
}
