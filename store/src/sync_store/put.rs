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
    /// It does not fit what the sync is: the agent should open the stream again.
    #[error("the slice is stale: {detail}")]
    Stale {
        /// Why, and what to do.
        detail: String,
    },
    /// It cannot be a slice of this sync; sending it again does not help.
    #[error("the slice is invalid: {detail}")]
    Invalid {
        /// What does not fit.
        detail: String,
    },
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
        let known = self.state().parts.contains_key(&(header.collection, 0));
        if !known && place.1 > 0 {
            // A former owner may have taken it in after this process looked.
            self.look_again().await?;
        }
        self.refuse_another_plan(&header)?;
        if header.number == next {
            if self.state().ended.is_some() {
                let detail = "the scan has ended; open the stream again".to_owned();
                return Err(SliceError::Stale { detail });
            }
            if self.objects.put_new(&key, frame.bytes().clone()).await? == Put::Created {
                self.advance(&header, frame.bytes().len() as u64);
                return Ok(());
            }
        }
        let (found, found_header) = self.verify_slice(&key, self.objects.get(&key).await?)?;
        self.advance(&found_header, found.bytes().len() as u64);
        self.refuse_another_plan(&header)?;
        if found.checksum() == frame.checksum() {
            Ok(())
        } else {
            Err(SliceError::OutOfOrder {
                next: next.max(header.number + 1),
            })
        }
    }

    fn check(&self, frame: &Frame) -> Result<SyncSliceHeader, SliceError> {
        let invalid = |detail: String| SliceError::Invalid { detail };
        let header: SyncSliceHeader = frame.header().map_err(|e| invalid(e.to_string()))?;
        if header.replica_set != self.replica_set {
            return Err(invalid(format!(
                "it is of {}, not of {}",
                header.replica_set, self.replica_set
            )));
        }
        if header.incarnation != self.incarnation {
            return Err(self.stale(header.incarnation));
        }
        self.refuse_if_removed()?;
        let state = self.state();
        let Some(begun) = &state.begun else {
            return Err(SliceError::Stale {
                detail: "the sync was not begun; open the stream again".to_owned(),
            });
        };
        if !begun
            .collections
            .iter()
            .any(|collection| collection.uuid == header.collection)
        {
            return Err(invalid(format!("the sync knows no collection {}", header.collection)));
        }
        if header.part >= PARTS_MAX || header.number == u32::MAX || (header.count == 0 && !header.last) {
            let (part, number, count) = (header.part, header.number, header.count);
            return Err(invalid(format!("part {part}, number {number}, {count} documents")));
        }
        Ok(header)
    }

    /// What the collection's first slice settled holds for all; only that one itself may come before.
    fn refuse_another_plan(&self, header: &SyncSliceHeader) -> Result<(), SliceError> {
        let state = self.state();
        let detail = match state.parts.get(&(header.collection, 0)) {
            Some(first) if first.plan == header.plan => return Ok(()),
            None if (header.part, header.number) == (0, 0) => return Ok(()),
            Some(_) => "another plan of the parts of this collection was settled before",
            None => "the first slice of the first part has to come before",
        };
        Err(SliceError::Stale {
            detail: format!("{detail}; open the stream again and go on from what it says"),
        })
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
                plan: header.plan.clone(),
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
