use super::*;
use headwater_model::{DataKeyId, MasterKeyId, Optime, WrappedKey};
use headwater_store::catalog::CatalogName;

const SET: &str = "shop/rs0";

fn set() -> ReplicaSetId {
    SET.parse().unwrap()
}

fn at(seconds: u32) -> Optime {
    Optime::new(Ts::new(seconds, 1), 7)
}

fn image(incarnation: u64, seconds: u32) -> ImageRef {
    ImageRef {
        name: format!("{:016x}-{:016x}", at(seconds).ts.0, 3),
        incarnation: Incarnation(incarnation),
        at: at(seconds),
        replay_from: at(seconds),
        documents: 10,
        collections: 1,
        logical_bytes: 100,
    }
}

fn record(incarnation: u64, phase: Phase, waypoint: Option<u32>) -> ReplicaSet {
    ReplicaSet {
        incarnation: Incarnation(incarnation),
        epoch: Epoch::default(),
        node: NodeId::default(),
        phase,
        source_version: "6.0.5".to_owned(),
        sync_stop: None,
        consistent_from: waypoint.map(|_| at(50)),
        waypoint: waypoint.map(|seconds| image(incarnation, seconds)),
        problem: None,
        next_snapshot_ms: None,
    }
}

fn snapshot(incarnation: u64, seconds: Option<u32>) -> Snapshot {
    Snapshot {
        incarnation: Incarnation(incarnation),
        image: seconds.map(|seconds| image(incarnation, seconds)),
        asked_ms: 1,
        completed_ms: Some(2),
        reason: "schedule".to_owned(),
        stored_bytes: 3,
        tiers: BTreeSet::from([Tier::Base, Tier::Daily]),
        expires_ms: Some(4),
        keep: false,
        checkpoint: None,
        possibly_inconsistent: None,
    }
}

fn deployment(uri: &str) -> Deployment {
    Deployment {
        uri: uri.to_owned(),
        active: true,
        ..unknown_deployment(0).unwrap()
    }
}

/// `shop/rs0` in routine operation at incarnation 1, with snapshots at 100 and 200, and a waypoint at 250.
fn catalog() -> Catalog {
    let mut pieces = vec![
        Piece::Deployment {
            name: DeploymentName::new("shop").unwrap(),
            deployment: deployment("mongodb://db:27017"),
        },
        Piece::ReplicaSet {
            set: set(),
            record: record(1, Phase::Complete, Some(250)),
        },
        Piece::OplogFloor {
            set: set(),
            incarnation: Incarnation(1),
            at: at(90),
        },
    ];
    for (id, seconds) in [("one", 100), ("two", 200)] {
        pieces.push(Piece::Snapshot {
            set: set(),
            id: SnapshotId::new(id).unwrap(),
            snapshot: snapshot(1, Some(seconds)),
        });
    }
    Catalog {
        cluster: "old".to_owned(),
        recoveries: 0,
        last_epoch: Epoch(9),
        last_restore: 4,
        pieces,
    }
}

fn history(incarnation: u64, images: &[u32], oplog: Option<(u32, u32)>) -> FoundHistory {
    let found = |seconds: &u32| {
        let image = image(incarnation, *seconds);
        let described = FoundImage {
            image: image.clone(),
            consistent_from: Some(at(50)),
            source_version: "6.0.5".to_owned(),
        };
        (image.name, Ok(described))
    };
    FoundHistory {
        images: images.iter().map(found).collect(),
        oplog: oplog.map(|(from, to)| (at(from), at(to))),
        oplog_fault: None,
    }
}

/// A store in which everything is as [`catalog`] says.
fn whole() -> Found {
    let name = CatalogName {
        recoveries: 0,
        index: 40,
    };
    let there = FoundSet {
        epoch: Epoch(12),
        histories: BTreeMap::from([(Incarnation(1), history(1, &[100, 200, 250], Some((60, 300))))]),
    };
    Found {
        claimed: Some("old".to_owned()),
        catalogs: vec![(name, Ok(catalog()))],
        keys: BTreeMap::new(),
        sets: BTreeMap::from([(set(), there)]),
    }
}

fn plan(found: &Found) -> RecoveryPlan {
    plan_recovery(found, 1_795_343_068_000).unwrap()
}

fn planned_set(plan: &RecoveryPlan) -> &ReplicaSet {
    let mut records = plan.pieces.iter().filter_map(|piece| match piece {
        Piece::ReplicaSet { record, .. } => Some(record),
        _ => None,
    });
    records.next_back().unwrap()
}

fn snapshots(plan: &RecoveryPlan) -> Vec<&str> {
    let of_set = plan.report.replica_sets[0].snapshots.iter();
    of_set.map(|snapshot| snapshot.id.as_str()).collect()
}

#[test]
fn a_whole_store_gives_everything_back_as_the_catalog_says() {
    let plan = plan(&whole());
    assert_eq!(plan.report.losses, Vec::<String>::new());
    let begin = Piece::Begin {
        recoveries: 1,
        last_epoch: Epoch(12 + EPOCHS_APART),
        last_restore: 4,
    };
    assert_eq!(plan.pieces.first(), Some(&begin));
    assert_eq!(plan.pieces.last(), Some(&Piece::End));
    for piece in catalog().pieces {
        assert!(plan.pieces.contains(&piece), "{piece:?}");
    }
    assert_eq!(plan.pieces.len(), catalog().pieces.len() + 2);
    assert_eq!(snapshots(&plan), ["one", "two"]);
}

#[test]
fn an_empty_store_gives_nothing() {
    assert_eq!(plan_recovery(&Found::default(), 0), Err(NothingThere));
}

/// What is done to a whole store, how the replica set then goes on, which snapshots come back, and of what is told.
struct Case {
    what: &'static str,
    done: fn(&mut Found),
    incarnation: u64,
    phase: Phase,
    head: Option<u32>,
    snapshots: &'static [&'static str],
    told: &'static [&'static str],
}

fn first(found: &mut Found) -> &mut FoundSet {
    found.sets.values_mut().next().unwrap()
}

fn own(found: &mut Found) -> &mut FoundHistory {
    first(found).histories.get_mut(&Incarnation(1)).unwrap()
}

fn damage_catalog(found: &mut Found) {
    let (name, _) = found.catalogs[0];
    found.catalogs = vec![(name, Err("its checksum is wrong".to_owned()))];
}

const BY_EVIDENCE: [&str; 3] = ["recovered-1-100-1", "recovered-1-200-1", "recovered-1-250-1"];
const SOURCE: &str = "the source and the schedule of shop are not known any more";

#[test]
fn what_is_missing_or_damaged_decides_how_a_replica_set_goes_on() {
    let cases = [
        Case {
            what: "the waypoint was replaced after the catalog was written",
            done: |found| {
                let images = history(1, &[100, 200, 280], None).images;
                own(found).images = images;
            },
            incarnation: 1,
            phase: Phase::Complete,
            head: Some(280),
            snapshots: &["one", "two"],
            told: &[],
        },
        Case {
            what: "a snapshot's image is gone, another is damaged",
            done: |found| {
                let images = &mut own(found).images;
                images.remove(&image(1, 100).name);
                images.insert(image(1, 200).name, Err("it was cut".to_owned()));
            },
            incarnation: 1,
            phase: Phase::Complete,
            head: Some(250),
            snapshots: &[],
            told: &[
                "snapshot one of shop/rs0 is lost",
                "snapshot two of shop/rs0 is lost: it was cut",
            ],
        },
        Case {
            what: "every image is gone",
            done: |found| own(found).images.clear(),
            incarnation: 2,
            phase: Phase::Starting,
            head: None,
            snapshots: &[],
            told: &["no image of shop/rs0", "snapshot one", "snapshot two"],
        },
        Case {
            what: "the oplog is damaged",
            done: |found| own(found).oplog_fault = Some("broken".to_owned()),
            incarnation: 2,
            phase: Phase::Starting,
            head: None,
            snapshots: &["one", "two"],
            told: &["the oplog of shop/rs0 is of no use: broken"],
        },
        Case {
            what: "the oplog begins after every image",
            done: |found| own(found).oplog = Some((at(260), at(300))),
            incarnation: 2,
            phase: Phase::Starting,
            head: None,
            snapshots: &["one", "two"],
            told: &["no image of shop/rs0 meets the stored oplog"],
        },
        Case {
            what: "a history begun after the last catalog",
            done: |found| {
                let next = history(2, &[], Some((290, 291)));
                first(found).histories.insert(Incarnation(2), next);
            },
            incarnation: 3,
            phase: Phase::Starting,
            head: None,
            snapshots: &["one", "two"],
            told: &["shop/rs0 had begun history 2"],
        },
        Case {
            what: "the only catalog is damaged",
            done: damage_catalog,
            incarnation: 1,
            phase: Phase::Complete,
            head: Some(250),
            snapshots: &BY_EVIDENCE,
            told: &[
                "a catalog is of no use: its checksum is wrong",
                "no catalog tells of shop/rs0",
                SOURCE,
            ],
        },
        Case {
            what: "the newest catalog is damaged, the one before is whole",
            done: |found| {
                let newer = CatalogName {
                    recoveries: 2,
                    index: 5,
                };
                found
                    .catalogs
                    .insert(0, (newer, Err("its checksum is wrong".to_owned())));
            },
            incarnation: 1,
            phase: Phase::Complete,
            head: Some(250),
            snapshots: &["one", "two", "recovered-1-250-1"],
            told: &["a catalog is of no use: its checksum is wrong"],
        },
        Case {
            what: "no catalog, and the newest history has no consistent image",
            done: |found| {
                found.catalogs.clear();
                let next = history(2, &[], Some((290, 300)));
                first(found).histories.insert(Incarnation(2), next);
            },
            incarnation: 3,
            phase: Phase::Starting,
            head: None,
            snapshots: &BY_EVIDENCE,
            told: &[
                "there is no catalog",
                "no catalog tells of shop/rs0",
                SOURCE,
                "no image of shop/rs0",
            ],
        },
        Case {
            what: "the first copy was under way",
            done: |found| {
                let mut under_way = catalog();
                under_way.pieces.truncate(1);
                under_way.pieces.push(Piece::ReplicaSet {
                    set: set(),
                    record: record(1, Phase::Transferring, None),
                });
                found.catalogs[0].1 = Ok(under_way);
                *own(found) = history(1, &[], Some((60, 70)));
            },
            incarnation: 1,
            phase: Phase::Transferring,
            head: None,
            snapshots: &[],
            told: &[],
        },
    ];
    for case in cases {
        let mut found = whole();
        (case.done)(&mut found);
        let plan = plan(&found);
        let record = planned_set(&plan);
        let what = case.what;
        assert_eq!(record.incarnation, Incarnation(case.incarnation), "{what}");
        assert_eq!(record.phase, case.phase, "{what}");
        let head = record.waypoint.as_ref().map(|image| image.at);
        assert_eq!(head, case.head.map(at), "{what}");
        assert_eq!(snapshots(&plan), case.snapshots, "{what}");
        let losses = &plan.report.losses;
        assert_eq!(losses.len(), case.told.len(), "{what}: {losses:?}");
        for told in case.told {
            assert!(
                losses.iter().any(|loss| loss.contains(told)),
                "{what}: {told}: {losses:?}"
            );
        }
    }
}

#[test]
fn a_recovery_counts_on_from_the_newest_name_even_if_that_catalog_is_damaged() {
    let mut found = whole();
    let newer = CatalogName {
        recoveries: 5,
        index: 1,
    };
    found.catalogs.insert(0, (newer, Err("torn".to_owned())));
    assert_eq!(plan(&found).report.recoveries, 6);
}

#[test]
fn a_source_whose_password_was_withheld_comes_back_stopped() {
    let mut found = whole();
    let mut secret = catalog();
    secret.pieces[0] = Piece::Deployment {
        name: DeploymentName::new("shop").unwrap(),
        deployment: deployment("mongodb://***@db:27017"),
    };
    found.catalogs[0].1 = Ok(secret);
    let report = plan(&found).report;
    assert!(!report.deployments[0].active && report.deployments[0].needs_source);
    assert_eq!(report.deployments[0].source, "mongodb://***@db:27017");
}

/// The key of a deployment in the plan.
fn planned_key(found: &Found) -> Option<WrappedKey> {
    plan(found).pieces.into_iter().find_map(|piece| match piece {
        Piece::Deployment { deployment, .. } => deployment.key,
        _ => None,
    })
}

#[test]
fn a_deployment_keeps_the_key_that_the_store_holds_with_a_catalog_and_without() {
    let mut found = whole();
    assert_eq!(planned_key(&found), None);
    let wrapped = WrappedKey {
        revision: 2,
        key: DataKeyId([7; 8]),
        master: MasterKeyId::new("k2").unwrap(),
        sealed: "00ff".to_owned(),
    };
    found.keys.insert(DeploymentName::new("shop").unwrap(), wrapped.clone());
    assert_eq!(planned_key(&found), Some(wrapped.clone()));
    found.catalogs.clear();
    assert_eq!(planned_key(&found), Some(wrapped));
}

#[test]
fn what_was_removed_does_not_come_back_without_its_catalog_either() {
    let mut found = whole();
    let mut removed = catalog();
    removed.pieces = vec![Piece::Retired {
        set: set(),
        incarnation: Incarnation(1),
    }];
    found.catalogs[0].1 = Ok(removed);
    damage_catalog_before(&mut found);
    let plan = plan(&found);
    assert!(plan.report.replica_sets.is_empty() && plan.report.deployments.is_empty());
}

fn damage_catalog_before(found: &mut Found) {
    let newer = CatalogName {
        recoveries: 0,
        index: 99,
    };
    found.catalogs.insert(0, (newer, Err("torn".to_owned())));
}
