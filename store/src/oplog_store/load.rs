//! Finding out what an oplog holds: a listing, the manifest, the last slice, the link to the one before.

use std::collections::BTreeMap;

use bytes::Bytes;
use headwater_model::Optime;
use headwater_protocol::frame::{Frame, FrameKind};
use headwater_protocol::slices::OplogSliceHeader;

use super::index::{Anchor, Index, Manifest};
use super::keys::{self, Kind};
use super::{MANIFEST, OplogStore};
use crate::note;
use crate::objects::{ObjectMeta, StoreError};

/// A maintainer may change the manifest while we list; it does so at most every few seconds.
const ATTEMPTS: usize = 8;

/// A listing, sorted out.
#[derive(Default)]
pub struct Listing {
    /// Predecessor → size.
    pub slices: BTreeMap<Optime, u64>,
    /// Numbers.
    pub manifests: Vec<u64>,
    /// Made for which manifest, and key.
    pub segments: Vec<(u64, String)>,
}

impl Listing {
    /// Sorts out what was listed; what no oplog store wrote is passed over.
    pub fn new(folder: &str, objects: Vec<ObjectMeta>) -> Self {
        let mut listing = Listing::default();
        for object in objects {
            match keys::parse(folder, &object.key) {
                Some(Kind::Slice(previous)) => _ = listing.slices.insert(previous, object.size),
                Some(Kind::Manifest(number)) => listing.manifests.push(number),
                Some(Kind::Segment(number)) => listing.segments.push((number, object.key)),
                None => {}
            }
        }
        listing
    }

    /// The manifest that holds.
    pub fn newest(&self) -> Option<u64> {
        self.manifests.iter().max().copied()
    }
}

/// One slice with its header.
pub struct Opened {
    /// The verified frame.
    pub frame: Frame,
    /// Its header.
    pub header: OplogSliceHeader,
}

impl Opened {
    /// The end of the chain with this slice at its end.
    pub fn anchor(&self) -> Anchor {
        Anchor {
            after: self.header.last,
            slice: hex::encode(self.frame.checksum()),
        }
    }
}

impl OplogStore {
    /// Learns what others have written since.
    pub async fn refresh(&self) -> Result<(), StoreError> {
        let mut fault = None;
        for _ in 0..ATTEMPTS {
            let listing = self.listing_without_holes().await?;
            let Some(newest) = listing.newest() else { return Ok(()) };
            match self.load(newest, listing.slices.clone()).await {
                Ok(index) => {
                    match &mut *self.index() {
                        Some(known) => known.replace(index),
                        known => *known = Some(index),
                    }
                    return Ok(());
                }
                // What was listed is gone, or does not begin where the manifest says: the manifest was replaced
                // meanwhile. If the next listing is the same, this is the truth.
                Err(error @ (StoreError::NotFound(_) | StoreError::Damaged { .. })) => {
                    let shown = (newest, listing.slices);
                    if matches!(&fault, Some((before, _)) if *before == shown) {
                        return Err(error);
                    }
                    fault = Some((shown, error));
                }
                Err(other) => return Err(other),
            }
        }
        Err(fault.map_or_else(|| self.not_begun(), |(_, error)| error))
    }

    /// A listing beside which others append may show a later slice without an earlier one. A slice is written once the one
    /// before it is there: what a second listing shows up to the last slice of the first has no hole.
    async fn listing_without_holes(&self) -> Result<Listing, StoreError> {
        let first = self.listing().await?;
        let known = self.index().as_ref().map(|index| index.tip.after);
        let Some(last) = first.slices.keys().next_back().copied() else {
            return Ok(first);
        };
        // Nothing is new, or one slice, and that follows what is known.
        if known.is_some_and(|tip| last <= tip) {
            return Ok(first);
        }
        let mut second = self.listing().await?;
        second.slices.retain(|previous, _| *previous <= last);
        Ok(second)
    }

    /// Everything under the folder.
    pub async fn listing(&self) -> Result<Listing, StoreError> {
        Ok(Listing::new(&self.folder, self.objects.list(&self.folder).await?))
    }

    /// The number of the manifest that holds now.
    pub async fn newest_manifest(&self) -> Result<Option<u64>, StoreError> {
        let manifests = self.objects.list(&format!("{}manifest/", self.folder)).await?;
        Ok(Listing::new(&self.folder, manifests).newest())
    }

    async fn load(&self, number: u64, mut slices: BTreeMap<Optime, u64>) -> Result<Index, StoreError> {
        let key = keys::manifest(&self.folder, number);
        let manifest: Manifest = note::open(MANIFEST, &key, &self.objects.get(&key).await?)?;
        if (&manifest.replica_set, manifest.incarnation) != (&self.replica_set, self.incarnation) {
            return Err(StoreError::damaged(&key, "it belongs to another oplog"));
        }
        let floor = manifest.floor().clone();
        let slices = slices.split_off(&floor.after);
        let Some(first) = slices.keys().next() else {
            return Ok(Index {
                manifest,
                slices,
                tip: floor,
            });
        };
        if *first != floor.after {
            return Err(self.broken(
                floor.after,
                format!("the next slice is missing, there is one after {first}"),
            ));
        }
        let mut from_end = slices.iter().rev();
        let last = from_end.next().map_or(floor.after, |(previous, _)| *previous);
        let before = match from_end.next() {
            Some((previous, size)) => {
                self.stored_checksum(&keys::slice(&self.folder, *previous), *size)
                    .await?
            }
            None => floor.slice,
        };
        let opened = self.open_slice(last).await.map_err(|error| match error {
            StoreError::Damaged { detail, .. } => self.broken(last, detail),
            other => other,
        })?;
        if opened.header.previous_slice != before {
            return Err(self.broken(last, "its successor follows another slice"));
        }
        Ok(Index {
            manifest,
            slices,
            tip: opened.anchor(),
        })
    }

    /// The checksum at the end of a frame at rest, unverified, in hexadecimal.
    pub async fn stored_checksum(&self, key: &str, size: u64) -> Result<String, StoreError> {
        let end = self.objects.get_range(key, size.saturating_sub(32)..size).await?;
        Ok(hex::encode(end))
    }

    /// Reads and verifies the slice after `previous`.
    pub async fn open_slice(&self, previous: Optime) -> Result<Opened, StoreError> {
        let key = keys::slice(&self.folder, previous);
        self.verify_slice(&key, previous, self.objects.get(&key).await?)
    }

    /// Verifies that these bytes are the slice after `previous` of this oplog.
    pub fn verify_slice(&self, key: &str, previous: Optime, bytes: Bytes) -> Result<Opened, StoreError> {
        let frame = Frame::open(FrameKind::OplogSlice, bytes).map_err(|e| StoreError::damaged(key, e))?;
        let header: OplogSliceHeader = frame.header().map_err(|e| StoreError::damaged(key, e))?;
        if (&header.replica_set, header.incarnation) != (&self.replica_set, self.incarnation) {
            return Err(StoreError::damaged(key, "it belongs to another oplog"));
        }
        if header.previous != previous {
            return Err(StoreError::damaged(
                key,
                format!("it follows {}, not {previous}", header.previous),
            ));
        }
        Ok(Opened { frame, header })
    }
}
