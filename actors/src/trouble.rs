//! The stores' errors in the words of those who asked: agents and users get refusals, children get faults.

use headwater_protocol::agent::{Refusal, RefusalKind};
use headwater_store::objects::StoreError;
use headwater_store::oplog_store::{AppendError, OplogError};
use headwater_store::sync_store::{SliceError, SyncError};

use crate::worker::Fault;

/// Anything that went wrong at the stores.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Trouble {
    /// The backing store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An oplog.
    #[error(transparent)]
    Oplog(OplogError),
    /// A first copy.
    #[error(transparent)]
    Sync(SyncError),
}

impl From<OplogError> for Trouble {
    fn from(e: OplogError) -> Self {
        match e {
            OplogError::Store(e) => Trouble::Store(e),
            other => Trouble::Oplog(other),
        }
    }
}

impl From<SyncError> for Trouble {
    fn from(e: SyncError) -> Self {
        match e {
            SyncError::Store(e) => Trouble::Store(e),
            other => Trouble::Sync(other),
        }
    }
}

impl From<Trouble> for Fault {
    fn from(trouble: Trouble) -> Self {
        let text = trouble.to_string();
        match trouble {
            Trouble::Store(StoreError::Fenced { .. }) => Fault::Fenced(text),
            Trouble::Store(StoreError::Damaged { .. }) => Fault::Blocked(text),
            Trouble::Store(_) => Fault::Retry(text),
            Trouble::Oplog(_) | Trouble::Sync(_) => Fault::Blocked(text),
        }
    }
}

impl From<StoreError> for Fault {
    fn from(e: StoreError) -> Self {
        Trouble::from(e).into()
    }
}

impl From<OplogError> for Fault {
    fn from(e: OplogError) -> Self {
        Trouble::from(e).into()
    }
}

/// For the agent or the user.
pub fn refusal(trouble: impl Into<Trouble>) -> Refusal {
    let trouble = trouble.into();
    let kind = match &trouble {
        Trouble::Store(StoreError::NotFound(_)) => RefusalKind::NotFound,
        Trouble::Store(StoreError::Full(_)) => RefusalKind::StoreFull,
        Trouble::Store(StoreError::Unavailable { .. } | StoreError::Fenced { .. }) => RefusalKind::Unavailable,
        Trouble::Oplog(OplogError::BegunElsewhere { .. } | OplogError::NotBegun(_)) => RefusalKind::Conflict,
        Trouble::Oplog(OplogError::OutOfRange { .. }) => RefusalKind::NotRestorable,
        Trouble::Sync(SyncError::Invalid(_)) => RefusalKind::Invalid,
        Trouble::Sync(SyncError::Broken(_)) | Trouble::Oplog(_) | Trouble::Store(_) => RefusalKind::Internal,
        Trouble::Sync(_) => RefusalKind::Conflict,
    };
    Refusal::new(kind, trouble.to_string())
}

/// For an agent whose oplog slice was not appended.
pub fn append_refusal(e: AppendError) -> Refusal {
    let message = e.to_string();
    match e {
        AppendError::Gap { tip } => Refusal { kind: RefusalKind::Gap, message, tail: Some(tip) },
        AppendError::Stale { .. } => Refusal::new(RefusalKind::Stale, message),
        AppendError::Invalid(_) => Refusal::new(RefusalKind::Invalid, message),
        AppendError::Store(e) => refusal(e),
    }
}

/// For an agent whose sync slice was not taken.
pub fn slice_refusal(e: SliceError) -> Refusal {
    let message = e.to_string();
    match e {
        SliceError::Store(e) => refusal(e),
        SliceError::OutOfOrder { .. } => {
            Refusal::new(RefusalKind::Conflict, format!("{message}: open the stream again"))
        }
        SliceError::Stale { .. } => Refusal::new(RefusalKind::Stale, message),
        _ => Refusal::new(RefusalKind::Invalid, message),
    }
}
