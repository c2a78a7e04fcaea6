//! The stores' errors in the words of those who asked: agents and users get refusals, children get faults.

use headwater_protocol::agent::{Refusal, RefusalKind};
use headwater_store::objects::StoreError;
use headwater_store::oplog_store::AppendError;
use headwater_store::sync_store::SliceError;

use crate::worker::Fault;

impl From<StoreError> for Fault {
    fn from(e: StoreError) -> Self {
        let text = e.to_string();
        match e {
            StoreError::Fenced { .. } => Fault::Fenced(text),
            StoreError::Damaged { .. } => Fault::Blocked(text),
            _ => Fault::Retry(text),
        }
    }
}

/// For the agent or the user.
pub fn refusal(e: StoreError) -> Refusal {
    let kind = match &e {
        StoreError::NotFound(_) => RefusalKind::NotFound,
        StoreError::Full(_) => RefusalKind::StoreFull,
        StoreError::Damaged { .. } => RefusalKind::Internal,
        _ => RefusalKind::Unavailable,
    };
    Refusal::new(kind, e.to_string())
}

/// For an agent whose oplog slice was not appended.
pub fn append_refusal(e: AppendError) -> Refusal {
    let message = e.to_string();
    match e {
        AppendError::Gap { tail } => Refusal {
            kind: RefusalKind::Gap,
            message,
            tail: Some(tail),
        },
        AppendError::Stale { .. } => Refusal::new(RefusalKind::Stale, message),
        AppendError::Invalid { .. } => Refusal::new(RefusalKind::Invalid, message),
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
        SliceError::Invalid { .. } => Refusal::new(RefusalKind::Invalid, message),
    }
}
