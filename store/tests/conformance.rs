//! Every backend keeps the promises of `Objects`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use headwater_host::Host;
use headwater_store::backend::directory::DirectoryObjects;
use headwater_store::backend::memory::MemoryObjects;
use headwater_store::conformance;
use headwater_store::objects::{Objects, Put, StoreError};

#[tokio::test]
async fn memory_conforms() {
    let memory = MemoryObjects::new();
    let open = move || {
        let objects: Arc<dyn Objects> = Arc::new(memory.clone());
        async move { Ok(objects) }.boxed()
    };
    conformance::check(&open).await.unwrap();
}

fn directory(root: &Path) -> impl Fn() -> BoxFuture<'static, Result<Arc<dyn Objects>, StoreError>> + use<> {
    let root = root.to_owned();
    move || {
        let root = root.clone();
        let open = async move {
            let blocking = Host::real().expect("a runtime").blocking;
            let objects: Arc<dyn Objects> = Arc::new(DirectoryObjects::open(&root, blocking).await?);
            Ok(objects)
        };
        open.boxed()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_conforms() {
    let folder = tempfile::tempdir().unwrap();
    conformance::check(&directory(&folder.path().join("made/on/the/way")))
        .await
        .unwrap();
}

#[tokio::test]
async fn unfinished_writes_of_an_ended_process_are_removed_and_those_of_a_running_one_stay() {
    let folder = tempfile::tempdir().unwrap();
    let scratch = folder.path().join(".tmp");
    std::fs::create_dir_all(scratch.join("1-0")).unwrap();
    std::fs::write(scratch.join("1-0/lock"), b"").unwrap();
    std::fs::write(scratch.join("1-0/7"), b"half an obj").unwrap();
    let open = directory(folder.path());
    let first = open().await.unwrap();
    assert!(!scratch.join("1-0").exists());
    let second = open().await.unwrap();
    for store in [&first, &second] {
        store.put("a", "b".into()).await.unwrap();
    }
    assert_eq!(first.list("").await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_key_that_is_a_folder_of_another_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store = directory(folder.path())().await.unwrap();
    store.put("a/b", "x".into()).await.unwrap();
    store.put("c", "x".into()).await.unwrap();
    for key in ["a", "c/d"] {
        assert!(
            matches!(store.put_new(key, "y".into()).await, Err(StoreError::Refused { .. })),
            "{key}"
        );
        assert!(
            matches!(store.put(key, "y".into()).await, Err(StoreError::Refused { .. })),
            "{key}"
        );
    }
}

#[tokio::test]
async fn a_store_whose_temporary_files_somebody_removed_takes_writes_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = directory(folder.path())().await.unwrap();
    let scratch = folder.path().join(".tmp");
    std::fs::remove_dir_all(&scratch).unwrap();
    assert_eq!(store.put_new("a", "x".into()).await.unwrap(), Put::Created);
    for own in std::fs::read_dir(&scratch).unwrap() {
        std::fs::remove_dir_all(own.unwrap().path()).unwrap();
    }
    store.put("b", "y".into()).await.unwrap();
    let _another = directory(folder.path())().await.unwrap();
    store.put("c", "z".into()).await.unwrap();
    assert_eq!(store.list("").await.unwrap().len(), 3);
}

/// As when the file system of the store is unmounted, and its bare mount point is there.
#[tokio::test]
async fn nothing_is_written_into_another_directory_that_stands_in_the_place_of_the_store() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("store");
    let store = directory(&root)().await.unwrap();
    std::fs::rename(&root, folder.path().join("away")).unwrap();
    std::fs::create_dir(&root).unwrap();
    let written = store.put_new("a", "x".into()).await;
    assert!(matches!(written, Err(StoreError::Unavailable { .. })), "{written:?}");
    assert_eq!(std::fs::read_dir(&root).unwrap().count(), 0);
}
