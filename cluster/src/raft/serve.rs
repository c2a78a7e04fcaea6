//! The answering side: a peer's bytes become calls of our Raft.

use futures::future::{BoxFuture, FutureExt};
use headwater_host::{Host, Serve};
use headwater_model::limits;
use tokio::sync::{mpsc, oneshot};

use super::node::{Mail, Written};
use super::records::VoteRecord;
use super::runtime;
use super::wire::{self, Answer, AppendAnswer, AppendCall, ImageCall, Kind, SubmitAnswer, VoteAnswer, VoteCall};
use super::{Raft, Snapshot};
use crate::codec::{self, CodecError};
use crate::command::Command;
use crate::control::ControlError;
use crate::state::State;

/// Answers peers. What cannot be read is answered with nothing, which no peer takes for an answer.
#[derive(Clone)]
pub(crate) struct Server {
    pub raft: Raft,
    pub host: Host,
    pub mailbox: mpsc::WeakSender<Mail>,
}

impl Server {
    async fn answer(&self, kind: u8, body: &[u8]) -> Result<Vec<u8>, CodecError> {
        match Kind::from_number(kind) {
            Some(Kind::Append) => wire::pack(Kind::Append, &self.append(wire::unpack(Kind::Append, body)?).await),
            Some(Kind::Vote) => wire::pack(Kind::Vote, &self.vote(wire::unpack(Kind::Vote, body)?).await),
            Some(Kind::Image) => wire::pack(Kind::Image, &self.image(wire::unpack(Kind::Image, body)?).await),
            Some(Kind::Submit) => wire::pack(Kind::Submit, &self.submit(wire::unpack(Kind::Submit, body)?).await),
            Some(Kind::Elect) => {
                let () = wire::unpack(Kind::Elect, body)?;
                let elected: Answer<()> = self.raft.trigger().elect().await.map_err(|error| error.to_string());
                wire::pack(Kind::Elect, &elected)
            }
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

    async fn submit(&self, command: Command) -> Answer<SubmitAnswer> {
        Ok(match submit(self.mailbox.upgrade().as_ref(), command).await {
            Ok((response, index)) => SubmitAnswer::Done(response, index),
            Err(ControlError::NotLeader { leader }) => SubmitAnswer::NotLeader(leader.map(|id| id.0)),
            Err(ControlError::Unknown) => SubmitAnswer::Unknown,
            Err(other) => return Err(other.to_string()),
        })
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

/// Puts a command into the mailbox and waits for what becomes of it.
pub(crate) async fn submit(mailbox: Option<&mpsc::Sender<Mail>>, command: Command) -> Result<Written, ControlError> {
    let max = limits::COMMAND_MAX_BYTES;
    let bytes = codec::encode("command", &command).map_or(usize::MAX, |encoded| encoded.len());
    if bytes > max {
        return Err(ControlError::TooLarge { bytes, max });
    }
    let mailbox = mailbox.ok_or(ControlError::Stopped)?;
    let (answer, answered) = oneshot::channel();
    let mail = Mail::Submit { command, bytes, answer };
    mailbox.send(mail).await.map_err(|_| ControlError::Stopped)?;
    answered.await.unwrap_or(Err(ControlError::Unknown))
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
