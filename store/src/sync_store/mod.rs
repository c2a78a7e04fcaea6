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
//! durable, so the names alone tell the progress. The first slice of part 0 of a collection settles the plan of its parts: a
//! slice of another part, or of another plan, is taken only when that one is durable, and refused when it was made under
//! another plan. So all parts of a collection fit each other whoever took them in: writing a name once is the agreement. `removed` is durable before the first slice goes; reversed, a crash
//! would leave a sync that looks whole and is not.

mod load;
mod put;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use headwater_model::{CollectionUuid, Incarnation, ReplicaSetId};
use headwater_protocol::agent::{CollectionMeta, SyncBeginHeader, SyncEnd};
use headwater_protocol::frame::Frame;
use headwater_protocol::slices::PartProgress;

use crate::fence::Fence;
use crate::note;
use crate::objects::{Objects, Put, StoreError};
pub use put::SliceError;

const END: &str = "sync-end";
const REMOVED: &str = "sync-removed";

/// Names one stored slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SliceRef {
    /// The collection.
    pub collection: CollectionUuid,
    /// The part.
    pub part: u32,
    /// Its number within the part.
    pub number: u32,
}

/// How much of one part has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrived {
    /// The collection.
    pub collection: CollectionUuid,
    /// The part.
    pub part: u32,
    /// Slices, from number 0 without a gap.
    pub slices: u32,
    /// Whether there will be no more.
    pub done: bool,
}

#[derive(Clone)]
struct Begun {
    header: SyncBeginHeader,
    collections: Vec<CollectionMeta>,
    checksum: [u8; 32],
}

#[derive(Clone, Debug)]
struct Part {
    plan: String,
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

impl State {
    /// Takes over what the store shows. What was taken in while it was listed stays known.
    fn learn(&mut self, seen: State) {
        if self.removed {
            return;
        }
        let before = std::mem::replace(self, seen);
        if self.removed {
            return;
        }
        for (place, held) in before.parts {
            let known = self.parts.get(&place).map_or(0, |part| part.sizes.len());
            if held.sizes.len() > known {
                self.parts.insert(place, held);
            }
        }
        self.begun = self.begun.take().or(before.begun);
        self.ended = self.ended.take().or(before.ended);
    }
}

/// See the module. Share one per process and replica set.
pub struct SyncStore {
    objects: Arc<dyn Objects>,
    replica_set: ReplicaSetId,
    incarnation: Incarnation,
    folder: String,
    state: Mutex<State>,
    fence: Option<Arc<Fence>>,
}

impl SyncStore {
    /// Opens the sync of an incarnation under `prefix` (ends with `/`): one listing, and the last slice of each part.
    pub async fn open(
        objects: Arc<dyn Objects>,
        prefix: &str,
        replica_set: &ReplicaSetId,
        incarnation: Incarnation,
    ) -> Result<SyncStore, StoreError> {
        let store = SyncStore::unread(objects, prefix, replica_set, incarnation);
        let state = store.load().await?;
        *store.state() = state;
        Ok(store)
    }

    /// The same without a look at what is there: for a sync that is to be removed, whole or not.
    pub fn unread(
        objects: Arc<dyn Objects>,
        prefix: &str,
        replica_set: &ReplicaSetId,
        incarnation: Incarnation,
    ) -> SyncStore {
        SyncStore {
            objects,
            replica_set: replica_set.clone(),
            incarnation,
            folder: format!("{prefix}sync/{:016x}/", incarnation.0),
            state: Mutex::default(),
            fence: None,
        }
    }

    /// Looks anew at what has arrived: a former owner may have taken slices in after this process looked. Once the end is
    /// durable this sees all of them, since each was acknowledged before.
    pub async fn look_again(&self) -> Result<(), StoreError> {
        let seen = self.load().await?;
        self.state().learn(seen);
        Ok(())
    }

    /// Whoever is behind the fence removes nothing.
    pub fn fenced(mut self, fence: Option<Arc<Fence>>) -> SyncStore {
        self.fence = fence;
        self
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
    pub async fn begin(&self, frame: Frame) -> Result<(), SliceError> {
        self.refuse_if_removed()?;
        let begun = self
            .read_begin(&frame)
            .map_err(|detail| SliceError::Invalid { detail })?;
        let key = self.key("begin");
        if self.objects.put_new(&key, frame.bytes().clone()).await? == Put::Exists {
            let found = self.load_begin(&key).await?;
            if found.checksum != begun.checksum {
                let detail = "the sync was begun otherwise before; open the stream again and go on from what it says";
                return Err(SliceError::Stale {
                    detail: detail.to_owned(),
                });
            }
        }
        self.state().begun = Some(begun);
        Ok(())
    }

    /// What the sync began with; `None` also once its slices are removed.
    pub async fn begun(&self) -> Result<Option<(SyncBeginHeader, Vec<CollectionMeta>)>, StoreError> {
        Ok(self
            .state()
            .begun
            .as_ref()
            .map(|begun| (begun.header.clone(), begun.collections.clone())))
    }

    /// What has arrived, by collection and part.
    pub async fn progress(&self) -> Result<Vec<PartProgress>, StoreError> {
        let state = self.state();
        let progress = |(&(collection, part), held): (&(CollectionUuid, u32), &Part)| PartProgress {
            collection,
            part,
            next_number: held.sizes.len() as u32,
            resume: held.resume.clone(),
            done: held.done,
        };
        Ok(state.parts.iter().map(progress).collect())
    }

    /// What has arrived, without where the scan of each part goes on.
    pub fn arrived(&self) -> Vec<Arrived> {
        let state = self.state();
        let arrived = |(&(collection, part), held): (&(CollectionUuid, u32), &Part)| Arrived {
            collection,
            part,
            slices: held.sizes.len() as u32,
            done: held.done,
        };
        state.parts.iter().map(arrived).collect()
    }

    /// Marks the end of the scan. Every part must be complete, unless its collection was dropped meanwhile. The first
    /// end holds: asked again, even with a later stop, it answers that one.
    pub async fn end(&self, end: SyncEnd) -> Result<SyncEnd, SliceError> {
        self.refuse_if_removed()?;
        if end.incarnation != self.incarnation {
            return Err(self.stale(end.incarnation));
        }
        {
            let state = self.state();
            if let Some(ended) = &state.ended {
                return Ok(ended.clone());
            }
            let open = state
                .parts
                .iter()
                .find(|((collection, _), p)| !p.done && !end.dropped.contains(collection));
            let detail = match (&state.begun, open) {
                (None, _) => Some("the sync was not begun; open the stream again".to_owned()),
                (_, Some(((collection, part), held))) => Some(format!(
                    "part {part} of collection {collection} is not complete; open the stream again and go on with {}",
                    held.sizes.len()
                )),
                _ => None,
            };
            if let Some(detail) = detail {
                return Err(SliceError::Stale { detail });
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
    pub async fn ended(&self) -> Result<Option<SyncEnd>, StoreError> {
        Ok(self.state().ended.clone())
    }

    /// Bytes at rest of all slices.
    pub fn stored_bytes(&self) -> u64 {
        self.state().parts.values().flat_map(|part| &part.sizes).sum()
    }

    /// Reads and verifies one slice: documents as raw BSON back to back.
    pub async fn read(&self, slice: &SliceRef) -> Result<Bytes, StoreError> {
        let key = self.slice_key(slice.collection, slice.part, slice.number);
        let (frame, header) = self.verify_slice(&key, self.objects.get(&key).await?)?;
        if (header.collection, header.part, header.number) != (slice.collection, slice.part, slice.number) {
            return Err(StoreError::damaged(&key, "it is another slice"));
        }
        frame.payload().map_err(|e| StoreError::damaged(&key, e))
    }

    fn refuse_if_removed(&self) -> Result<(), SliceError> {
        if self.state().removed {
            Err(self.stale(self.incarnation))
        } else {
            Ok(())
        }
    }

    fn stale(&self, found: Incarnation) -> SliceError {
        SliceError::Stale {
            detail: format!("the sync of incarnation {found} is over; open the stream again"),
        }
    }

    /// Removes all slices: they have served, or their incarnation is over. Call again after an error. Afterwards this
    /// incarnation has no sync any more, and cannot begin another.
    pub async fn remove_all(&self) -> Result<(), StoreError> {
        if let Some(fence) = &self.fence {
            fence.check().await?;
        }
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
