//! Reading slices in order, several ahead, each verified and linked to the one before.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{FuturesOrdered, StreamExt};
use headwater_model::{Optime, Ts, limits};
use headwater_protocol::slices::{OplogSliceHeader, documents};

use super::index::{Place, SegmentRef};
use super::segment::{self, Part};
use super::{OplogError, OplogStore, keys};
use crate::objects::StoreError;

/// Packed bytes read ahead of the reader, at least one slice.
const AHEAD_BYTES: u64 = 16 * limits::MIB as u64;
const AHEAD_SLICES: usize = 8;
/// Slices may be merged while we read; that happens every few seconds at most.
const ATTEMPTS: usize = 8;

/// One slice, verified and unpacked.
#[derive(Clone, Debug)]
pub struct OplogSlice {
    /// Its header.
    pub header: OplogSliceHeader,
    /// Entries as raw BSON back to back.
    pub payload: Bytes,
    /// Its checksum in hexadecimal.
    pub checksum: String,
    /// Its bytes at rest.
    pub stored_bytes: u64,
}

impl OplogSlice {
    /// The last entry not after `ts`, or the position before the slice.
    pub(super) fn last_up_to(&self, ts: Ts) -> Result<Optime, OplogError> {
        let broken = |detail: String| OplogError::Broken {
            after: self.header.previous,
            detail,
        };
        let mut last = self.header.previous;
        for entry in documents(&self.payload) {
            let entry = entry.map_err(|e| broken(e.to_string()))?;
            let entry = bson::RawDocument::from_bytes(entry).map_err(|e| broken(e.to_string()))?;
            let at: Ts = entry.get_timestamp("ts").map_err(|e| broken(e.to_string()))?.into();
            if at > ts {
                break;
            }
            last = Optime::new(at, entry.get_i64("t").unwrap_or(-1));
        }
        Ok(last)
    }
}

/// What a walk along the whole chain found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The range proven gap-free: entries after the first position up to the second.
    pub range: (Optime, Optime),
    /// Slices in it.
    pub slices: u64,
    /// Entries in it.
    pub entries: u64,
}

/// A slice to read: where it is and what it must say.
#[derive(Clone)]
struct Step {
    previous: Optime,
    last: Optime,
    size: u64,
    within: Option<(String, Part)>,
}

/// Gives slices one by one. After the tip was reached, asking again finds what was appended
/// meanwhile.
pub struct OplogReader {
    store: Arc<OplogStore>,
    /// The end of the last slice given; at first, the position asked for.
    position: Optime,
    checksum: Option<String>,
    planned: VecDeque<Step>,
    ahead: FuturesOrdered<BoxFuture<'static, Result<OplogSlice, OplogError>>>,
    /// Sizes of what is in `ahead`.
    sizes: VecDeque<u64>,
    /// The end of the last slice in `ahead`.
    started: Optime,
}

impl OplogStore {
    /// Reads the slices that hold entries after `after`. The first of them may begin before it: cutting is up to the
    /// caller.
    pub fn read(self: &Arc<Self>, after: Optime) -> Result<OplogReader, OplogError> {
        let (start, tip) = self.range().ok_or_else(|| self.not_begun())?;
        if after < start {
            return Err(OplogError::OutOfRange {
                asked: after,
                start,
                tip,
            });
        }
        Ok(OplogReader {
            store: self.clone(),
            position: after,
            checksum: None,
            planned: VecDeque::new(),
            ahead: FuturesOrdered::new(),
            sizes: VecDeque::new(),
            started: after,
        })
    }

    /// Walks the whole chain and verifies every byte of it. [`OplogError::Broken`] says up to where it is sound.
    pub async fn verify(self: &Arc<Self>) -> Result<Verified, OplogError> {
        let (start, _) = self.range().ok_or_else(|| self.not_begun())?;
        let mut reader = self.read(start)?;
        let anchor = self.read_index(|index| index.manifest.start.clone())?;
        reader.checksum = (anchor.after == start).then_some(anchor.slice);
        let (mut slices, mut entries, mut end) = (0, 0, start);
        while let Some(slice) = reader.next().await? {
            (slices, entries, end) = (slices + 1, entries + u64::from(slice.header.count), slice.header.last);
        }
        Ok(Verified {
            range: (start, end),
            slices,
            entries,
        })
    }

    pub(super) fn segment_key(&self, segment: &SegmentRef) -> String {
        keys::segment(&self.folder, segment.number, segment.previous, segment.end.after)
    }

    /// The index of a segment; the last one is kept.
    pub(super) async fn segment_parts(&self, segment: &SegmentRef) -> Result<Arc<Vec<Part>>, StoreError> {
        let key = self.segment_key(segment);
        let kept = self.segment.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((_, parts)) = kept.filter(|(kept, _)| *kept == key) {
            return Ok(parts);
        }
        let from = segment.size.saturating_sub(segment::end_len(segment.slices));
        let end = self.objects.get_range(&key, from..segment.size).await?;
        let parts = segment::read_end(segment.size, &end).map_err(|e| StoreError::damaged(&key, e))?;
        let parts = Arc::new(parts);
        *self.segment.lock().unwrap_or_else(PoisonError::into_inner) = Some((key, parts.clone()));
        Ok(parts)
    }

    /// What to read for the entries after `after`: one slice, or the rest of a segment.
    async fn plan(&self, after: Optime) -> Result<Vec<Step>, OplogError> {
        match self.read_index(|index| index.locate(after))? {
            None => Ok(Vec::new()),
            Some(Place::Slice { previous, last, size }) => Ok(vec![Step {
                previous,
                last,
                size,
                within: None,
            }]),
            Some(Place::Segment(segment)) => {
                let key = self.segment_key(&segment);
                let parts = self.segment_parts(&segment).await?;
                let rest = parts.iter().filter(|part| part.last > after);
                let step = |part: &Part| Step {
                    previous: part.previous,
                    last: part.last,
                    size: u64::from(part.len),
                    within: Some((key.clone(), *part)),
                };
                Ok(rest.map(step).collect())
            }
        }
    }

    async fn fetch(self: Arc<Self>, step: Step) -> Result<OplogSlice, OplogError> {
        let opened = match &step.within {
            None => self.open_slice(step.previous).await?,
            Some((key, part)) => {
                let bytes = self.objects.get_range(key, part.range()).await?;
                self.verify_slice(key, part.previous, bytes)?
            }
        };
        let broken = |detail: String| OplogError::Broken {
            after: step.previous,
            detail,
        };
        if opened.header.last != step.last {
            return Err(broken(format!(
                "the slice ends at {}, its successor follows {}",
                opened.header.last, step.last
            )));
        }
        Ok(OplogSlice {
            payload: opened.frame.payload().map_err(|e| broken(e.to_string()))?,
            checksum: hex::encode(opened.frame.checksum()),
            stored_bytes: opened.frame.bytes().len() as u64,
            header: opened.header,
        })
    }
}

impl OplogReader {
    /// The end of the last slice given.
    pub fn position(&self) -> Optime {
        self.position
    }

    /// The next slice; `None` at the tip as this process knows it.
    pub async fn next(&mut self) -> Result<Option<OplogSlice>, OplogError> {
        for _ in 0..ATTEMPTS {
            let error = match self.step().await {
                Ok(slice) => return Ok(slice),
                Err(error) => error,
            };
            // Begin anew at the position reached, whatever happens next.
            self.planned.clear();
            self.ahead = FuturesOrdered::new();
            self.sizes.clear();
            self.started = self.position;
            match error {
                OplogError::Store(StoreError::NotFound(key)) => {
                    let known = self.store.read_index(|index| index.manifest.number)?;
                    if self.store.newest_manifest().await? == Some(known) {
                        return Err(self.broken(format!("{key} is missing")));
                    }
                    self.store.refresh().await?;
                }
                OplogError::Store(StoreError::Damaged { key, detail }) => {
                    return Err(self.broken(format!("{key}: {detail}")));
                }
                other => return Err(other),
            }
        }
        Err(StoreError::unavailable(&self.store.folder, "the oplog is being rearranged too often").into())
    }

    fn broken(&self, detail: String) -> OplogError {
        OplogError::Broken {
            after: self.position,
            detail,
        }
    }

    async fn step(&mut self) -> Result<Option<OplogSlice>, OplogError> {
        self.read_ahead().await?;
        let Some(slice) = self.ahead.next().await else {
            return Ok(None);
        };
        self.sizes.pop_front();
        let slice = slice?;
        if self
            .checksum
            .as_ref()
            .is_some_and(|before| *before != slice.header.previous_slice)
        {
            return Err(self.broken("its successor follows another slice".to_owned()));
        }
        self.position = slice.header.last;
        self.checksum = Some(slice.checksum.clone());
        Ok(Some(slice))
    }

    /// Starts reads until enough is on its way.
    async fn read_ahead(&mut self) -> Result<(), OplogError> {
        while self.sizes.len() < AHEAD_SLICES && self.sizes.iter().sum::<u64>() < AHEAD_BYTES {
            if self.planned.is_empty() {
                self.planned.extend(self.store.plan(self.started).await?);
            }
            let Some(step) = self.planned.pop_front() else { break };
            self.started = step.last;
            self.sizes.push_back(step.size);
            self.ahead.push_back(self.store.clone().fetch(step).boxed());
        }
        Ok(())
    }
}
