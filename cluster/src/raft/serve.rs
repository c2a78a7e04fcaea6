//! The answering side: a peer's bytes become calls of our Raft.

use futures::future::{BoxFuture, FutureExt};
use headwater_host::{Host, Serve};

use super::records::VoteRecord;
use super::runtime;
use super::wire::{self, Answer, AppendAnswer, AppendCall, ImageCall, Kind, VoteAnswer, VoteCall};
use super::{Raft, Snapshot};
use crate::codec::{self, CodecError};
use crate::state::State;

/// Answers peers. What cannot be read is answered with nothing, which no peer takes for an answer.
#[derive(Clone)]
pub(crate) struct Server {
    pub raft: Raft,
    pub host: Host,
}

impl Server {
    async fn answer(&self, kind: u8, body: &[u8]) -> Result<Vec<u8>, CodecError> {
        match Kind::from_number(kind) {
            Some(Kind::Append) => wire::pack(Kind::Append, &self.append(wire::unpack(Kind::Append, body)?).await),
            Some(Kind::Vote) => wire::pack(Kind::Vote, &self.vote(wire::unpack(Kind::Vote, body)?).await),
            Some(Kind::Image) => wire::pack(Kind::Image, &self.image(wire::unpack(Kind::Image, body)?).await),
            None => {
                let reason = format!("there is no call of kind {kind}");
                Err(CodecError::Decode {
                    what: "message of a peer",
                    reason,
                })
            }
        }
    }

    async fn append(&self, call: AppendCall) -> Answer<AppendAnswer> {
        self.raft
            .append_entries(call.into())
            .await
            .map(AppendAnswer::from)
            .map_err(|error| error.to_string())
    }

    async fn vote(&self, call: VoteCall) -> Answer<VoteAnswer> {
        self.raft
            .vote(call.into())
            .await
            .map(VoteAnswer::from)
            .map_err(|error| error.to_string())
    }

    async fn image(&self, call: ImageCall) -> Answer<VoteRecord> {
        // Looked at before Raft sees it: inside, an unreadable image would end this process.
        codec::decode::<State>("control state", &call.data).map_err(|error| error.to_string())?;
        let snapshot = Snapshot {
            meta: call.meta.into(),
            snapshot: Box::new(call.data),
        };
        let answer = self.raft.install_full_snapshot(call.vote.into(), snapshot).await;
        answer
            .map(|answer| (&answer.vote).into())
            .map_err(|error| error.to_string())
    }
}

impl Serve for Server {
    fn serve(&self, kind: u8, body: Vec<u8>) -> BoxFuture<'static, Vec<u8>> {
        let server = self.clone();
        let answer = async move {
            server.answer(kind, &body).await.unwrap_or_else(|error| {
                tracing::warn!(%error, kind, "a peer sent something unreadable");
                Vec::new()
            })
        };
        runtime::within(&self.host, answer).boxed()
    }
}
