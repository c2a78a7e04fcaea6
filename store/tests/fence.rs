//! A stale owner's writes are refused at the store, one by one.

#![allow(clippy::unwrap_used, reason = "a test may fail anywhere")]

mod fixture;

use std::sync::Arc;

use bytes::Bytes;
use fixture::{INCARNATION, replica_set};
use headwater_host::Host;
use headwater_model::Epoch;
use headwater_store::backend::memory::MemoryObjects;
use headwater_store::blocks::Blocks;
use headwater_store::objects::StoreError;
use headwater_store::repository::Repository;

async fn open(objects: &MemoryObjects, epoch: u64) -> Result<Repository, StoreError> {
    let host = Host::real().unwrap();
    Repository::open(Arc::new(objects.clone()), &host, &replica_set(), Epoch(epoch)).await
}

fn is_fenced<T>(result: Result<T, StoreError>) -> bool {
    matches!(result, Err(StoreError::Fenced { current: 5, .. }))
}

/// An owner at epoch 4 that has written an image, and was overtaken at epoch 5.
async fn overtaken() -> (MemoryObjects, Repository, Repository) {
    let objects = MemoryObjects::new();
    let former = open(&objects, 4).await.unwrap();
    former.images(INCARNATION).put("a", b"image").await.unwrap();
    let present = open(&objects, 5).await.unwrap();
    (objects, former, present)
}

#[tokio::test]
async fn a_stale_owner_cannot_write_an_image_which_a_snapshot_or_waypoint_would_be() {
    let (_, former, present) = overtaken().await;
    assert!(is_fenced(former.images(INCARNATION).put("b", b"image").await));
    present.images(INCARNATION).put("b", b"image").await.unwrap();
}

#[tokio::test]
async fn a_stale_owner_cannot_groom() {
    let (_, former, present) = overtaken().await;
    assert!(is_fenced(former.images(INCARNATION).delete("a").await));
    assert_eq!(present.images(INCARNATION).list().await.unwrap(), ["a"]);
    present.images(INCARNATION).delete("a").await.unwrap();
}

#[tokio::test]
async fn a_stale_owner_cannot_remove_the_sync_slices() {
    let (_, former, present) = overtaken().await;
    assert!(is_fenced(former.sync(INCARNATION).await.unwrap().remove_all().await));
    present.sync(INCARNATION).await.unwrap().remove_all().await.unwrap();
}

#[tokio::test]
async fn a_stale_owner_cannot_write_blocks() {
    let (_, former, present) = overtaken().await;
    former.blocks().put(Bytes::from_static(b"a block")).await.unwrap();
    assert!(is_fenced(former.blocks().flush().await));
    present.blocks().put(Bytes::from_static(b"a block")).await.unwrap();
    present.blocks().flush().await.unwrap();
}

#[tokio::test]
async fn a_stale_owner_cannot_come_back() {
    let (objects, ..) = overtaken().await;
    assert!(is_fenced(open(&objects, 4).await));
    open(&objects, 5).await.unwrap();
}

#[tokio::test]
async fn a_reader_is_never_fenced_and_never_writes() {
    let (objects, ..) = overtaken().await;
    let host = Host::real().unwrap();
    let reader = Repository::open_to_read(Arc::new(objects), &host, &replica_set())
        .await
        .unwrap();
    assert_eq!(&reader.images(INCARNATION).get("a").await.unwrap()[..], b"image");
    assert!(matches!(
        reader.images(INCARNATION).put("b", b"image").await,
        Err(StoreError::Refused { .. })
    ));
}
