//! The control state never goes back, and names only what is there.

use std::collections::{BTreeMap, BTreeSet};

use futures::FutureExt;
use headwater_cluster::{ImageRef, Snapshot, State};
use headwater_model::{Epoch, Incarnation, Optime, ReplicaSetId, SnapshotId};
use headwater_store::objects::Objects;
use headwater_store::repository::prefix;

use crate::planted::{self, Bug};
use crate::store::Store;
use crate::trace;

/// A control state that contradicts what it said before, or the store.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Backwards {
    /// A fencing number went back.
    #[error("the catalog is monotone: the last epoch was {before} and is {now}")]
    Epoch {
        /// Before.
        before: Epoch,
        /// Now.
        now: Epoch,
    },
    /// A history came back.
    #[error("the catalog is monotone: {set} was in incarnation {before} and is in {now}")]
    Incarnation {
        /// Whose.
        set: ReplicaSetId,
        /// Before.
        before: Incarnation,
        /// Now.
        now: Incarnation,
    },
    /// A waypoint went back.
    #[error("the catalog is monotone: the waypoint of {set} was at {before} and is at {now}")]
    Waypoint {
        /// Whose.
        set: ReplicaSetId,
        /// Before.
        before: Optime,
        /// Now.
        now: Optime,
    },
    /// A snapshot is gone that nobody deleted.
    #[error("a snapshot is whole or absent: {id} of {set} was complete and vanished")]
    Vanished {
        /// Whose.
        set: ReplicaSetId,
        /// Which.
        id: SnapshotId,
    },
    /// An image is named that does not lie in the store.
    #[error("a snapshot is whole or absent: the image {name} of {set} is named and has no manifest")]
    NoManifest {
        /// Whose.
        set: ReplicaSetId,
        /// Which.
        name: String,
    },
}

/// Whether retention may have taken it: it had a date, nobody wanted it kept, and a newer one is there.
fn may_expire(
    set: &ReplicaSetId,
    snapshot: &Snapshot,
    complete: &BTreeMap<(ReplicaSetId, SnapshotId), Snapshot>,
) -> bool {
    let of = |snapshot: &Snapshot| snapshot.image.as_ref().map(|image| (image.incarnation, image.at));
    let newer = |other: &Snapshot| of(other) >= of(snapshot);
    let completed_ms = snapshot.completed_ms.unwrap_or_default();
    // Nothing here goes on for as long as a day: only what expires at once can have.
    let at_once = snapshot
        .expires_ms
        .is_some_and(|expires_ms| expires_ms < completed_ms + 60_000);
    at_once && !snapshot.keep && complete.iter().any(|((other, _), there)| other == set && newer(there))
}

/// The newest state any daemon showed.
#[derive(Debug, Default)]
pub struct Catalog {
    last_epoch: BTreeMap<u64, Epoch>,
    sets: BTreeMap<(u64, ReplicaSetId), (Incarnation, Option<Optime>)>,
    complete: BTreeMap<u64, BTreeMap<(ReplicaSetId, SnapshotId), Snapshot>>,
    may_vanish: BTreeSet<SnapshotId>,
    proven: BTreeSet<(ReplicaSetId, Incarnation, String)>,
    /// Up to where the oplog of a history is given up.
    pub floors: BTreeMap<(ReplicaSetId, Incarnation), Optime>,
}

impl Catalog {
    /// Whether a replica set has a history that ended.
    pub fn was_copied_anew(&self, set: &ReplicaSetId) -> bool {
        let mut all = self.sets.iter();
        all.any(|((_, of), (incarnation, _))| of == set && *incarnation > Incarnation(1))
    }

    /// Whether all of an ended history was given up.
    pub fn is_given_up(&self, set: &ReplicaSetId, incarnation: Incarnation) -> bool {
        self.floors.get(&(set.clone(), incarnation)) == Some(&Optime::LAST)
    }

    /// A user asked for it to go.
    pub fn may_vanish(&mut self, snapshot: SnapshotId) {
        self.may_vanish.insert(snapshot);
    }

    /// A daemon shows its control state. States of one daemon come in their order.
    pub fn state(&mut self, daemon: u64, state: &State, store: &Store) -> Result<(), Backwards> {
        let before = self.last_epoch.insert(daemon, state.last_epoch).unwrap_or_default();
        if state.last_epoch < before {
            return Err(Backwards::Epoch {
                before,
                now: state.last_epoch,
            });
        }
        for (id, record) in &state.replica_sets {
            let waypoint = record.waypoint.as_ref().map(|image| image.at);
            let (incarnation, at) = self
                .sets
                .insert((daemon, id.clone()), (record.incarnation, waypoint))
                .unwrap_or((record.incarnation, waypoint));
            if record.incarnation < incarnation {
                return Err(Backwards::Incarnation {
                    set: id.clone(),
                    before: incarnation,
                    now: record.incarnation,
                });
            }
            if let (Some(before), Some(now), true) = (at, waypoint, record.incarnation == incarnation)
                && now < before
            {
                return Err(Backwards::Waypoint {
                    set: id.clone(),
                    before,
                    now,
                });
            }
            if let Some(image) = &record.waypoint {
                self.image(id, image, store)?;
            }
        }
        if state.grooms.values().any(|grooming| !grooming.condemned.is_empty()) {
            trace::mark("groom: packs condemned");
        }
        if !state.oplog_floors.is_empty() {
            trace::mark("oplog given up");
            let floors = state.oplog_floors.iter();
            self.floors.extend(floors.map(|(key, floor)| (key.clone(), *floor)));
        }
        let mut complete = BTreeMap::new();
        for ((set, id), snapshot) in &state.snapshots {
            if planted::is(Bug::SnapshotVanishes) && self.complete.get(&daemon).is_some_and(|known| known.len() > 1) {
                continue;
            }
            if let Some(image) = &snapshot.image {
                complete.insert((set.clone(), id.clone()), snapshot.clone());
                self.image(set, image, store)?;
            }
        }
        let before = self.complete.insert(daemon, complete.clone()).unwrap_or_default();
        for ((set, id), snapshot) in before.iter().filter(|(key, _)| !complete.contains_key(*key)) {
            if !self.may_vanish.contains(id) && !may_expire(set, snapshot, &complete) {
                return Err(Backwards::Vanished {
                    set: set.clone(),
                    id: id.clone(),
                });
            }
            // A daemon that is behind may see it go together with the newer one that let it go.
            self.may_vanish.insert(id.clone());
        }
        Ok(())
    }

    fn image(&mut self, set: &ReplicaSetId, image: &ImageRef, store: &Store) -> Result<(), Backwards> {
        let key = (set.clone(), image.incarnation, image.name.clone());
        if self.proven.contains(&key) {
            return Ok(());
        }
        let place = format!("{}images/{:016x}/{}", prefix(set), image.incarnation.0, image.name);
        let found = store
            .bare()
            .get(&place)
            .now_or_never()
            .is_some_and(|found| found.is_ok());
        if !found {
            return Err(Backwards::NoManifest {
                set: set.clone(),
                name: image.name.clone(),
            });
        }
        self.proven.insert(key);
        Ok(())
    }
}
