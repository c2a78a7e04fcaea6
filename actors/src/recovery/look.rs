//! Reads what a store says to whoever has nothing else. Decides nothing; what cannot be reached ends it, what is damaged is
//! noted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use headwater_cluster::ImageRef;
use headwater_cluster::catalog::Catalog;
use headwater_cluster::catalog::Piece;
use headwater_head::Image;
use headwater_host::Host;
use headwater_model::{DeploymentName, Epoch, Incarnation, Optime, ReplicaSetId, WrappedKey};
use headwater_store::catalog::{self, CatalogName};
use headwater_store::claim;
use headwater_store::images::ImageStore;
use headwater_store::objects::{Objects, StoreError};
use headwater_store::oplog_store::OplogStore;
use headwater_store::repository::prefix;
use headwater_store::sealed::{Keyring, SealedObjects, record};
use tokio::time::Instant;

use crate::cataloging::at_rest::AtRest;
use crate::work::head_store::epoch_of;

/// How often it is looked whether something changes.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What lies in a store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The cluster whose store it is.
    pub claimed: Option<String>,
    /// Catalogs, the newest first, up to one that is whole; the others with what is wrong with them.
    pub catalogs: Vec<(CatalogName, Result<Catalog, String>)>,
    /// What the encrypted deployments are sealed with.
    pub keys: BTreeMap<DeploymentName, WrappedKey>,
    /// Replica sets of which anything is there.
    pub sets: BTreeMap<ReplicaSetId, FoundSet>,
}

/// What lies there of one replica set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FoundSet {
    /// The highest epoch that fences and names of images show.
    pub epoch: Epoch,
    /// Its histories.
    pub histories: BTreeMap<Incarnation, FoundHistory>,
}

/// What lies there of one history.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FoundHistory {
    /// Images by name; damaged ones with what is wrong.
    pub images: BTreeMap<String, Result<FoundImage, String>>,
    /// Entries after the first position, up to the second, lie in one chain.
    pub oplog: Option<(Optime, Optime)>,
    /// Why the oplog cannot be read.
    pub oplog_fault: Option<String>,
}

/// What the manifest of an image says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundImage {
    /// As the control state would name it.
    pub image: ImageRef,
    /// From where on images of this history are consistent; none: it must not be restored.
    pub consistent_from: Option<Optime>,
    /// The source's version.
    pub source_version: String,
}

/// Looks at everything but blocks and entries. The name of an object that is none of ours is passed over.
/// [`StoreError::Locked`] when the keyring lacks the master key of an encrypted deployment.
pub async fn look(host: &Host, objects: &Arc<dyn Objects>, keyring: &Keyring) -> Result<Found, StoreError> {
    let mut found = Found {
        claimed: damage_aside(claim::claimed_by(objects.as_ref()).await)?.ok().flatten(),
        ..Found::default()
    };
    for name in catalog::list(objects.as_ref()).await? {
        let read = match damage_aside(catalog::read::<AtRest>(objects.as_ref(), name).await)? {
            Ok(at_rest) => opened(objects.as_ref(), keyring, at_rest).await?,
            Err(fault) => Err(fault),
        };
        let whole = read.is_ok();
        found.catalogs.push((name, read));
        if whole {
            break;
        }
    }
    for object in objects.list("rs/").await? {
        note(&mut found.sets, &object.key);
    }
    let deployments: BTreeSet<DeploymentName> = found.sets.keys().map(|set| set.deployment().clone()).collect();
    let mut sealed: BTreeMap<DeploymentName, Arc<dyn Objects>> = BTreeMap::new();
    for name in deployments {
        let Some(wrapped) = key_of(objects.as_ref(), &found, &name).await? else {
            continue;
        };
        let key = keyring.open(&name, &wrapped).await?;
        let under = SealedObjects::new(objects.clone(), key, host.entropy.clone());
        sealed.insert(name.clone(), Arc::new(under));
        found.keys.insert(name, wrapped);
    }
    for (set, there) in &mut found.sets {
        let objects = sealed.get(set.deployment()).unwrap_or(objects);
        for (incarnation, history) in &mut there.histories {
            fill(objects, set, *incarnation, history).await?;
        }
        let images = there.histories.values().flat_map(|history| history.images.keys());
        let epochs = images.filter_map(|name| epoch_of(name));
        there.epoch = epochs.fold(there.epoch, Epoch::max);
    }
    Ok(found)
}

/// A catalog with what is sealed in it; in words what is wrong with that.
async fn opened(
    objects: &dyn Objects,
    keyring: &Keyring,
    at_rest: AtRest,
) -> Result<Result<Catalog, String>, StoreError> {
    let mut whole = at_rest.plain;
    for (name, part) in at_rest.sealed {
        let written = damage_aside(record::read(objects, &name).await)?.unwrap_or_default();
        let key = keyring.open(&name, &newest_wrapping(part.key.clone(), written)).await?;
        match part.open(&name, &key) {
            Ok(pieces) => whole.pieces.extend(pieces),
            Err(fault) => return Ok(Err(format!("what it says of {name}: {fault}"))),
        }
    }
    Ok(Ok(whole))
}

/// Of a data key the wrapping that was made last.
fn newest_wrapping(key: WrappedKey, written: Vec<WrappedKey>) -> WrappedKey {
    let mut newer = written.into_iter();
    newer
        .find(|w| w.key == key.key && w.revision > key.revision)
        .unwrap_or(key)
}

/// The data key of a deployment: the one that the catalog names, as it was wrapped last; without a catalog the one in the store.
async fn key_of(objects: &dyn Objects, found: &Found, name: &DeploymentName) -> Result<Option<WrappedKey>, StoreError> {
    let catalog = found.catalogs.last().and_then(|(_, read)| read.as_ref().ok());
    let named = catalog.and_then(|catalog| {
        catalog.pieces.iter().find_map(|piece| match piece {
            Piece::Deployment { name: of, deployment } if of == name => Some(deployment.key.clone()),
            _ => None,
        })
    });
    let mut written = damage_aside(record::read(objects, name).await)?.unwrap_or_default();
    Ok(match named {
        None => written.pop(),
        Some(None) => None,
        Some(Some(key)) => Some(newest_wrapping(key, written)),
    })
}

/// What is damaged or gone is a finding; whatever else goes wrong is an error.
fn damage_aside<T>(read: Result<T, StoreError>) -> Result<Result<T, String>, StoreError> {
    match read {
        Ok(value) => Ok(Ok(value)),
        Err(error @ (StoreError::Damaged { .. } | StoreError::NotFound(_))) => Ok(Err(error.to_string())),
        Err(error) => Err(error),
    }
}

/// Takes in what the name of an object tells.
fn note(sets: &mut BTreeMap<ReplicaSetId, FoundSet>, key: &str) {
    let mut parts = key.split('/');
    let (Some("rs"), Some(deployment), Some(set), Some(kind), Some(name)) =
        (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return;
    };
    let Ok(id) = format!("{deployment}/{set}").parse::<ReplicaSetId>() else {
        return;
    };
    let there = sets.entry(id).or_default();
    let number = u64::from_str_radix(name, 16).ok();
    match (kind, number) {
        ("fence", Some(epoch)) => there.epoch = there.epoch.max(Epoch(epoch)),
        ("images" | "oplog" | "sync", Some(incarnation)) => {
            let history = there.histories.entry(Incarnation(incarnation)).or_default();
            if let ("images", Some(image)) = (kind, parts.next()) {
                history
                    .images
                    .insert(image.to_owned(), Err("it was not read".to_owned()));
            }
        }
        _ => {}
    }
}

async fn fill(
    objects: &Arc<dyn Objects>,
    set: &ReplicaSetId,
    incarnation: Incarnation,
    history: &mut FoundHistory,
) -> Result<(), StoreError> {
    let images = ImageStore::new(objects.clone(), &prefix(set), set, incarnation, None);
    for (name, image) in &mut history.images {
        *image = match damage_aside(images.get(name).await)? {
            Ok(manifest) => described(name, &manifest),
            Err(fault) => Err(fault),
        };
    }
    let oplog = OplogStore::open(objects.clone(), &prefix(set), set, incarnation).await;
    match damage_aside(oplog)? {
        Ok(oplog) => history.oplog = oplog.range(),
        Err(fault) => history.oplog_fault = Some(fault),
    }
    Ok(())
}

fn described(name: &str, manifest: &[u8]) -> Result<FoundImage, String> {
    let image = Image::decode(manifest).map_err(|e| e.to_string())?;
    Ok(FoundImage {
        consistent_from: image.consistent_from,
        source_version: image.source_version,
        image: ImageRef {
            name: name.to_owned(),
            incarnation: image.incarnation,
            at: image.applied,
            replay_from: image.replay_from,
            documents: image.totals.documents,
            collections: image.totals.collections,
            logical_bytes: image.totals.bytes,
        },
    })
}

/// Watches the store for so long, and tells the first object that somebody writes meanwhile: a cluster that lives. One that has
/// nothing to write is not noticed.
pub async fn sign_of_life(
    objects: &dyn Objects,
    found: &Found,
    patience: Duration,
) -> Result<Option<String>, StoreError> {
    let end = Instant::now() + patience;
    let before = living(objects, found).await?;
    while Instant::now() < end {
        tokio::time::sleep(LOOK_AGAIN.min(end - Instant::now())).await;
        if let Some(new) = living(objects, found).await?.difference(&before).next() {
            return Ok(Some(new.clone()));
        }
    }
    Ok(None)
}

/// The names of what a living cluster writes all the time.
async fn living(objects: &dyn Objects, found: &Found) -> Result<BTreeSet<String>, StoreError> {
    let mut folders = vec![catalog::FOLDER.to_owned()];
    for (set, there) in &found.sets {
        folders.push(format!("{}fence/", prefix(set)));
        if let Some(newest) = there.histories.keys().next_back() {
            folders.extend(["images", "oplog", "sync"].map(|kind| format!("{}{kind}/{:016x}/", prefix(set), newest.0)));
        }
    }
    let mut keys = BTreeSet::new();
    for folder in folders {
        keys.extend(objects.list(&folder).await?.into_iter().map(|object| object.key));
    }
    Ok(keys)
}
