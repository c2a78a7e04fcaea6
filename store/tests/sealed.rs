//! A store behind its seal: it keeps every promise of a store, shows nothing, and gives out nothing that was tampered with.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod fixture;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use fixture::{INCARNATION, at, chain, replica_set};
use futures::FutureExt;
use headwater_host::Host;
use headwater_model::Epoch;
use headwater_store::backend::directory::DirectoryObjects;
use headwater_store::backend::memory::MemoryObjects;
use headwater_store::blocks::Blocks;
use headwater_store::conformance;
use headwater_store::objects::{Objects, StoreError};
use headwater_store::pack::{PackSettings, PackStore};
use headwater_store::repository::{self, Repository};
use headwater_store::sealed::{DataKey, SealedObjects, Secret};
use proptest::prelude::*;

fn key(n: u8) -> Arc<DataKey> {
    Arc::new(DataKey::new(Secret::new([n; 32])))
}

fn behind(objects: impl Objects, n: u8) -> Arc<dyn Objects> {
    let entropy = Host::real().unwrap().entropy;
    Arc::new(SealedObjects::new(Arc::new(objects), key(n), entropy))
}

#[tokio::test]
async fn memory_behind_a_seal_conforms() {
    let memory = MemoryObjects::new();
    let open = move || {
        let objects = behind(memory.clone(), 1);
        async move { Ok(objects) }.boxed()
    };
    conformance::check(&open).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_behind_a_seal_conforms() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().to_owned();
    let open = move || {
        let root = root.clone();
        async move {
            let blocking = Host::real().unwrap().blocking;
            Ok(behind(DirectoryObjects::open(Path::new(&root), blocking).await?, 1))
        }
        .boxed()
    };
    conformance::check(&open).await.unwrap();
}

/// Bytes that do not compress.
fn noise(n: u32, len: usize) -> Bytes {
    let mut bytes = vec![0; len];
    blake3::Hasher::new()
        .update(&n.to_le_bytes())
        .finalize_xof()
        .fill(&mut bytes);
    bytes.into()
}

#[tokio::test]
async fn a_block_is_read_with_one_call_and_without_the_rest_of_its_pack() {
    let (memory, host) = (MemoryObjects::new(), Host::real().unwrap());
    let settings = PackSettings {
        cache_bytes: 0,
        ..PackSettings::default()
    };
    let store = PackStore::open(behind(memory.clone(), 1), &host, "p/", Epoch(1), settings)
        .await
        .unwrap();
    let mut ids = Vec::new();
    for n in 0..40 {
        ids.push(store.put(noise(n, 50_000)).await.unwrap());
    }
    store.flush().await.unwrap();
    let again = PackStore::open(behind(memory.clone(), 1), &host, "p/", Epoch(2), settings)
        .await
        .unwrap();
    for (n, id) in (0..).zip(&ids) {
        let before = memory.calls();
        assert_eq!(again.get(*id).await.unwrap(), noise(n, 50_000));
        assert_eq!(memory.calls(), before + 1);
        assert_ne!(
            id.0,
            *blake3::hash(&noise(n, 50_000)).as_bytes(),
            "the id is that of everybody's hash"
        );
    }
    let other = PackStore::open(behind(MemoryObjects::new(), 2), &host, "p/", Epoch(1), settings)
        .await
        .unwrap();
    assert_ne!(
        other.put(noise(0, 50_000)).await.unwrap(),
        ids[0],
        "two deployments name a block alike"
    );
    let wrong = PackStore::open(behind(memory.clone(), 2), &host, "p/", Epoch(3), settings)
        .await
        .unwrap();
    assert_eq!(wrong.damaged_packs().len() as u64, again.stats().packs);
}

/// A repository with something of everything, and how it looks from outside.
async fn repository() -> (MemoryObjects, BTreeMap<String, Bytes>) {
    let (memory, host) = (MemoryObjects::new(), Host::real().unwrap());
    let repository = Repository::open(behind(memory.clone(), 1), &host, &replica_set(), Epoch(1))
        .await
        .unwrap();
    repository
        .blocks()
        .put(Bytes::from_static(b"a planted word in a block"))
        .await
        .unwrap();
    repository.blocks().flush().await.unwrap();
    repository
        .images(INCARNATION)
        .put("image", b"a planted word in an image")
        .await
        .unwrap();
    let oplog = repository.oplog(INCARNATION).await.unwrap();
    oplog.begin(at(0)).await.unwrap();
    for frame in chain(5) {
        oplog.append(frame).await.unwrap();
    }
    repository.sync(INCARNATION).await.unwrap().remove_all().await.unwrap();
    let contents = memory.contents();
    (memory, contents)
}

#[tokio::test]
async fn nothing_but_names_and_lengths_is_seen_from_outside() {
    let (memory, contents) = repository().await;
    assert!(contents.len() >= 10, "{:?}", contents.keys());
    for (key, bytes) in &contents {
        assert!(bytes.starts_with(b"HWSEAL\x01\x00"), "{key} is not sealed");
        for word in [
            &b"planted"[..],
            b"headwater",
            b"HWPACK",
            b"HWKCAP",
            b"shop",
            b"replica_set",
        ] {
            assert!(
                !bytes.windows(word.len()).any(|window| window == word),
                "{key} shows {word:?}"
            );
        }
    }
    let host = Host::real().unwrap();
    let again = Repository::open_to_read(behind(memory, 1), &host, &replica_set())
        .await
        .unwrap();
    assert_eq!(
        again.images(INCARNATION).get("image").await.unwrap(),
        &b"a planted word in an image"[..]
    );
    assert_eq!(again.oplog(INCARNATION).await.unwrap().range(), Some((at(0), at(10))));
}

#[tokio::test]
async fn no_two_objects_can_be_exchanged() {
    let (_, contents) = repository().await;
    for (one, bytes) in &contents {
        for other in contents.keys().filter(|other| *other != one) {
            let mut swapped = contents.clone();
            swapped.insert(other.clone(), bytes.clone());
            let swapped = behind(MemoryObjects::holding(swapped), 1);
            let outcome = swapped.get(other).await;
            assert!(matches!(outcome, Err(StoreError::Damaged { .. })), "{one} for {other}");
        }
    }
}

/// What the seal cannot tell: an object that was written anew under one name. Only images and the cursors of restores are,
/// and whoever reads them proves them against the control state.
#[tokio::test]
async fn an_older_writing_under_its_own_name_is_whole_and_old_and_never_mixed_with_the_newer() {
    let memory = MemoryObjects::new();
    let sealed = behind(memory.clone(), 1);
    let (old, new) = (noise(1, 200_000), noise(2, 200_000));
    sealed.put("a", old.clone()).await.unwrap();
    let before = memory.contents()["a"].clone();
    sealed.put("a", new.clone()).await.unwrap();
    let after = memory.contents()["a"].clone();
    memory.put("a", before.clone()).await.unwrap();
    assert_eq!(sealed.get("a").await.unwrap(), old);
    for cut in [8 + 65584, 8 + 2 * 65584, 100_000] {
        let mixed = [&before[..cut], &after[cut..]].concat();
        memory.put("a", mixed.into()).await.unwrap();
        assert!(
            matches!(sealed.get("a").await, Err(StoreError::Damaged { .. })),
            "cut at {cut}"
        );
    }
}

/// One thing a thief with a pen could do to an object.
#[derive(Clone, Debug)]
enum Tampering {
    Flip(usize),
    Cut(usize),
    Lengthen(Vec<u8>),
    Zero(usize, usize),
    Copy(usize, usize, usize),
}

fn tampering() -> impl Strategy<Value = Tampering> {
    let place = || 0..1_000_000_usize;
    prop_oneof![
        place().prop_map(Tampering::Flip),
        place().prop_map(Tampering::Cut),
        proptest::collection::vec(any::<u8>(), 1..200).prop_map(Tampering::Lengthen),
        (place(), 1..70_000_usize).prop_map(|(at, len)| Tampering::Zero(at, len)),
        (place(), place(), 1..140_000_usize).prop_map(|(from, to, len)| Tampering::Copy(from, to, len)),
    ]
}

fn tampered(bytes: &[u8], with: &Tampering) -> Vec<u8> {
    let mut out = bytes.to_vec();
    let size = out.len();
    match with {
        Tampering::Flip(bit) => out[bit / 8 % size] ^= 1 << (bit % 8),
        Tampering::Cut(at) => out.truncate(at % size),
        Tampering::Lengthen(more) => out.extend(more),
        Tampering::Zero(at, len) => {
            let at = at % size;
            let end = size.min(at + len);
            out[at..end].fill(0);
        }
        Tampering::Copy(from, to, len) => {
            let (from, to) = (from % size, to % size);
            let len = (*len).min(size - from.max(to));
            out.copy_within(from..from + len, to);
        }
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever was done to an object: it is refused, or it is what it was; and so is every part of it.
    #[test]
    fn what_was_tampered_with_is_never_given_out(
        len in prop_oneof![0..200_usize, 65_000..66_000_usize, 130_000..200_000_usize],
        tampering in tampering(),
        part in (0..1_000_000_usize, 0..1_000_000_usize),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let memory = MemoryObjects::new();
            let plain = noise(7, len);
            behind(memory.clone(), 1).put_new("a/b", plain.clone()).await.unwrap();
            let bytes = memory.contents()["a/b"].clone();
            let changed = tampered(&bytes, &tampering);
            let same = changed == bytes[..];
            memory.put("a/b", changed.into()).await.unwrap();
            let sealed = behind(memory, 1);
            match sealed.get("a/b").await {
                Ok(read) => assert!(same && read == plain),
                Err(error) => assert!(!same && matches!(error, StoreError::Damaged { .. }), "{error}"),
            }
            let (from, to) = (part.0 % (len + 1), part.1 % (len + 1));
            let (from, to) = (from.min(to), from.max(to));
            match sealed.get_range("a/b", from as u64..to as u64).await {
                Ok(read) => assert_eq!(read, plain.slice(from..to)),
                Err(error) => assert!(!same && matches!(error, StoreError::Damaged { .. }), "{error}"),
            }
        });
    }
}

#[test]
fn a_repository_has_its_deployment_and_set_in_the_names_of_its_objects() {
    // What binds an object to its place is its name: kind and incarnation stand there, too.
    assert_eq!(repository::prefix(&replica_set()), "rs/shop/rs0/");
}
