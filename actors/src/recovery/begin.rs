//! Begins a cluster of one node on an empty disk with what a plan says, and takes the store over.
//!
//! Order: control state → claim → fences → catalog. Before the claim nothing has happened to the store, and the disk is of no
//! use; after it the lost cluster cannot begin again; after the fences whoever still runs of it cannot write. Ended anywhere,
//! it is done again on another empty disk.

use std::collections::BTreeMap;
use std::sync::Arc;

use headwater_cluster::catalog::{Catalog, Piece};
use headwater_cluster::{Command, Control, ControlError, Identity, IdentityError, Settings};
use headwater_host::{Host, Kv};
use headwater_store::catalog::{self, CatalogName};
use headwater_store::claim;
use headwater_store::fence::Fence;
use headwater_store::objects::{Objects, StoreError};
use headwater_store::repository::prefix;

use super::plan::RecoveryPlan;
use crate::commands::submit;
use crate::enrol::FIRST;

/// What was begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Begun {
    /// The new cluster's name for machines.
    pub cluster: String,
}

/// Why a recovery ended.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// The disk is somebody's.
    #[error("the folder belongs to a node already: recover into an empty one")]
    Taken,
    /// The disk.
    #[error(transparent)]
    Disk(#[from] IdentityError),
    /// Raft.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The backing store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A piece does not fit.
    #[error("the control state does not take in {piece}: {why}")]
    Refused {
        /// What.
        piece: String,
        /// Why.
        why: String,
    },
}

/// Carries a plan out. `apart` are stores besides that of the blocks; `address` is where other nodes will reach this one,
/// which its daemon corrects at its start.
pub async fn begin(
    host: &Host,
    kv: &Arc<dyn Kv>,
    objects: &Arc<dyn Objects>,
    apart: &[Arc<dyn Objects>],
    plan: &RecoveryPlan,
    address: &str,
) -> Result<Begun, RecoveryError> {
    if Identity::load(kv)?.is_some() {
        return Err(RecoveryError::Taken);
    }
    let identity = Identity {
        cluster: format!("{:016x}", host.entropy.number()),
        node: Some(FIRST),
        token: host.entropy.number().max(1),
        founder: true,
    };
    identity.save(kv).await?;
    let settings = Settings {
        voters: BTreeMap::from([(FIRST, address.to_owned())]),
        ..Settings::single(FIRST)
    };
    let control = Control::start(host, kv.clone(), FIRST, settings).await?;
    let begun = take_in(&control, &identity.cluster, plan, address).await;
    let taken = match begun {
        Ok(()) => take_store(&control, objects, apart, &identity.cluster).await,
        Err(error) => Err(error),
    };
    control.shutdown().await;
    taken?;
    identity.note_stores(kv).await?;
    Ok(Begun {
        cluster: identity.cluster,
    })
}

async fn take_in(control: &Control, cluster: &str, plan: &RecoveryPlan, address: &str) -> Result<(), RecoveryError> {
    let begin = Command::BeginCluster {
        cluster: cluster.to_owned(),
        nodes: BTreeMap::from([(FIRST, address.to_owned())]),
    };
    let refused = |piece: &str, why: String| RecoveryError::Refused {
        piece: piece.to_owned(),
        why,
    };
    submit(control, begin)
        .await
        .map_err(|refusal| refused("the cluster", refusal.message))?;
    for piece in &plan.pieces {
        let command = Command::Recover {
            piece: Box::new(piece.clone()),
        };
        submit(control, command)
            .await
            .map_err(|refusal| refused(&name(piece), refusal.message))?;
    }
    Ok(())
}

fn name(piece: &Piece) -> String {
    match piece {
        Piece::Begin { .. } | Piece::End => "the recovery itself".to_owned(),
        Piece::Deployment { name, .. } => name.to_string(),
        Piece::ReplicaSet { set, .. } | Piece::Retired { set, .. } => set.to_string(),
        Piece::Snapshot { set, id, .. } => format!("snapshot {id} of {set}"),
        Piece::OplogFloor { set, .. } => format!("the oplog of {set}"),
        Piece::Condemned { set, .. } => format!("the packs of {set}"),
        Piece::Damage { object, .. } => format!("the damage of {object}"),
    }
}

async fn take_store(
    control: &Control,
    objects: &Arc<dyn Objects>,
    apart: &[Arc<dyn Objects>],
    cluster: &str,
) -> Result<(), RecoveryError> {
    let index = control.figures().applied;
    let state = control.state();
    claim::take_over(objects.as_ref(), cluster).await?;
    for other in apart {
        claim::take_over(other.as_ref(), cluster).await?;
    }
    for (set, record) in &state.replica_sets {
        Fence::claim(objects.clone(), &prefix(set), record.epoch).await?;
    }
    let name = CatalogName {
        recoveries: state.recoveries,
        index,
    };
    catalog::write(objects.as_ref(), name, &Catalog::of(&state)).await?;
    Ok(())
}
