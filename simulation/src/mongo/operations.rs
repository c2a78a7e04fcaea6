//! Inserts, replacements and deletes of documents of one collection, as entries have them.

use bson::{Bson, Document, doc};
use headwater_model::CollectionUuid;

use super::history::{Count, Effect, Meta, binary, id_index};
use super::set::Mongo;

/// A collection as operations name it.
#[derive(Clone, Debug)]
pub struct Place {
    /// `db.coll`.
    pub ns: String,
    /// Its identity.
    pub uuid: CollectionUuid,
    /// The fields of a document's key, the shard key first.
    pub key: &'static [&'static str],
}

impl Place {
    /// Creates the collection.
    pub fn create(
        mongo: &mut Mongo,
        db: &str,
        name: &str,
        uuid: CollectionUuid,
        key: &'static [&'static str],
    ) -> Place {
        let o = doc! { "create": name, "idIndex": id_index() };
        let meta = Meta {
            db: db.to_owned(),
            name: name.to_owned(),
            options: Document::new(),
            indexes: vec![id_index()],
        };
        let fields = doc! { "op": "c", "ns": format!("{db}.$cmd"), "ui": binary(uuid), "o": o };
        mongo.write(fields, vec![Effect::Meta(uuid, Some(meta))]);
        Place {
            ns: format!("{db}.{name}"),
            uuid,
            key,
        }
    }

    fn key_of(&self, document: &Document) -> Document {
        let field = |name: &&str| Some(((*name).to_owned(), document.get(*name)?.clone()));
        self.key.iter().filter_map(field).collect()
    }

    /// The number and the document with this `_id` on the primary.
    pub fn find(&self, mongo: &Mongo, id: &Bson) -> Option<(i64, Document)> {
        let mut all = mongo.history.documents(self.uuid, mongo.history.count(), 0);
        let found = all.find(|(_, document)| document.get("_id") == Some(id))?;
        Some((found.0, found.1.clone()))
    }

    /// An insert.
    pub fn insert(&self, mongo: &mut Mongo, document: Document) -> (Document, Effect) {
        let record = mongo.history.new_record(self.uuid);
        let operation = doc! {
            "op": "i", "ns": &self.ns, "ui": binary(self.uuid), "o": document.clone(), "o2": self.key_of(&document),
        };
        (operation, Effect::Put(self.uuid, record, document))
    }

    /// A replacement of the document under this number.
    pub fn replace(&self, record: i64, document: Document) -> (Document, Effect) {
        let operation = doc! {
            "op": "u", "ns": &self.ns, "ui": binary(self.uuid), "o": document.clone(), "o2": self.key_of(&document),
        };
        (operation, Effect::Put(self.uuid, record, document))
    }

    /// A change of one field of the document under this number.
    pub fn set(&self, record: i64, mut document: Document, field: &str, value: Bson) -> (Document, Effect) {
        let diff = doc! { "$v": 2, "diff": { "u": { field: value.clone() } } };
        let operation = doc! {
            "op": "u", "ns": &self.ns, "ui": binary(self.uuid), "o": diff, "o2": self.key_of(&document),
        };
        document.insert(field, value);
        (operation, Effect::Put(self.uuid, record, document))
    }

    /// A delete of the document under this number.
    pub fn delete(&self, record: i64, document: &Document) -> (Document, Effect) {
        let operation = doc! { "op": "d", "ns": &self.ns, "ui": binary(self.uuid), "o": self.key_of(document) };
        (operation, Effect::Remove(self.uuid, record))
    }
}

/// Writes one operation as an entry of its own.
pub fn write(mongo: &mut Mongo, (operation, effect): (Document, Effect)) -> Count {
    mongo.write(operation, vec![effect])
}

/// The same, as a migration does.
pub fn migrate(mongo: &mut Mongo, (mut operation, effect): (Document, Effect)) -> Count {
    operation.insert("fromMigrate", true);
    mongo.write(operation, vec![effect])
}
