//! Appending a slice.

use headwater_protocol::agent::TailOrder;
use headwater_protocol::frame::Frame;
use headwater_protocol::slices::OplogSliceHeader;

use super::index::{Anchor, Place};
use super::{OplogStore, keys};
use crate::objects::{Put, StoreError};

/// Why a slice was not appended.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AppendError {
    /// It does not follow the tip.
    #[error("the slice does not follow the last one stored: go on after {}", tail.after)]
    Gap {
        /// Where to go on.
        tail: TailOrder,
    },
    /// It names another incarnation.
    #[error("the slice is stale: {detail}")]
    Stale {
        /// Which, and what to do.
        detail: String,
    },
    /// It cannot be a slice of this oplog; sending it again does not help.
    #[error("the slice is invalid: {detail}")]
    Invalid {
        /// What does not fit.
        detail: String,
    },
    /// The oplog cannot be extended or looked at. Unless it says otherwise, send the slice again later.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// How a slice relates to the chain as it is known.
enum Relation {
    Follows,
    /// Its place is taken: the place, to look whether by itself.
    Earlier(Option<Place>),
    Elsewhere,
}

impl OplogStore {
    /// Appends a slice, or finds that it was appended before; answers the end of the chain, up to which all is durable:
    /// this slice, or a later one if this was sent again. Decides by the frame's header; the entries themselves are
    /// for the caller to have validated.
    ///
    /// After an error of the store the slice may or may not be durable; sending it again settles it.
    pub async fn append(&self, frame: Frame) -> Result<TailOrder, AppendError> {
        let header = self.check(&frame)?;
        let key = keys::slice(&self.folder, header.previous);
        let mut refreshed = false;
        let _one_at_a_time = self.appending.lock().await;
        loop {
            let (relation, tip) = self.relate(&header)?;
            match relation {
                Relation::Follows => {
                    if let Some(appended) = self.extend(&key, &header, &frame, &tip).await? {
                        return Ok(appended);
                    }
                    continue;
                }
                Relation::Earlier(place) => {
                    if self.is_stored(&header, &frame, place).await? {
                        return Ok(tip.order());
                    }
                }
                Relation::Elsewhere => {}
            }
            if refreshed {
                return Err(AppendError::Gap { tail: tip.order() });
            }
            // Another process may have stored more than we know of: the agent shall be told the true tip.
            self.refresh().await?;
            refreshed = true;
        }
    }

    /// Writes the slice at the tip. `None`: somebody else changed the oplog, and the slice must be judged again.
    async fn extend(
        &self,
        key: &str,
        header: &OplogSliceHeader,
        frame: &Frame,
        tip: &Anchor,
    ) -> Result<Option<TailOrder>, StoreError> {
        let put = self.objects.put_new(key, frame.bytes().clone()).await?;
        let known = self.read_index(|index| index.manifest.number)?;
        let Some(newest) = self.newest_manifest().await? else {
            // It was removed behind our back: the history ended, and nothing can follow it.
            *self.index() = None;
            return Err(self.not_begun());
        };
        if newest > known {
            // The name may have been free only because its slice was merged away. Look again before anything is
            // acknowledged; if so, what we wrote lies before the floor and never counts.
            self.refresh().await?;
        } else if put == Put::Created {
            let tip = Anchor {
                after: header.last,
                slice: hex::encode(frame.checksum()),
            };
            return self.advance(frame.bytes().len() as u64, tip).map(Some);
        } else {
            self.adopt(tip).await?;
        }
        Ok(None)
    }

    fn check(&self, frame: &Frame) -> Result<OplogSliceHeader, AppendError> {
        let invalid = |detail: String| AppendError::Invalid { detail };
        let header: OplogSliceHeader = frame.header().map_err(|e| invalid(e.to_string()))?;
        if header.replica_set != self.replica_set {
            return Err(invalid(format!(
                "it is of {}, not of {}",
                header.replica_set, self.replica_set
            )));
        }
        if header.incarnation != self.incarnation {
            let (found, current) = (header.incarnation, self.incarnation);
            let detail = format!("it is of incarnation {found}, the current one is {current}; open the stream again");
            return Err(AppendError::Stale { detail });
        }
        let ordered = header.previous.ts < header.first.ts
            && if header.count == 1 {
                header.first == header.last
            } else {
                header.first.ts < header.last.ts
            };
        if header.count == 0 || !ordered {
            let (count, previous) = (header.count, header.previous);
            return Err(invalid(format!(
                "{count} entries from {} to {} cannot follow {previous}",
                header.first, header.last
            )));
        }
        Ok(header)
    }

    fn relate(&self, header: &OplogSliceHeader) -> Result<(Relation, Anchor), StoreError> {
        self.read_index(|index| {
            let relation = if header.previous == index.tip.after && header.previous_slice == index.tip.slice {
                Relation::Follows
            } else if header.previous < index.tip.after {
                let kept = header.previous >= index.manifest.start.after;
                Relation::Earlier(if kept { index.locate(header.previous) } else { None })
            } else {
                Relation::Elsewhere
            };
            (relation, index.tip.clone())
        })
    }

    fn advance(&self, size: u64, tip: Anchor) -> Result<TailOrder, StoreError> {
        let mut index = self.index();
        let index = index.as_mut().ok_or_else(|| self.not_begun())?;
        // A refresh by a reader may have found the slice before us.
        if index.tip.after < tip.after {
            index.extend(size, tip);
        }
        Ok(index.tip.order())
    }

    /// Looks whether another process has stored the slice after the tip, and takes it in; whether it had.
    pub async fn look_ahead(&self) -> Result<bool, StoreError> {
        let _one_at_a_time = self.appending.lock().await;
        let tip = self.read_index(|index| index.tip.clone())?;
        match self.adopt(&tip).await {
            Ok(()) => Ok(true),
            Err(StoreError::NotFound(_)) => Ok(false),
            Err(other) => Err(other),
        }
    }

    /// The name after the tip is taken, by another process or by an earlier attempt that failed only in its answer.
    async fn adopt(&self, tip: &Anchor) -> Result<(), StoreError> {
        let found = self.open_slice(tip.after).await?;
        if found.header.previous_slice != tip.slice {
            return Err(self.broken(tip.after, "its successor follows another slice"));
        }
        self.advance(found.frame.bytes().len() as u64, found.anchor())?;
        Ok(())
    }

    /// Whether this very slice is what is stored in its place.
    async fn is_stored(
        &self,
        header: &OplogSliceHeader,
        frame: &Frame,
        place: Option<Place>,
    ) -> Result<bool, StoreError> {
        let stored = match place {
            None => return Ok(false),
            Some(Place::Slice { previous, size, .. }) if previous == header.previous => {
                self.stored_checksum(&keys::slice(&self.folder, previous), size).await
            }
            Some(Place::Slice { .. }) => return Ok(false),
            Some(Place::Segment(segment)) => {
                let parts = self.segment_parts(&segment).await?;
                match parts.iter().find(|part| part.previous == header.previous) {
                    Some(part) => {
                        self.stored_checksum(&self.segment_key(&segment), part.range().end)
                            .await
                    }
                    None => return Ok(false),
                }
            }
        };
        match stored {
            Ok(checksum) => Ok(checksum == hex::encode(frame.checksum())),
            // Merged away this instant: an agent told the tip goes on just as well.
            Err(StoreError::NotFound(_)) => Ok(false),
            Err(other) => Err(other),
        }
    }
}
