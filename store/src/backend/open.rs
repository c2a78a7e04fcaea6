//! From URIs to the stores of this node.

use std::sync::Arc;

use headwater_host::Host;
use headwater_model::StoreUri;

use super::bucket;
use super::directory::DirectoryObjects;
use super::mongodb::{self, BackingSet};
use super::split::{Place, SplitObjects, place};
use crate::claim;
use crate::objects::{Objects, StoreError};

/// Where the stores are. All nodes of a cluster must be told the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// Blocks, images, and what is not said to be elsewhere.
    pub blocks: StoreUri,
    /// Oplog slices.
    pub oplog: Option<StoreUri>,
    /// Sync slices.
    pub sync: Option<StoreUri>,
}

impl Places {
    /// Everything in one place.
    pub fn one(uri: StoreUri) -> Places {
        Places {
            blocks: uri,
            oplog: None,
            sync: None,
        }
    }

    /// Where the parts rest that may be apart.
    pub fn parts(&self) -> [(&'static str, &StoreUri); 2] {
        [
            ("oplog", self.oplog.as_ref().unwrap_or(&self.blocks)),
            ("sync", self.sync.as_ref().unwrap_or(&self.blocks)),
        ]
    }

    /// Where an object of this name rests.
    pub fn of(&self, key: &str) -> &StoreUri {
        let apart = match place(key) {
            Place::Blocks => &None,
            Place::Oplog => &self.oplog,
            Place::Sync => &self.sync,
        };
        apart.as_ref().unwrap_or(&self.blocks)
    }
}

/// Open stores, as one.
pub struct Opened {
    /// The objects.
    pub objects: Arc<dyn Objects>,
    /// Each store by its place, that of the blocks first.
    pub stores: Vec<(StoreUri, Arc<dyn Objects>)>,
    /// The MongoDB replica sets among them: none of them may become a source.
    pub backing_sets: Vec<BackingSet>,
}

impl Opened {
    /// The stores besides that of the blocks.
    pub fn apart(&self) -> impl Iterator<Item = &Arc<dyn Objects>> {
        self.stores.iter().skip(1).map(|(_, objects)| objects)
    }

    /// The store of a place.
    pub fn at(&self, place: &StoreUri) -> &Arc<dyn Objects> {
        let found = self.stores.iter().find(|(uri, _)| uri == place);
        found.map_or(&self.objects, |(_, objects)| objects)
    }

    /// Refuses places from which a part was moved away.
    pub async fn require_in_use(&self, places: &Places) -> Result<(), StoreError> {
        for (part, place) in places.parts() {
            if let Some(to) = claim::left(self.at(place).as_ref(), part).await? {
                let detail = format!(
                    "the {part} slices do not rest in {place} any more, but in {to}: name that in the settings"
                );
                return Err(StoreError::refused(claim::KEY, detail));
            }
        }
        Ok(())
    }
}

/// Opens all of them; fails when one cannot be relied on.
pub async fn open(places: &Places, host: &Host) -> Result<Opened, StoreError> {
    let mut backing_sets = Vec::new();
    let blocks = open_one(&places.blocks, host, &mut backing_sets).await?;
    let mut stores = vec![(places.blocks.clone(), blocks.clone())];
    let mut apart = [None, None];
    for (opened, uri) in apart.iter_mut().zip([&places.oplog, &places.sync]) {
        if let Some(uri) = uri.as_ref().filter(|uri| **uri != places.blocks) {
            let objects = open_one(uri, host, &mut backing_sets).await?;
            stores.push((uri.clone(), objects.clone()));
            *opened = Some(objects);
        }
    }
    let objects = match apart {
        [None, None] => blocks,
        [oplog, sync] => Arc::new(SplitObjects { blocks, oplog, sync }),
    };
    Ok(Opened {
        objects,
        stores,
        backing_sets,
    })
}

async fn open_one(
    uri: &StoreUri,
    host: &Host,
    backing_sets: &mut Vec<BackingSet>,
) -> Result<Arc<dyn Objects>, StoreError> {
    match uri {
        StoreUri::File(folder) => Ok(Arc::new(DirectoryObjects::open(folder, host.blocking.clone()).await?)),
        StoreUri::S3(place) => bucket::amazon(place, host).await,
        StoreUri::Google(place) => bucket::google(place, host).await,
        StoreUri::Azure(place) => bucket::azure(place, host).await,
        StoreUri::Mongodb(place) => {
            let (objects, set) = mongodb::connect(place, host).await?;
            backing_sets.push(set);
            Ok(Arc::new(objects))
        }
    }
}
