//! A flipped bit anywhere is found by what a check reads, and is never given out.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod fixture;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use fixture::{INCARNATION, at, chain, flipped, replica_set};
use headwater_host::Host;
use headwater_model::{BlockId, Epoch};
use headwater_store::backend::memory::MemoryObjects;
use headwater_store::blocks::Blocks;
use headwater_store::objects::{Objects, StoreError};
use headwater_store::oplog_store::{MergeSettings, OplogSlice, Walked};
use headwater_store::pack::groom::{self, Thresholds};
use headwater_store::repository::Repository;

/// What a repository gives to readers.
#[derive(Debug, Default, PartialEq)]
struct Given {
    blocks: BTreeMap<BlockId, Bytes>,
    entries: Vec<Bytes>,
    image: Option<Bytes>,
}

const IMAGE: &str = "0000000100000001-0000000000000001";

async fn filled() -> (MemoryObjects, Given) {
    let (objects, host) = (MemoryObjects::new(), Host::real().unwrap());
    let repository = Repository::open(Arc::new(objects.clone()), &host, &replica_set(), Epoch(1))
        .await
        .unwrap();
    let mut given = Given::default();
    for n in 0..6_u32 {
        // Some compress, some do not.
        let block = match n % 2 {
            0 => Bytes::from(vec![n as u8; 300]),
            _ => Bytes::from(blake3::hash(&n.to_le_bytes()).as_bytes().to_vec()),
        };
        given
            .blocks
            .insert(repository.blocks().put(block.clone()).await.unwrap(), block);
        if n == 3 {
            repository.blocks().flush().await.unwrap();
        }
    }
    repository.blocks().flush().await.unwrap();
    let images = repository.images(INCARNATION);
    images.put(IMAGE, b"a manifest").await.unwrap();
    given.image = Some(Bytes::from_static(b"a manifest"));
    let oplog = Arc::new(repository.oplog(INCARNATION).await.unwrap());
    oplog.begin(at(0)).await.unwrap();
    let slices = chain(6);
    for frame in &slices {
        given.entries.push(frame.payload().unwrap());
        oplog.append(frame.clone()).await.unwrap();
    }
    let settings = MergeSettings {
        segment_bytes: 1 << 20,
        min_slices: 2,
        keep_slices: 3,
    };
    oplog.merge_small(settings).await.unwrap();
    (objects, given)
}

/// What a check reads, and what it says is wrong.
async fn faults(objects: &MemoryObjects) -> Vec<String> {
    let (mut faults, host) = (Vec::new(), Host::real().unwrap());
    let repository = Repository::open_to_read(Arc::new(objects.clone()), &host, &replica_set())
        .await
        .unwrap();
    let blocks = repository.blocks();
    faults.extend(blocks.damaged_packs());
    faults.extend(blocks.read_at_rest().await.unwrap().unsound().keys().cloned());
    for pack in blocks.packs().await.unwrap() {
        if !blocks.verify_pack(&pack.key).await.unwrap().unwrap().is_sound() {
            faults.push(pack.key);
        }
    }
    if let Err(StoreError::Damaged { key, .. }) = repository.images(INCARNATION).get(IMAGE).await {
        faults.push(key);
    }
    match repository.oplog(INCARNATION).await {
        Err(StoreError::Damaged { key, .. }) => faults.push(key),
        Err(other) => panic!("{other}"),
        Ok(oplog) => {
            let oplog = Arc::new(oplog);
            match oplog.check_structure().await {
                Ok((_, broken)) => faults.extend(broken.into_iter().map(|walked| format!("{walked:?}"))),
                Err(error) => faults.push(error.to_string()),
            }
            let mut walk = oplog.walk(None).unwrap();
            while let Some(walked) = walk.next().await.unwrap() {
                if let Walked::Broken { .. } = &walked {
                    faults.push(format!("{walked:?}"));
                }
            }
            assert_eq!(walk.position(), at(12), "what lies behind damage is looked at too");
        }
    }
    faults
}

/// What readers are given; what they are refused is left out.
async fn given(objects: &MemoryObjects, wanted: &Given) -> Given {
    let (mut given, host) = (Given::default(), Host::real().unwrap());
    let repository = Repository::open_to_read(Arc::new(objects.clone()), &host, &replica_set())
        .await
        .unwrap();
    for id in wanted.blocks.keys() {
        if let Ok(raw) = repository.blocks().get(*id).await {
            given.blocks.insert(*id, raw);
        }
    }
    given.image = repository.images(INCARNATION).get(IMAGE).await.ok();
    if let Ok(oplog) = repository.oplog(INCARNATION).await {
        let mut reader = Arc::new(oplog).read(at(0));
        while let Ok(Some(OplogSlice { payload, .. })) = reader.next().await {
            given.entries.push(payload);
        }
    }
    given
}

fn kind_of(key: &str) -> &str {
    key.split('/').nth(3).unwrap_or_default()
}

#[tokio::test]
async fn every_bit_of_every_object_is_looked_at_and_nothing_damaged_is_given_out() {
    let (objects, wanted) = filled().await;
    assert_eq!(faults(&objects).await, Vec::<String>::new());
    assert_eq!(given(&objects, &wanted).await, wanted);
    let (mut kinds, mut without_effect) = (BTreeMap::new(), 0);
    for (key, bytes) in objects.contents() {
        let kind = kind_of(&key).to_owned();
        // The fence's notes say with their names all that they say.
        if kind == "fence" {
            continue;
        }
        *kinds
            .entry(format!("{kind}{}", key.contains("segment") as u8))
            .or_insert(0) += 1;
        for bit in (0..bytes.len() * 8).step_by(3) {
            let damaged = flipped(&objects, &key, bit);
            let given = given(&damaged, &wanted).await;
            if faults(&damaged).await.is_empty() {
                // A compressed block has bits that its decoder ignores: what is read is the same, and that is what is proven.
                assert!(kind == "blocks" && given == wanted, "bit {bit} of {key} is not noticed");
                without_effect += 1;
            }
            for (id, raw) in &given.blocks {
                assert_eq!(raw, &wanted.blocks[id], "bit {bit} of {key}");
            }
            assert!(
                given.image.is_none() || given.image == wanted.image,
                "bit {bit} of {key}"
            );
            assert_eq!(
                given.entries,
                wanted.entries[..given.entries.len()],
                "bit {bit} of {key}"
            );
        }
    }
    assert!(without_effect < 10, "{without_effect} bits of blocks do not matter");
    assert_eq!(kinds.len(), 4, "blocks, images, slices, segments: {kinds:?}");
}

#[tokio::test]
async fn an_object_that_is_missing_is_noticed() {
    let (objects, _) = filled().await;
    let host = Host::real().unwrap();
    for key in objects.contents().into_keys() {
        // Opened while it was there, as a daemon that runs has it.
        let mut contents = objects.contents();
        let lost = MemoryObjects::holding(contents.clone());
        let repository = Repository::open_to_read(Arc::new(lost.clone()), &host, &replica_set())
            .await
            .unwrap();
        let oplog = Arc::new(repository.oplog(INCARNATION).await.unwrap());
        contents.remove(&key);
        Objects::delete(&lost, &key).await.unwrap();
        let found = if key.contains("/blocks/") {
            let at_rest = repository.blocks().read_at_rest().await.unwrap();
            at_rest.unsound().contains_key(&key)
        } else if key.contains("/images/") {
            repository.images(INCARNATION).get(IMAGE).await.is_err()
        } else if key.contains("/oplog/") && !key.contains("/manifest/") {
            let mut walk = oplog.walk(None).unwrap();
            let mut broken = false;
            while let Ok(Some(walked)) = walk.next().await {
                broken |= matches!(walked, Walked::Broken { .. });
            }
            broken || oplog.check_structure().await.is_err()
        } else {
            continue;
        };
        assert!(found, "{key}");
    }
}

/// Flips a bit in the middle of an object of a store that is in use.
async fn damage(objects: &MemoryObjects, key: &str, from_end: usize) {
    let mut bytes = objects.contents()[key].to_vec();
    let at = bytes.len() - from_end;
    bytes[at] ^= 4;
    Objects::put(objects, key, bytes.into()).await.unwrap();
}

async fn open(objects: &MemoryObjects, epoch: u64) -> Repository {
    let host = Host::real().unwrap();
    Repository::open(Arc::new(objects.clone()), &host, &replica_set(), Epoch(epoch))
        .await
        .unwrap()
}

fn first_pack(objects: &MemoryObjects) -> String {
    objects
        .contents()
        .into_keys()
        .find(|key| key.contains("/blocks/"))
        .unwrap()
}

#[tokio::test]
async fn blocks_that_are_in_memory_or_in_place_are_written_anew_and_the_damaged_pack_goes() {
    // 12 bytes from the end is the index, 230 are the blocks.
    for (from_end, in_memory) in [(12, 0), (230, 1)] {
        let (objects, wanted) = filled().await;
        let repository = open(&objects, 2).await;
        for id in wanted.blocks.keys() {
            repository.blocks().get(*id).await.unwrap();
        }
        let pack = first_pack(&objects);
        damage(&objects, &pack, from_end).await;
        assert!(
            !repository
                .blocks()
                .verify_pack(&pack)
                .await
                .unwrap()
                .unwrap()
                .is_sound()
        );
        let plan = repository.blocks().plan_mend(&pack).await.unwrap();
        assert_eq!((plan.in_memory.len(), plan.is_whole()), (in_memory, true), "{plan:?}");
        assert_eq!(repository.blocks().mend(&plan).await.unwrap().len(), 0);
        assert!(
            objects.contents().contains_key(&pack),
            "it is not known yet that it goes"
        );
        let condemned = std::slice::from_ref(&pack);
        repository.blocks().remove_condemned(condemned).await.unwrap();
        assert!(!objects.contents().contains_key(&pack));
        drop(repository);
        let again = open(&objects, 3).await;
        for (id, raw) in &wanted.blocks {
            assert_eq!(again.blocks().get(*id).await.unwrap(), raw);
        }
        assert_eq!(faults(&objects).await, Vec::<String>::new());
    }
}

#[tokio::test]
async fn what_nobody_has_stays_lost_until_somebody_puts_it_again() {
    let (objects, wanted) = filled().await;
    let host = Host::real().unwrap();
    let repository = Repository::open(Arc::new(objects.clone()), &host, &replica_set(), Epoch(2))
        .await
        .unwrap();
    let blocks = repository.blocks();
    let pack = first_pack(&objects);
    damage(&objects, &pack, 230).await;
    let plan = blocks.plan_mend(&pack).await.unwrap();
    let lost: Vec<BlockId> = plan.lost.iter().copied().collect();
    assert_eq!(lost.len(), 1);
    assert_eq!(blocks.mend(&plan).await.unwrap(), plan.lost);
    assert!(
        objects.contents().contains_key(&pack),
        "there may be more to be had from it"
    );
    assert!(matches!(blocks.get(lost[0]).await, Err(StoreError::Damaged { .. })));
    assert_eq!(blocks.take_met(), [(lost[0], pack.clone())]);
    assert_eq!(blocks.put(wanted.blocks[&lost[0]].clone()).await.unwrap(), lost[0]);
    blocks.flush().await.unwrap();
    assert_eq!(blocks.get(lost[0]).await.unwrap(), wanted.blocks[&lost[0]]);
    let plan = blocks.plan_mend(&pack).await.unwrap();
    assert!(plan.is_whole() && !plan.in_place.is_empty());
    blocks.mend(&plan).await.unwrap();
    blocks.remove_condemned(&[pack]).await.unwrap();
    assert_eq!(faults(&objects).await, Vec::<String>::new());
}

/// Found by the simulation (seed 12606): the mending had got no further, and a restore elsewhere met the damaged pack first.
#[tokio::test]
async fn a_block_that_rests_twice_is_read_where_it_is_whole() {
    let (objects, wanted) = filled().await;
    let owner = open(&objects, 2).await;
    for id in wanted.blocks.keys() {
        owner.blocks().get(*id).await.unwrap();
    }
    let pack = first_pack(&objects);
    damage(&objects, &pack, 230).await;
    let plan = owner.blocks().plan_mend(&pack).await.unwrap();
    assert!(owner.blocks().mend(&plan).await.unwrap().is_empty());
    assert!(objects.contents().contains_key(&pack));
    let (store, host) = (Arc::new(objects.clone()), Host::real().unwrap());
    let reader = Repository::open_to_read(store, &host, &replica_set()).await.unwrap();
    for (id, raw) in &wanted.blocks {
        assert_eq!(reader.blocks().get(*id).await.unwrap(), raw);
    }
}

/// What a mending wrote anew is looked for where it was written, also by the next owner: a groom of the next one would take the
/// copy that is whole for a dead one.
#[tokio::test]
async fn the_next_owner_of_a_mended_pack_keeps_the_copies_that_are_whole() {
    let (objects, wanted) = filled().await;
    let former = open(&objects, 2).await;
    for id in wanted.blocks.keys() {
        former.blocks().get(*id).await.unwrap();
    }
    let pack = first_pack(&objects);
    damage(&objects, &pack, 230).await;
    let plan = former.blocks().plan_mend(&pack).await.unwrap();
    assert!(former.blocks().mend(&plan).await.unwrap().is_empty());
    drop(former);
    let next = open(&objects, 3).await;
    next.blocks().recall_lost(&pack).await.unwrap();
    let census = next.blocks().begin_census().unwrap();
    for id in wanted.blocks.keys() {
        census.mark(*id).unwrap();
    }
    let plan = groom::plan(&census.weigh().await.unwrap(), Thresholds::thorough());
    assert!(plan.packs.iter().any(|weight| weight.key == pack), "{plan:?}");
    census.condemn(&plan.packs).await.unwrap();
    census.remove(&plan.packs).await.unwrap();
    drop((census, next));
    let last = open(&objects, 4).await;
    for (id, raw) in &wanted.blocks {
        assert_eq!(last.blocks().get(*id).await.unwrap(), raw);
    }
    assert_eq!(faults(&objects).await, Vec::<String>::new());
}

/// Blocks that a groom had taken into memory when it failed are not lost.
#[tokio::test]
async fn a_pack_that_a_groom_could_not_empty_is_mended_with_what_the_groom_has_in_memory() {
    let (objects, wanted) = filled().await;
    let repository = open(&objects, 2).await;
    let blocks = repository.blocks();
    let pack = first_pack(&objects);
    for id in blocks.blocks_in(&pack) {
        blocks.get(id).await.unwrap();
    }
    damage(&objects, &pack, 230).await;
    let census = blocks.begin_census().unwrap();
    for id in wanted.blocks.keys() {
        census.mark(*id).unwrap();
    }
    let all = census.weigh().await.unwrap();
    let its: Vec<_> = all.into_iter().filter(|weight| weight.key == pack).collect();
    assert!(matches!(census.condemn(&its).await, Err(StoreError::Damaged { .. })));
    assert_eq!(blocks.take_met().len(), 1, "the check hears of it");
    drop(census);
    let plan = blocks.plan_mend(&pack).await.unwrap();
    assert!(plan.is_whole(), "{plan:?}");
    assert!(blocks.mend(&plan).await.unwrap().is_empty());
    blocks.remove_condemned(&[pack]).await.unwrap();
    let again = open(&objects, 3).await;
    for (id, raw) in &wanted.blocks {
        assert_eq!(again.blocks().get(*id).await.unwrap(), raw);
    }
}

/// The control state names the pack before it goes; a new owner must not trust it.
#[tokio::test]
async fn a_new_owner_does_not_trust_a_mended_pack_that_a_former_one_may_still_delete() {
    let (objects, wanted) = filled().await;
    let former = open(&objects, 2).await;
    for id in wanted.blocks.keys() {
        former.blocks().get(*id).await.unwrap();
    }
    let pack = first_pack(&objects);
    damage(&objects, &pack, 230).await;
    let plan = former.blocks().plan_mend(&pack).await.unwrap();
    assert!(former.blocks().mend(&plan).await.unwrap().is_empty());
    let (store, host) = (Arc::new(objects.clone()), Host::real().unwrap());
    let condemned = BTreeSet::from([pack.clone()]);
    let next = Repository::open_without(store, &host, &replica_set(), Epoch(3), &condemned)
        .await
        .unwrap();
    let census = next.blocks().begin_census().unwrap();
    for id in wanted.blocks.keys() {
        census.mark(*id).unwrap();
    }
    let packs = groom::plan(&census.weigh().await.unwrap(), Thresholds::thorough()).packs;
    census.condemn(&packs).await.unwrap();
    census.remove(&packs).await.unwrap();
    // The former owner looked at the fence long ago, and deletes only now.
    objects.delete(&pack).await.unwrap();
    for (id, raw) in &wanted.blocks {
        assert_eq!(next.blocks().get(*id).await.unwrap(), raw);
    }
}

#[tokio::test]
async fn who_was_fenced_mends_nothing() {
    let (objects, _) = filled().await;
    let former = open(&objects, 2).await;
    let pack = first_pack(&objects);
    damage(&objects, &pack, 12).await;
    let plan = former.blocks().plan_mend(&pack).await.unwrap();
    let _owner = open(&objects, 3).await;
    let before = objects.contents();
    assert!(matches!(
        former.blocks().mend(&plan).await,
        Err(StoreError::Fenced { .. })
    ));
    assert_eq!(objects.contents(), before);
}
