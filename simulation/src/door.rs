//! The way of an agent's POST to [`Backup`], as the service's routes have it; and the agent's own way onto the network.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use headwater_actors::Backup;
use headwater_agent::shipping::{Call, Post};
use headwater_model::{KeyRole, ReplicaSetId};
use headwater_protocol::agent::{OplogAck, Refusal, RefusalKind};
use headwater_protocol::frame::{Frame, FrameKind};
use headwater_protocol::slices::OplogSliceHeader;
use serde::de::DeserializeOwned;

use crate::network::{Answer, Peer, Request, Socket};
use crate::oracle::Oracle;
use crate::planted::{self, Bug};
use crate::process::Life;
use crate::trace;
use crate::user::json;

/// The key of every agent.
pub const AGENT_KEY: &str = "hw_a9_key-of-every-agent";

/// What a daemon does with an agent's POST. The oracle hears of every promise before it leaves.
pub async fn agent_post(backup: &Backup, oracle: &Oracle, life: &Life, path: &str, key: &str, body: Bytes) -> Answer {
    if backup.bearer(key).is_none_or(|bearer| bearer.role != KeyRole::Agent) {
        return json::<()>(Err(Refusal::new(RefusalKind::Unauthorized, "this key is not known")));
    }
    let parts: Vec<&str> = path.trim_start_matches("/agent/v1/").splitn(3, '/').collect();
    let (set, call) = match parts[..] {
        ["orders"] => return with(&body, async |request| backup.orders(request).await).await,
        [deployment, set, call] => match format!("{deployment}/{set}").parse::<ReplicaSetId>() {
            Ok(set) => (set, call),
            Err(e) => return json::<()>(Err(Refusal::new(RefusalKind::Invalid, e.to_string()))),
        },
        _ => return json::<()>(Err(Refusal::new(RefusalKind::NotFound, "no such place"))),
    };
    match call {
        "open" => with(&body, async |request| backup.open(&set, request).await).await,
        "poll" => with(&body, async |request| backup.poll(&set, request).await).await,
        "sync/end" => with(&body, async |end| backup.sync_end(&set, end).await).await,
        "sync/begin" => json(backup.sync_begin(&set, body).await),
        "documents" => json(backup.documents(&set, body).await),
        "sync/slice" => {
            if planted::is(Bug::SyncSliceDropped) {
                if life.is_alive() {
                    oracle.sync_slice_acknowledged(&body);
                }
                return (200, Bytes::from_static(b"{}"));
            }
            let answer = backup.sync_slice(&set, body.clone()).await;
            if answer.is_ok() && life.is_alive() {
                oracle.sync_slice_acknowledged(&body);
            }
            json(answer)
        }
        "oplog" => oplog(backup, oracle, life, &set, body).await,
        _ => json::<()>(Err(Refusal::new(RefusalKind::NotFound, "no such place"))),
    }
}

async fn oplog(backup: &Backup, oracle: &Oracle, life: &Life, set: &ReplicaSetId, body: Bytes) -> Answer {
    let early = planted::strikes(Bug::AckBeforeStored, 6);
    let answer = if early || planted::strikes(Bug::SliceDropped, 9) {
        let ack = promise(&body);
        if early {
            let (backup, set, body) = (backup.clone(), set.clone(), body.clone());
            tokio::task::spawn_local(async move {
                tokio::time::sleep(Duration::from_millis(50)).await;
                backup.oplog(&set, body).await
            });
        }
        ack
    } else {
        backup.oplog(set, body.clone()).await
    };
    // A process that was killed while it answered has promised nothing.
    if let Ok(ack) = &answer
        && life.is_alive()
    {
        oracle.oplog_slice_acknowledged(&body, ack);
    }
    json(answer)
}

/// The answer of a daemon that stored the slice.
fn promise(body: &Bytes) -> Result<OplogAck, Refusal> {
    let invalid = |e: String| Refusal::new(RefusalKind::Invalid, e);
    let frame = Frame::open(FrameKind::OplogSlice, body.clone()).map_err(|e| invalid(e.to_string()))?;
    let header: OplogSliceHeader = frame.header().map_err(|e| invalid(e.to_string()))?;
    Ok(OplogAck {
        tip: header.last,
        tip_slice: hex::encode(frame.checksum()),
    })
}

async fn with<B: DeserializeOwned, A: serde::Serialize>(
    body: &[u8],
    call: impl AsyncFnOnce(B) -> Result<A, Refusal>,
) -> Answer {
    match serde_json::from_slice(body) {
        Ok(request) => json(call(request).await),
        Err(e) => json::<()>(Err(Refusal::new(RefusalKind::Invalid, e.to_string()))),
    }
}

/// An agent's POSTs over the simulated network.
pub struct AgentDoor {
    /// Who sends.
    pub from: Peer,
    /// The network.
    pub socket: Socket,
    /// Daemons by the host of their URLs.
    pub daemons: Vec<Peer>,
    /// How long an answer may take.
    pub patience: Duration,
    /// The agent's process.
    pub life: Life,
}

#[async_trait]
impl Post for AgentDoor {
    async fn post(&self, call: Call) -> Result<(u16, Bytes), String> {
        if !self.life.is_alive() {
            return std::future::pending().await;
        }
        let rest = call.url.trim_start_matches("http://");
        let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let to = self.daemons.iter().find(|daemon| **daemon == host).copied();
        let to = to.ok_or_else(|| format!("no such host: {host}"))?;
        let request = Request::Agent {
            path: path.to_owned(),
            key: call.key.to_string(),
            body: call.body,
        };
        match tokio::time::timeout(self.patience, self.socket.ask(self.from, to, request)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(silence)) => Err(format!("{silence:?}")),
            Err(_) => {
                trace::mark("agent: request timed out");
                Err("no answer in time".to_owned())
            }
        }
    }
}
