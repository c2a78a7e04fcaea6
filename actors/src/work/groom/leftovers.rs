//! Image manifests that the control state does not name, and sync slices of syncs that are over.

use std::collections::BTreeSet;
use std::sync::Arc;

use headwater_cluster::{Command, State, keeping};
use headwater_model::{Incarnation, Phase, ReplicaSetId};

use crate::commands::submit_as_child;
use crate::set::Set;
use crate::work::head_store::epoch_of;
use crate::worker::Fault;

/// An image by its name in an incarnation.
pub type Named = (Incarnation, String);

/// Which images may be removed: those that are listed, not known, and not on their way to be. An image that another owner cut
/// is never on its way: whoever would make it known is refused by his epoch.
pub fn plan(listed: &BTreeSet<Named>, known: &BTreeSet<Named>, on_their_way: &BTreeSet<Named>) -> Vec<Named> {
    let wanted = |image: &&Named| !known.contains(*image) && !on_their_way.contains(*image);
    listed.iter().filter(wanted).cloned().collect()
}

/// The images that the control state names: snapshots, the waypoint, and what running restores begin with.
pub fn known(state: &State, set: &ReplicaSetId) -> BTreeSet<Named> {
    let snapshots = state.snapshots.iter().filter(|((of, _), _)| of == set);
    let snapshots = snapshots.filter_map(|(_, snapshot)| snapshot.image.as_ref());
    let waypoint = state.replica_sets.get(set).and_then(|record| record.waypoint.as_ref());
    snapshots
        .chain(waypoint)
        .chain(keeping::used(state, set))
        .map(|image| (image.incarnation, image.name.clone()))
        .collect()
}

/// The images that lie in the store, as far as they are this owner's business: what a successor wrote is not, whatever this
/// process still believes.
pub async fn listed(set: &Set) -> Result<BTreeSet<Named>, Fault> {
    let (_, record) = set.record().map_err(|r| Fault::Retry(r.message))?;
    let mut listed = BTreeSet::new();
    for incarnation in (1..=record.incarnation.0).map(Incarnation) {
        let names = set.repository.images(incarnation).list().await?;
        let ours = names
            .into_iter()
            .filter(|name| epoch_of(name).is_none_or(|epoch| epoch <= record.epoch));
        listed.extend(ours.map(|name| (incarnation, name)));
    }
    Ok(listed)
}

/// Removes what is left over. `emptied` are ended histories whose sync slices are known to be gone.
pub async fn remove(set: &Arc<Set>, emptied: &mut BTreeSet<Incarnation>) -> Result<(), Fault> {
    {
        // Nothing is cut and not settled while this is held: an image is either known by now or nobody's.
        let _gate = set.images.write().await;
        // The order matters: first what is listed, then what is known.
        let listed = listed(set).await?;
        let on_their_way = set.lately_cut();
        let left_over = || -> Result<Vec<Named>, Fault> {
            let (state, _) = set.record().map_err(|r| Fault::Retry(r.message))?;
            Ok(plan(&listed, &known(&state, &set.id), &on_their_way))
        };
        if !left_over()?.is_empty() {
            nothing_waits_in_a_log(set).await?;
            for (incarnation, name) in left_over()? {
                set.repository.images(incarnation).delete(&name).await?;
            }
        }
    }
    let (_, record) = set.record().map_err(|r| Fault::Retry(r.message))?;
    for incarnation in (1..record.incarnation.0).map(Incarnation) {
        if !emptied.contains(&incarnation) {
            set.repository.sync_unread(incarnation).remove_all().await?;
            emptied.insert(incarnation);
        }
    }
    if record.phase == Phase::Complete {
        set.stores(record.incarnation).await?.sync.remove_all().await?;
    }
    Ok(())
}

/// A command that makes an image known may lie in a log without a majority for as long as there is none, and count at last.
/// Once a later one counts, it does as well and is seen here, or it never will.
async fn nothing_waits_in_a_log(set: &Set) -> Result<(), Fault> {
    let (_, record) = set.record().map_err(|r| Fault::Retry(r.message))?;
    let nothing = Command::PacksRemoved {
        set: set.id.clone(),
        epoch: record.epoch,
        packs: Vec::new(),
    };
    submit_as_child(&set.ground.control, nothing).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(positions: &[u64]) -> BTreeSet<Named> {
        positions.iter().map(|at| (Incarnation(1), at.to_string())).collect()
    }

    #[test]
    fn an_image_that_is_not_known_goes_unless_it_may_still_become_known() {
        let removed = plan(&set(&[1, 2, 3]), &set(&[1, 9]), &set(&[2]));
        assert_eq!(removed, [(Incarnation(1), "3".to_owned())]);
    }
}
