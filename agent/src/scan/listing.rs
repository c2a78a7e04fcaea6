//! What collections there are: names, UUIDs, options, finished indexes; documents of `system.views` rebuilt from the views.

use std::collections::BTreeMap;

use bson::{RawDocument, RawDocumentBuf, doc, rawdoc};
use headwater_model::{CollectionUuid, Namespace};

use super::views;
use crate::source::{Batches, Node, SourceError, uuid};

/// A collection that a backup keeps.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its name now.
    pub namespace: Namespace,
    /// Its identity.
    pub uuid: CollectionUuid,
    /// Its options, verbatim.
    pub options: RawDocumentBuf,
}

impl Found {
    /// Whether it is stored in the order of `_id`.
    pub fn is_clustered(&self) -> bool {
        matches!(self.options.get("clusteredIndex"), Ok(Some(_)))
    }

    /// Whether parts by ranges of `_id` may be made of it: not where order is data, and not where the order of `_id` is another.
    pub fn may_split(&self) -> bool {
        let capped = self.options.get_bool("capped").unwrap_or(false);
        let collation = matches!(self.options.get("collation"), Ok(Some(_)));
        !capped && !collation && !self.is_clustered()
    }
}

/// Everything that is there.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    /// Collections by identity.
    pub collections: BTreeMap<CollectionUuid, Found>,
    /// What `system.views` of each database must hold.
    pub views: BTreeMap<String, Vec<RawDocumentBuf>>,
}

/// Lists the databases, `local` left out.
pub async fn databases(node: &Node) -> Result<Vec<String>, SourceError> {
    let reply = node.command("admin", doc! { "listDatabases": 1, "nameOnly": true }).await?;
    let databases = reply.get_array("databases").map_err(SourceError::answer)?;
    let names = databases.iter().filter_map(|db| db.as_document()?.get_str("name").ok().map(str::to_owned));
    Ok(names.filter(|name| name != "local").collect())
}

/// Lists everything a backup keeps.
pub async fn list(node: &Node, server_version: &str) -> Result<Listing, SourceError> {
    let mut listing = Listing::default();
    for db in databases(node).await? {
        let mut batches = node.batches(&db, rawdoc! { "listCollections": 1 }, None).await?;
        while let Some(batch) = batches.next().await? {
            for item in batch.documents()? {
                let item = item?;
                let name = item.get_str("name").map_err(SourceError::answer)?;
                if let Some(view) = views::document(&db, item, server_version)? {
                    listing.views.entry(db.clone()).or_default().push(view);
                } else if let Some(uuid) = identity(item) {
                    let found = Found { namespace: Namespace::new(&db, name), uuid, options: options(item) };
                    if found.namespace.is_kept() {
                        listing.collections.insert(uuid, found);
                    }
                }
            }
        }
    }
    Ok(listing)
}

fn identity(item: &RawDocument) -> Option<CollectionUuid> {
    let uuid = item.get_document("info").ok()?.get_binary("uuid").ok()?;
    CollectionUuid::from_slice(uuid.bytes)
}

fn options(item: &RawDocument) -> RawDocumentBuf {
    item.get_document("options").map(ToOwned::to_owned).unwrap_or_default()
}

/// The database that has this collection now; `None` when it was dropped.
pub async fn database_of(node: &Node, collection: CollectionUuid) -> Result<Option<String>, SourceError> {
    for db in databases(node).await? {
        if exists(node, &db, collection).await? {
            return Ok(Some(db));
        }
    }
    Ok(None)
}

/// Whether the database still has this collection, by whatever name.
pub async fn exists(node: &Node, db: &str, collection: CollectionUuid) -> Result<bool, SourceError> {
    let command = rawdoc! { "listCollections": 1, "filter": { "info.uuid": uuid(collection) } };
    let mut batches = node.batches(db, command, None).await?;
    while let Some(batch) = batches.next().await? {
        if batch.documents()?.next().is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The finished indexes; `None` when the collection was dropped meanwhile.
pub async fn indexes(node: &Node, found: &Found) -> Result<Option<Vec<RawDocumentBuf>>, SourceError> {
    // Servers before 4.4 do not know the option, and have no unfinished builds to show.
    for with_builds in [true, false] {
        let mut command = rawdoc! { "listIndexes": uuid(found.uuid) };
        if with_builds {
            command.append(bson::raw::cstr!("includeBuildUUIDs"), true);
        }
        match node.batches(&found.namespace.db, command, None).await {
            Ok(batches) => return finished(batches).await.map(Some),
            Err(error) if error.is_dropped() => return Ok(None),
            Err(error) if with_builds && error.is_unknown_option() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

async fn finished(mut batches: Batches) -> Result<Vec<RawDocumentBuf>, SourceError> {
    let mut specs = Vec::new();
    while let Some(batch) = batches.next().await? {
        for spec in batch.documents()? {
            specs.extend(index(spec?)?);
        }
    }
    Ok(specs)
}

/// The specification as it is kept: unfinished builds come by the oplog, `ns` is a relic of old versions.
fn index(spec: &RawDocument) -> Result<Option<RawDocumentBuf>, SourceError> {
    let mut kept = RawDocumentBuf::new();
    for field in spec {
        let (name, value) = field.map_err(SourceError::answer)?;
        match name.as_str() {
            "buildUUID" => return Ok(None),
            "ns" => {}
            _ => kept.append(name, value),
        }
    }
    Ok(Some(kept))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unfinished_index_is_left_out_and_ns_is_dropped() {
        let unfinished = rawdoc! { "spec": { "v": 2, "key": { "a": 1 }, "name": "a_1" }, "buildUUID": 1 };
        assert_eq!(index(&unfinished).unwrap(), None);
        let old = rawdoc! { "v": 2, "key": { "a": 1 }, "name": "a_1", "ns": "d.c" };
        assert_eq!(index(&old).unwrap(), Some(rawdoc! { "v": 2, "key": { "a": 1 }, "name": "a_1" }));
    }
}
