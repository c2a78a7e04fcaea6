//! What is stored of the oplog is the source's, entry for entry, without a hole.

use std::sync::Arc;

use headwater_model::{Incarnation, Optime, ReplicaSetId};
use headwater_protocol::slices::documents;
use headwater_store::objects::Objects;
use headwater_store::oplog_store::OplogStore;
use headwater_store::repository::prefix;

use crate::mongo::{Mongo, set};

/// A chain that is not the source's.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Broken {
    /// It cannot be read.
    #[error("the chain has no hole: incarnation {incarnation} cannot be read: {detail}")]
    Unreadable {
        /// Which history.
        incarnation: Incarnation,
        /// The reader's words.
        detail: String,
    },
    /// Another entry stands where the source has one.
    #[error("stored entries are the source's: incarnation {incarnation} holds {found} where the source has {wanted}")]
    Other {
        /// Which history.
        incarnation: Incarnation,
        /// What is stored.
        found: String,
        /// What should be.
        wanted: String,
    },
}

/// The proven range of an incarnation.
#[derive(Clone, Copy, Debug)]
pub struct Stored {
    /// Which history.
    pub incarnation: Incarnation,
    /// Entries after this…
    pub start: Optime,
    /// …up to this.
    pub tip: Optime,
}

/// Reads everything that is stored of `incarnations` and holds it against the source.
pub async fn check(
    objects: Arc<dyn Objects>,
    id: &ReplicaSetId,
    incarnations: impl IntoIterator<Item = Incarnation>,
    source: &set::Shared,
) -> Result<Vec<Stored>, Broken> {
    let mut all = Vec::new();
    for incarnation in incarnations {
        let unreadable = |e: &dyn std::fmt::Display| Broken::Unreadable {
            incarnation,
            detail: e.to_string(),
        };
        let opened = OplogStore::open(objects.clone(), &prefix(id), id, incarnation).await;
        let store = Arc::new(opened.map_err(|e| unreadable(&e))?);
        let Some((start, tip)) = store.range() else { continue };
        let mut reader = store.read(start);
        let mut expected = set::lock(source).history.count_at(start.ts);
        while let Some(slice) = reader.next().await.map_err(|e| unreadable(&e))? {
            for entry in documents(&slice.payload) {
                let entry = entry.map_err(|e| unreadable(&e))?;
                expected += 1;
                compare(&set::lock(source), incarnation, expected, entry)?;
            }
        }
        let end = set::lock(source).history.position(expected);
        if end != tip {
            return Err(unreadable(&format!(
                "it is read up to {end}, but says that it ends at {tip}"
            )));
        }
        all.push(Stored {
            incarnation,
            start,
            tip,
        });
    }
    Ok(all)
}

fn compare(source: &Mongo, incarnation: Incarnation, count: usize, entry: &[u8]) -> Result<(), Broken> {
    let wanted = source.history.entry(count);
    if wanted.is_some_and(|wanted| wanted.bytes.as_bytes() == entry) {
        return Ok(());
    }
    let text = |bytes: &[u8]| {
        let document = bson::RawDocument::from_bytes(bytes).map_err(|e| e.to_string());
        document.map_or_else(|e| e, |document| format!("{document:?}"))
    };
    Err(Broken::Other {
        incarnation,
        found: text(entry),
        wanted: wanted.map_or("nothing".to_owned(), |wanted| text(wanted.bytes.as_bytes())),
    })
}
