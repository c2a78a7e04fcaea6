//! Raft's calls to its peers, over the host's [`Transport`].

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use headwater_host::{Transport, TransportError};
use openraft::error::{Fatal, NetworkError, RPCError, RaftError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse};
use openraft::{BasicNode, OptionalSend};
use serde::{Serialize, de::DeserializeOwned};

use super::records::VoteRecord;
use super::wire::{self, Answer, AppendAnswer, AppendCall, ImageCall, Kind, VoteAnswer, VoteCall};
use super::{Snapshot, TypeConfig, Vote};
use crate::codec::CodecError;

/// How long a peer that cannot be reached is left alone.
const BACKOFF: Duration = Duration::from_millis(250);

/// The transport of a node that has no peers.
pub(crate) struct NoPeers;

impl Transport for NoPeers {
    fn call(&self, peer: u64, _: u8, _: Vec<u8>) -> BoxFuture<'static, Result<Vec<u8>, TransportError>> {
        async move { Err(TransportError::UnknownPeer(peer)) }.boxed()
    }
}

/// Makes a [`Peer`] for every member.
pub(crate) struct Network(pub Arc<dyn Transport>);

/// One member, as called from here.
pub(crate) struct Peer {
    transport: Arc<dyn Transport>,
    id: u64,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    #[error(transparent)]
    Transport(#[from] TransportError),
    #[error(transparent)]
    Codec(#[from] CodecError),
    #[error("peer {0} did not answer in time")]
    Late(u64),
    #[error("peer {peer} refused: {reason}")]
    Refused { peer: u64, reason: String },
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Peer;

    async fn new_client(&mut self, id: u64, _: &BasicNode) -> Peer {
        Peer {
            transport: self.0.clone(),
            id,
        }
    }
}

impl Peer {
    pub(crate) fn new(transport: Arc<dyn Transport>, id: u64) -> Self {
        Peer { transport, id }
    }

    /// One call and its answer.
    pub(crate) async fn call<A: DeserializeOwned>(
        &self,
        kind: Kind,
        call: &impl Serialize,
        patience: Duration,
    ) -> Result<A, CallError> {
        let answer = self.transport.call(self.id, kind as u8, wire::pack(kind, call)?);
        let answer = tokio::time::timeout(patience, answer)
            .await
            .map_err(|_| CallError::Late(self.id))??;
        let answer: Answer<A> = wire::unpack(kind, &answer)?;
        answer.map_err(|reason| CallError::Refused { peer: self.id, reason })
    }
}

impl<E: std::error::Error> From<CallError> for RPCError<u64, BasicNode, RaftError<u64, E>> {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Transport(_) => RPCError::Unreachable(Unreachable::new(&error)),
            _ => RPCError::Network(NetworkError::new(&error)),
        }
    }
}

impl From<CallError> for StreamingError<TypeConfig, Fatal<u64>> {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Transport(_) => StreamingError::Unreachable(Unreachable::new(&error)),
            _ => StreamingError::Network(NetworkError::new(&error)),
        }
    }
}

impl RaftNetwork<TypeConfig> for Peer {
    async fn append_entries(
        &mut self,
        call: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, RPCError<u64, BasicNode, RaftError<u64>>> {
        let answer: AppendAnswer = self
            .call(Kind::Append, &AppendCall::from(&call), option.hard_ttl())
            .await?;
        Ok(answer.into())
    }

    async fn vote(
        &mut self,
        call: VoteRequest<u64>,
        option: RPCOption,
    ) -> Result<VoteResponse<u64>, RPCError<u64, BasicNode, RaftError<u64>>> {
        let answer: VoteAnswer = self.call(Kind::Vote, &VoteCall::from(&call), option.hard_ttl()).await?;
        Ok(answer.into())
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<u64>, StreamingError<TypeConfig, Fatal<u64>>> {
        let meta = (&snapshot.meta).into();
        let call = ImageCall {
            vote: (&vote).into(),
            meta,
            data: *snapshot.snapshot,
        };
        let answer: VoteRecord = tokio::select! {
            biased;
            closed = cancel => return Err(StreamingError::Closed(closed)),
            answer = self.call(Kind::Image, &call, option.hard_ttl()) => answer?,
        };
        Ok(SnapshotResponse::new(answer.into()))
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(BACKOFF))
    }
}
