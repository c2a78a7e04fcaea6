//! Keeps the catalog in the store (`store/src/catalog.rs`), so that the store alone suffices; and watches whose the store is.
//!
//! The leader writes a catalog when something changed that a recovery needs, within about a second, and within half a minute
//! when only waypoints moved. Every node looks at the claim: when the store was recovered for another cluster, this one is
//! over, and its daemons end.

use std::sync::{Arc, Weak};
use std::time::Duration;

use headwater_cluster::State;
use headwater_cluster::catalog::{Catalog, Change};
use headwater_host::ExitReason;
use headwater_store::catalog::{self, CatalogName};
use headwater_store::claim;
use headwater_store::objects::{Objects, Put, StoreError};
use tokio::time::Instant;

use crate::node::Node;

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
        match write(node.ground.objects.as_ref(), index, &now).await {
            Ok(true) => {
                tracing::debug!(index, pieces = now.pieces.len(), "the catalog is written");
                self.written = Some((now, Instant::now()));
                self.seen = Some(state);
            }
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, "the catalog in the store cannot be written; trying again"),
        }
    }
}

/// Whether what is known now stands in the store.
async fn write(objects: &dyn Objects, index: u64, now: &Catalog) -> Result<bool, StoreError> {
    // A store that was recovered for another cluster gets nothing from this one any more.
    if let Some(owner) = claim::claimed_by(objects).await?
        && owner != now.cluster
    {
        return Ok(false);
    }
    let name = CatalogName {
        recoveries: now.recoveries,
        index,
    };
    match catalog::write(objects, name, now).await? {
        Put::Created => Ok(true),
        // Written by a former leader, or by this one without an answer. It may know more, and then so will this node.
        Put::Exists => match catalog::read::<Catalog>(objects, name).await {
            Ok(there) => Ok(now.since(&there) == Change::None),
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
