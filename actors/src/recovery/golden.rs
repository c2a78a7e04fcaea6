//! The bytes of a catalog as they rest in stores that exist. A difference here means that a new version cannot recover what an
//! old one left: `HEADWATER_GOLDEN=write` writes the file anew, and the change to it is to be read line by line.

use std::path::Path;

use headwater_cluster::catalog::{Catalog, Piece, unknown_deployment};
use headwater_cluster::integrity::{Damage, DamageKind};
use headwater_cluster::retention::Tier;
use headwater_cluster::{Deployment, ImageRef, NodeId, ReplicaSet, Snapshot};
use headwater_model::{DeploymentName, Epoch, Incarnation, Optime, Phase, ReplicaSetId, SnapshotId, Ts};
use headwater_store::backend::memory::MemoryObjects;
use headwater_store::catalog::{self, CatalogName};
use headwater_store::objects::{Objects, StoreError};

const NAME: CatalogName = CatalogName {
    recoveries: 1,
    index: 77,
};

fn image() -> ImageRef {
    let at = Optime::new(Ts::new(1_795_343_068, 24), 3);
    ImageRef {
        name: "6b028a1c00000018-0000000000000005".to_owned(),
        incarnation: Incarnation(2),
        at,
        replay_from: at,
        documents: 1000,
        collections: 3,
        logical_bytes: 1 << 40,
    }
}

/// A catalog with a piece of every kind.
fn sample() -> Catalog {
    let set: ReplicaSetId = "shop/rs0".parse().unwrap();
    let snapshot = |image: Option<ImageRef>| Snapshot {
        incarnation: Incarnation(2),
        completed_ms: image.as_ref().map(|_| 1_795_343_069_000),
        expires_ms: image.as_ref().map(|_| 1_795_343_070_000),
        keep: image.is_none(),
        checkpoint: None,
        possibly_inconsistent: None,
        image,
        asked_ms: 1_795_343_068_000,
        reason: "schedule".to_owned(),
        stored_bytes: 4096,
        tiers: [Tier::Base, Tier::Daily, Tier::Weekly, Tier::Monthly].into(),
    };
    let named = |id: &str, image| Piece::Snapshot {
        set: set.clone(),
        id: SnapshotId::new(id).unwrap(),
        snapshot: snapshot(image),
    };
    Catalog {
        cluster: "c0ffee".to_owned(),
        recoveries: 1,
        last_epoch: Epoch(u64::MAX),
        last_restore: 4,
        pieces: vec![
            Piece::Deployment {
                name: DeploymentName::new("shop").unwrap(),
                deployment: Deployment {
                    uri: "mongodb://***@db:27017/".to_owned(),
                    active: true,
                    ..unknown_deployment(1_795_343_068_000).unwrap()
                },
            },
            Piece::ReplicaSet {
                set: set.clone(),
                record: ReplicaSet {
                    incarnation: Incarnation(2),
                    epoch: Epoch::default(),
                    node: NodeId::default(),
                    phase: Phase::Complete,
                    source_version: "6.0.5".to_owned(),
                    sync_stop: Some(image().at),
                    consistent_from: Some(image().at),
                    waypoint: Some(image()),
                    problem: None,
                    next_snapshot_ms: Some(1_795_360_000_000),
                },
            },
            named("one", Some(image())),
            named("two", None),
            Piece::Retired {
                set: "gone/rs1".parse().unwrap(),
                incarnation: Incarnation(3),
            },
            Piece::OplogFloor {
                set: set.clone(),
                incarnation: Incarnation(1),
                at: image().at,
            },
            Piece::Condemned {
                set: set.clone(),
                packs: vec!["rs/shop/rs0/blocks/1-1.pack".to_owned()],
            },
            Piece::Damage {
                set,
                object: "rs/shop/rs0/blocks/1-2.pack".to_owned(),
                damage: Damage {
                    kind: DamageKind::Blocks,
                    detail: "one of its blocks does not match its id".to_owned(),
                    found_ms: 1_795_343_081_000,
                    blocks: 1,
                    snapshots: [SnapshotId::new("one").unwrap()].into(),
                    head: true,
                    oplog: Some((Incarnation(1), image().at, image().at)),
                },
            },
        ],
    }
}

#[tokio::test]
async fn a_catalog_rests_in_these_bytes_and_any_other_are_damaged() {
    let objects = MemoryObjects::default();
    catalog::write(&objects, NAME, &sample()).await.unwrap();
    let bytes = objects.get(&NAME.key()).await.unwrap();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/recovery/golden.catalog");
    if std::env::var_os("HEADWATER_GOLDEN").is_some_and(|mode| mode == "write") {
        std::fs::write(&path, &bytes).unwrap();
    }
    let golden = std::fs::read(&path).unwrap();
    assert_eq!(String::from_utf8_lossy(&bytes), String::from_utf8_lossy(&golden));

    let stored = MemoryObjects::default();
    stored.put(&NAME.key(), golden.clone().into()).await.unwrap();
    assert_eq!(catalog::read::<Catalog>(&stored, NAME).await.unwrap(), sample());
    for at in [0, 20, golden.len() / 2, golden.len() - 1] {
        let mut twin = golden.clone();
        twin[at] ^= 1;
        stored.put(&NAME.key(), twin.into()).await.unwrap();
        let read = catalog::read::<Catalog>(&stored, NAME).await;
        assert!(matches!(read, Err(StoreError::Damaged { .. })), "byte {at}");
    }
}
