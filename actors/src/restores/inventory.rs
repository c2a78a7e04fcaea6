//! What there is to restore from: images, and stretches of oplog without a hole.

use headwater_cluster::{ImageRef, ReplicaSet, Snapshot, State as ControlState, keeping};
use headwater_model::{Incarnation, Optime, ReplicaSetId, SnapshotId};
use headwater_protocol::agent::{Refusal, RefusalKind};
use headwater_restore::plan::{Base, Proven};
use headwater_store::objects::StoreError;

use crate::set::Set;
use crate::trouble::refusal;

/// The images a restore may begin with, over all incarnations, oldest first.
pub fn bases(state: &ControlState, set: &ReplicaSetId, record: &ReplicaSet) -> Vec<Base> {
    let snapshots = state
        .snapshots
        .iter()
        .filter(|((id, snapshot), _)| id == set && state.damage_of(id, snapshot).is_none());
    let mut bases: Vec<Base> = snapshots
        .filter_map(|((_, id), snapshot)| Some(base_of(id, snapshot, snapshot.image.as_ref()?)))
        .chain(
            record
                .waypoint
                .iter()
                .filter(|_| record.phase == headwater_model::Phase::Complete)
                .filter(|_| state.damage_of_head(set).is_none())
                .map(|image| base(None, image)),
        )
        .collect();
    bases.sort_by_key(|base| (base.incarnation, base.at));
    bases
}

/// The image of a snapshot. What commits at the cut of a checkpoint is in it, so that it shows nothing before the cut.
fn base_of(id: &SnapshotId, snapshot: &Snapshot, image: &ImageRef) -> Base {
    let base = base(Some(id.clone()), image);
    let at = snapshot
        .checkpoint
        .map_or(base.at, |cut| Optime::new(cut, base.at.term));
    Base { at, ..base }
}

/// An image that is kept for a restore. That of a checkpoint is one of its cut: to make the same of the oplog, more of that
/// would be needed.
pub(super) fn kept_base(set: &Set, image: &ImageRef) -> Result<Base, Refusal> {
    let (state, _) = set.record()?;
    let mut snapshots = state.snapshots.iter().filter(|((of, _), _)| *of == set.id);
    let snapshot = snapshots.find(|(_, snapshot)| snapshot.image.as_ref() == Some(image));
    Ok(match snapshot {
        Some(((_, id), snapshot)) => base_of(id, snapshot, image),
        None => base(None, image),
    })
}

fn base(snapshot: Option<SnapshotId>, image: &ImageRef) -> Base {
    Base {
        name: image.name.clone(),
        snapshot,
        incarnation: image.incarnation,
        at: image.at,
        documents: image.documents,
        bytes: image.logical_bytes,
    }
}

/// What of the oplog of one incarnation is stored without a hole and not given up; the command that gives up comes before
/// the deletion. Nothing of an oplog that cannot be opened for damage: snapshots can be restored without it.
pub async fn proven(set: &Set, state: &ControlState, incarnation: Incarnation) -> Result<Option<Proven>, Refusal> {
    if keeping::is_given_up(state, &set.id, incarnation) {
        return Ok(None);
    }
    let stores = match set.stores(incarnation).await {
        Err(StoreError::Damaged { key, detail }) => {
            tracing::warn!(set = %set.id, key, detail, "an oplog is damaged; nothing of it is offered");
            return Ok(None);
        }
        stores => stores.map_err(refusal)?,
    };
    let floor = keeping::oplog_floor(state, &set.id, incarnation).unwrap_or(Optime::ZERO);
    let range = stores.oplog.range().filter(|(_, tip)| floor <= *tip);
    Ok(range.map(|(start, tip)| Proven {
        incarnation,
        start: start.max(floor),
        tip,
    }))
}

/// The images and proven ranges of a replica set, over all incarnations.
pub async fn inventory(set: &Set) -> Result<(Vec<Base>, Vec<Proven>, Incarnation), Refusal> {
    let (state, record) = set.record()?;
    let mut ranges = Vec::new();
    for incarnation in (1..=record.incarnation.0).map(Incarnation) {
        let whole = proven(set, &state, incarnation).await?;
        ranges.extend(undamaged(&state, &set.id, whole));
    }
    Ok((bases(&state, &set.id, &record), ranges, record.incarnation))
}

/// The image that a plan begins with, as the control state names it. Refused as a conflict when it was given up since.
pub(super) fn image_ref(set: &Set, base: &Base) -> Result<ImageRef, Refusal> {
    let (state, record) = set.record()?;
    let snapshots = state.snapshots.iter().filter(|((id, _), _)| *id == set.id);
    let images = snapshots.filter_map(|(_, snapshot)| snapshot.image.as_ref());
    let mut images = images.chain(record.waypoint.as_ref());
    let found = images.find(|image| (image.incarnation, &image.name) == (base.incarnation, &base.name));
    found.cloned().ok_or_else(|| {
        let message = format!(
            "the image {} was given up while the restore was planned; ask again",
            base.name
        );
        Refusal::new(RefusalKind::Conflict, message)
    })
}

/// What of a proven range is not known to be damaged.
pub fn undamaged(state: &ControlState, set: &ReplicaSetId, whole: Option<Proven>) -> Vec<Proven> {
    whole.map_or_else(Vec::new, |whole| without_damage(whole, &lost_oplog(state, set)))
}

/// The stretches of the oplog that are known to be damaged.
fn lost_oplog(state: &ControlState, set: &ReplicaSetId) -> Vec<(Incarnation, Optime, Optime)> {
    let known = state
        .integrity_of(set)
        .into_iter()
        .flat_map(|known| known.damage.values());
    known.filter_map(|damage| damage.oplog).collect()
}

/// What is left of a range: everything before the first entry that is lost, between two, and after the last.
fn without_damage(whole: Proven, lost: &[(Incarnation, Optime, Optime)]) -> Vec<Proven> {
    let mut lost: Vec<_> = lost
        .iter()
        .filter(|(incarnation, _, until)| *incarnation == whole.incarnation && *until > whole.start)
        .collect();
    lost.sort_by_key(|(_, after, _)| *after);
    let (mut left, mut start) = (Vec::new(), whole.start);
    for (_, after, until) in lost {
        if *after >= start {
            left.push(Proven {
                start,
                tip: *after,
                ..whole
            });
        }
        start = start.max(*until);
    }
    if start <= whole.tip {
        left.push(Proven { start, ..whole });
    }
    left
}

#[cfg(test)]
mod tests {
    use headwater_model::Ts;

    use super::*;

    #[test]
    fn damage_cuts_a_range_in_two() {
        let at = |n: u64| Optime::new(Ts(n), 1);
        let range = |start, tip| Proven {
            incarnation: Incarnation(1),
            start: at(start),
            tip: at(tip),
        };
        let lost = |after, until| (Incarnation(1), at(after), at(until));
        for (damage, left) in [
            (vec![], vec![range(10, 50)]),
            (vec![lost(20, 30)], vec![range(10, 20), range(30, 50)]),
            (
                vec![lost(30, 40), lost(15, 20)],
                vec![range(10, 15), range(20, 30), range(40, 50)],
            ),
            (vec![lost(20, 30), lost(25, 35)], vec![range(10, 20), range(35, 50)]),
            (vec![lost(5, 15)], vec![range(15, 50)]),
            (vec![lost(10, 50)], vec![range(10, 10), range(50, 50)]),
            (vec![lost(1, 5), (Incarnation(2), at(20), at(30))], vec![range(10, 50)]),
        ] {
            assert_eq!(without_damage(range(10, 50), &damage), left, "{damage:?}");
        }
    }
}
