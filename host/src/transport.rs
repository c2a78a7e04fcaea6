//! Calls between the processes of a cluster.

use futures::future::BoxFuture;

/// Why a call gave no answer. In every case the peer may have got the call and acted on it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// No address is known for the peer.
    #[error("peer {0} is not known here; it may have left the cluster")]
    UnknownPeer(u64),
    /// The peer could not be reached, or the connection broke.
    #[error("peer {peer} does not answer: {reason}")]
    Unreachable {
        /// Which.
        peer: u64,
        /// What the network said.
        reason: String,
    },
}

/// One request and one answer, to a peer known by its number.
///
/// Calls may be lost, delayed, doubled and overtaken. The caller sets the deadline by dropping the future.
pub trait Transport: Send + Sync {
    /// Sends `body`; `kind` tells the peer how to read it.
    fn call(&self, peer: u64, kind: u8, body: Vec<u8>) -> BoxFuture<'static, Result<Vec<u8>, TransportError>>;
}

/// The answering side of [`Transport`].
pub trait Serve: Send + Sync {
    /// Answers one call. The bytes come from the network and may be anything; an error is itself an answer.
    fn serve(&self, kind: u8, body: Vec<u8>) -> BoxFuture<'static, Vec<u8>>;
}
