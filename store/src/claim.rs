//! Whose store this is: one note, `cluster`, with the name of the cluster that keeps its backups there.
//!
//! Two clusters in one store would take each other's oplog for their own. Whoever begins a cluster claims its store first;
//! every node looks before it works there, so that a wrong address is told and not written to.
//!
//! Oplog slices and sync slices may be moved away from a place that goes on to hold the rest: then a note, `left-oplog` or
//! `left-sync`, says where they went, and keeps away whoever was not told.

use crate::note;
use crate::objects::{Objects, StoreError};

/// The name of the note.
pub const KEY: &str = "cluster";
const KIND: &str = "cluster";
const LEFT: &str = "left";

/// The cluster whose store this is; `None` for nobody's.
pub async fn claimed_by(objects: &dyn Objects) -> Result<Option<String>, StoreError> {
    match objects.get(KEY).await {
        Ok(bytes) => note::open(KIND, KEY, &bytes).map(Some),
        Err(StoreError::NotFound(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Claims the store for `cluster`; again is harmless. [`StoreError::Refused`] when it is another's.
pub async fn claim(objects: &dyn Objects, cluster: &str) -> Result<(), StoreError> {
    let note = note::seal(KIND, &cluster)?;
    objects.put_new(KEY, note).await?;
    match claimed_by(objects).await? {
        Some(owner) if owner == cluster => Ok(()),
        owner => Err(another(owner.as_deref().unwrap_or_default())),
    }
}

/// Claims the store for `cluster` whosever it was: for a cluster that is recovered from it. Daemons of the former one find
/// that it is no longer theirs.
pub async fn take_over(objects: &dyn Objects, cluster: &str) -> Result<(), StoreError> {
    objects.put(KEY, note::seal(KIND, &cluster)?).await?;
    match claimed_by(objects).await? {
        Some(owner) if owner == cluster => Ok(()),
        owner => Err(another(owner.as_deref().unwrap_or_default())),
    }
}

/// The claim on a place whose objects are being brought elsewhere, or were.
pub fn moved_to(cluster: &str, place: &str) -> String {
    format!("{cluster} (moved to {place})")
}

/// The claim on a place to which objects are being brought.
pub fn moving_in(cluster: &str) -> String {
    format!("{cluster} (being moved here)")
}

/// The cluster in a claim, without what it says of a move.
pub fn cluster_of(claim: &str) -> &str {
    claim.split_once(" (").map_or(claim, |(cluster, _)| cluster)
}

fn left_key(part: &str) -> String {
    format!("left-{part}")
}

/// Whether an object says whose a place is and what is kept there, and is no part of a backup.
pub fn is_about_place(key: &str) -> bool {
    key == KEY || key.starts_with("left-")
}

/// Marks that a part, `oplog` or `sync`, does not rest here any more.
pub async fn leave(objects: &dyn Objects, part: &str, to: &str) -> Result<(), StoreError> {
    objects.put(&left_key(part), note::seal(LEFT, &to)?).await
}

/// Where a part went that does not rest here any more.
pub async fn left(objects: &dyn Objects, part: &str) -> Result<Option<String>, StoreError> {
    match objects.get(&left_key(part)).await {
        Ok(bytes) => note::open(LEFT, &left_key(part), &bytes).map(Some),
        Err(StoreError::NotFound(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The part rests here again.
pub async fn come_back(objects: &dyn Objects, part: &str) -> Result<(), StoreError> {
    objects.delete(&left_key(part)).await
}

/// What is said of a store that belongs to another cluster, or that is not in use.
pub fn another(owner: &str) -> StoreError {
    if cluster_of(owner) != owner {
        return StoreError::refused(
            KEY,
            format!(
                "it is not in use: cluster {owner}. See `headwater store move`, and give the daemons the other store"
            ),
        );
    }
    StoreError::refused(
        KEY,
        format!(
            "the backups of another cluster, {owner}, are kept there: join that one, or give this one a store of its own"
        ),
    )
}

/// What is said of a store in which nothing is, to a node whose cluster keeps its backups somewhere.
pub fn nobodys(cluster: &str) -> StoreError {
    StoreError::refused(
        KEY,
        format!("nothing is kept there, while cluster {cluster} has a store: give the same --store to all its nodes"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::memory::MemoryObjects;

    #[tokio::test]
    async fn a_store_belongs_to_the_first_who_claims_it() {
        let objects = MemoryObjects::default();
        assert_eq!(claimed_by(&objects).await.unwrap(), None);
        claim(&objects, "a").await.unwrap();
        claim(&objects, "a").await.unwrap();
        let refused = claim(&objects, "b").await.unwrap_err();
        assert!(refused.to_string().contains("another cluster, a,"), "{refused}");
        assert_eq!(claimed_by(&objects).await.unwrap().as_deref(), Some("a"));
    }

    #[tokio::test]
    async fn nobody_works_in_a_place_that_is_being_moved() {
        let objects = MemoryObjects::default();
        claim(&objects, "a").await.unwrap();
        for now in [moved_to("a", "file:/b"), moving_in("a")] {
            assert_eq!(cluster_of(&now), "a");
            take_over(&objects, &now).await.unwrap();
            let refused = claim(&objects, "a").await.unwrap_err();
            assert!(refused.to_string().contains("not in use"), "{refused}");
        }
        assert_eq!(cluster_of("a"), "a");
    }

    #[tokio::test]
    async fn a_part_that_left_is_not_looked_for_here_until_it_comes_back() {
        let objects = MemoryObjects::default();
        leave(&objects, "oplog", "file:/b").await.unwrap();
        assert_eq!(left(&objects, "oplog").await.unwrap().as_deref(), Some("file:/b"));
        assert_eq!(left(&objects, "sync").await.unwrap(), None);
        come_back(&objects, "oplog").await.unwrap();
        assert!(objects.contents().is_empty());
    }

    #[tokio::test]
    async fn a_recovery_takes_a_store_over_and_the_former_cluster_is_refused() {
        let objects = MemoryObjects::default();
        claim(&objects, "a").await.unwrap();
        take_over(&objects, "b").await.unwrap();
        take_over(&objects, "b").await.unwrap();
        assert_eq!(claimed_by(&objects).await.unwrap().as_deref(), Some("b"));
        assert!(claim(&objects, "a").await.is_err());
    }
}
