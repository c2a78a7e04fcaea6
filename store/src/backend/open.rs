//! From URIs to the stores of this node.

use std::sync::Arc;

use headwater_host::Host;
use headwater_model::StoreUri;

use super::directory::DirectoryObjects;
use super::mongodb::{self, BackingSet};
use super::s3;
use super::split::SplitObjects;
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
}

/// Open stores, as one.
pub struct Opened {
    /// The objects.
    pub objects: Arc<dyn Objects>,
    /// Those besides that of the blocks.
    pub apart: Vec<Arc<dyn Objects>>,
    /// The MongoDB replica sets among them: none of them may become a source.
    pub backing_sets: Vec<BackingSet>,
}

/// Opens all of them; fails when one cannot be relied on.
pub async fn open(places: &Places, host: &Host) -> Result<Opened, StoreError> {
    let mut backing_sets = Vec::new();
    let blocks = open_one(&places.blocks, host, &mut backing_sets).await?;
    let mut apart = [None, None];
    for (opened, uri) in apart.iter_mut().zip([&places.oplog, &places.sync]) {
        if let Some(uri) = uri.as_ref().filter(|uri| **uri != places.blocks) {
            *opened = Some(open_one(uri, host, &mut backing_sets).await?);
        }
    }
    let listed = apart.iter().flatten().cloned().collect();
    let objects = match apart {
        [None, None] => blocks,
        [oplog, sync] => Arc::new(SplitObjects { blocks, oplog, sync }),
    };
    Ok(Opened {
        objects,
        apart: listed,
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
        StoreUri::S3(place) => s3::connect(place, host).await,
        StoreUri::Mongodb(place) => {
            let (objects, set) = mongodb::connect(place, host).await?;
            backing_sets.push(set);
            Ok(Arc::new(objects))
        }
    }
}
