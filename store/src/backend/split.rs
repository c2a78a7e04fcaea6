//! Several backing stores behind one: the oplog and the sync slices of every replica set may rest elsewhere than the
//! rest. Decided by the key alone: `rs/<deployment>/<set>/oplog/…` and `…/sync/…`.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::objects::{ObjectMeta, Objects, Put, StoreError};

/// See the module.
pub struct SplitObjects {
    /// Blocks, images, and everything that is neither of the others.
    pub blocks: Arc<dyn Objects>,
    /// Oplog slices; `None`: with the blocks.
    pub oplog: Option<Arc<dyn Objects>>,
    /// Sync slices; `None`: with the blocks.
    pub sync: Option<Arc<dyn Objects>>,
}

/// Which of the stores of a replica set a key belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Blocks,
    Oplog,
    Sync,
}

pub(super) fn place(key: &str) -> Place {
    let mut parts = key.split('/');
    if parts.next() != Some("rs") {
        return Place::Blocks;
    }
    match parts.nth(2) {
        Some("oplog") => Place::Oplog,
        Some("sync") => Place::Sync,
        _ => Place::Blocks,
    }
}

/// Whether all keys with this prefix have one place: whether the fourth part is whole.
fn is_decided(prefix: &str) -> bool {
    !prefix.is_empty() && (!"rs/".starts_with(prefix) && !prefix.starts_with("rs/") || prefix.split('/').count() > 4)
}

impl SplitObjects {
    fn of(&self, key: &str) -> &dyn Objects {
        let apart = match place(key) {
            Place::Blocks => None,
            Place::Oplog => self.oplog.as_deref(),
            Place::Sync => self.sync.as_deref(),
        };
        apart.unwrap_or(self.blocks.as_ref())
    }
}

#[async_trait]
impl Objects for SplitObjects {
    async fn put_new(&self, key: &str, bytes: Bytes) -> Result<Put, StoreError> {
        self.of(key).put_new(key, bytes).await
    }

    async fn put(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
        self.of(key).put(key, bytes).await
    }

    async fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        self.of(key).get(key).await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.of(key).get_range(key, range).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectMeta>, StoreError> {
        if is_decided(prefix) {
            return self.of(prefix).list(prefix).await;
        }
        let mut listed = Vec::new();
        for (store, own) in [
            (Some(&self.blocks), None),
            (self.oplog.as_ref(), Some(Place::Oplog)),
            (self.sync.as_ref(), Some(Place::Sync)),
        ] {
            let Some(store) = store else { continue };
            // A store may hold what belongs to another: from a time when the settings were different.
            let belongs = |key: &str| match own {
                Some(own) => place(key) == own,
                None => match place(key) {
                    Place::Blocks => true,
                    Place::Oplog => self.oplog.is_none(),
                    Place::Sync => self.sync.is_none(),
                },
            };
            let of_one = store.list(prefix).await?.into_iter();
            listed.extend(of_one.filter(|object| belongs(&object.key)));
        }
        listed.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(listed)
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.of(key).delete(key).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_its_place_and_a_prefix_may_have_several() {
        for (key, due) in [
            ("rs/d/s/oplog/1/x", Place::Oplog),
            ("rs/d/s/sync/1/x", Place::Sync),
            ("rs/d/s/blocks/x", Place::Blocks),
            ("rs/oplog/sync/blocks/x", Place::Blocks),
            ("x/d/s/oplog/1", Place::Blocks),
            ("oplog", Place::Blocks),
        ] {
            assert_eq!(place(key), due, "{key}");
        }
        for prefix in ["rs/d/s/oplog/", "rs/d/s/blocks/0", "probe/", "x"] {
            assert!(is_decided(prefix), "{prefix}");
        }
        for prefix in ["", "r", "rs", "rs/", "rs/d/s/", "rs/d/s/op"] {
            assert!(!is_decided(prefix), "{prefix}");
        }
    }
}
