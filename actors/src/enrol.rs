//! How a process becomes a node: by what its disk says; on an empty one as the first of a cluster, or under the number that
//! the cluster gives it. Its store is the cluster's, or it does not begin.
//!
//! The node that begins a cluster claims empty stores, and only once: its disk notes when all of them are the cluster's. A
//! place that is empty afterwards is not mounted or not the one that is meant, and what was written there would be lost.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use headwater_cluster::{Addresses, Identity, IdentityError, NodeId};
use headwater_host::{Host, Kv, Transport};
use headwater_store::claim;
use headwater_store::objects::{Objects, StoreError};

use crate::peers;

/// The number of a node that begins a cluster.
pub const FIRST: NodeId = NodeId(1);
/// How long a node that joins is told to try again.
const JOIN_PAUSE: Duration = Duration::from_secs(1);

/// What a process was told about the cluster.
pub struct Wish {
    /// Where others shall reach this node.
    pub address: String,
    /// Nodes to ask, by the numbers under which `addresses` knows them; none for one that begins a cluster.
    pub ask: Vec<NodeId>,
}

/// Who this node is.
pub struct Enrolled {
    /// As it lies on the disk.
    pub identity: Identity,
    /// The number in it.
    pub node: NodeId,
    /// The first members, for a node that began its cluster; none for one that was taken in.
    pub voters: BTreeMap<NodeId, String>,
}

/// Why a process is no node.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// Its own disk.
    #[error("cannot open the control state: {0}")]
    Disk(#[from] IdentityError),
    /// The backing store, which may be another cluster's.
    #[error("cannot use the store: {0}")]
    Store(#[from] StoreError),
    /// A store besides that of the blocks.
    #[error("cannot use the store of oplog or sync slices: {0}")]
    Apart(#[source] StoreError),
}

/// Finds out who this node is. One that joins asks until it is answered, and a new one waits until the store answers.
pub async fn enrol(
    host: &Host,
    kv: &Arc<dyn Kv>,
    objects: &dyn Objects,
    wish: &Wish,
    transport: &dyn Transport,
    addresses: &Addresses,
) -> Result<Enrolled, EnrolError> {
    let mut identity = match Identity::load(kv)? {
        Some(known) => known,
        None => Identity {
            cluster: String::new(),
            node: None,
            token: host.entropy.number().max(1),
            founder: wish.ask.is_empty(),
        },
    };
    let node = match identity.node {
        Some(node) => {
            let noted = identity.had_stores(kv)?;
            if identity.founder && !noted {
                // It may be nobody's yet, and nobody else claims it.
                until_looked(objects).await?;
            }
            match claim_for(objects, &identity, noted).await {
                // It voted before and goes on voting, also while the store does not answer.
                Err(error @ StoreError::Unavailable { .. }) if noted || !identity.founder => {
                    tracing::warn!("the store is not looked at yet: {error}")
                }
                claimed => claimed?,
            }
            node
        }
        None => {
            if let (true, Some(owner)) = (identity.founder, until_looked(objects).await?) {
                return Err(claim::another(&owner).into());
            }
            // The token is durable before it is used, so that asking again after a crash is asking for the same node.
            identity.save(kv).await?;
            let node = match identity.founder {
                true => {
                    identity.cluster = format!("{:016x}", host.entropy.number());
                    FIRST
                }
                false => {
                    let joined = until_joined(wish, identity.token, transport).await;
                    addresses.know(joined.nodes.into_iter().map(|(id, address)| (id.0, address)));
                    identity.cluster = joined.cluster;
                    joined.node
                }
            };
            identity.node = Some(node);
            identity.save(kv).await?;
            tracing::info!(%node, cluster = identity.cluster, "this node has its number");
            until_looked(objects).await?;
            claim_for(objects, &identity, false).await?;
            node
        }
    };
    let voters = match identity.founder {
        true => BTreeMap::from([(FIRST, wish.address.clone())]),
        false => BTreeMap::new(),
    };
    Ok(Enrolled { identity, node, voters })
}

/// Sees to it that the stores besides that of the blocks are the cluster's, too, and notes it when all are: the last step of
/// a beginning. A process that ends before it claims again what was not claimed yet.
pub async fn claim_apart(
    kv: &Arc<dyn Kv>,
    objects: &dyn Objects,
    apart: impl IntoIterator<Item = &Arc<dyn Objects>>,
    identity: &Identity,
) -> Result<(), EnrolError> {
    let noted = identity.had_stores(kv)?;
    for store in apart {
        claim_for(store.as_ref(), identity, noted)
            .await
            .map_err(EnrolError::Apart)?;
    }
    if noted || !identity.founder {
        return Ok(());
    }
    match claim::claimed_by(objects).await {
        Ok(Some(owner)) if owner == identity.cluster => Ok(identity.note_stores(kv).await?),
        // It did not answer, so it was not looked at; the next start does.
        _ => Ok(()),
    }
}

/// Sees to it that the store is the cluster's: whoever begins one claims it, once, and others find it claimed.
async fn claim_for(objects: &dyn Objects, identity: &Identity, noted: bool) -> Result<(), StoreError> {
    match claim::claimed_by(objects).await? {
        None if identity.founder && noted => Err(gone(&identity.cluster)),
        None if identity.founder => claim::claim(objects, &identity.cluster).await,
        None => Err(claim::nobodys(&identity.cluster)),
        Some(owner) if owner == identity.cluster => Ok(()),
        Some(owner) => Err(claim::another(&owner)),
    }
}

/// What is said of a store in which nothing is, to the node that claimed another, or this one before it was emptied.
fn gone(cluster: &str) -> StoreError {
    let detail = format!(
        "nothing is kept there, though cluster {cluster} has used its store before: it is not mounted, or it is another \
         place. Mount it, or give the daemon the store that it had; nothing was begun in the empty one"
    );
    StoreError::refused(claim::KEY, detail)
}

/// Whose store it is, as soon as it tells.
async fn until_looked(objects: &dyn Objects) -> Result<Option<String>, StoreError> {
    loop {
        match claim::claimed_by(objects).await {
            Err(error @ StoreError::Unavailable { .. }) => tracing::warn!("the store does not answer yet: {error}"),
            looked => return looked,
        }
        tokio::time::sleep(JOIN_PAUSE).await;
    }
}

async fn until_joined(wish: &Wish, token: u64, transport: &dyn Transport) -> peers::Joined {
    loop {
        match peers::join(transport, &wish.ask, token, &wish.address).await {
            Ok(joined) => return joined,
            Err(refusal) => tracing::warn!("cannot join yet: {}", refusal.message),
        }
        tokio::time::sleep(JOIN_PAUSE).await;
    }
}

#[cfg(test)]
mod tests;
