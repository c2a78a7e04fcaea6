//! The durable home of the sync slices of one incarnation, from `begin` to `remove_all`.
//!
//! | key under `sync/<incarnation>/` | holds |
//! |---|---|
//! | `begin` | the frame the sync began with |
//! | `slice/<collection>/<part>/<number>` | a sync slice; part and number are 8 hexadecimal digits |
//! | `end` | note: the end of the scan |
//! | `removed` | note: the slices have served; what is left may be removed |
//!
//! Write order: slice durable → progress → acknowledged. Within a part a slice is taken only when all before it are
//! durable, so the names alone tell the progress. `removed` is durable before the first slice goes; reversed, a crash
//! would leave a sync that looks whole and is not.

mod load;
mod put;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use headwater_model::{CollectionUuid, Incarnation, ReplicaSetId};
use headwater_protocol::agent::{CollectionMeta, SyncBeginHeader, SyncEnd};
use headwater_protocol::frame::{Frame, FrameKind};
use headwater_protocol::slices::{PartProgress, SyncSliceHeader};

use crate::note;
use crate::objects::{Objects, Put, StoreError};
pub use put::SliceError;

const END: &str = "sync-end";
const REMOVED: &str = "sync-removed";

/// Why a sync cannot be opened, begun or ended.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SyncError {
    /// It was begun with other collections or from another position.
    #[error("the sync was begun otherwise before: open the stream again and go on from what it says")]
    BegunOtherwise,
    /// Not begun.
    #[error("the sync was not begun: send sync/begin first")]
    NotBegun,
    /// Its slices are removed or being removed.
    #[error("the sync of this incarnation is over: start a new incarnation for another first copy")]
    Removed,
    /// It cannot end yet.
    #[error("part {part} of collection {collection} is not complete: send its slices from number {next} on")]
    Unfinished {
        /// The collection.
        collection: CollectionUuid,
        /// The part.
        part: u32,
        /// The number of the slice that is called for.
        next: u32,
    },
    /// A frame that does not belong here.
    #[error("the sync cannot begin so: {0}")]
    Invalid(String),
    /// A stored slice is missing or damaged.
    #[error("a slice of the first copy is lost ({0}): start a new incarnation")]
    Broken(String),
    /// The backing store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Names one stored slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SliceRef {
    /// The collection.
    pub collection: CollectionUuid,
    /// The part.
    pub part: u32,
    /// Its number within the part.
    pub number: u32,
    /// Its length at rest.
    pub size: u64,
}

/// One slice, verified and unpacked.
#[derive(Clone, Debug)]
pub struct SyncSlice {
    /// Its header.
    pub header: SyncSliceHeader,
    /// Documents as raw BSON back to back.
    pub payload: Bytes,
}

#[derive(Clone)]
struct Begun {
    header: SyncBeginHeader,
    collections: Vec<CollectionMeta>,
    checksum: [u8; 32],
}

#[derive(Clone, Debug)]
struct Part {
    sizes: Vec<u64>,
    resume: bson::Document,
    done: bool,
}

#[derive(Default)]
struct State {
    begun: Option<Begun>,
    parts: BTreeMap<(CollectionUuid, u32), Part>,
    ended: Option<SyncEnd>,
    removed: bool,
}

/// See the module. Share one per process and replica set.
pub struct SyncStore {
    objects: Arc<dyn Objects>,
    replica_set: ReplicaSetId,
    incarnation: Incarnation,
    folder: String,
    state: Mutex<State>,
}

impl SyncStore {
    /// Opens the sync of an incarnation under `prefix` (ends with `/`): one listing, and the last slice of each part.
    pub async fn open(
        objects: Arc<dyn Objects>,
        prefix: &str,
        replica_set: &ReplicaSetId,
        incarnation: Incarnation,
    ) -> Result<Arc<SyncStore>, SyncError> {
        let store = SyncStore {
            objects,
            replica_set: replica_set.clone(),
            incarnation,
            folder: format!("{prefix}sync/{:016x}/", incarnation.0),
            state: Mutex::default(),
        };
        let state = store.load().await?;
        *store.state() = state;
        Ok(Arc::new(store))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.folder)
    }

    fn slice_key(&self, collection: CollectionUuid, part: u32, number: u32) -> String {
        format!("{}slice/{collection}/{part:08x}/{number:08x}", self.folder)
    }

    /// Begins the sync with a frame of kind `SyncBegin`. The same frame again: no change.
    pub async fn begin(&self, frame: Frame) -> Result<(), SyncError> {
        if self.state().removed {
            return Err(SyncError::Removed);
        }
        let begun = self.read_begin(&frame)?;
        let key = self.key("begin");
        if self.objects.put_new(&key, frame.bytes().clone()).await? == Put::Exists {
            let found = Frame::open(FrameKind::SyncBegin, self.objects.get(&key).await?);
            let found = found.map_err(|e| SyncError::Broken(format!("{key}: {e}")))?;
            if found.checksum() != begun.checksum {
                return Err(SyncError::BegunOtherwise);
            }
        }
        self.state().begun = Some(begun);
        Ok(())
    }

    /// What the sync began with.
    pub fn begun(&self) -> Option<(SyncBeginHeader, Vec<CollectionMeta>)> {
        self.state()
            .begun
            .as_ref()
            .map(|begun| (begun.header.clone(), begun.collections.clone()))
    }

    /// What has arrived, by collection and part.
    pub fn progress(&self) -> Vec<PartProgress> {
        let state = self.state();
        let progress = |(&(collection, part), held): (&(CollectionUuid, u32), &Part)| PartProgress {
            collection,
            part,
            next_number: held.sizes.len() as u32,
            resume: held.resume.clone(),
            done: held.done,
        };
        state.parts.iter().map(progress).collect()
    }

    /// Marks the end of the scan. Every part must be complete, unless its collection was dropped meanwhile. The first
    /// end holds: asked again, even with a later stop, it answers that one.
    pub async fn end(&self, end: SyncEnd) -> Result<SyncEnd, SyncError> {
        {
            let state = self.state();
            if state.removed {
                return Err(SyncError::Removed);
            }
            if state.begun.is_none() {
                return Err(SyncError::NotBegun);
            }
            if let Some(ended) = &state.ended {
                return Ok(ended.clone());
            }
            let open = state
                .parts
                .iter()
                .find(|((collection, _), p)| !p.done && !end.dropped.contains(collection));
            if let Some((&(collection, part), held)) = open {
                return Err(SyncError::Unfinished {
                    collection,
                    part,
                    next: held.sizes.len() as u32,
                });
            }
        }
        let key = self.key("end");
        let ended = match self.objects.put_new(&key, note::seal(END, &end)?).await? {
            Put::Created => end,
            Put::Exists => note::open(END, &key, &self.objects.get(&key).await?)?,
        };
        self.state().ended = Some(ended.clone());
        Ok(ended)
    }

    /// The end of the scan, once marked.
    pub fn ended(&self) -> Option<SyncEnd> {
        self.state().ended.clone()
    }

    /// The slices of a collection, by part and number.
    pub fn slices_of(&self, collection: CollectionUuid) -> Vec<SliceRef> {
        let state = self.state();
        let parts = state.parts.range((collection, 0)..=(collection, u32::MAX));
        parts
            .flat_map(|(&(collection, part), held)| {
                let slice = move |(number, size): (usize, &u64)| SliceRef {
                    collection,
                    part,
                    number: number as u32,
                    size: *size,
                };
                held.sizes.iter().enumerate().map(slice)
            })
            .collect()
    }

    /// Bytes at rest of all slices.
    pub fn stored_bytes(&self) -> u64 {
        self.state().parts.values().flat_map(|part| &part.sizes).sum()
    }

    /// Reads and verifies one slice.
    pub async fn read(&self, slice: &SliceRef) -> Result<SyncSlice, StoreError> {
        let key = self.slice_key(slice.collection, slice.part, slice.number);
        let (frame, header) = self.verify_slice(&key, self.objects.get(&key).await?)?;
        if (header.collection, header.part, header.number) != (slice.collection, slice.part, slice.number) {
            return Err(StoreError::damaged(&key, "it is another slice"));
        }
        let payload = frame.payload().map_err(|e| StoreError::damaged(&key, e))?;
        Ok(SyncSlice { header, payload })
    }

    /// Removes all slices: they have served, or their incarnation is over. Call again after an error. Afterwards this
    /// incarnation has no sync any more, and cannot begin another.
    pub async fn remove_all(&self) -> Result<(), StoreError> {
        let marker = self.key("removed");
        self.objects
            .put(&marker, note::seal(REMOVED, &self.incarnation)?)
            .await?;
        *self.state() = State {
            removed: true,
            ..State::default()
        };
        for object in self.objects.list(&self.folder).await? {
            if object.key != marker {
                self.objects.delete(&object.key).await?;
            }
        }
        Ok(())
    }
}
