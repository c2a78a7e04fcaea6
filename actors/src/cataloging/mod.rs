//! Keeps the catalog in the store (`store/src/catalog.rs`), so that the store alone suffices; and watches whose the store is.
//!
//! The leader writes a catalog when something changed that a recovery needs, within about a second, and within half a minute
//! when only waypoints moved. Every node looks at the claim: when the store was recovered for another cluster, this one is
//! over, and its daemons end.

pub(crate) mod at_rest;

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use headwater_cluster::State;
use headwater_cluster::catalog::{Catalog, Change, Piece};
use headwater_host::ExitReason;
use headwater_model::DeploymentName;
use headwater_store::catalog::{self, CatalogName};
use headwater_store::claim;
use headwater_store::objects::{Objects, Put, StoreError};
use tokio::time::Instant;

use crate::node::Node;
use crate::seal;
use crate::set::Ground;
use at_rest::{AtRest, Part, parted};

/// Changes within this time make one catalog.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long waypoints may be newer than the catalog: a recovery finds the newest image by itself.
const WAYPOINTS_WAIT: Duration = Duration::from_secs(30);
/// How often it is looked whose the store is.
const CLAIM_EVERY: Duration = Duration::from_secs(5);

/// Starts the tasks. They end when the node is dropped.
pub(crate) fn spawn(node: &Arc<Node>) {
    let host = node.ground.host.clone();
    drop(host.spawn(keep(Arc::downgrade(node))));
    drop(host.spawn(watch(Arc::downgrade(node))));
}

async fn keep(node: Weak<Node>) {
    let mut keeper = Keeper::default();
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let Some(node) = node.upgrade() else { return };
        match node.ground.control.is_leader() {
            true => keeper.round(&node).await,
            false => keeper = Keeper::default(),
        }
    }
}

/// What this node wrote last, while it leads.
#[derive(Default)]
struct Keeper {
    seen: Option<Arc<State>>,
    written: Option<(Catalog, Instant)>,
    sealed: BTreeMap<DeploymentName, (Vec<Piece>, Part)>,
}

impl Keeper {
    async fn round(&mut self, node: &Node) {
        // The index is taken first: the state is at least as new.
        let index = node.ground.control.figures().applied;
        let state = node.ground.control.state();
        if state.cluster.is_empty()
            || state.recovering
            || self.seen.as_ref().is_some_and(|seen| Arc::ptr_eq(seen, &state))
        {
            return;
        }
        let now = Catalog::of(&state);
        let due = match &self.written {
            None => true,
            Some((written, when)) => match now.since(written) {
                Change::None => {
                    self.seen = Some(state);
                    return;
                }
                Change::Waypoints => when.elapsed() >= WAYPOINTS_WAIT,
                Change::Much => true,
            },
        };
        if !due {
            return;
        }
        let written = match self.at_rest(&node.ground, &now).await {
            Ok(at_rest) => write(node.ground.objects.as_ref(), index, &at_rest).await,
            Err(error) => Err(error),
        };
        match written {
            Ok(true) => {
                tracing::debug!(index, pieces = now.pieces.len(), "the catalog is written");
                self.written = Some((now, Instant::now()));
                self.seen = Some(state);
            }
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, "the catalog in the store cannot be written; trying again"),
        }
    }

    /// The catalog with what belongs to encrypted deployments sealed. Of a deployment whose master key this node lacks it says
    /// what was written last.
    async fn at_rest(&mut self, ground: &Ground, now: &Catalog) -> Result<AtRest, StoreError> {
        let (plain, encrypted) = parted(now);
        self.sealed.retain(|name, _| encrypted.contains_key(name));
        let mut sealed = BTreeMap::new();
        for (name, (wrapped, pieces)) in encrypted {
            let known = self.sealed.get(&name);
            let same = known.filter(|(of, part)| *of == pieces && part.key == wrapped);
            let part = match same {
                Some((_, part)) => Some(part.clone()),
                None => match seal::open(ground, &name, &wrapped).await {
                    Ok(key) => {
                        let part = Part::seal(&name, &wrapped, &key, ground.host.entropy.as_ref(), &pieces)?;
                        self.sealed.insert(name.clone(), (pieces, part.clone()));
                        Some(part)
                    }
                    Err(error) => {
                        tracing::warn!(deployment = %name, %error, "the catalog says what it said of a deployment before");
                        match known {
                            Some((_, part)) => Some(part.clone()),
                            None => newest_part(ground, &name).await?,
                        }
                    }
                },
            };
            sealed.extend(part.map(|part| (name, part)));
        }
        Ok(AtRest { plain, sealed })
    }
}

/// What the newest catalog in the store says of an encrypted deployment.
async fn newest_part(ground: &Ground, name: &DeploymentName) -> Result<Option<Part>, StoreError> {
    let objects = ground.objects.as_ref();
    for catalog in catalog::list(objects).await? {
        match catalog::read::<AtRest>(objects, catalog).await {
            Ok(mut there) => return Ok(there.sealed.remove(name)),
            Err(StoreError::Damaged { .. } | StoreError::NotFound(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// Whether what is known now stands in the store.
async fn write(objects: &dyn Objects, index: u64, now: &AtRest) -> Result<bool, StoreError> {
    // A store that was recovered for another cluster gets nothing from this one any more.
    if let Some(owner) = claim::claimed_by(objects).await?
        && owner != now.plain.cluster
    {
        return Ok(false);
    }
    let name = CatalogName {
        recoveries: now.plain.recoveries,
        index,
    };
    match catalog::write(objects, name, now).await? {
        Put::Created => Ok(true),
        // Written by a former leader, or by this one without an answer. It may know more, and then so will this node.
        Put::Exists => match catalog::read::<AtRest>(objects, name).await {
            Ok(there) => Ok(now.plain.since(&there.plain) == Change::None && now.sealed == there.sealed),
            Err(StoreError::Damaged { .. }) => Ok(false),
            Err(error) => Err(error),
        },
    }
}

async fn watch(node: Weak<Node>) {
    loop {
        tokio::time::sleep(CLAIM_EVERY).await;
        let Some(node) = node.upgrade() else { return };
        let own = node.ground.control.state().cluster.clone();
        match claim::claimed_by(node.ground.objects.as_ref()).await {
            Ok(Some(owner)) if !own.is_empty() && owner != own => {
                let text = match claim::cluster_of(&owner) == own {
                    true => format!(
                        "the store is not in use any more: cluster {owner}. Start this daemon with the other store"
                    ),
                    false => format!(
                        "the store was recovered for another cluster, {owner}: cluster {own} is over, and this daemon with it"
                    ),
                };
                node.ground.host.exit.exit(ExitReason::Fenced(text));
            }
            // What cannot be seen ends nothing.
            _ => {}
        }
    }
}
