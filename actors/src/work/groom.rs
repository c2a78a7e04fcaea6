//! The Groom child: removes what nothing refers to any more.
//!
//! Today: image manifests of this incarnation that the control state no longer names, and sync slices left behind by
//! a sync that is over. Blocks stay until grooming of packs is built.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use headwater_cluster::State;
use headwater_model::{Incarnation, Phase, ReplicaSetId};
use tokio::time::Instant;

use crate::set::Set;
use crate::work::head_store::epoch_of;
use crate::worker::{Fault, Pace, Work};

/// An image by its name in an incarnation.
type Named = (Incarnation, String);

/// How often the Groom child looks.
const EVERY: Duration = Duration::from_secs(60);

/// See the module.
pub struct GroomWork {
    set: Arc<Set>,
    next: Instant,
    suspects: BTreeSet<Named>,
}

impl GroomWork {
    /// Begins with no suspects: what is removed must have been unknown in two looks.
    pub fn new(set: Arc<Set>) -> Self {
        GroomWork {
            set,
            next: Instant::now() + EVERY,
            suspects: BTreeSet::new(),
        }
    }
}

/// Which images may be removed now, and which are to be looked at again: an image goes only when two looks in a row
/// found it unknown, so that one just cut and not yet committed is safe.
pub fn plan(
    known: &BTreeSet<Named>,
    listed: &BTreeSet<Named>,
    suspects: &BTreeSet<Named>,
) -> (Vec<Named>, BTreeSet<Named>) {
    let unknown: BTreeSet<_> = listed.difference(known).cloned().collect();
    let (remove, wait): (Vec<_>, Vec<_>) = unknown.into_iter().partition(|image| suspects.contains(image));
    (remove, wait.into_iter().collect())
}

fn known(state: &State, set: &ReplicaSetId) -> BTreeSet<Named> {
    let snapshots = state
        .snapshots
        .iter()
        .filter(|((s, _), _)| s == set)
        .filter_map(|(_, s)| s.image.as_ref());
    let waypoint = state.replica_sets.get(set).and_then(|r| r.waypoint.as_ref());
    snapshots
        .chain(waypoint)
        .map(|image| (image.incarnation, image.name.clone()))
        .collect()
}

impl Work for GroomWork {
    async fn step(&mut self) -> Result<Pace, Fault> {
        if Instant::now() < self.next {
            return Ok(Pace::Idle);
        }
        self.next = Instant::now() + EVERY;
        // The order matters: first what is listed, then what is known. An image made known in between is in `known`.
        let (_, record) = self.set.record().map_err(|r| Fault::Retry(r.message))?;
        let mut listed = BTreeSet::new();
        for incarnation in (1..=record.incarnation.0).map(Incarnation) {
            let names = self.set.repository.images(incarnation).list().await?;
            // What a successor wrote is its own business, whatever this process still believes.
            let ours = names
                .into_iter()
                .filter(|name| epoch_of(name).is_none_or(|epoch| epoch <= record.epoch));
            listed.extend(ours.map(|name| (incarnation, name)));
        }
        let (state, record) = self.set.record().map_err(|r| Fault::Retry(r.message))?;
        let (remove, suspects) = plan(&known(&state, &self.set.id), &listed, &self.suspects);
        for (incarnation, name) in remove {
            self.set.repository.images(incarnation).delete(&name).await?;
        }
        self.suspects = suspects;
        if record.phase == Phase::Complete {
            self.set.stores(record.incarnation).await?.sync.remove_all().await?;
        }
        Ok(Pace::Idle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(positions: &[u64]) -> BTreeSet<Named> {
        positions.iter().map(|at| name(*at)).collect()
    }

    fn name(at: u64) -> Named {
        (Incarnation(1), at.to_string())
    }

    #[test]
    fn an_image_is_removed_only_when_two_looks_found_it_unknown() {
        let (known, new, old, gone) = (1, 2, 3, 4);
        let (remove, suspects) = plan(&set(&[known]), &set(&[known, new, old]), &set(&[old, gone]));
        assert_eq!(remove, vec![name(old)]);
        assert_eq!(suspects, set(&[new]));
    }
}
