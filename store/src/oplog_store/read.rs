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
use super::{OplogStore, keys};
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
    pub(super) fn last_up_to(&self, ts: Ts) -> Result<Optime, StoreError> {
        let key = format!("slice after {}", self.header.previous);
        let broken = |detail: String| StoreError::damaged(&key, detail);
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The range proven gap-free: entries after the first position up to the second.
    pub range: (Optime, Optime),
    /// Slices in it.
    pub slices: u64,
    /// Entries in it.
    pub entries: u64,
    /// Why it ends before the tip, if it does.
    pub broken: Option<String>,
}

/// A slice to read: where it is and what it must say.
#[derive(Clone)]
pub(super) struct Step {
    previous: Optime,
    pub(super) last: Optime,
    size: u64,
    within: Option<(String, Part)>,
}

impl Step {
    /// The object that holds it.
    pub(super) fn key(&self, folder: &str) -> String {
        match &self.within {
            Some((segment, _)) => segment.clone(),
            None => keys::slice(folder, self.previous),
        }
    }
}

/// Gives slices one by one. After the tip was reached, asking again finds what was appended
/// meanwhile.
pub struct OplogReader {
    store: Arc<OplogStore>,
    /// The end of the last slice given; at first, the position asked for.
    position: Optime,
    checksum: Option<String>,
    planned: VecDeque<Step>,
    ahead: FuturesOrdered<BoxFuture<'static, Result<OplogSlice, StoreError>>>,
    /// Sizes of what is in `ahead`.
    sizes: VecDeque<u64>,
    /// The end of the last slice in `ahead`.
    started: Optime,
}

impl OplogStore {
    /// Reads the slices that hold entries after `after`, as far as they are stored: a position before the start of the
    /// oplog is refused at the first call of [`OplogReader::next`]. The first of them may begin before it: cutting is up to the
    /// caller.
    pub fn read(self: &Arc<Self>, after: Optime) -> OplogReader {
        OplogReader {
            store: self.clone(),
            position: after,
            checksum: None,
            planned: VecDeque::new(),
            ahead: FuturesOrdered::new(),
            sizes: VecDeque::new(),
            started: after,
        }
    }

    /// Walks the whole chain and verifies every byte of it. Damage is no error here but part of the answer.
    pub async fn verify(self: &Arc<Self>) -> Result<Verified, StoreError> {
        let anchor = self.read_index(|index| index.manifest.start.clone())?;
        let mut reader = self.read(anchor.after);
        reader.checksum = Some(anchor.slice);
        let mut found = Verified {
            range: (anchor.after, anchor.after),
            slices: 0,
            entries: 0,
            broken: None,
        };
        loop {
            match reader.next().await {
                Ok(None) => return Ok(found),
                Ok(Some(slice)) => {
                    found.slices += 1;
                    found.entries += u64::from(slice.header.count);
                    found.range.1 = slice.header.last;
                }
                Err(StoreError::Damaged { detail, .. }) => {
                    found.broken = Some(detail);
                    return Ok(found);
                }
                Err(other) => return Err(other),
            }
        }
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
    pub(super) async fn plan(&self, after: Optime) -> Result<Vec<Step>, StoreError> {
        let (start, tip, place) =
            self.read_index(|index| (index.manifest.start.after, index.tip.after, index.locate(after)))?;
        if after < start {
            let detail = format!("{after} is not stored any more: choose a position from {start} to {tip}");
            return Err(StoreError::refused(&self.folder, detail));
        }
        match place {
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

    pub(super) async fn fetch(self: Arc<Self>, step: Step) -> Result<OplogSlice, StoreError> {
        let opened = match &step.within {
            None => self.open_slice(step.previous).await?,
            Some((key, part)) => {
                let bytes = self.objects.get_range(key, part.range()).await?;
                self.verify_slice(key, part.previous, bytes)?
            }
        };
        if opened.header.last != step.last {
            let (last, due) = (opened.header.last, step.last);
            return Err(self.broken(
                step.previous,
                format!("the slice ends at {last}, its successor follows {due}"),
            ));
        }
        Ok(OplogSlice {
            payload: opened.frame.payload().map_err(|e| self.broken(step.previous, e))?,
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
    pub async fn next(&mut self) -> Result<Option<OplogSlice>, StoreError> {
        let mut missing = None;
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
            let StoreError::NotFound(key) = error else {
                return Err(error);
            };
            // Merged since it was planned, most likely: then it is elsewhere now.
            if missing.as_ref() == Some(&key) {
                return Err(self.store.broken(self.position, format!("{key} is missing")));
            }
            missing = Some(key);
            self.store.refresh().await?;
        }
        Err(StoreError::unavailable(
            &self.store.folder,
            "the oplog is being rearranged too often; ask again",
        ))
    }

    async fn step(&mut self) -> Result<Option<OplogSlice>, StoreError> {
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
            return Err(self.store.broken(self.position, "its successor follows another slice"));
        }
        self.position = slice.header.last;
        self.checksum = Some(slice.checksum.clone());
        Ok(Some(slice))
    }

    /// Starts reads until enough is on its way.
    async fn read_ahead(&mut self) -> Result<(), StoreError> {
        while self.sizes.len() < AHEAD_SLICES && self.sizes.iter().sum::<u64>() < AHEAD_BYTES {
            if self.planned.is_empty() {
                match self.store.plan(self.started).await {
                    Ok(steps) => self.planned.extend(steps),
                    // What lies before it is given first; then it is met again.
                    Err(_) if !self.sizes.is_empty() => break,
                    Err(error) => return Err(error),
                }
            }
            let Some(step) = self.planned.pop_front() else { break };
            self.started = step.last;
            self.sizes.push_back(step.size);
            self.ahead.push_back(self.store.clone().fetch(step).boxed());
        }
        Ok(())
    }
}
