//! Merging small slices into segments, and trimming what nobody needs.
//!
//! Write order: segment durable → manifest that names it → slices removed. A crash after the first step leaves a
//! segment nobody names, after the second some slices before the floor: both are passed over by readers and removed
//! by the next clean. Reversed, a hole. A manifest is made from the one before and written with `put_new` under the
//! next number: of two maintainers one wins, the other has changed nothing that counts.

use headwater_model::{Optime, limits};

use super::index::{Anchor, Manifest, SegmentRef};
use super::{MANIFEST, OplogStore, keys, segment};
use crate::note;
use crate::objects::{Put, StoreError};

/// When slices are merged.
#[derive(Clone, Copy, Debug)]
pub struct MergeSettings {
    /// A segment closes once it holds this much; it is held in memory while it is made.
    pub segment_bytes: u64,
    /// Fewer slices than this are not worth a segment, unless they fill one.
    pub min_slices: usize,
    /// The newest slices are left alone.
    pub keep_slices: usize,
}

impl Default for MergeSettings {
    fn default() -> Self {
        MergeSettings {
            segment_bytes: 24 * limits::MIB as u64,
            min_slices: 1024,
            keep_slices: 256,
        }
    }
}

/// What a merge did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Merged {
    /// Slices that are in a new segment now; 0 when there were too few.
    pub slices: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl OplogStore {
    /// Merges the oldest unmerged slices into one segment, which is held in memory meanwhile. Call again until it
    /// answers 0 slices.
    pub async fn merge_small(&self, settings: MergeSettings) -> Result<Merged, StoreError> {
        let _one_at_a_time = self.maintaining.lock().await;
        self.refresh().await?;
        let (manifest, run, full) = self.read_index(|index| {
            let free = index.slices.len().saturating_sub(settings.keep_slices);
            let mut bytes = 0;
            let run = index.slices.iter().take(free).take_while(|(_, size)| {
                let more = bytes < settings.segment_bytes;
                bytes += **size;
                more
            });
            let run: Vec<Optime> = run.map(|(previous, _)| *previous).collect();
            (index.manifest.clone(), run, bytes >= settings.segment_bytes)
        })?;
        if run.len() < settings.min_slices.max(1) && !(full && run.len() > 1) {
            return Ok(Merged::default());
        }
        let (frames, end) = self.read_run(&manifest, run).await?;
        let previous = manifest.floor().after;
        let bytes = segment::write(&frames, end.after);
        let number = manifest.number + 1;
        let merged = Merged {
            slices: frames.len() as u64,
            bytes: bytes.len() as u64,
        };
        drop(frames);
        // The key says exactly which slices are within: what may be there already is the same.
        let key = keys::segment(&self.folder, number, previous, end.after);
        self.objects.put(&key, bytes).await?;
        let mut next = manifest;
        next.segments.push(SegmentRef {
            number,
            previous,
            end,
            size: merged.bytes,
            slices: merged.slices,
        });
        let won = self.publish(next).await?;
        self.clean().await?;
        Ok(if won { merged } else { Merged::default() })
    }

    /// The frames of a run of slices from the floor on, verified and linked, and where they end.
    async fn read_run(
        &self,
        manifest: &Manifest,
        run: Vec<Optime>,
    ) -> Result<(Vec<(Optime, bytes::Bytes)>, Anchor), StoreError> {
        let mut end = manifest.floor().clone();
        let mut frames = Vec::with_capacity(run.len());
        for previous in run {
            let opened = self.open_slice(previous).await?;
            if previous != end.after || opened.header.previous_slice != end.slice {
                return Err(self.broken(end.after, "its successor follows another slice"));
            }
            end = opened.anchor();
            frames.push((previous, opened.frame.bytes().clone()));
        }
        Ok((frames, end))
    }

    /// Gives up what lies before `keep_after`, by whole slices and segments: what is stored still holds every entry
    /// after it. Answers where the oplog starts now.
    ///
    /// That nobody needs it is for the caller to know, under the replica set's epoch.
    pub async fn trim(&self, keep_after: Optime) -> Result<Optime, StoreError> {
        let _one_at_a_time = self.maintaining.lock().await;
        self.refresh().await?;
        let (mut manifest, tip, slice) = self.read_index(|index| {
            let slice = index
                .slices
                .range(..=keep_after)
                .next_back()
                .map(|(previous, _)| *previous);
            (index.manifest.clone(), index.tip.clone(), slice)
        })?;
        let start = if keep_after >= tip.after {
            tip
        } else if let Some(previous) = slice {
            Anchor {
                after: previous,
                slice: self.open_slice(previous).await?.header.previous_slice,
            }
        } else {
            let whole = manifest
                .segments
                .iter()
                .rev()
                .find(|segment| segment.end.after <= keep_after);
            whole.map_or(manifest.start.clone(), |segment| segment.end.clone())
        };
        if start.after > manifest.start.after {
            manifest.segments.retain(|segment| segment.end.after > start.after);
            manifest.start = start;
            self.publish(manifest).await?;
        }
        self.clean().await?;
        self.read_index(|index| index.manifest.start.after)
    }

    /// Makes `next` (still with the number of the manifest it was made from) the manifest that holds, unless another
    /// maintainer was quicker.
    async fn publish(&self, mut next: Manifest) -> Result<bool, StoreError> {
        next.number += 1;
        let key = keys::manifest(&self.folder, next.number);
        let put = self.objects.put_new(&key, note::seal(MANIFEST, &next)?).await?;
        // A number that was used and cleaned away long ago is free again, but no longer the newest.
        let won = put == Put::Created && self.newest_manifest().await? == Some(next.number);
        self.refresh().await?;
        Ok(won)
    }

    /// Removes what does not count: slices before the floor, segments nobody names, manifests that were replaced.
    ///
    /// A segment made for a later manifest than the one that holds may still be on its way to be named.
    async fn clean(&self) -> Result<(), StoreError> {
        let listing = self.listing().await?;
        self.refresh().await?;
        let manifest = self.read_index(|index| index.manifest.clone())?;
        let floor = manifest.floor().after;
        for previous in listing.slices.into_keys().filter(|previous| *previous < floor) {
            self.objects.delete(&keys::slice(&self.folder, previous)).await?;
        }
        let named: Vec<String> = manifest
            .segments
            .iter()
            .map(|segment| self.segment_key(segment))
            .collect();
        for (number, key) in listing.segments {
            if number <= manifest.number && !named.contains(&key) {
                self.objects.delete(&key).await?;
            }
        }
        for number in listing.manifests.into_iter().filter(|number| *number < manifest.number) {
            self.objects.delete(&keys::manifest(&self.folder, number)).await?;
        }
        Ok(())
    }

    /// Removes the oplog of this incarnation. The newest slices go first and the manifests last, so that what is left after a
    /// crash is still an unbroken chain, and removed by another call. Answers how many objects went.
    pub async fn remove_all(&self) -> Result<u64, StoreError> {
        let _one_at_a_time = self.maintaining.lock().await;
        let listing = self.listing().await?;
        let slices = listing.slices.into_keys().rev();
        let slices = slices.map(|previous| keys::slice(&self.folder, previous));
        let segments = listing.segments.into_iter().map(|(_, key)| key);
        let manifests = listing.manifests.into_iter();
        let manifests = manifests.map(|number| keys::manifest(&self.folder, number));
        let mut removed = 0;
        for key in slices.chain(segments).chain(manifests) {
            self.objects.delete(&key).await?;
            removed += 1;
        }
        *self.index() = None;
        Ok(removed)
    }
}
