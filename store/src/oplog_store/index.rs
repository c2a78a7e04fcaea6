//! What is known of one oplog without reading its slices. Decides, never acts.
//!
//! An oplog is: a start, then segments back to back up to the *floor*, then slices. The end of a slice is the key of
//! its successor, so a listing tells the place of every slice. Slices before the floor are copies of what segments
//! hold, or strays; they do not count.

use std::collections::BTreeMap;

use headwater_model::{Incarnation, Optime, ReplicaSetId};
use headwater_protocol::agent::TailOrder;
use serde::{Deserialize, Serialize};

/// A position between slices, with the checksum of the slice that ends there (hexadecimal; empty at the beginning).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anchor {
    /// The position.
    pub after: Optime,
    /// The checksum.
    pub slice: String,
}

impl Anchor {
    /// As agents are told.
    pub fn order(&self) -> TailOrder {
        TailOrder {
            after: self.after,
            previous_slice: self.slice.clone(),
        }
    }
}

/// Slices merged into one object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentRef {
    /// The manifest it was made for; part of its key.
    pub number: u64,
    /// The position before its first entry.
    pub previous: Optime,
    /// Its last entry, and the checksum of its last slice.
    pub end: Anchor,
    /// Its length in bytes.
    pub size: u64,
    /// How many slices it holds.
    pub slices: u64,
}

/// What `manifest/<number>` says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Counts manifests from 0; each is made from the one before.
    pub number: u64,
    /// Whose oplog.
    pub replica_set: ReplicaSetId,
    /// Which history.
    pub incarnation: Incarnation,
    /// Where the incarnation began.
    pub origin: Optime,
    /// Where what is kept begins.
    pub start: Anchor,
    /// Merged slices, back to back from `start`.
    pub segments: Vec<SegmentRef>,
}

impl Manifest {
    /// Where the segments end: slices with an earlier predecessor do not count.
    pub fn floor(&self) -> &Anchor {
        self.segments.last().map_or(&self.start, |segment| &segment.end)
    }
}

/// Where one slice or a row of merged slices is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// An object of its own.
    Slice {
        /// The position before it: its name.
        previous: Optime,
        /// Its last entry.
        last: Optime,
        /// Its length in bytes.
        size: u64,
    },
    /// Somewhere in this segment.
    Segment(SegmentRef),
}

impl Place {
    /// The last position within.
    pub fn last(&self) -> Optime {
        match self {
            Place::Slice { last, .. } => *last,
            Place::Segment(segment) => segment.end.after,
        }
    }
}

/// The index of a begun oplog.
#[derive(Clone, Debug)]
pub struct Index {
    /// The manifest that holds.
    pub manifest: Manifest,
    /// Slices from the floor on: predecessor → bytes.
    pub slices: BTreeMap<Optime, u64>,
    /// The end.
    pub tip: Anchor,
}

impl Index {
    /// The place that holds the first entry after `after`; `None` at the tip. `after` must not be before the start.
    pub fn locate(&self, after: Optime) -> Option<Place> {
        if after >= self.tip.after {
            return None;
        }
        if after < self.manifest.floor().after {
            let at = self
                .manifest
                .segments
                .partition_point(|segment| segment.end.after <= after);
            return self.manifest.segments.get(at).cloned().map(Place::Segment);
        }
        let (previous, size) = self.slices.range(..=after).next_back()?;
        let last = self.after_slice(*previous);
        Some(Place::Slice {
            previous: *previous,
            last,
            size: *size,
        })
    }

    /// The last position of the slice that follows `previous`.
    pub fn after_slice(&self, previous: Optime) -> Optime {
        let beyond = (std::ops::Bound::Excluded(previous), std::ops::Bound::Unbounded);
        self.slices
            .range(beyond)
            .next()
            .map_or(self.tip.after, |(next, _)| *next)
    }

    /// Puts a newer view in the place of this one. What this one knows beyond the newer one's tip stays: a listing may
    /// be older than the manifest read after it, and older than an append that was quicker.
    pub fn replace(&mut self, mut newer: Index) {
        if newer.manifest.number < self.manifest.number {
            return;
        }
        if newer.tip.after < self.tip.after {
            newer.slices.extend(self.slices.range(newer.tip.after..));
            newer.tip = self.tip.clone();
        }
        *self = newer;
    }

    /// Takes in a slice that extends the tip.
    pub fn extend(&mut self, size: u64, tip: Anchor) {
        self.slices.insert(self.tip.after, size);
        self.tip = tip;
    }

    /// How many slices hold entries after `from` and up to `to`, and their bytes at rest. A segment that lies partly
    /// within counts whole.
    pub fn between(&self, from: Optime, to: Optime) -> (u64, u64) {
        let segments = self
            .manifest
            .segments
            .iter()
            .filter(|s| s.end.after > from && s.previous < to);
        let slices = self.slices.range(..to).rev();
        let slices = slices
            .take_while(|(previous, _)| self.after_slice(**previous) > from)
            .map(|(_, size)| (1, *size));
        segments
            .map(|s| (s.slices, s.size))
            .chain(slices)
            .fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    }
}
