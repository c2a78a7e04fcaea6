//! What nodes ask of one another: the agent's calls for the owner of a replica set, changes of the cluster for its leader,
//! and whether one is there at all.
//!
//! | bytes of a question | |
//! |---|---|
//! | 4, little-endian | length of the JSON |
//! | … | [`Ask`] as JSON |
//! | the rest | a frame, for questions that bring one |
//!
//! An answer is JSON. Every question may be asked again, and may arrive late or twice: those who ask do not know.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
use headwater_cluster::NodeId;
use headwater_host::{Serve, Transport};
use headwater_model::ReplicaSetId;
use headwater_protocol::agent::{OpenRequest, OrdersRequest, PollRequest, Refusal, RefusalKind, SyncEnd};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::backup::Backup;
use crate::node::Node;

/// The kind under which questions travel; lower ones are Raft's.
pub const KIND: u8 = 16;
/// The kind under which the question of a node that is in no cluster travels, and no other.
pub const KIND_JOIN: u8 = headwater_protocol::internal::KIND_JOIN;

/// A question.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Ask {
    /// Are you there? By this node; answered with [`Pong`].
    Ping(NodeId),
    /// To the owner: an agent opens a stream.
    Open(ReplicaSetId, OpenRequest),
    /// To the owner, with a frame.
    SyncBegin(ReplicaSetId),
    /// To the owner, with a frame.
    SyncSlice(ReplicaSetId),
    /// To the owner.
    SyncEnd(ReplicaSetId, SyncEnd),
    /// To the owner, with a frame.
    Oplog(ReplicaSetId),
    /// To the owner, with a frame.
    Documents(ReplicaSetId),
    /// To the owner.
    Poll(ReplicaSetId, PollRequest),
    /// To the owner: how the replica set stands.
    Status(ReplicaSetId),
    /// To the leader: an agent asks for orders.
    Orders(OrdersRequest),
    /// To the leader: what agents say hinders them.
    Faults,
    /// To anyone, by a node that has no number yet: its token, and where it is reached. Answered with [`Joined`].
    Join(u64, String),
    /// To the leader: give this node a vote.
    Enter(NodeId),
    /// To the leader: take this node's vote away and forget it.
    Expel(NodeId),
    /// To the owner: what is decided about its next groom.
    GroomDecision(ReplicaSetId),
    /// To a node that was taken out of the cluster: it hears nothing of the others any more.
    Removed,
}

/// I am here.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Pong {
    /// Whether the process is about to end.
    pub leaving: bool,
}

/// What a node that joins must know.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Joined {
    /// The cluster's name for machines.
    pub cluster: String,
    /// The node's own number.
    pub node: NodeId,
    /// Where the nodes are reached.
    pub nodes: BTreeMap<NodeId, String>,
}

#[derive(Serialize, Deserialize)]
enum Answer<T> {
    Done(T),
    Refused(Refusal),
}

/// Asks `peer` and waits at most `patience` for the answer.
pub async fn ask<T: DeserializeOwned>(
    transport: &dyn Transport,
    peer: NodeId,
    ask: &Ask,
    frame: &[u8],
    patience: Duration,
) -> Result<T, Refusal> {
    let json = serde_json::to_vec(ask).map_err(|e| Refusal::new(RefusalKind::Internal, e.to_string()))?;
    let mut body = Vec::with_capacity(4 + json.len() + frame.len());
    body.extend((json.len() as u32).to_le_bytes());
    body.extend(json);
    body.extend(frame);
    let unavailable = |why: String| Refusal::new(RefusalKind::Unavailable, why);
    let kind = if matches!(ask, Ask::Join(..)) { KIND_JOIN } else { KIND };
    let answer = tokio::time::timeout(patience, transport.call(peer.0, kind, body)).await;
    let answer = answer
        .map_err(|_| unavailable(format!("node {peer} does not answer in time")))?
        .map_err(|e| unavailable(e.to_string()))?;
    match serde_json::from_slice(&answer) {
        Ok(Answer::Done(done)) => Ok(done),
        Ok(Answer::Refused(refusal)) => Err(refusal),
        Err(e) => Err(unavailable(format!("node {peer} answers unreadably: {e}"))),
    }
}

/// Asks the nodes of a cluster for a number, one after the other. `token` is the asker's own, chosen once.
pub async fn join(transport: &dyn Transport, peers: &[NodeId], token: u64, address: &str) -> Result<Joined, Refusal> {
    let mut last = Refusal::new(RefusalKind::Invalid, "no node to ask is named");
    for peer in peers {
        let question = Ask::Join(token, address.to_owned());
        match ask(transport, *peer, &question, &[], Duration::from_secs(15)).await {
            Ok(joined) => return Ok(joined),
            Err(refusal) => last = refusal,
        }
    }
    Err(last)
}

/// Answers the calls of other nodes: Raft's and ours.
pub struct Server {
    raft: Arc<dyn Serve>,
    node: Weak<Node>,
}

impl Server {
    /// A server for this node.
    pub fn new(node: &Arc<Node>) -> Self {
        Server {
            raft: node.ground.control.server(),
            node: Arc::downgrade(node),
        }
    }
}

impl Serve for Server {
    fn serve(&self, kind: u8, body: Vec<u8>) -> BoxFuture<'static, Vec<u8>> {
        if kind != KIND && kind != KIND_JOIN {
            return self.raft.serve(kind, body);
        }
        let node = self.node.upgrade();
        async move {
            let parsed = parse(body).filter(|(ask, _)| matches!(ask, Ask::Join(..)) == (kind == KIND_JOIN));
            let answer = match (node, parsed) {
                (Some(node), Some((question, frame))) => match (Backup { node }).answer(question, frame).await {
                    Ok(value) => Answer::Done(value),
                    Err(refusal) => Answer::Refused(refusal),
                },
                (None, _) => Answer::Refused(Refusal::new(RefusalKind::Unavailable, "this node is ending")),
                (_, None) => Answer::Refused(Refusal::new(RefusalKind::Invalid, "this question cannot be read")),
            };
            serde_json::to_vec(&answer).unwrap_or_default()
        }
        .boxed()
    }
}

fn parse(body: Vec<u8>) -> Option<(Ask, Bytes)> {
    let body = Bytes::from(body);
    let (length, rest) = body.split_first_chunk::<4>()?;
    let json = rest.get(..u32::from_le_bytes(*length) as usize)?;
    let question = serde_json::from_slice(json).ok()?;
    Some((question, body.slice(4 + json.len()..)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_from_the_network_may_be_anything() {
        for body in [
            vec![],
            vec![1, 0, 0],
            vec![255; 4],
            vec![255, 255, 255, 255, b'"'],
            b"\x02\0\0\0{}".to_vec(),
        ] {
            assert!(parse(body.clone()).is_none(), "{body:?}");
        }
        let (question, frame) = parse(b"\x08\0\0\0\"Faults\"frame".to_vec()).unwrap();
        assert!(matches!(question, Ask::Faults));
        assert_eq!(&frame[..], b"frame");
    }
}
