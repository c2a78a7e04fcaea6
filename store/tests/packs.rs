//! The blockstore: nothing flushed is lost, whatever call fails; nothing damaged is given out.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod fixture;

use std::sync::Arc;

use bytes::Bytes;
use fixture::{WAYS, fail_at, flipped};
use futures::future::join_all;
use headwater_host::Host;
use headwater_model::{BlockId, Epoch};
use headwater_store::backend::memory::MemoryObjects;
use headwater_store::blocks::Blocks;
use headwater_store::objects::StoreError;
use headwater_store::pack::{PackSettings, PackStore};

const SMALL: PackSettings = PackSettings {
    cache_bytes: 1 << 16,
    pack_bytes: 4000,
    packs_in_flight: 2,
    packs_failed: 1,
};

async fn open(objects: &MemoryObjects, epoch: u64) -> Result<Arc<PackStore>, StoreError> {
    let host = Host::real().unwrap();
    PackStore::open(Arc::new(objects.clone()), &host, "p/", Epoch(epoch), SMALL).await
}

/// Blocks that do not compress.
fn block(n: u32) -> Bytes {
    let mut bytes = vec![0; 500 + n as usize];
    blake3::Hasher::new()
        .update(&n.to_le_bytes())
        .finalize_xof()
        .fill(&mut bytes);
    bytes.into()
}

#[tokio::test]
async fn blocks_put_at_once_are_stored_once_and_read_back() {
    let objects = MemoryObjects::new();
    let store = open(&objects, 1).await.unwrap();
    let ids = join_all((0..100).map(|n| store.put(block(n / 2)))).await;
    let ids: Vec<BlockId> = ids.into_iter().collect::<Result<_, _>>().unwrap();
    for (n, id) in (0..).zip(&ids) {
        assert_eq!(store.get(*id).await.unwrap(), block(n / 2));
    }
    store.flush().await.unwrap();
    let stats = store.stats();
    assert_eq!((stats.blocks, stats.pending_blocks, stats.blocks_written), (50, 0, 50));
    assert!(stats.packs > 5);
    let again = open(&objects, 2).await.unwrap();
    for (n, id) in (0..).zip(&ids) {
        assert_eq!(again.get(*id).await.unwrap(), block(n / 2));
        again.put(block(n / 2)).await.unwrap();
    }
    again.flush().await.unwrap();
    assert_eq!(again.stats().blocks_written, 0);
    assert_eq!(
        again.stats().raw_bytes,
        (0..50).map(|n| block(n).len() as u64).sum::<u64>()
    );
    assert!(again.verify().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_writer_of_an_old_epoch_is_fenced_and_a_reader_is_not() {
    let objects = MemoryObjects::new();
    let store = open(&objects, 5).await.unwrap();
    let id = store.put(block(1)).await.unwrap();
    store.flush().await.unwrap();
    assert!(matches!(
        open(&objects, 4).await,
        Err(StoreError::Fenced {
            ours: 4,
            current: 5,
            ..
        })
    ));
    let host = Host::real().unwrap();
    let reader = PackStore::open_to_read(Arc::new(objects.clone()), &host, "p/", SMALL)
        .await
        .unwrap();
    assert_eq!(reader.get(id).await.unwrap(), block(1));
    assert!(matches!(reader.put(block(2)).await, Err(StoreError::Refused { .. })));
    let later = store.put(block(2)).await.unwrap();
    store.flush().await.unwrap();
    assert_eq!(reader.get(later).await.unwrap(), block(2));
}

#[tokio::test]
async fn whatever_call_fails_a_flush_that_succeeds_has_made_everything_durable() {
    for way in WAYS {
        for k in 0..12 {
            let objects = MemoryObjects::new();
            let store = open(&objects, 1).await.unwrap();
            fail_at(&objects, k, way);
            let mut ids = Vec::new();
            for n in 0..40 {
                ids.push(store.put(block(n)).await.unwrap());
            }
            while store.flush().await.is_err() {}
            objects.clear_hook();
            let again = open(&objects, 1).await.unwrap();
            for (n, id) in (0..).zip(&ids) {
                assert_eq!(again.get(*id).await.unwrap(), block(n), "{way:?} {k}");
            }
            assert_eq!(again.stats().blocks, 40);
            assert!(again.verify().await.unwrap().is_empty());
            // The sequence goes on after what is there.
            again.put(block(99)).await.unwrap();
            again.flush().await.unwrap();
        }
    }
}

#[tokio::test]
async fn while_the_store_is_full_memory_stays_bounded_and_afterwards_everything_is_written() {
    use headwater_store::backend::memory::Fault;
    let objects = MemoryObjects::new();
    let store = open(&objects, 1).await.unwrap();
    objects.set_hook(|call| Fault::Before(StoreError::Full(call.key.to_owned())));
    let mut accepted = Vec::new();
    for n in 0..400 {
        match store.put(block(n)).await {
            Ok(id) => accepted.push((n, id)),
            Err(error) => assert!(matches!(error, StoreError::Full(_))),
        }
    }
    assert!(accepted.len() < 60, "{} accepted", accepted.len());
    assert!(matches!(store.flush().await, Err(StoreError::Full(_))));
    objects.clear_hook();
    store.flush().await.unwrap();
    let again = open(&objects, 1).await.unwrap();
    for (n, id) in accepted {
        assert_eq!(again.get(id).await.unwrap(), block(n));
    }
}

#[tokio::test]
async fn a_damaged_pack_gives_out_nothing_wrong_and_hides_nothing_else() {
    let objects = MemoryObjects::new();
    let store = open(&objects, 1).await.unwrap();
    let mut ids = Vec::new();
    for n in 0..20 {
        ids.push(store.put(block(n)).await.unwrap());
    }
    store.flush().await.unwrap();
    let contents = objects.contents();
    assert!(contents.len() > 2);
    for (key, bytes) in &contents {
        for bit in (0..bytes.len() * 8).step_by(331) {
            let damaged = flipped(&objects, key, bit);
            let store = open(&damaged, 1).await.unwrap();
            let mut wrong = 0;
            for (n, id) in (0..).zip(&ids) {
                match store.get(*id).await {
                    Ok(raw) => assert_eq!(raw, block(n)),
                    Err(StoreError::Damaged { .. } | StoreError::NotFound(_)) => wrong += 1,
                    Err(other) => panic!("{other}"),
                }
            }
            assert!(wrong < 12, "one pack at most");
            assert_eq!(store.verify().await.unwrap().len(), 1, "{key} bit {bit}");
        }
    }
}
