//! The catalog: what of the control state must outlive every daemon, in pieces, and how a new cluster takes it in.
//!
//! It lies in the backing store (`store/src/catalog.rs`), so that the store alone suffices. Not in it: nodes, keys, leases,
//! alerts, restores, checks and who did what, which belong to daemons; the secrets of connection strings; and who owns what.

use headwater_model::{DeploymentName, Epoch, Incarnation, Optime, ReplicaSetId, SnapshotId, redact};
use serde::{Deserialize, Serialize};

use crate::apply::Answer;
use crate::balancer::Balancer;
use crate::command::{RefusalKind, Response};
use crate::deployments::Deployment;
use crate::grooms::Grooming;
use crate::integrity::Damage;
use crate::replica_sets::{ReplicaSet, next_epoch};
use crate::schedules;
use crate::snapshots::Snapshot;
use crate::state::{NodeId, State};
use crate::timetable::INTERVAL_DEFAULT_S;

/// Condemned packs in one piece: it must fit into a command.
const PACKS_PER_PIECE: usize = 100;

/// One thing that a catalog says. As a command it takes that thing in; at rest it is JSON: names of fields never change
/// meaning.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Piece {
    /// The first: what the numbers of a cluster go on from. Refused unless nothing is protected yet.
    Begin {
        /// How often this store was recovered, this time included.
        recoveries: u64,
        /// No epoch up to this one is ever given again.
        last_epoch: Epoch,
        /// No restore up to this number either.
        last_restore: u64,
    },
    /// What is protected.
    Deployment {
        /// Its name.
        name: DeploymentName,
        /// Its connection string without secrets, whether it is streamed, its schedule.
        deployment: Deployment,
    },
    /// One of its replica sets. Owner and epoch are given anew.
    ReplicaSet {
        /// Which.
        set: ReplicaSetId,
        /// How it stands.
        record: ReplicaSet,
    },
    /// A snapshot.
    Snapshot {
        /// Of which.
        set: ReplicaSetId,
        /// Its id.
        id: SnapshotId,
        /// What it holds and how long it stays.
        snapshot: Snapshot,
    },
    /// A replica set that was removed.
    Retired {
        /// Which.
        set: ReplicaSetId,
        /// Its last history.
        incarnation: Incarnation,
    },
    /// Oplog that is given up.
    OplogFloor {
        /// Of which.
        set: ReplicaSetId,
        /// Of which history.
        incarnation: Incarnation,
        /// Up to here.
        at: Optime,
    },
    /// Packs that nobody may rely on.
    Condemned {
        /// Of which.
        set: ReplicaSetId,
        /// Their keys.
        packs: Vec<String>,
    },
    /// Damage that is known.
    Damage {
        /// Of which.
        set: ReplicaSetId,
        /// The object.
        object: String,
        /// What is wrong.
        damage: Damage,
    },
    /// The last: the cluster is as it was.
    End,
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Catalog {
    /// The cluster that wrote it.
    pub cluster: String,
    /// How often the store had been recovered.
    pub recoveries: u64,
    /// The highest epoch given.
    pub last_epoch: Epoch,
    /// The highest number given to a restore.
    pub last_restore: u64,
    /// Everything but [`Piece::Begin`] and [`Piece::End`], in the order in which it can be taken in.
    pub pieces: Vec<Piece>,
}

/// How two catalogs differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Not in anything a recovery needs.
    None,
    /// In waypoints only: a recovery finds the newest image by itself.
    Waypoints,
    /// In more.
    Much,
}

impl Catalog {
    /// What of a state belongs into a catalog.
    pub fn of(state: &State) -> Catalog {
        let deployments = state.deployments.iter().map(|(name, deployment)| Piece::Deployment {
            name: name.clone(),
            deployment: Deployment {
                uri: redact::at_rest(&deployment.uri),
                ..deployment.clone()
            },
        });
        let sets = state.replica_sets.iter().map(|(set, record)| Piece::ReplicaSet {
            set: set.clone(),
            record: ReplicaSet {
                epoch: Epoch::default(),
                node: NodeId::default(),
                problem: None,
                ..record.clone()
            },
        });
        let snapshots = state.snapshots.iter().map(|((set, id), snapshot)| Piece::Snapshot {
            set: set.clone(),
            id: id.clone(),
            snapshot: snapshot.clone(),
        });
        let retired = state.retired.iter().map(|(set, incarnation)| Piece::Retired {
            set: set.clone(),
            incarnation: *incarnation,
        });
        let floors = state
            .oplog_floors
            .iter()
            .map(|((set, incarnation), at)| Piece::OplogFloor {
                set: set.clone(),
                incarnation: *incarnation,
                at: *at,
            });
        let condemned = state.grooms.iter().flat_map(|(set, grooming)| condemned(set, grooming));
        let damage = state.integrity.iter().flat_map(|(set, integrity)| {
            integrity.damage.iter().map(move |(object, damage)| Piece::Damage {
                set: set.clone(),
                object: object.clone(),
                damage: damage.clone(),
            })
        });
        Catalog {
            cluster: state.cluster.clone(),
            recoveries: state.recoveries,
            last_epoch: state.last_epoch,
            last_restore: state.last_restore,
            pieces: deployments
                .chain(sets)
                .chain(snapshots)
                .chain(retired)
                .chain(floors)
                .chain(condemned)
                .chain(damage)
                .collect(),
        }
    }

    /// How this one differs from an `older` one.
    pub fn since(&self, older: &Catalog) -> Change {
        if (&self.cluster, self.recoveries, &self.pieces) == (&older.cluster, older.recoveries, &older.pieces) {
            return Change::None;
        }
        let same = |(new, old): (&Piece, &Piece)| {
            new == old || but_for_waypoint(new).is_some_and(|new| Some(new) == but_for_waypoint(old))
        };
        match self.pieces.len() == older.pieces.len() && self.pieces.iter().zip(&older.pieces).all(same) {
            true => Change::Waypoints,
            false => Change::Much,
        }
    }
}

/// A deployment of which nothing is known but its name.
pub fn unknown_deployment(now_ms: i64) -> Option<Deployment> {
    let schedule = schedules::begin(INTERVAL_DEFAULT_S, now_ms).ok()?;
    Some(Deployment {
        uri: redact::at_rest("***"),
        active: false,
        created_ms: now_ms,
        schedule,
        key: None,
        sharding: None,
        balancer: Balancer::default(),
    })
}

fn condemned<'a>(set: &'a ReplicaSetId, grooming: &'a Grooming) -> impl Iterator<Item = Piece> + 'a {
    let packs: Vec<String> = grooming.condemned.iter().cloned().collect();
    let chunks: Vec<Vec<String>> = packs.chunks(PACKS_PER_PIECE).map(<[String]>::to_vec).collect();
    chunks.into_iter().map(move |packs| Piece::Condemned {
        set: set.clone(),
        packs,
    })
}

fn but_for_waypoint(piece: &Piece) -> Option<(&ReplicaSetId, ReplicaSet)> {
    match piece {
        Piece::ReplicaSet { set, record } => {
            let record = ReplicaSet {
                waypoint: None,
                ..record.clone()
            };
            Some((set, record))
        }
        _ => None,
    }
}

pub(crate) fn take_in(state: &mut State, piece: &Piece) -> Answer {
    if let Piece::Begin {
        recoveries,
        last_epoch,
        last_restore,
    } = piece
    {
        return begin(state, *recoveries, *last_epoch, *last_restore);
    }
    if !state.recovering {
        let message = "no recovery is under way: only a cluster that was just begun can be recovered into";
        return Err(Response::refused(RefusalKind::Conflict, message));
    }
    match piece.clone() {
        Piece::Deployment { name, deployment } => _ = state.deployments.insert(name, deployment),
        Piece::ReplicaSet { set, record } if !state.replica_sets.contains_key(&set) => {
            let epoch = next_epoch(state);
            let node = state.nodes.keys().next().copied().unwrap_or_default();
            let record = ReplicaSet { epoch, node, ..record };
            state.replica_sets.insert(set, record);
        }
        // Taken in already, or carried out above.
        Piece::Begin { .. } | Piece::ReplicaSet { .. } => {}
        Piece::Snapshot { set, id, snapshot } => _ = state.snapshots.insert((set, id), snapshot),
        Piece::Retired { set, incarnation } => _ = state.retired.insert(set, incarnation),
        Piece::OplogFloor { set, incarnation, at } => _ = state.oplog_floors.insert((set, incarnation), at),
        Piece::Condemned { set, packs } => state.grooms.entry(set).or_default().condemned.extend(packs),
        Piece::Damage { set, object, damage } => {
            state.integrity.entry(set).or_default().damage.insert(object, damage);
        }
        Piece::End => state.recovering = false,
    }
    Ok(Response::Done)
}

fn begin(state: &mut State, recoveries: u64, last_epoch: Epoch, last_restore: u64) -> Answer {
    if !(state.deployments.is_empty() && state.replica_sets.is_empty() && state.retired.is_empty()) {
        let message = "this cluster keeps backups already: recover into one that was just begun";
        return Err(Response::refused(RefusalKind::Conflict, message));
    }
    state.recovering = true;
    state.recoveries = recoveries;
    state.last_epoch = state.last_epoch.max(last_epoch);
    state.last_restore = state.last_restore.max(last_restore);
    Ok(Response::Done)
}
