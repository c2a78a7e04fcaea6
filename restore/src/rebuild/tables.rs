//! The routing tables of the new cluster.

use std::collections::BTreeSet;

use bson::{Bson, Document};
use bytes::Bytes;
use headwater_model::Namespace;

use super::Members;
use crate::load::{LoadFault, Target, batch, documents::duplicates};
use crate::source::{Source, SourceFault};

/// What is written, in this order: shards last, for with them the tables are complete. All else in `config` servers note for
/// themselves.
const TABLES: [&str; 6] = ["databases", "collections", "chunks", "tags", "settings", "shards"];

/// Writes the tables; what is there already stays. Gives what people must know.
pub(super) async fn write(config: &dyn Source, to: &Target, members: &Members) -> Result<Vec<String>, LoadFault> {
    let mut change = Change {
        hosts: &|shard| members.shards.get(shard).map(super::Member::connection_string),
        left_out: BTreeSet::new(),
        notes: Vec::new(),
    };
    for table in TABLES {
        let namespace = Namespace::new("config", table);
        let Some(found) = config.collections().into_iter().find(|c| c.namespace == namespace) else {
            continue;
        };
        let mut rows = config.rows(found.uuid, None).await?;
        loop {
            let rows = rows.next_batch().await?;
            if rows.is_empty() {
                break;
            }
            let changed: Result<Vec<_>, SourceFault> = rows
                .iter()
                .filter_map(|row| change.document(table, &row.doc, &namespace).transpose())
                .collect();
            insert(to, &namespace, &changed?).await?;
        }
    }
    Ok(change.notes)
}

async fn insert(to: &Target, namespace: &Namespace, documents: &[Bytes]) -> Result<(), LoadFault> {
    if documents.is_empty() {
        return Ok(());
    }
    let refused = |detail| LoadFault::Refused {
        what: format!("documents of {namespace}"),
        detail,
    };
    let command = batch::insert(&namespace.coll, documents).map_err(|e| refused(e.to_string()))?;
    let sent = to.run_raw(&namespace.db, &command).await;
    let (reply, _) = sent.map_err(|e| to.fault(&format!("documents of {namespace}"), &e))?;
    duplicates(&reply, true).map(drop).map_err(refused)
}

/// What becomes of the documents. Pure.
struct Change<'a> {
    hosts: &'a (dyn Fn(&str) -> Option<String> + Sync),
    /// UUIDs and names of the collections that are left out, with their chunks.
    left_out: BTreeSet<String>,
    notes: Vec<String>,
}

impl Change<'_> {
    fn document(&mut self, table: &str, raw: &Bytes, namespace: &Namespace) -> Result<Option<Bytes>, SourceFault> {
        let damaged = |detail: String| SourceFault::Document {
            namespace: namespace.clone(),
            detail,
        };
        let document: Document = bson::deserialize_from_slice(raw).map_err(|e| damaged(e.to_string()))?;
        match self.changed(table, document) {
            None => Ok(None),
            Some(changed) => {
                let bytes = bson::serialize_to_vec(&changed).map_err(|e| damaged(e.to_string()))?;
                Ok(Some(bytes.into()))
            }
        }
    }

    /// The document as the new cluster has it.
    fn changed(&mut self, table: &str, mut document: Document) -> Option<Document> {
        match table {
            "shards" => {
                let host = document.get_str("_id").ok().and_then(|shard| (self.hosts)(shard))?;
                document.insert("host", host);
                Some(document)
            }
            "collections" => self.collection(document),
            "chunks" => {
                let of = document
                    .get("uuid")
                    .or_else(|| document.get("ns"))
                    .map(Bson::to_string)?;
                (!self.left_out.contains(&of)).then_some(document)
            }
            _ => Some(document),
        }
    }

    fn collection(&mut self, mut document: Document) -> Option<Document> {
        let name = document.get_str("_id").unwrap_or_default().to_owned();
        // Sessions are not restored, and what a resharding was building is not needed: its source is whole.
        let is_scratch = name == "config.system.sessions" || name.contains(".system.resharding.");
        let dropped = document.get_bool("dropped").unwrap_or(false);
        if is_scratch || dropped {
            self.left_out.extend(document.get("uuid").map(Bson::to_string));
            self.left_out.insert(Bson::String(name).to_string());
            return None;
        }
        if document.remove("reshardingFields").is_some() {
            self.notes.push(format!(
                "a resharding of {name} was under way; the collection is as it was before"
            ));
        }
        if document.remove("allowMigrations").is_some() {
            self.notes.push(format!(
                "chunks of {name} may be moved again; at the source that was switched off"
            ));
        }
        Some(document)
    }
}

#[cfg(test)]
mod tests {
    use bson::doc;

    use super::*;

    #[test]
    fn tables_get_new_hosts_and_lose_what_servers_begin_anew() {
        let hosts = |shard: &str| (shard == "sh0").then(|| "rs/new:1".to_owned());
        let mut change = Change {
            hosts: &hosts,
            left_out: BTreeSet::new(),
            notes: Vec::new(),
        };
        let uuid = |n: i32| Bson::Int32(n);
        for (table, from, to) in [
            (
                "databases",
                doc! { "_id": "d", "primary": "sh0" },
                Some(doc! { "_id": "d", "primary": "sh0" }),
            ),
            (
                "shards",
                doc! { "_id": "sh0", "host": "sh0/old:1", "state": 1 },
                Some(doc! { "_id": "sh0", "host": "rs/new:1", "state": 1 }),
            ),
            ("shards", doc! { "_id": "gone", "host": "x/old:1" }, None),
            (
                "collections",
                doc! { "_id": "d.c", "uuid": uuid(1) },
                Some(doc! { "_id": "d.c", "uuid": uuid(1) }),
            ),
            (
                "collections",
                doc! { "_id": "config.system.sessions", "uuid": uuid(2) },
                None,
            ),
            (
                "collections",
                doc! { "_id": "d.system.resharding.7", "uuid": uuid(3) },
                None,
            ),
            (
                "collections",
                doc! { "_id": "d.r", "uuid": uuid(4), "reshardingFields": {} },
                Some(doc! { "_id": "d.r", "uuid": uuid(4) }),
            ),
            ("collections", doc! { "_id": "d.old", "dropped": true }, None),
            (
                "chunks",
                doc! { "uuid": uuid(1), "min": {} },
                Some(doc! { "uuid": uuid(1), "min": {} }),
            ),
            ("chunks", doc! { "uuid": uuid(2), "min": {} }, None),
            ("chunks", doc! { "uuid": uuid(3), "min": {} }, None),
            ("chunks", doc! { "ns": "d.old", "min": {} }, None),
            (
                "settings",
                doc! { "_id": "balancer", "mode": "off" },
                Some(doc! { "_id": "balancer", "mode": "off" }),
            ),
        ] {
            assert_eq!(change.changed(table, from.clone()), to, "{table} {from}");
        }
        assert_eq!(change.notes.len(), 1, "{:?}", change.notes);
    }
}
