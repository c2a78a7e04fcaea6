//! Calls to other daemons over HTTP, sealed with the cluster's key: `protocol::internal`.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context;
use futures::FutureExt;
use futures::future::{AbortHandle, BoxFuture};
use headwater_cluster::Addresses;
use headwater_host::{Host, Transport, TransportError};
use headwater_protocol::internal::{self, ClusterKey, Envelope};

use crate::failure::innermost;
use crate::roots;

const CONNECT_DEADLINE: Duration = Duration::from_secs(2);
/// No call waits longer, whatever its caller forgot.
const CALL_DEADLINE: Duration = Duration::from_secs(120);

/// Numbers that no node has: addresses to ask are known under them until the nodes behind them are.
pub const STRANGERS: u64 = u64::MAX - 1000;

/// See the module. Clones are the same one.
#[derive(Clone)]
pub struct HttpTransport(Arc<Inner>);

struct Inner {
    http: reqwest::Client,
    scheme: &'static str,
    host: Host,
    key: ClusterKey,
    /// The cluster and this node's number; not known while it joins.
    home: OnceLock<(String, u64)>,
    addresses: Addresses,
}

impl HttpTransport {
    /// Prepares; nobody is known yet.
    ///
    /// With `tls` every node is called so, and believed by those certificates, PEM, or by the system's.
    pub fn new(host: Host, key: ClusterKey, tls: Option<Option<&[u8]>>) -> anyhow::Result<Self> {
        headwater_host::real::use_ring();
        let builder = roots::believing(reqwest::Client::builder(), tls.is_some(), tls.flatten())?;
        let http = builder
            .connect_timeout(CONNECT_DEADLINE)
            .timeout(CALL_DEADLINE)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .tcp_nodelay(true)
            .build()
            .context("the HTTP client cannot start")?;
        Ok(HttpTransport(Arc::new(Inner {
            http,
            scheme: if tls.is_some() { "https" } else { "http" },
            host,
            key,
            home: OnceLock::new(),
            addresses: Addresses::default(),
        })))
    }

    /// From now on this node calls as `node` of `cluster`.
    pub fn at_home(&self, cluster: &str, node: u64) {
        let _ = self.0.home.set((cluster.to_owned(), node));
    }

    /// Where it finds the others.
    pub fn addresses(&self) -> &Addresses {
        &self.0.addresses
    }
}

impl Inner {
    async fn call(&self, peer: u64, kind: u8, body: Vec<u8>) -> Result<Vec<u8>, TransportError> {
        let address = self.addresses.of(peer).ok_or(TransportError::UnknownPeer(peer))?;
        let failed = |reason: String| TransportError::Unreachable { peer, reason };
        let (cluster, from) = self.home.get().cloned().unwrap_or_default();
        let mut nonce = [0; 16];
        self.host.entropy.fill(&mut nonce);
        let envelope = Envelope {
            cluster,
            from,
            // Whoever joins knows addresses but not numbers.
            to: if peer >= STRANGERS { 0 } else { peer },
            kind,
            nonce,
        };
        let seal = self.key.seal_call(&envelope, &body);
        let hex: String = nonce.iter().map(|byte| format!("{byte:02x}")).collect();
        let sent = self
            .http
            .post(format!("{}://{address}{}", self.scheme, internal::PATH))
            .header(internal::CLUSTER, &envelope.cluster)
            .header(internal::FROM, envelope.from)
            .header(internal::TO, envelope.to)
            .header(internal::KIND, kind.to_string())
            .header(internal::NONCE, hex)
            .header(internal::SEAL, seal)
            .body(body)
            .send()
            .await
            .map_err(|error| failed(innermost(&error)))?;
        let status = sent.status();
        let seal = sent.headers().get(internal::SEAL).and_then(|seal| seal.to_str().ok());
        let seal = seal.map(str::to_owned);
        let answer = sent.bytes().await.map_err(|error| failed(innermost(&error)))?;
        match seal {
            Some(seal) if status.is_success() && self.key.is_answer(&nonce, &answer, &seal) => Ok(answer.into()),
            _ => Err(failed(format!(
                "at {address} it answers with status {status}: {}",
                said(&answer)
            ))),
        }
    }
}

/// What a refusal says, for the log; it is not sealed, so nothing is done by it.
fn said(answer: &[u8]) -> String {
    let refusal: Option<headwater_protocol::agent::Refusal> = serde_json::from_slice(answer).ok();
    refusal.map_or_else(
        || "no Headwater daemon of this cluster".to_owned(),
        |refusal| refusal.message,
    )
}

struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Transport for HttpTransport {
    fn call(&self, peer: u64, kind: u8, body: Vec<u8>) -> BoxFuture<'static, Result<Vec<u8>, TransportError>> {
        let inner = self.0.clone();
        async move {
            let host = inner.host.clone();
            // On the process's own runtime: a connection must not depend on the thread of an actor that is busy.
            let task = host.spawn(async move { inner.call(peer, kind, body).await });
            let _cut_off = AbortOnDrop(task.abort_handle());
            task.await.unwrap_or_else(|ended| {
                Err(TransportError::Unreachable {
                    peer,
                    reason: ended.to_string(),
                })
            })
        }
        .boxed()
    }
}
