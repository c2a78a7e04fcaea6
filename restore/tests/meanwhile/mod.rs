//! What befalls a target while a load is under way: others write there, members are away.

use std::sync::Mutex;

use async_trait::async_trait;
use bson::{Document, doc};
use headwater_model::Namespace;
use headwater_restore::load::{Cursor, LoadFault, Observer, Step, Target, load};
use headwater_restore::source::Held;

use crate::mongod::{Mongod, held};
use crate::{Kept, chosen, collection, loaded, numbered, settings};

/// Somebody else at the target, who acts when the cursor is kept for the first time.
struct Meddler<'a> {
    mongod: &'a Mongod,
    does: Mutex<Vec<Document>>,
    kept: Kept,
}

impl<'a> Meddler<'a> {
    fn new(mongod: &'a Mongod, does: &[Document]) -> Self {
        let does = Mutex::new(does.to_vec());
        let kept = Kept::default();
        Meddler { mongod, does, kept }
    }
}

#[async_trait]
impl Observer for Meddler<'_> {
    async fn keep(&self, cursor: &Cursor) -> Result<(), String> {
        let does = std::mem::take(&mut *self.does.lock().unwrap());
        for command in does {
            self.mongod.run("shop", command).await;
        }
        self.kept.keep(cursor).await
    }

    fn progress(&self, _: Step, _: u64, _: u64) {}
}

#[tokio::test]
async fn what_appears_at_the_target_after_the_claim_is_refused_and_stays() {
    let mongod = Mongod::start().await;
    let source = Held::default()
        .with(collection("shop.orders"), numbered(10))
        .with(collection("shop.sessions"), numbered(10));
    let chosen = chosen(&source, &[], false).await;
    let target = Target::new(&mongod.uri, 8).await.unwrap();
    let sessions = Namespace::new("shop", "sessions");
    let insert = doc! { "insert": "sessions", "documents": [{ "_id": "theirs" }] };
    let capped = doc! { "create": "sessions", "capped": true, "size": 4096 };
    for does in [
        &[insert.clone()][..],
        &[capped],
        &[doc! { "create": "sessions" }, insert],
    ] {
        mongod.run("shop", doc! { "dropDatabase": 1 }).await;
        let meddler = Meddler::new(&mongod, does);
        let fault = load(&source, &chosen, &target, &settings(), Cursor::default(), &meddler).await;
        let fault = fault.unwrap_err();
        assert!(
            matches!(&fault, LoadFault::Taken { what } if what == "create of shop.sessions"),
            "{does:?}: {fault}"
        );
        let theirs = mongod.documents(&sessions, false).await.len();
        assert_eq!(
            theirs,
            does.iter().filter(|d| d.contains_key("insert")).count(),
            "{does:?}"
        );
    }
}

#[tokio::test]
async fn a_view_that_appears_at_the_target_meanwhile_stays_too() {
    let mongod = Mongod::start().await;
    mongod.run("shop", doc! { "create": "plain" }).await;
    mongod
        .run(
            "shop",
            doc! { "create": "view", "viewOn": "plain", "pipeline": [{ "$match": { "a": 1 } }] },
        )
        .await;
    let source = held(mongod.database("shop").await);
    let chosen = chosen(&source, &[], false).await;
    let target = Target::new(&mongod.uri, 8).await.unwrap();
    for theirs in [
        doc! { "create": "view", "viewOn": "other", "pipeline": [] },
        doc! { "insert": "view", "documents": [{ "_id": "theirs" }] },
    ] {
        mongod.run("shop", doc! { "dropDatabase": 1 }).await;
        let meddler = Meddler::new(&mongod, std::slice::from_ref(&theirs));
        let cursor = Cursor::default();
        let fault = load(&source, &chosen, &target, &settings(), cursor, &meddler)
            .await
            .unwrap_err();
        assert!(
            matches!(&fault, LoadFault::Taken { what } if what.ends_with("shop.view")),
            "{fault}"
        );
        let cursor = meddler.kept.cursors.into_inner().unwrap().pop().unwrap();
        let again = load(&source, &chosen, &target, &settings(), cursor, &Kept::default())
            .await
            .unwrap_err();
        assert!(
            matches!(&again, LoadFault::Taken { .. }),
            "after an interruption: {again}"
        );
        let listed = mongod
            .run("shop", doc! { "listCollections": 1, "filter": { "name": "view" } })
            .await;
        assert!(!listed.to_string().contains("$match"), "{listed}");
    }
}

#[tokio::test]
async fn a_resume_throws_away_only_what_the_load_made_itself() {
    let mongod = Mongod::start().await;
    let mut capped = collection("shop.caps");
    capped.options = doc! { "capped": true, "size": 10_000_000 };
    let source = Held::default()
        .with(collection("shop.orders"), numbered(10))
        .with(capped, numbered(100));
    let chosen = chosen(&source, &[], false).await;
    let target = Target::new(&mongod.uri, 8).await.unwrap();
    for (stop_after, name) in [(1, "orders"), (2, "orders"), (1, "caps"), (2, "caps")] {
        mongod.run("shop", doc! { "dropDatabase": 1 }).await;
        let kept = Kept {
            stop_after: Some(stop_after),
            ..Kept::default()
        };
        load(&source, &chosen, &target, &settings(), Cursor::default(), &kept)
            .await
            .unwrap_err();
        let cursor = kept.cursors.into_inner().unwrap().pop().unwrap();
        // Ours goes, theirs comes.
        mongod.run("shop", doc! { "drop": name }).await;
        mongod
            .run("shop", doc! { "insert": name, "documents": [{ "_id": "theirs" }] })
            .await;
        let fault = load(&source, &chosen, &target, &settings(), cursor, &Kept::default()).await;
        let fault = fault.unwrap_err();
        assert!(
            matches!(&fault, LoadFault::Taken { .. }),
            "{stop_after} {name}: {fault}"
        );
        let theirs = mongod.documents(&Namespace::new("shop", name), false).await;
        assert_eq!(theirs.len(), 1, "{stop_after} {name}");
    }
}

/// What is thrown away and made anew has another UUID than the one that was kept.
#[tokio::test]
async fn a_resume_that_is_interrupted_again_before_anything_was_kept_goes_on() {
    let mongod = Mongod::start().await;
    let mut capped = collection("shop.caps");
    capped.options = doc! { "capped": true, "size": 10_000_000 };
    let source = Held::default().with(capped, numbered(100));
    let chosen = chosen(&source, &[], false).await;
    let target = Target::new(&mongod.uri, 8).await.unwrap();
    let mut cursor = Cursor::default();
    for stop_after in [2, 0, 0] {
        let kept = Kept {
            stop_after: Some(stop_after),
            ..Kept::default()
        };
        load(&source, &chosen, &target, &settings(), cursor.clone(), &kept)
            .await
            .unwrap_err();
        cursor = kept.cursors.into_inner().unwrap().pop().unwrap_or(cursor);
    }
    load(&source, &chosen, &target, &settings(), cursor, &Kept::default())
        .await
        .unwrap();
    let caps = mongod.documents(&Namespace::new("shop", "caps"), true).await;
    assert!(caps == numbered(100));
}

/// The server does as if a majority did not confirm in time.
async fn no_majority_once(mongod: &Mongod, command: &str) {
    let error = doc! { "code": 64, "codeName": "WriteConcernFailed", "errmsg": "waiting for replication timed out",
    "errInfo": { "wtimeout": true } };
    let fails = doc! { "configureFailPoint": "failCommand", "mode": { "times": 1 },
    "data": { "failCommands": [command], "writeConcernError": error } };
    mongod.run("admin", fails).await;
}

#[tokio::test]
async fn a_load_that_lacked_a_majority_ends_and_goes_on_at_its_cursor() {
    let mongod = Mongod::start_with(&["--setParameter", "enableTestCommands=1"]).await;
    let mut capped = collection("shop.caps");
    capped.options = doc! { "capped": true, "size": 10_000_000 };
    let source = Held::default()
        .with(collection("shop.orders"), numbered(12_000))
        .with(capped, numbered(100));
    let chosen = chosen(&source, &[], false).await;
    let target = Target::new(&mongod.uri, 8).await.unwrap();
    for command in ["create", "insert", "createIndexes", "drop"] {
        mongod.run("shop", doc! { "dropDatabase": 1 }).await;
        let mut cursor = Cursor::default();
        if command == "drop" {
            let kept = Kept {
                stop_after: Some(2),
                ..Kept::default()
            };
            load(&source, &chosen, &target, &settings(), cursor, &kept)
                .await
                .unwrap_err();
            cursor = kept.cursors.into_inner().unwrap().pop().unwrap();
        }
        no_majority_once(&mongod, command).await;
        let kept = Kept::default();
        let fault = load(&source, &chosen, &target, &settings(), cursor, &kept)
            .await
            .unwrap_err();
        assert!(
            matches!(&fault, LoadFault::Unreachable { detail, .. } if detail.contains("no majority of its members")),
            "{command}: {fault}"
        );
        let cursor = kept.cursors.into_inner().unwrap().pop().unwrap();
        load(&source, &chosen, &target, &settings(), cursor, &Kept::default())
            .await
            .unwrap();
        let orders = mongod.documents(&Namespace::new("shop", "orders"), false).await;
        assert!(orders == numbered(12_000), "{command}");
        let caps = mongod.documents(&Namespace::new("shop", "caps"), true).await;
        assert!(caps == numbered(100), "{command}");
    }
}

#[tokio::test]
async fn a_member_of_a_sharded_cluster_takes_no_restore_past_its_routers() {
    let mongod = Mongod::start().await;
    let identity = doc! { "_id": "shardIdentity", "shardName": "sh0", "clusterId": 1 };
    mongod
        .run("admin", doc! { "insert": "system.version", "documents": [identity] })
        .await;
    let source = Held::default().with(collection("shop.orders"), numbered(10));
    let chosen = chosen(&source, &[], false).await;
    let fault = loaded(&mongod, &source, &chosen, &settings()).await.unwrap_err();
    assert!(fault.to_string().contains("it is shard sh0 of a cluster"), "{fault}");
    assert!(mongod.database("shop").await.is_empty(), "nothing was written");
}

#[tokio::test]
async fn config_servers_take_no_restore_and_show_what_they_are_to_any_user() {
    let mongod = Mongod::start_with(&["--configsvr"]).await;
    let source = Held::default().with(collection("shop.orders"), numbered(10));
    let chosen = chosen(&source, &[], false).await;
    let fault = loaded(&mongod, &source, &chosen, &settings()).await.unwrap_err();
    assert!(fault.to_string().contains("it is a config server"), "{fault}");
    // Where the user may not read `shardIdentity`, this tells members of clusters from others.
    let hello = mongod.run("admin", doc! { "hello": 1 }).await;
    assert!(hello.contains_key("lastCommittedOpTime"), "{hello}");
    let other = Mongod::start().await.run("admin", doc! { "hello": 1 }).await;
    assert!(!other.contains_key("lastCommittedOpTime"), "{other}");
}

#[tokio::test]
async fn the_roles_that_are_asked_for_are_enough() {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    std::fs::write(&key, "abcdef0123456789").unwrap();
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let mongod = Mongod::start_with(&["--auth", "--keyFile", key.to_str().unwrap()]).await;
    let roles = ["restore", "readWriteAnyDatabase"];
    mongod
        .run(
            "admin",
            doc! { "createUser": "ann", "pwd": "secret", "roles": roles.to_vec() },
        )
        .await;
    let source = Held::default().with(collection("shop.orders"), numbered(10));
    let chosen = chosen(&source, &[], false).await;
    let uri = mongod.uri.replacen("mongodb://", "mongodb://ann:secret@", 1);
    let target = Target::new(&uri, 8).await.unwrap();
    let kept = Kept {
        stop_after: Some(1),
        ..Kept::default()
    };
    load(&source, &chosen, &target, &settings(), Cursor::default(), &kept)
        .await
        .unwrap_err();
    let cursor = kept.cursors.into_inner().unwrap().pop().unwrap();
    let done = load(&source, &chosen, &target, &settings(), cursor, &Kept::default())
        .await
        .unwrap();
    assert_eq!(done.collections[0].documents, 10);
}
