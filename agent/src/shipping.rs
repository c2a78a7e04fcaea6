//! The service: every call of `protocol::agent`, tried until it is answered.
//!
//! A node that cannot be reached, is busy, full or broken is no reason to give up: the call goes to the next node, after a
//! growing wait, for as long as it takes. Calls are harmless to repeat by the protocol. What comes back to the caller is an
//! answer or a [`Refusal`] that repeating would not change.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use headwater_host::Host;
use headwater_model::ReplicaSetId;
use headwater_protocol::agent::{
    Accepted, OpenReply, OpenRequest, OplogAck, OrdersReply, OrdersRequest, PollReply, PollRequest, Refusal,
    RefusalKind, SyncEnd,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::backoff::Backoff;
use crate::settings::AgentSettings;

/// One POST.
#[derive(Clone, Debug)]
pub struct Call {
    /// Where to.
    pub url: String,
    /// The bearer's key.
    pub key: Arc<str>,
    /// The content type of the body.
    pub content: &'static str,
    /// The body.
    pub body: Bytes,
}

/// Carries a POST to a node: [`crate::http`] for real, a simulated network otherwise. Limits the time it takes.
#[async_trait]
pub trait Post: Send + Sync {
    /// The status and the body of the answer, or why there is none: then the call may have been carried out or not.
    async fn post(&self, call: Call) -> Result<(u16, Bytes), String>;
}

/// The service, as the agent sees it. Cheap to clone.
#[derive(Clone)]
pub struct Service {
    door: Arc<dyn Post>,
    urls: Arc<[String]>,
    at: Arc<AtomicUsize>,
    key: Arc<str>,
    host: Host,
}

/// Settings that cannot work.
#[derive(Debug, thiserror::Error)]
pub enum NoService {
    /// No URL at all.
    #[error("no service URL is set; name at least one, as http://host:port")]
    NoUrl,
    /// The HTTP client could not be made.
    #[error("the HTTP client could not be set up: {0}")]
    Client(String),
}

/// What an HTTP answer means for the call.
#[derive(Debug, PartialEq)]
enum Verdict {
    Answered,
    Again(String),
    Refused(Refusal),
}

fn judge(status: u16, body: &[u8]) -> Verdict {
    if (200..300).contains(&status) {
        return Verdict::Answered;
    }
    match serde_json::from_slice::<Refusal>(body) {
        Ok(refusal) => match refusal.kind {
            RefusalKind::Unavailable | RefusalKind::StoreFull | RefusalKind::Internal => {
                Verdict::Again(format!("{:?}: {}", refusal.kind, refusal.message))
            }
            _ => Verdict::Refused(refusal),
        },
        Err(_) if status >= 500 || matches!(status, 408 | 425 | 429) => Verdict::Again(format!("HTTP status {status}")),
        Err(_) => {
            let kind = match status {
                401 => RefusalKind::Unauthorized,
                403 => RefusalKind::Forbidden,
                404 => RefusalKind::NotFound,
                409 => RefusalKind::Conflict,
                _ => RefusalKind::Invalid,
            };
            Verdict::Refused(Refusal::new(
                kind,
                format!("HTTP status {status} without an explanation"),
            ))
        }
    }
}

fn json<B: Serialize>(body: &B) -> Result<Bytes, Refusal> {
    serde_json::to_vec(body).map(Bytes::from).map_err(|e| {
        Refusal::new(
            RefusalKind::Invalid,
            format!("the request cannot be written as JSON: {e}"),
        )
    })
}

/// A node that is back, or another that took over, is not to be kept waiting.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// How long a node may take to answer: a stopped one accepts connections for ever. A call that was given up is made again,
/// which is harmless, with more patience each time, so that one that is only slow is waited for.
fn patience(body_bytes: usize, failures: u32) -> Duration {
    let first = Duration::from_secs(3) + Duration::from_secs(1) * (body_bytes >> 20) as u32;
    (first * (1 << failures.min(5))).min(Duration::from_secs(60))
}

const JSON: &str = "application/json";
const FRAME: &str = "application/octet-stream";

impl Service {
    /// A client of the service's nodes.
    pub fn new(host: Host, settings: &AgentSettings, door: Arc<dyn Post>) -> Result<Service, NoService> {
        if settings.service.is_empty() {
            return Err(NoService::NoUrl);
        }
        let urls = settings
            .service
            .iter()
            .map(|url| url.trim_end_matches('/').to_owned())
            .collect();
        Ok(Service {
            door,
            urls,
            at: Arc::default(),
            key: settings.key.as_str().into(),
            host,
        })
    }

    /// `POST /agent/v1/orders`.
    pub async fn orders(&self, request: &OrdersRequest) -> Result<OrdersReply, Refusal> {
        self.call("/agent/v1/orders", JSON, json(request)?).await
    }

    /// `POST …/open`.
    pub async fn open(&self, set: &ReplicaSetId, request: &OpenRequest) -> Result<OpenReply, Refusal> {
        self.call(&path(set, "open"), JSON, json(request)?).await
    }

    /// `POST …/sync/begin`.
    pub async fn sync_begin(&self, set: &ReplicaSetId, frame: Bytes) -> Result<Accepted, Refusal> {
        self.call(&path(set, "sync/begin"), FRAME, frame).await
    }

    /// `POST …/sync/slice`.
    pub async fn sync_slice(&self, set: &ReplicaSetId, frame: Bytes) -> Result<Accepted, Refusal> {
        self.call(&path(set, "sync/slice"), FRAME, frame).await
    }

    /// `POST …/sync/end`.
    pub async fn sync_end(&self, set: &ReplicaSetId, end: &SyncEnd) -> Result<Accepted, Refusal> {
        self.call(&path(set, "sync/end"), JSON, json(end)?).await
    }

    /// `POST …/oplog`.
    pub async fn oplog(&self, set: &ReplicaSetId, frame: Bytes) -> Result<OplogAck, Refusal> {
        self.call(&path(set, "oplog"), FRAME, frame).await
    }

    /// `POST …/documents`.
    pub async fn documents(&self, set: &ReplicaSetId, frame: Bytes) -> Result<Accepted, Refusal> {
        self.call(&path(set, "documents"), FRAME, frame).await
    }

    /// `POST …/poll`.
    pub async fn poll(&self, set: &ReplicaSetId, request: &PollRequest) -> Result<PollReply, Refusal> {
        self.call(&path(set, "poll"), JSON, json(request)?).await
    }

    async fn call<R: DeserializeOwned>(&self, path: &str, content: &'static str, body: Bytes) -> Result<R, Refusal> {
        let mut backoff = Backoff::new(Duration::from_millis(100), LONGEST_PAUSE);
        loop {
            let at = self.at.load(Ordering::Relaxed);
            let url = &self.urls[at % self.urls.len()];
            let patience = patience(body.len(), backoff.failures());
            let attempt = self.attempt(url, path, content, body.clone());
            let why = match tokio::time::timeout(patience, attempt).await {
                Ok(Ok(Ok(answer))) => return Ok(answer),
                Ok(Ok(Err(refusal))) => return Err(refusal),
                Ok(Err(why)) => why,
                Err(_) => format!("no answer within {} s", patience.as_secs()),
            };
            // Only the first to fail moves on: calls that run at the same time must not skip nodes.
            let _ = self
                .at
                .compare_exchange(at, at.wrapping_add(1), Ordering::Relaxed, Ordering::Relaxed);
            let wait = backoff.after_failure(self.host.entropy.number());
            if backoff.failures().is_power_of_two() {
                tracing::warn!(service = %url, path, attempt = backoff.failures(), "{why}; trying again");
            }
            tokio::time::sleep(wait).await;
        }
    }

    /// The outer error is worth another try.
    async fn attempt<R: DeserializeOwned>(
        &self,
        url: &str,
        path: &str,
        content: &'static str,
        body: Bytes,
    ) -> Result<Result<R, Refusal>, String> {
        let call = Call {
            url: format!("{url}{path}"),
            key: self.key.clone(),
            content,
            body,
        };
        let (status, body) = self.door.post(call).await?;
        match judge(status, &body) {
            Verdict::Answered => match serde_json::from_slice(&body) {
                Ok(answer) => Ok(Ok(answer)),
                Err(e) => Err(format!("the service's answer cannot be read: {e}")),
            },
            Verdict::Again(why) => Err(why),
            Verdict::Refused(refusal) => Ok(Err(refusal)),
        }
    }
}

fn path(set: &ReplicaSetId, call: &str) -> String {
    format!("/agent/v1/{}/{}/{call}", set.deployment(), set.set())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(kind: RefusalKind) -> Vec<u8> {
        serde_json::to_vec(&Refusal::new(kind, "words")).unwrap()
    }

    #[test]
    fn what_time_may_heal_is_tried_again_and_the_rest_is_given_back() {
        for kind in [RefusalKind::Unavailable, RefusalKind::StoreFull, RefusalKind::Internal] {
            assert!(
                matches!(judge(kind.status(), &refusal(kind)), Verdict::Again(_)),
                "{kind:?}"
            );
        }
        for kind in [
            RefusalKind::Unauthorized,
            RefusalKind::NotFound,
            RefusalKind::Invalid,
            RefusalKind::Gap,
            RefusalKind::Stale,
            RefusalKind::Conflict,
        ] {
            assert!(
                matches!(judge(kind.status(), &refusal(kind)), Verdict::Refused(r) if r.kind == kind),
                "{kind:?}"
            );
        }
    }

    #[test]
    fn answers_of_a_proxy_in_between_are_understood_by_their_status() {
        assert!(matches!(judge(502, b"<html>"), Verdict::Again(_)));
        assert!(matches!(judge(429, b""), Verdict::Again(_)));
        assert!(matches!(judge(413, b""), Verdict::Refused(r) if r.kind == RefusalKind::Invalid));
        assert_eq!(judge(204, b""), Verdict::Answered);
    }
}
