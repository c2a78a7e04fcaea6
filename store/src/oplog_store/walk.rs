//! Walking along the whole chain for a check: every byte is read, and damage is passed over and told, so that what lies
//! behind it is looked at too.

use std::collections::VecDeque;
use std::sync::Arc;

use headwater_model::Optime;

use super::read::Step;
use super::{OplogStore, keys};
use crate::objects::StoreError;

/// Slices may be merged while we walk; that happens every few seconds at most.
const ATTEMPTS: usize = 8;

/// What was met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Walked {
    /// A slice, intact and linked to the one before.
    Sound {
        /// The object it is in.
        key: String,
        /// Its last entry.
        last: Optime,
        /// Its entries.
        entries: u64,
        /// Its bytes at rest.
        bytes: u64,
    },
    /// Entries that cannot be read: after the first position, up to the second.
    Broken {
        /// The object.
        key: String,
        /// The last entry before.
        after: Optime,
        /// The last entry that is lost.
        until: Optime,
        /// What is wrong.
        detail: String,
    },
}

/// See the module.
pub struct Walk {
    store: Arc<OplogStore>,
    position: Optime,
    checksum: Option<String>,
    planned: VecDeque<Step>,
}

impl OplogStore {
    /// Walks from the first entry after `from`, or from the start of what is stored if that is later, to the tip.
    pub fn walk(self: &Arc<Self>, from: Option<Optime>) -> Result<Walk, StoreError> {
        let start = self.read_index(|index| index.manifest.start.clone())?;
        let from = from.filter(|from| *from > start.after);
        Ok(Walk {
            store: self.clone(),
            position: from.unwrap_or(start.after),
            checksum: from.is_none().then_some(start.slice),
            planned: VecDeque::new(),
        })
    }

    /// Proves without reading slices that segments and slices lie back to back: the manifest, the index of every segment,
    /// and the objects in their length. Answers how many there are, and what is wrong.
    pub async fn check_structure(&self) -> Result<(u64, Vec<Walked>), StoreError> {
        self.refresh().await?;
        let (manifest, tip) = self.read_index(|index| (index.manifest.clone(), index.tip.after))?;
        let mut faults = Vec::new();
        let mut at = manifest.start.after;
        for segment in &manifest.segments {
            let key = self.segment_key(segment);
            let fault = match self.segment_end(&key, segment).await {
                Ok(parts) if segment.previous != at => {
                    Some(format!("it begins after {}, not after {at}", segment.previous)).filter(|_| !parts.is_empty())
                }
                Ok(parts) => {
                    let ends = (
                        parts.first().map(|part| part.previous),
                        parts.last().map(|part| part.last),
                    );
                    (ends != (Some(segment.previous), Some(segment.end.after)))
                        .then(|| "its index does not match the manifest".to_owned())
                }
                Err(StoreError::Damaged { detail, .. }) => Some(detail),
                Err(StoreError::NotFound(_)) => Some("it is missing".to_owned()),
                Err(other) => return Err(other),
            };
            faults.extend(fault.map(|detail| Walked::Broken {
                key,
                after: segment.previous,
                until: segment.end.after,
                detail,
            }));
            at = segment.end.after;
        }
        let slices = self.read_index(|index| index.slices.len() as u64)?;
        if slices == 0 && at != tip {
            faults.push(Walked::Broken {
                key: keys::manifest(&self.folder, manifest.number),
                after: at,
                until: tip,
                detail: format!("the oplog goes on to {tip}, but nothing is stored after {at}"),
            });
        }
        Ok((manifest.segments.len() as u64 + slices, faults))
    }

    async fn segment_end(
        &self,
        key: &str,
        segment: &super::index::SegmentRef,
    ) -> Result<Vec<super::segment::Part>, StoreError> {
        let from = segment.size.saturating_sub(super::segment::end_len(segment.slices));
        let end = self.objects.get_range(key, from..segment.size).await?;
        super::segment::read_end(segment.size, &end).map_err(|e| StoreError::damaged(key, e))
    }
}

impl Walk {
    /// The end of what was walked.
    pub fn position(&self) -> Optime {
        self.position
    }

    /// The next slice; `None` at the tip.
    pub async fn next(&mut self) -> Result<Option<Walked>, StoreError> {
        let mut missing = None;
        for _ in 0..ATTEMPTS {
            if self.planned.is_empty() {
                match self.store.plan(self.position).await {
                    Ok(steps) => self.planned.extend(steps),
                    Err(StoreError::Damaged { key, detail }) => return self.broken_place(key, detail),
                    Err(StoreError::NotFound(key)) if missing.as_ref() == Some(&key) => {
                        return self.broken_place(key, "it is missing".to_owned());
                    }
                    Err(StoreError::NotFound(key)) => {
                        missing = Some(key);
                        self.store.refresh().await?;
                        continue;
                    }
                    // Trimmed meanwhile: go on where the oplog begins now.
                    Err(StoreError::Refused { .. })
                        if self.store.range().is_some_and(|(start, _)| start > self.position) =>
                    {
                        let start = self.store.read_index(|index| index.manifest.start.clone())?;
                        (self.position, self.checksum) = (start.after, Some(start.slice));
                        continue;
                    }
                    Err(other) => return Err(other),
                }
            }
            let Some(step) = self.planned.front().cloned() else {
                return Ok(None);
            };
            match self.take(&step).await {
                Err(StoreError::NotFound(key)) if missing.as_ref() != Some(&key) => {
                    // Merged since it was planned, most likely: then it is elsewhere now.
                    missing = Some(key);
                    self.planned.clear();
                    self.store.refresh().await?;
                }
                Err(StoreError::NotFound(key)) => {
                    return Ok(Some(self.broken(key, step.last, "it is missing".to_owned())));
                }
                Err(StoreError::Damaged { detail, .. }) => {
                    let key = step.key(&self.store.folder);
                    return Ok(Some(self.broken(key, step.last, detail)));
                }
                other => return other.map(Some),
            }
        }
        Err(StoreError::unavailable(
            &self.store.folder,
            "the oplog is being rearranged too often; check again",
        ))
    }

    async fn take(&mut self, step: &Step) -> Result<Walked, StoreError> {
        let slice = self.store.clone().fetch(step.clone()).await?;
        let key = step.key(&self.store.folder);
        if self
            .checksum
            .as_ref()
            .is_some_and(|before| *before != slice.header.previous_slice)
        {
            return Err(StoreError::damaged(
                &key,
                "it follows another slice than the one before it",
            ));
        }
        self.planned.pop_front();
        self.position = slice.header.last;
        self.checksum = Some(slice.checksum);
        Ok(Walked::Sound {
            key,
            last: slice.header.last,
            entries: u64::from(slice.header.count),
            bytes: slice.stored_bytes,
        })
    }

    fn broken(&mut self, key: String, until: Optime, detail: String) -> Walked {
        self.planned.pop_front();
        let after = std::mem::replace(&mut self.position, until);
        self.checksum = None;
        Walked::Broken {
            key,
            after,
            until,
            detail,
        }
    }

    /// The index of a segment cannot be read: all of it is lost.
    fn broken_place(&mut self, key: String, detail: String) -> Result<Option<Walked>, StoreError> {
        let position = self.position;
        let place = self.store.read_index(|index| index.locate(position))?;
        let until = place.map_or(position, |place| place.last());
        Ok(Some(self.broken(key, until, detail)))
    }
}
