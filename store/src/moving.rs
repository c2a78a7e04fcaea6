//! Moving stores: everything that rests in one place is brought to another, pass by pass while its daemons work, and once
//! more when nobody does.
//!
//! The old place is left as it was; its claim then says where everything went, so that no daemon works there again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};

use futures::stream::{self, StreamExt, TryStreamExt};

use crate::claim;
use crate::objects::{ObjectMeta, Objects, StoreError};

/// Objects on their way at once: each may be a pack in memory.
const AT_ONCE: usize = 8;

/// What one pass has to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pass {
    /// What the target lacks, or holds otherwise.
    pub copy: Vec<ObjectMeta>,
    /// What is gone from the source since it was copied.
    pub remove: Vec<String>,
}

/// Almost all names are written once. The others may hold something else in the same length.
fn may_change(key: &str) -> bool {
    key.starts_with("keys/") || key.contains("/restores/")
}

impl Pass {
    /// Compares two listings. Whose a place is does not move with it.
    pub fn plan(from: &[ObjectMeta], to: &[ObjectMeta]) -> Pass {
        let there: BTreeMap<&str, u64> = to.iter().map(|object| (object.key.as_str(), object.size)).collect();
        let wanted: BTreeSet<&str> = from.iter().map(|object| object.key.as_str()).collect();
        let moves = |key: &str| !claim::is_about_place(key);
        let lacks = |object: &&ObjectMeta| {
            moves(&object.key) && (there.get(object.key.as_str()) != Some(&object.size) || may_change(&object.key))
        };
        let gone = |object: &&ObjectMeta| moves(&object.key) && !wanted.contains(object.key.as_str());
        Pass {
            copy: from.iter().filter(lacks).cloned().collect(),
            remove: to.iter().filter(gone).map(|object| object.key.clone()).collect(),
        }
    }

    /// Bytes to copy.
    pub fn bytes(&self) -> u64 {
        self.copy.iter().map(|object| object.size).sum()
    }

    /// The first name that somebody wrote or removed since the last pass.
    pub fn first_change(&self) -> Option<&str> {
        let copied = self.copy.iter().map(|object| object.key.as_str());
        copied
            .filter(|key| !may_change(key))
            .chain(self.remove.iter().map(String::as_str))
            .next()
    }

    /// Carries it out; `done` counts the bytes. Again after an error: what was copied is seen.
    pub async fn carry_out(&self, from: &dyn Objects, to: &dyn Objects, done: &AtomicU64) -> Result<(), StoreError> {
        let copy = |object: &ObjectMeta| {
            let object = object.clone();
            async move {
                match from.get(&object.key).await {
                    Ok(bytes) => to.put(&object.key, bytes).await?,
                    // A groom was faster.
                    Err(StoreError::NotFound(_)) => {}
                    Err(error) => return Err(error),
                }
                done.fetch_add(object.size, Ordering::Relaxed);
                Ok(())
            }
        };
        let copies: Vec<_> = self.copy.iter().map(copy).collect();
        stream::iter(copies)
            .buffer_unordered(AT_ONCE)
            .try_collect::<Vec<()>>()
            .await?;
        for key in &self.remove {
            to.delete(key).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::memory::MemoryObjects;

    async fn plan(from: &MemoryObjects, to: &MemoryObjects) -> Pass {
        Pass::plan(&from.list("").await.unwrap(), &to.list("").await.unwrap())
    }

    fn keys(pass: &Pass) -> Vec<&str> {
        pass.copy.iter().map(|object| object.key.as_str()).collect()
    }

    #[tokio::test]
    async fn a_pass_brings_what_is_lacking_and_takes_away_what_is_gone() {
        let (from, to) = (MemoryObjects::new(), MemoryObjects::new());
        claim::claim(&from, "a").await.unwrap();
        for (key, text) in [("rs/p", "pack"), ("rs/q", "pack"), ("keys/shop/k-1", "key")] {
            from.put_new(key, text.into()).await.unwrap();
        }
        let first = plan(&from, &to).await;
        assert_eq!(keys(&first), ["keys/shop/k-1", "rs/p", "rs/q"]);
        let done = AtomicU64::new(0);
        first.carry_out(&from, &to, &done).await.unwrap();
        assert_eq!((done.into_inner(), first.bytes()), (11, 11));

        let second = plan(&from, &to).await;
        assert_eq!((keys(&second), second.first_change()), (vec!["keys/shop/k-1"], None));
        from.put("keys/shop/k-1", "kez".into()).await.unwrap();
        from.delete("rs/p").await.unwrap();
        from.put_new("rs/r", "pack".into()).await.unwrap();
        let third = plan(&from, &to).await;
        assert_eq!(third.first_change(), Some("rs/r"));
        third.carry_out(&from, &to, &AtomicU64::new(0)).await.unwrap();
        let mut expected = from.contents();
        expected.remove(claim::KEY);
        assert_eq!(to.contents(), expected, "whose it is does not move");
    }

    #[tokio::test]
    async fn what_was_groomed_between_listing_and_reading_is_passed_over() {
        let (from, to) = (MemoryObjects::new(), MemoryObjects::new());
        from.put_new("rs/p", "pack".into()).await.unwrap();
        let pass = plan(&from, &to).await;
        from.delete("rs/p").await.unwrap();
        pass.carry_out(&from, &to, &AtomicU64::new(0)).await.unwrap();
        assert!(to.contents().is_empty());
    }
}
