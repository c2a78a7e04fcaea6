//! Who a node is: the number it was given and the cluster it belongs to, on its own disk.
//!
//! It is written before the node makes its first promise, and lies on the same disk as the promises: whoever loses the one
//! loses the other, and joins as a new node.

use std::sync::Arc;

use headwater_host::{Kv, KvError, Op};
use serde::{Deserialize, Serialize};

use crate::codec::{self, CodecError};
use crate::state::NodeId;

const KEY: &[u8] = b"cluster/identity";
const WHAT: &str = "node's identity";
const STORES: &[u8] = b"cluster/stores";
const STORES_WHAT: &str = "note that the stores are the cluster's";

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The cluster's name for machines.
    pub cluster: String,
    /// The node's number; `None` while it has asked for one and has no answer yet.
    pub node: Option<NodeId>,
    /// What the node chose for itself when it asked.
    pub token: u64,
    /// Whether it began the cluster.
    pub founder: bool,
}

/// A disk that cannot tell.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The disk.
    #[error(transparent)]
    Kv(#[from] KvError),
    /// What is on it.
    #[error(transparent)]
    Codec(#[from] CodecError),
}

impl Identity {
    /// Whose disk this is; `None` when it is nobody's yet.
    pub fn load(kv: &Arc<dyn Kv>) -> Result<Option<Identity>, IdentityError> {
        let Some(framed) = kv.get(KEY)? else { return Ok(None) };
        Ok(Some(codec::decode(WHAT, codec::unframe(WHAT, KEY, &framed)?)?))
    }

    /// Writes it, durably.
    pub async fn save(&self, kv: &Arc<dyn Kv>) -> Result<(), IdentityError> {
        let payload = codec::encode(WHAT, self)?;
        kv.write(vec![Op::put(KEY, codec::frame(KEY, &payload))])?;
        Ok(kv.flush().await?)
    }

    /// Whether the stores were the cluster's once, as [`Identity::note_stores`] noted.
    pub fn had_stores(&self, kv: &Arc<dyn Kv>) -> Result<bool, IdentityError> {
        let Some(framed) = kv.get(STORES)? else {
            return Ok(false);
        };
        let cluster: String = codec::decode(STORES_WHAT, codec::unframe(STORES_WHAT, STORES, &framed)?)?;
        Ok(cluster == self.cluster)
    }

    /// Notes, durably, that every store is claimed for the cluster: from now on one that is nobody's is the wrong one.
    pub async fn note_stores(&self, kv: &Arc<dyn Kv>) -> Result<(), IdentityError> {
        let payload = codec::encode(STORES_WHAT, &self.cluster)?;
        kv.write(vec![Op::put(STORES, codec::frame(STORES, &payload))])?;
        Ok(kv.flush().await?)
    }
}
