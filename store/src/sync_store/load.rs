//! Finding out what of a sync has arrived: a listing, `begin`, `end`, and the last slice of each part.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use headwater_model::CollectionUuid;
use headwater_protocol::agent::{CollectionMeta, SyncBeginHeader};
use headwater_protocol::frame::{Frame, FrameKind};
use headwater_protocol::slices::{SyncSliceHeader, documents};

use super::{Begun, END, Part, State, SyncStore};
use crate::note;
use crate::objects::StoreError;

const READS_AT_ONCE: usize = 16;

/// Collection, part and number out of what follows `slice/` in a key.
fn parse(name: &str) -> Option<(CollectionUuid, u32, u32)> {
    let mut parts = name.split('/');
    let collection = CollectionUuid::from_hex(parts.next()?)?;
    let part = u32::from_str_radix(parts.next()?, 16).ok()?;
    let number = u32::from_str_radix(parts.next()?, 16).ok()?;
    parts.next().is_none().then_some((collection, part, number))
}

/// A part of the first copy is gone, and with it the first copy.
fn lost(key: &str, detail: impl std::fmt::Display) -> StoreError {
    StoreError::damaged(
        key,
        format!("{detail}; the first copy must be made again in a new incarnation"),
    )
}

impl SyncStore {
    /// A listing that another process writes or removes beside may show what came later without what came before, or what is gone by
    /// then: only what is missing twice is missing.
    pub(super) async fn load(&self) -> Result<State, StoreError> {
        match self.load_once().await {
            Err(StoreError::Damaged { .. } | StoreError::NotFound(_)) => self.load_once().await,
            other => other,
        }
    }

    async fn load_once(&self) -> Result<State, StoreError> {
        let mut state = State::default();
        let mut sizes: BTreeMap<(CollectionUuid, u32), Vec<u64>> = BTreeMap::new();
        let listed = self.objects.list(&self.folder).await?;
        // Before anything is read: what is removed beside is gone before it is read, in this order.
        if listed.iter().any(|object| object.key == self.key("removed")) {
            return Ok(State {
                removed: true,
                ..State::default()
            });
        }
        for object in listed {
            match object.key.strip_prefix(&self.folder).unwrap_or_default() {
                "begin" => state.begun = Some(self.load_begin(&object.key).await?),
                "end" => state.ended = Some(note::open(END, &object.key, &self.objects.get(&object.key).await?)?),
                name => {
                    let Some(place) = name.strip_prefix("slice/").and_then(parse) else {
                        continue;
                    };
                    let part = sizes.entry((place.0, place.1)).or_default();
                    if place.2 as usize != part.len() {
                        let missing = self.slice_key(place.0, place.1, part.len() as u32);
                        return Err(lost(&missing, "it is missing"));
                    }
                    part.push(object.size);
                }
            }
        }
        let parts = stream::iter(sizes)
            .map(|(at, sizes)| self.load_part(at, sizes))
            .buffered(READS_AT_ONCE);
        state.parts = parts.try_collect().await?;
        self.one_plan_each(&state.parts)?;
        Ok(state)
    }

    fn one_plan_each(&self, parts: &BTreeMap<(CollectionUuid, u32), Part>) -> Result<(), StoreError> {
        for ((collection, part), held) in parts {
            let first = self.slice_key(*collection, 0, 0);
            match parts.get(&(*collection, 0)) {
                None => return Err(lost(&first, "it is missing")),
                Some(first) if first.plan == held.plan => {}
                Some(_) => return Err(lost(&first, format!("part {part} was made under another plan"))),
            }
        }
        Ok(())
    }

    pub(super) async fn load_begin(&self, key: &str) -> Result<Begun, StoreError> {
        let frame = Frame::open(FrameKind::SyncBegin, self.objects.get(key).await?);
        let frame = frame.map_err(|e| lost(key, e))?;
        self.read_begin(&frame).map_err(|detail| lost(key, detail))
    }

    pub(super) fn read_begin(&self, frame: &Frame) -> Result<Begun, String> {
        let header: SyncBeginHeader = frame.header().map_err(|e| e.to_string())?;
        if (&header.replica_set, header.incarnation) != (&self.replica_set, self.incarnation) {
            return Err(format!(
                "it is of {}, incarnation {}",
                header.replica_set, header.incarnation
            ));
        }
        let payload = frame.payload().map_err(|e| e.to_string())?;
        let mut collections: Vec<CollectionMeta> = Vec::new();
        for document in documents(&payload) {
            let document = document.map_err(|e| e.to_string())?;
            collections.push(bson::deserialize_from_slice(document).map_err(|e| e.to_string())?);
        }
        Ok(Begun {
            header,
            collections,
            checksum: frame.checksum(),
        })
    }

    async fn load_part(
        &self,
        (collection, part): (CollectionUuid, u32),
        sizes: Vec<u64>,
    ) -> Result<((CollectionUuid, u32), Part), StoreError> {
        let key = self.slice_key(collection, part, sizes.len() as u32 - 1);
        let (_, header) = match self.verify_slice(&key, self.objects.get(&key).await?) {
            Err(StoreError::Damaged { key, detail }) => return Err(lost(&key, detail)),
            other => other?,
        };
        Ok((
            (collection, part),
            Part {
                plan: header.plan,
                sizes,
                resume: header.resume,
                done: header.last,
            },
        ))
    }

    /// Verifies that these bytes are a slice of this sync.
    pub(super) fn verify_slice(&self, key: &str, bytes: Bytes) -> Result<(Frame, SyncSliceHeader), StoreError> {
        let frame = Frame::open(FrameKind::SyncSlice, bytes).map_err(|e| StoreError::damaged(key, e))?;
        let header: SyncSliceHeader = frame.header().map_err(|e| StoreError::damaged(key, e))?;
        if (&header.replica_set, header.incarnation) != (&self.replica_set, self.incarnation) {
            return Err(StoreError::damaged(key, "it belongs to another sync"));
        }
        Ok((frame, header))
    }
}
