//! Taking in one sync slice.

use headwater_protocol::frame::Frame;
use headwater_protocol::slices::SyncSliceHeader;

use super::{Part, SyncStore};
use crate::objects::{Put, StoreError};

/// Parts one collection may be scanned in.
const PARTS_MAX: u32 = 4096;

/// Why a sync slice was not taken.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SliceError {
    /// Another slice of the part is called for.
    #[error("the slice is out of order: send number {next} of the part")]
    OutOfOrder {
        /// The number that is called for.
        next: u32,
    },
    /// It names another incarnation, or the sync of this one is over.
    #[error("the slice is of incarnation {found}, which is over; open the stream again")]
    Stale {
        /// What the slice says.
        found: u64,
    },
    /// Nothing was begun, or the scan has ended.
    #[error("the sync takes no slices now: {0}")]
    NotTaking(&'static str),
    /// It cannot be a slice of this sync; sending it again does not help.
    #[error("the slice is invalid: {0}")]
    Invalid(String),
    /// The backing store. The slice may or may not be durable; sending it again settles it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl SyncStore {
    /// Stores a slice, or finds that it was stored before. Decides by the frame's header; the documents themselves are
    /// for the caller to have validated.
    pub async fn put(&self, frame: Frame) -> Result<(), SliceError> {
        let header = self.check(&frame)?;
        let place = (header.collection, header.part);
        let (next, done) = match self.state().parts.get(&place) {
            Some(part) => (part.sizes.len() as u32, part.done),
            None => (0, false),
        };
        let key = self.slice_key(header.collection, header.part, header.number);
        if header.number > next || (header.number == next && done) {
            return Err(SliceError::OutOfOrder { next });
        }
        if header.number == next {
            if self.state().ended.is_some() {
                return Err(SliceError::NotTaking("the scan has ended"));
            }
            if self.objects.put_new(&key, frame.bytes().clone()).await? == Put::Created {
                self.advance(&header, frame.bytes().len() as u64);
                return Ok(());
            }
        }
        let (found, found_header) = self.verify_slice(&key, self.objects.get(&key).await?)?;
        self.advance(&found_header, found.bytes().len() as u64);
        if found.checksum() == frame.checksum() {
            Ok(())
        } else {
            Err(SliceError::OutOfOrder {
                next: next.max(header.number + 1),
            })
        }
    }

    fn check(&self, frame: &Frame) -> Result<SyncSliceHeader, SliceError> {
        let header: SyncSliceHeader = frame.header().map_err(|e| SliceError::Invalid(e.to_string()))?;
        if header.replica_set != self.replica_set {
            let detail = format!("it is of {}, not of {}", header.replica_set, self.replica_set);
            return Err(SliceError::Invalid(detail));
        }
        let state = self.state();
        if header.incarnation != self.incarnation || state.removed {
            return Err(SliceError::Stale {
                found: header.incarnation.0,
            });
        }
        let Some(begun) = &state.begun else {
            return Err(SliceError::NotTaking("send sync/begin first"));
        };
        if !begun
            .collections
            .iter()
            .any(|collection| collection.uuid == header.collection)
        {
            return Err(SliceError::Invalid(format!(
                "the sync knows no collection {}",
                header.collection
            )));
        }
        if header.part >= PARTS_MAX || header.number == u32::MAX || (header.count == 0 && !header.last) {
            let (part, number, count) = (header.part, header.number, header.count);
            return Err(SliceError::Invalid(format!(
                "part {part}, number {number}, {count} documents"
            )));
        }
        Ok(header)
    }

    /// The slice is durable. Harmless if that was known.
    fn advance(&self, header: &SyncSliceHeader, size: u64) {
        let mut state = self.state();
        if state.removed {
            return;
        }
        let part = state
            .parts
            .entry((header.collection, header.part))
            .or_insert_with(|| Part {
                sizes: Vec::new(),
                resume: bson::Document::new(),
                done: false,
            });
        if header.number as usize == part.sizes.len() {
            part.sizes.push(size);
            part.resume = header.resume.clone();
            part.done = header.last;
        }
    }
}
