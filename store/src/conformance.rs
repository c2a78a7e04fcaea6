//! What every backing store must pass, as one suite for any [`Objects`].
//!
//! `open` opens the store under test anew, each time on the same objects; the first opening finds it empty. A check
//! that fails is answered as [`Nonconforming`], so that the suite can be run against a real service, too.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::{BoxFuture, join_all};

use crate::objects::{Objects, Put, StoreError};

/// A promise that was not kept.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the store breaks a promise: {promise}: {detail}")]
pub struct Nonconforming {
    /// Which.
    pub promise: &'static str,
    /// What was seen.
    pub detail: String,
}

type Outcome = Result<(), Nonconforming>;
type Store = Arc<dyn Objects>;

/// Opens the store under test.
pub type Open<'a> = &'a (dyn Fn() -> BoxFuture<'static, Result<Store, StoreError>> + Sync);

trait Promise<T> {
    fn keeps(self, promise: &'static str) -> Result<T, Nonconforming>;
}

impl<T> Promise<T> for Result<T, StoreError> {
    fn keeps(self, promise: &'static str) -> Result<T, Nonconforming> {
        self.map_err(|error| Nonconforming {
            promise,
            detail: error.to_string(),
        })
    }
}

fn same<T: PartialEq + std::fmt::Debug>(promise: &'static str, found: T, expected: T) -> Outcome {
    if found == expected {
        Ok(())
    } else {
        Err(Nonconforming {
            promise,
            detail: format!("{found:?} where {expected:?} was due"),
        })
    }
}

/// Runs the whole suite.
pub async fn check(open: Open<'_>) -> Outcome {
    let store = open().await.keeps("an empty store opens")?;
    an_object_reads_back(&store).await?;
    put_new_never_replaces(&store).await?;
    one_of_many_put_new_wins(&store).await?;
    put_replaces_whole(&store).await?;
    ranges_are_exact(&store).await?;
    listings_are_complete_and_sorted(&store).await?;
    deleting_twice_is_no_error(&store).await?;
    odd_keys_are_refused(&store).await?;
    reopening_sees_everything(&store, open).await
}

async fn an_object_reads_back(store: &Store) -> Outcome {
    const P: &str = "an object reads back as it was written";
    for (key, len) in [("back/empty", 0), ("back/small", 10), ("back/large", 5 << 20)] {
        let bytes = Bytes::from((0..len).map(|n: u32| (n % 251) as u8).collect::<Vec<_>>());
        same(P, store.put_new(key, bytes.clone()).await.keeps(P)?, Put::Created)?;
        same(P, store.get(key).await.keeps(P)? == bytes, true)?;
    }
    const MISSING: &str = "what is not there is NotFound";
    for outcome in [
        store.get("back/missing").await,
        store.get_range("no/folder", 0..1).await,
    ] {
        same(MISSING, matches!(outcome, Err(StoreError::NotFound(_))), true)?;
    }
    Ok(())
}

async fn put_new_never_replaces(store: &Store) -> Outcome {
    const P: &str = "put_new never replaces";
    same(
        P,
        store.put_new("new/a", Bytes::from_static(b"first")).await.keeps(P)?,
        Put::Created,
    )?;
    same(
        P,
        store.put_new("new/a", Bytes::from_static(b"second")).await.keeps(P)?,
        Put::Exists,
    )?;
    same(P, store.get("new/a").await.keeps(P)?, Bytes::from_static(b"first"))
}

async fn one_of_many_put_new_wins(store: &Store) -> Outcome {
    const P: &str = "of 32 concurrent put_new exactly one is Created, and its bytes stay";
    for round in 0..8 {
        let key = format!("race/{round}");
        let writers = (0..32_u8).map(|n| store.put_new(&key, vec![n; 1000].into()));
        let outcomes = join_all(writers)
            .await
            .into_iter()
            .collect::<Result<Vec<_>, _>>()
            .keeps(P)?;
        let winners: Vec<_> = outcomes
            .iter()
            .enumerate()
            .filter(|(_, put)| **put == Put::Created)
            .collect();
        same(P, winners.len(), 1)?;
        same(
            P,
            store.get(&key).await.keeps(P)?,
            vec![winners[0].0 as u8; 1000].into(),
        )?;
    }
    Ok(())
}

async fn put_replaces_whole(store: &Store) -> Outcome {
    const P: &str = "put replaces, and readers see old or new, whole";
    store.put("over/a", vec![0; 200_000].into()).await.keeps(P)?;
    for n in 1..16_u8 {
        let bytes = Bytes::from(vec![n; 200_000 - usize::from(n) * 1000]);
        let reads = (0..4).map(|_| store.get("over/a"));
        let (put, seen) = futures::join!(store.put("over/a", bytes.clone()), join_all(reads));
        put.keeps(P)?;
        for read in seen {
            let read = read.keeps(P)?;
            let first = read.first().copied().unwrap_or(u8::MAX);
            let whole = read.len() == 200_000 - usize::from(first) * 1000 && read.iter().all(|byte| *byte == first);
            same(P, whole && (first == n || first == n - 1), true)?;
        }
        same(P, store.get("over/a").await.keeps(P)?, bytes)?;
    }
    Ok(())
}

async fn ranges_are_exact(store: &Store) -> Outcome {
    const P: &str = "a range gives exactly its bytes";
    store.put("range/a", Bytes::from_static(b"0123456789")).await.keeps(P)?;
    for (range, bytes) in [
        (0..10, &b"0123456789"[..]),
        (3..5, b"34"),
        (9..10, b"9"),
        (4..4, b""),
        (10..10, b""),
    ] {
        same(
            P,
            store.get_range("range/a", range).await.keeps(P)?,
            Bytes::from_static(bytes),
        )?;
    }
    #[expect(clippy::reversed_empty_ranges, reason = "callers may err, too")]
    for range in [0..11, 11..11, 5..4, u64::MAX - 1..u64::MAX] {
        let outcome = store.get_range("range/a", range).await;
        same(
            "a range outside is Damaged",
            matches!(outcome, Err(StoreError::Damaged { .. })),
            true,
        )?;
    }
    Ok(())
}

async fn listings_are_complete_and_sorted(store: &Store) -> Outcome {
    const P: &str = "a listing is complete and sorted by key";
    let mut keys: Vec<String> = (0..300).map(|n| format!("list/{}/{:x}", n % 7, n * 37 % 300)).collect();
    keys.extend(["list/0.x", "list/0-y/z", "list/A", "list/_", "list/0/a.b/c"].map(str::to_owned));
    let writes = keys
        .iter()
        .map(|key| store.put_new(key, Bytes::copy_from_slice(key.as_bytes())));
    join_all(writes)
        .await
        .into_iter()
        .collect::<Result<Vec<_>, _>>()
        .keeps(P)?;
    keys.sort();
    for prefix in [
        "list/",
        "list/0",
        "list/0/",
        "list/3/1",
        "list/A",
        "list/nothing",
        "list",
    ] {
        let listed = store.list(prefix).await.keeps(P)?;
        let due: Vec<_> = keys
            .iter()
            .filter(|key| key.starts_with(prefix))
            .map(|k| (k.clone(), k.len() as u64))
            .collect();
        same(
            P,
            listed
                .into_iter()
                .map(|object| (object.key, object.size))
                .collect::<Vec<_>>(),
            due,
        )?;
    }
    Ok(())
}

async fn deleting_twice_is_no_error(store: &Store) -> Outcome {
    const P: &str = "deleting what is not there is no error, and what was deleted is gone";
    store.put("gone/a/b", Bytes::from_static(b"x")).await.keeps(P)?;
    for _ in 0..2 {
        store.delete("gone/a/b").await.keeps(P)?;
    }
    same(
        P,
        matches!(store.get("gone/a/b").await, Err(StoreError::NotFound(_))),
        true,
    )?;
    same(P, store.list("gone/").await.keeps(P)?.len(), 0)?;
    same(
        P,
        store.put_new("gone/a/b", Bytes::from_static(b"y")).await.keeps(P)?,
        Put::Created,
    )
}

async fn odd_keys_are_refused(store: &Store) -> Outcome {
    const P: &str = "odd keys are refused by every method";
    for key in [
        "", "/", "/a", "a/", "a//b", "../a", "a/..", "a/.b", "a b", "a\0", "ü", "a\\b", "a:b",
    ] {
        let outcomes = [
            store.put_new(key, Bytes::new()).await.map(|_| ()),
            store.put(key, Bytes::new()).await,
            store.get(key).await.map(|_| ()),
            store.get_range(key, 0..0).await.map(|_| ()),
            store.delete(key).await,
        ];
        for outcome in outcomes {
            same(
                P,
                (key, matches!(outcome, Err(StoreError::Refused { .. }))),
                (key, true),
            )?;
        }
    }
    for prefix in ["/", "../", "a//", "a/."] {
        same(
            P,
            matches!(store.list(prefix).await, Err(StoreError::Refused { .. })),
            true,
        )?;
    }
    Ok(())
}

async fn reopening_sees_everything(store: &Store, open: Open<'_>) -> Outcome {
    const P: &str = "a store opened again sees everything";
    let before = store.list("").await.keeps(P)?;
    let again = open().await.keeps(P)?;
    same(P, again.list("").await.keeps(P)?, before.clone())?;
    let pairs = before.iter().map(|object| async {
        let (now, then) = futures::join!(again.get(&object.key), store.get(&object.key));
        same(P, now.keeps(P)? == then.keeps(P)?, true)
    });
    join_all(pairs).await.into_iter().collect()
}
