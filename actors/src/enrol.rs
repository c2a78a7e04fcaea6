//! How a process becomes a node: by what its disk says; on an empty one as the first of a cluster, or under the number that
//! the cluster gives it. Its store is the cluster's, or it does not begin.

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
}

/// Finds out who this node is. One that joins asks until it is answered.
pub async fn enrol(
    host: &Host,
    kv: &Arc<dyn Kv>,
    objects: &dyn Objects,
    wish: &Wish,
    transport: &dyn Transport,
    addresses: &Addresses,
) -> Result<Enrolled, EnrolError> {
    let known = Identity::load(kv)?;
    let owner = claim::claimed_by(objects).await?;
    let mut identity = match known {
        Some(known) => known,
        None => Identity {
            cluster: String::new(),
            node: None,
            token: host.entropy.number().max(1),
            founder: wish.ask.is_empty(),
        },
    };
    if let (true, "", Some(owner)) = (identity.founder, identity.cluster.as_str(), &owner) {
        return Err(claim::another(owner).into());
    }
    let node = match identity.node {
        Some(node) => node,
        None => {
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
            node
        }
    };
    match (identity.founder, owner) {
        (false, None) => return Err(claim::nobodys(&identity.cluster).into()),
        _ => claim::claim(objects, &identity.cluster).await?,
    }
    let voters = match identity.founder {
        true => BTreeMap::from([(FIRST, wish.address.clone())]),
        false => BTreeMap::new(),
    };
    Ok(Enrolled { identity, node, voters })
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
