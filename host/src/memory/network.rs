//! A network within one process: peers that register to be called, links that can be cut.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::future::{BoxFuture, FutureExt};

use crate::{Serve, Transport, TransportError};

#[derive(Default)]
struct Links {
    peers: BTreeMap<u64, Arc<dyn Serve>>,
    /// One-way: `(from, to)`.
    cut: BTreeSet<(u64, u64)>,
}

/// The network. Clones are the same one.
#[derive(Clone, Default)]
pub struct MemoryNetwork(Arc<Mutex<Links>>);

/// The network as one peer calls it.
#[derive(Clone)]
pub struct MemoryTransport {
    network: MemoryNetwork,
    from: u64,
}

impl MemoryNetwork {
    /// A network without peers.
    pub fn new() -> Self {
        MemoryNetwork::default()
    }

    /// What `from` calls others with.
    pub fn transport(&self, from: u64) -> MemoryTransport {
        MemoryTransport {
            network: self.clone(),
            from,
        }
    }

    /// Lets `server` answer calls to `peer`, in place of whoever did before.
    pub fn join(&self, peer: u64, server: Arc<dyn Serve>) {
        self.links().peers.insert(peer, server);
    }

    /// Lets nobody answer for `peer` any more.
    pub fn leave(&self, peer: u64) {
        self.links().peers.remove(&peer);
    }

    /// Loses everything sent from `from` to `to`, answers included.
    pub fn cut(&self, from: u64, to: u64) {
        self.links().cut.insert((from, to));
    }

    /// Undoes every [`MemoryNetwork::cut`].
    pub fn heal(&self) {
        self.links().cut.clear();
    }

    fn carries(&self, from: u64, to: u64) -> Result<(), TransportError> {
        match self.links().cut.contains(&(from, to)) {
            true => Err(TransportError::Unreachable {
                peer: to,
                reason: format!("the link from {from} is cut"),
            }),
            false => Ok(()),
        }
    }

    fn links(&self) -> MutexGuard<'_, Links> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Transport for MemoryTransport {
    fn call(&self, peer: u64, kind: u8, body: Vec<u8>) -> BoxFuture<'static, Result<Vec<u8>, TransportError>> {
        let MemoryTransport { network, from } = self.clone();
        async move {
            network.carries(from, peer)?;
            let server = network
                .links()
                .peers
                .get(&peer)
                .cloned()
                .ok_or(TransportError::UnknownPeer(peer))?;
            let answer = server.serve(kind, body).await;
            network.carries(peer, from).map_err(|_| TransportError::Unreachable {
                peer,
                reason: "the answer was lost".to_owned(),
            })?;
            Ok(answer)
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Echo;

    impl Serve for Echo {
        fn serve(&self, kind: u8, mut body: Vec<u8>) -> BoxFuture<'static, Vec<u8>> {
            body.push(kind);
            async move { body }.boxed()
        }
    }

    #[tokio::test]
    async fn a_cut_link_loses_calls_one_way_and_answers_the_other() {
        let network = MemoryNetwork::new();
        network.join(2, Arc::new(Echo));
        let transport = network.transport(1);
        assert_eq!(transport.call(2, 7, vec![1]).await, Ok(vec![1, 7]));
        assert_eq!(transport.call(3, 7, vec![]).await, Err(TransportError::UnknownPeer(3)));
        network.cut(2, 1);
        assert!(transport.call(2, 7, vec![]).await.is_err(), "the answer is lost");
        network.heal();
        network.cut(1, 2);
        assert!(transport.call(2, 7, vec![]).await.is_err(), "the call is lost");
    }
}
