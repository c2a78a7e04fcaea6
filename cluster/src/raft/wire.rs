//! What nodes say to one another: our shapes of Raft's calls, framed like records at rest.

use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, VoteRequest, VoteResponse};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::records::{EntryRecord, LogIdRecord, MetaRecord, VoteRecord};
use super::{Entry, LogId, TypeConfig};
use crate::codec::{self, CodecError};
use crate::command::Response;

/// The number under which a call travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Append = 1,
    Vote = 2,
    Image = 3,
    Submit = 4,
    Elect = 5,
}

impl Kind {
    pub(crate) fn from_number(number: u8) -> Option<Kind> {
        [Kind::Append, Kind::Vote, Kind::Image, Kind::Submit, Kind::Elect]
            .into_iter()
            .find(|kind| *kind as u8 == number)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AppendCall {
    pub vote: VoteRecord,
    pub previous: Option<LogIdRecord>,
    pub entries: Vec<EntryRecord>,
    pub committed: Option<LogIdRecord>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum AppendAnswer {
    Success,
    Partial(Option<LogIdRecord>),
    Conflict,
    HigherVote(VoteRecord),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VoteCall {
    pub vote: VoteRecord,
    pub last: Option<LogIdRecord>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VoteAnswer {
    pub vote: VoteRecord,
    pub granted: bool,
    pub last: Option<LogIdRecord>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ImageCall {
    pub vote: VoteRecord,
    pub meta: MetaRecord,
    pub data: Vec<u8>,
}

/// What became of a command that was sent on to the leader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum SubmitAnswer {
    /// It is in this entry, and this is its answer.
    Done(Response, u64),
    /// Nothing was done.
    NotLeader(Option<u64>),
    /// It may have been carried out or not.
    Unknown,
}

/// An answer, or why the peer's Raft gives none.
pub(crate) type Answer<T> = Result<T, String>;

pub(crate) fn pack<T: Serialize>(kind: Kind, message: &T) -> Result<Vec<u8>, CodecError> {
    Ok(codec::frame(
        &[kind as u8],
        &codec::encode("message of a peer", message)?,
    ))
}

pub(crate) fn unpack<T: DeserializeOwned>(kind: Kind, bytes: &[u8]) -> Result<T, CodecError> {
    const WHAT: &str = "message of a peer";
    codec::decode(WHAT, codec::unframe(WHAT, &[kind as u8], bytes)?)
}

impl From<&AppendEntriesRequest<TypeConfig>> for AppendCall {
    fn from(call: &AppendEntriesRequest<TypeConfig>) -> Self {
        AppendCall {
            vote: (&call.vote).into(),
            previous: call.prev_log_id.map(LogIdRecord::from),
            entries: call.entries.iter().map(EntryRecord::from).collect(),
            committed: call.leader_commit.map(LogIdRecord::from),
        }
    }
}

impl From<AppendCall> for AppendEntriesRequest<TypeConfig> {
    fn from(call: AppendCall) -> Self {
        AppendEntriesRequest {
            vote: call.vote.into(),
            prev_log_id: call.previous.map(LogId::from),
            entries: call.entries.into_iter().map(Entry::from).collect(),
            leader_commit: call.committed.map(LogId::from),
        }
    }
}

impl From<AppendEntriesResponse<u64>> for AppendAnswer {
    fn from(answer: AppendEntriesResponse<u64>) -> Self {
        match answer {
            AppendEntriesResponse::Success => AppendAnswer::Success,
            AppendEntriesResponse::PartialSuccess(id) => AppendAnswer::Partial(id.map(LogIdRecord::from)),
            AppendEntriesResponse::Conflict => AppendAnswer::Conflict,
            AppendEntriesResponse::HigherVote(vote) => AppendAnswer::HigherVote((&vote).into()),
        }
    }
}

impl From<AppendAnswer> for AppendEntriesResponse<u64> {
    fn from(answer: AppendAnswer) -> Self {
        match answer {
            AppendAnswer::Success => AppendEntriesResponse::Success,
            AppendAnswer::Partial(id) => AppendEntriesResponse::PartialSuccess(id.map(LogId::from)),
            AppendAnswer::Conflict => AppendEntriesResponse::Conflict,
            AppendAnswer::HigherVote(vote) => AppendEntriesResponse::HigherVote(vote.into()),
        }
    }
}

impl From<&VoteRequest<u64>> for VoteCall {
    fn from(call: &VoteRequest<u64>) -> Self {
        VoteCall {
            vote: (&call.vote).into(),
            last: call.last_log_id.map(LogIdRecord::from),
        }
    }
}

impl From<VoteCall> for VoteRequest<u64> {
    fn from(call: VoteCall) -> Self {
        VoteRequest {
            vote: call.vote.into(),
            last_log_id: call.last.map(LogId::from),
        }
    }
}

impl From<VoteResponse<u64>> for VoteAnswer {
    fn from(answer: VoteResponse<u64>) -> Self {
        let last = answer.last_log_id.map(LogIdRecord::from);
        VoteAnswer {
            vote: (&answer.vote).into(),
            granted: answer.vote_granted,
            last,
        }
    }
}

impl From<VoteAnswer> for VoteResponse<u64> {
    fn from(answer: VoteAnswer) -> Self {
        let last_log_id = answer.last.map(LogId::from);
        VoteResponse {
            vote: answer.vote.into(),
            vote_granted: answer.granted,
            last_log_id,
        }
    }
}
