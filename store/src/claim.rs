//! Whose store this is: one note, `cluster`, with the name of the cluster that keeps its backups there.
//!
//! Two clusters in one store would take each other's oplog for their own. Whoever begins a cluster claims its store first;
//! every node looks before it works there, so that a wrong address is told and not written to.

use crate::note;
use crate::objects::{Objects, StoreError};

const KEY: &str = "cluster";
const KIND: &str = "cluster";

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

/// What is said of a store that belongs to another cluster.
pub fn another(owner: &str) -> StoreError {
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
    async fn a_recovery_takes_a_store_over_and_the_former_cluster_is_refused() {
        let objects = MemoryObjects::default();
        claim(&objects, "a").await.unwrap();
        take_over(&objects, "b").await.unwrap();
        take_over(&objects, "b").await.unwrap();
        assert_eq!(claimed_by(&objects).await.unwrap().as_deref(), Some("b"));
        assert!(claim(&objects, "a").await.is_err());
    }
}
