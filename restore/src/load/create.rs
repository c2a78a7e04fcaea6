//! What must be told to a server so that a collection becomes what it was. Pure.

use bson::spec::BinarySubtype;
use bson::{Binary, Bson, Document, doc};

use crate::naming::{Item, Kind};
use crate::timeseries;

/// How an item comes into being.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Making {
    /// The `create` command; `None` for what is there or comes by itself.
    pub create: Option<Document>,
    /// Index specifications, to be built once all documents are there.
    pub indexes: Vec<Document>,
    /// `collMod` once all documents are counted: until then the server must not expire any.
    pub expire: Option<Document>,
    /// What could not be kept.
    pub notes: Vec<String>,
}

/// Works it out.
pub(super) fn making(item: &Item) -> Making {
    let (Some(data), to) = (&item.data, &item.to) else {
        return match &item.kind {
            Kind::View(view) => {
                let mut create = doc! {
                    "create": &item.to.coll, "viewOn": &view.view_on, "pipeline": Bson::Array(view.pipeline.clone()),
                };
                if let Some(collation) = &view.collation {
                    create.insert("collation", collation.clone());
                }
                Making {
                    create: Some(create),
                    ..Making::default()
                }
            }
            _ => Making::default(),
        };
    };
    let options = match item.kind {
        Kind::Collection => data.options.clone(),
        Kind::TimeSeries => timeseries::seen_options(&data.options),
        // They merge into collections that a server has of its own.
        _ => return Making::default(),
    };

    let mut making = Making::default();
    let mut create = doc! { "create": &to.coll };
    for (name, value) in options {
        match name.as_str() {
            // Marks of the source's own state.
            "temp" | "uuid" => {}
            "autoIndexId" => {
                if value == Bson::Boolean(false) {
                    making.notes.push(format!(
                        "{to} gets an index on _id, which it lacked: servers from 4.0 on demand it"
                    ));
                }
            }
            "expireAfterSeconds" => making.expire = Some(doc! { "collMod": &to.coll, "expireAfterSeconds": value }),
            _ => {
                create.insert(name, value);
            }
        }
    }
    for index in &data.indexes {
        let name = index.get_str("name").unwrap_or_default();
        if name == "_id_" {
            if index.get("v").and_then(number) == Some(1) {
                create.insert("idIndex", without_ns(index));
            }
        } else if !index.contains_key("clustered") {
            match item.kind {
                Kind::TimeSeries => match timeseries::seen_index(&data.options, index) {
                    Some(index) => making.indexes.push(index),
                    None => making
                        .notes
                        .push(format!("index {name} of {to} is left out: no user can have made it")),
                },
                _ => making.indexes.push(without_ns(index)),
            }
        }
    }
    making.create = Some(create);
    making
}

/// The command that creates the collection of an item's documents under the UUID it had; `None` for what has none. Of a
/// time-series collection that is the buckets: its own `create` finds them and adds the view.
pub(super) fn with_uuid(item: &Item, making: &Making) -> Option<Document> {
    let (data, made) = (item.data.as_ref()?, making.create.as_ref()?);
    let name = item.to_data();
    let mut create = match item.kind {
        Kind::Collection => made.clone(),
        Kind::TimeSeries => {
            let mut create = doc! { "create": &name.coll };
            let options = data.options.iter();
            let kept = options.filter(|(name, _)| !matches!(name.as_str(), "uuid" | "expireAfterSeconds"));
            create.extend(kept.map(|(name, value)| (name.clone(), value.clone())));
            create
        }
        _ => return None,
    };
    let on_id = data
        .indexes
        .iter()
        .find(|index| index.get_str("name").is_ok_and(|name| name == "_id_"));
    if let Some(on_id) = on_id {
        // It is not made by itself here.
        create.insert("idIndex", without_ns(on_id));
    }
    let uuid = Binary {
        subtype: BinarySubtype::Uuid,
        bytes: data.uuid.0.to_vec(),
    };
    let entry = doc! { "op": "c", "ns": format!("{}.$cmd", name.db), "ui": uuid, "o": create };
    Some(doc! { "applyOps": [entry] })
}

fn number(value: &Bson) -> Option<i64> {
    match value {
        Bson::Int32(n) => Some(i64::from(*n)),
        Bson::Int64(n) => Some(*n),
        Bson::Double(n) => Some(*n as i64),
        _ => None,
    }
}

/// Servers before 4.4 wrote the namespace into every index; later ones refuse it.
fn without_ns(index: &Document) -> Document {
    let mut index = index.clone();
    index.remove("ns");
    index
}

/// The command without the versions of its collations: another server may have another one only. `None` if it has none.
pub(super) fn without_collation_version(command: &Document) -> Option<Document> {
    fn strip(document: &mut Document) -> bool {
        let collation = document.get_document_mut("collation");
        collation.is_ok_and(|c| c.remove("version").is_some())
    }
    let mut command = command.clone();
    let mut changed = strip(&mut command);
    if let Ok(index) = command.get_document_mut("idIndex") {
        changed |= strip(index);
    }
    for entry in command.get_array_mut("applyOps").into_iter().flatten() {
        let created = entry
            .as_document_mut()
            .and_then(|entry| entry.get_document_mut("o").ok());
        if let Some(created) = created
            && let Some(bare) = without_collation_version(created)
        {
            *created = bare;
            changed = true;
        }
    }
    if let Ok(indexes) = command.get_array_mut("indexes") {
        for index in indexes.iter_mut().filter_map(Bson::as_document_mut) {
            changed |= strip(index);
        }
    }
    changed.then_some(command)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::CollectionAtT;
    use headwater_model::{CollectionUuid, Namespace};

    fn item(kind: Kind, options: Document, indexes: Vec<Document>) -> Item {
        let from = Namespace::new("shop", "old");
        let data = CollectionAtT {
            namespace: from.clone(),
            uuid: CollectionUuid([1; 16]),
            options,
            indexes,
            documents: 0,
            bytes: 0,
        };
        Item {
            from,
            to: Namespace::new("shop", "new"),
            kind,
            data: Some(data),
        }
    }

    #[test]
    fn options_are_kept_as_they_were() {
        let options = doc! {
            "capped": true, "size": 4096_i64, "max": 3, "validator": { "a": { "$exists": true } },
            "storageEngine": { "wiredTiger": { "configString": "block_compressor=zlib" } }, "validationAction": "warn",
        };
        let mut expected = doc! { "create": "new" };
        expected.extend(options.clone());
        assert_eq!(making(&item(Kind::Collection, options, vec![])).create, Some(expected));
    }

    #[test]
    fn marks_of_the_source_are_not_kept() {
        let options = doc! { "temp": false, "uuid": 1, "autoIndexId": false };
        let made = making(&item(Kind::Collection, options, vec![]));
        assert_eq!(made.create, Some(doc! { "create": "new" }));
        assert_eq!(made.notes.len(), 1);
    }

    #[test]
    fn an_old_id_index_stays_old_and_a_clustered_one_is_not_built_apart() {
        let old = doc! { "v": 1, "key": { "_id": 1 }, "name": "_id_", "ns": "shop.old" };
        let made = making(&item(Kind::Collection, doc! {}, vec![old]));
        let id_index = doc! { "v": 1, "key": { "_id": 1 }, "name": "_id_" };
        assert_eq!(made.create, Some(doc! { "create": "new", "idIndex": id_index }));
        let clustered = doc! { "v": 2, "key": { "_id": 1 }, "name": "cl", "unique": true, "clustered": true };
        let other = doc! { "v": 2, "key": { "a": 1 }, "name": "a_1", "ns": "shop.old", "expireAfterSeconds": 5 };
        let made = making(&item(
            Kind::Collection,
            doc! { "clusteredIndex": {} },
            vec![clustered, other],
        ));
        assert_eq!(
            made.indexes,
            [doc! { "v": 2, "key": { "a": 1 }, "name": "a_1", "expireAfterSeconds": 5 }]
        );
    }

    #[test]
    fn nothing_expires_before_it_was_counted() {
        let options = doc! { "clusteredIndex": true, "timeseries": { "timeField": "t" }, "expireAfterSeconds": 60_i64 };
        let made = making(&item(Kind::TimeSeries, options, vec![]));
        assert_eq!(
            made.create,
            Some(doc! { "create": "new", "timeseries": { "timeField": "t" } })
        );
        assert_eq!(
            made.expire,
            Some(doc! { "collMod": "new", "expireAfterSeconds": 60_i64 })
        );
    }

    #[test]
    fn collation_versions_are_taken_out_wherever_they_stand() {
        let collation = doc! { "locale": "en", "version": "57.1" };
        let bare = doc! { "locale": "en" };
        let create =
            doc! { "create": "c", "collation": collation.clone(), "idIndex": { "collation": collation.clone() } };
        let stripped = doc! { "create": "c", "collation": bare.clone(), "idIndex": { "collation": bare.clone() } };
        assert_eq!(without_collation_version(&create), Some(stripped));
        let indexes = doc! { "createIndexes": "c", "indexes": [{ "collation": collation }] };
        let stripped = doc! { "createIndexes": "c", "indexes": [{ "collation": bare }] };
        assert_eq!(without_collation_version(&indexes), Some(stripped));
        assert_eq!(without_collation_version(&doc! { "create": "c" }), None);
    }
}
