//! What is on its way in a sharded cluster at a cut, so that the data of its members may not fit together, as the images of
//! config servers and shards tell.
//!
//! | collection | where | what counts |
//! |---|---|---|
//! | `config.reshardingOperations` | config servers | every one: the data are moved to another collection under the surface |
//! | `config.system.sharding_ddl_coordinators` | the primary shard of the database | renames, drops and moves of a primary shard: members carry them out one after the other |
//!
//! Moves of chunks (`config.migrations`) do not count: they are ordered by cluster time, and the chunks say which documents do.

use bson::Document;
use headwater_head::Head;
use headwater_model::{Namespace, limits};

use crate::work::head_store::fault;
use crate::worker::Fault;

/// Reads it from a head that stands at the cut, in words.
pub async fn read(head: &Head) -> Result<Vec<String>, Fault> {
    let mut words = Vec::new();
    for collection in head.collections().filter(|c| is_told_by(c.namespace())) {
        let mut scan = head.scan(collection.uuid(), None).map_err(fault)?;
        loop {
            let batch = scan.next_batch().await.map_err(fault)?;
            if batch.is_empty() || words.len() >= limits::UNDER_WAY_KEPT {
                break;
            }
            for (_, document, _) in batch {
                let document: Document =
                    bson::deserialize_from_slice(&document).map_err(|e| Fault::Blocked(e.to_string()))?;
                words.extend(in_words(collection.namespace(), &document));
            }
        }
    }
    Ok(words)
}

const RESHARDINGS: &str = "reshardingOperations";
const COORDINATORS: &str = "system.sharding_ddl_coordinators";

fn is_told_by(namespace: &Namespace) -> bool {
    namespace.db == "config" && [RESHARDINGS, COORDINATORS].contains(&namespace.coll.as_str())
}

/// What a document says is under way; `None` for what does no harm.
fn in_words(namespace: &Namespace, document: &Document) -> Option<String> {
    if namespace.coll == RESHARDINGS {
        let ns = document.get_str("ns").unwrap_or("a collection");
        let state = document.get_str("state").unwrap_or("begun");
        return Some(format!("resharding of {ns} ({state})"));
    }
    let id = document.get_document("_id").ok()?;
    let ns = id.get_str("namespace").unwrap_or("a database");
    // Names with an ending such as `_V2` are later forms of the same.
    let operation = id.get_str("operationType").ok()?;
    let what = match operation.split('_').next()? {
        "renameCollection" => "rename",
        "dropCollection" | "dropDatabase" => "drop",
        "movePrimary" => "move of the primary shard",
        "reshardCollection" => "resharding",
        _ => return None,
    };
    Some(format!("{what} of {ns}"))
}

#[cfg(test)]
mod tests {
    use bson::doc;

    use super::*;

    #[test]
    fn reshardings_renames_drops_and_moves_of_primaries_count() {
        let coordinator = |operation: &str| doc! { "_id": { "namespace": "d.c", "operationType": operation } };
        for (collection, document, want) in [
            (
                RESHARDINGS,
                doc! { "_id": 1, "ns": "d.c", "state": "cloning" },
                Some("resharding of d.c (cloning)"),
            ),
            (COORDINATORS, coordinator("renameCollection"), Some("rename of d.c")),
            (COORDINATORS, coordinator("dropCollection"), Some("drop of d.c")),
            (
                COORDINATORS,
                coordinator("movePrimary"),
                Some("move of the primary shard of d.c"),
            ),
            (
                COORDINATORS,
                coordinator("reshardCollection_V3"),
                Some("resharding of d.c"),
            ),
            (COORDINATORS, coordinator("createCollection_V2"), None),
            (COORDINATORS, coordinator("collMod_V3"), None),
            (COORDINATORS, doc! { "_id": 1 }, None),
        ] {
            let namespace = Namespace::new("config", collection);
            assert_eq!(in_words(&namespace, &document).as_deref(), want, "{document}");
        }
        for (name, told) in [
            ("config.reshardingOperations", true),
            ("config.system.sharding_ddl_coordinators", true),
            ("config.migrations", false),
            ("shop.reshardingOperations", false),
        ] {
            assert_eq!(is_told_by(&Namespace::parse(name).unwrap()), told, "{name}");
        }
    }
}
