//! What a server holds, exactly: for proving that two servers hold the same.
//!
//! Documents are compared byte for byte: those of capped collections in their natural order, all others in `_id` order.
//! Options and indexes are compared field by field; a number's type does not count there, since the server itself writes
//! a capped size as int32 or int64 depending on how it came. UUIDs do not count.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Context, Result, bail};
use bson::{Bson, Document, RawDocumentBuf, doc};
use futures::TryStreamExt;
use headwater_model::Namespace;
use mongodb::{Client, Database};

/// Which databases are looked at. Namespaces that no backup keeps, temporary collections, and `system.views` (whose
/// meaning the views themselves show) are always left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Users' databases only.
    Users,
    /// `admin` and `config` too.
    Everything,
}

impl Scope {
    fn holds(self, namespace: &Namespace) -> bool {
        let inside = self == Scope::Everything || !matches!(namespace.db.as_str(), "admin" | "config");
        inside && namespace.is_kept() && namespace.coll != "system.views" && !is_set_aside(namespace)
    }
}

/// A collection of `config` that a server moved out of the way, because it had made its own before it replayed the entry
/// that creates the one of its oplog: `config.tmpXXXXX.create`.
fn is_set_aside(namespace: &Namespace) -> bool {
    let name = namespace
        .coll
        .strip_prefix("tmp")
        .and_then(|name| name.strip_suffix(".create"));
    namespace.db == "config" && name.is_some_and(|name| name.len() == 5)
}

/// Everything within a scope, by `db.collection`.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    /// Collections, views and time-series views.
    pub collections: BTreeMap<String, Collection>,
}

/// One collection or view.
#[derive(Clone, Debug, PartialEq)]
pub struct Collection {
    /// `collection`, `view` or `timeseries`.
    pub kind: String,
    /// Options in canonical form, without the UUID.
    pub options: BTreeMap<String, Bson>,
    /// Finished indexes by name, in canonical form.
    pub indexes: BTreeMap<String, BTreeMap<String, Bson>>,
    /// Documents in the order compared; none for views.
    pub documents: Vec<RawDocumentBuf>,
}

/// One thing that is not the same.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// Where.
    pub namespace: String,
    /// What.
    pub what: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.namespace, self.what)
    }
}

/// Reads everything within `scope`. Let nothing write meanwhile; all of it is held in memory.
pub async fn read(client: &Client, scope: Scope) -> Result<Contents> {
    let mut contents = Contents::default();
    for db in database_names(client).await? {
        let database = client.database(&db);
        for entry in listed(&database).await? {
            let namespace = Namespace::new(&db, entry.get_str("name")?);
            let options = entry.get_document("options")?.clone();
            if scope.holds(&namespace) && !options.get_bool("temp").unwrap_or(false) {
                let kind = entry.get_str("type").unwrap_or("collection").to_owned();
                let collection = read_collection(&database, &namespace, kind, options).await;
                let collection = collection.with_context(|| format!("cannot read {namespace}"))?;
                contents.collections.insert(namespace.to_string(), collection);
            }
        }
    }
    Ok(contents)
}

async fn database_names(client: &Client) -> Result<Vec<String>> {
    let reply = client
        .database("admin")
        .run_command(doc! { "listDatabases": 1, "nameOnly": true })
        .await?;
    let databases = reply.get_array("databases")?.iter().filter_map(Bson::as_document);
    Ok(databases
        .map(|database| database.get_str("name").map(str::to_owned))
        .collect::<Result<_, _>>()?)
}

async fn listed(database: &Database) -> Result<Vec<Document>> {
    Ok(database
        .run_cursor_command(doc! { "listCollections": 1 })
        .await?
        .try_collect()
        .await?)
}

async fn read_collection(
    database: &Database,
    namespace: &Namespace,
    kind: String,
    mut options: Document,
) -> Result<Collection> {
    options.remove("uuid");
    let is_capped = options.get_bool("capped").unwrap_or(false);
    let mut collection = Collection {
        kind,
        options: fields(options),
        indexes: BTreeMap::new(),
        documents: Vec::new(),
    };
    if collection.kind == "collection" {
        collection.indexes = indexes(database, &namespace.coll).await?;
        let order = if is_capped {
            doc! { "$natural": 1 }
        } else {
            doc! { "_id": 1 }
        };
        let handle = database.collection::<RawDocumentBuf>(&namespace.coll);
        let find = handle.find(doc! {}).sort(order).allow_disk_use(true);
        collection.documents = find.await?.try_collect().await?;
    }
    Ok(collection)
}

async fn indexes(database: &Database, collection: &str) -> Result<BTreeMap<String, BTreeMap<String, Bson>>> {
    let command = doc! { "listIndexes": collection, "includeBuildUUIDs": true };
    let listed: Vec<Document> = database.run_cursor_command(command).await?.try_collect().await?;
    let mut finished = BTreeMap::new();
    for mut spec in listed.into_iter().filter(|spec| !spec.contains_key("buildUUID")) {
        spec.remove("ns");
        let spec = match spec.remove("spec") {
            Some(Bson::Document(inner)) => inner,
            _ => spec,
        };
        finished.insert(spec.get_str("name")?.to_owned(), fields(spec));
    }
    Ok(finished)
}

/// Fields in the order of their names, whole numbers all of one type.
fn fields(document: Document) -> BTreeMap<String, Bson> {
    let canonical = |value| match value {
        Bson::Int32(number) => Bson::Int64(number.into()),
        Bson::Double(number) if number.fract() == 0.0 && number.abs() < 1e15 => Bson::Int64(number as i64),
        other => other,
    };
    document
        .into_iter()
        .map(|(name, value)| (name, canonical(value)))
        .collect()
}

impl Contents {
    /// Between two entries of its creation, or of its drop, a time-series collection is buckets without a view: a restore gives
    /// it back with one, as those who look for their data want it.
    pub fn forget_series_without_a_view_in(&mut self, wanted: &Contents) {
        self.collections.retain(|name, collection| {
            let buckets = name.replacen('.', ".system.buckets.", 1);
            let only_there = !wanted.collections.contains_key(name) && wanted.collections.contains_key(&buckets);
            collection.kind != "timeseries" || !only_there
        });
    }

    /// How many documents there are.
    pub fn documents(&self) -> usize {
        self.collections
            .values()
            .map(|collection| collection.documents.len())
            .sum()
    }

    /// Keeps only the collections of these databases, or of all when none is named.
    pub fn only(mut self, databases: &[&str]) -> Contents {
        let database = |name: &str| name.split_once('.').map_or(String::new(), |(db, _)| db.to_owned());
        self.collections
            .retain(|name, _| databases.is_empty() || databases.contains(&database(name).as_str()));
        self
    }

    /// Everything that is not the same here and there; empty when equal.
    pub fn differences(&self, other: &Contents) -> Vec<Difference> {
        let mut found = Vec::new();
        for (name, mine) in &self.collections {
            match other.collections.get(name) {
                Some(theirs) => found.extend(mine.differences(theirs).into_iter().map(|what| (name, what))),
                None => found.push((
                    name,
                    format!("{} with {} documents is missing", mine.kind, mine.documents.len()),
                )),
            }
        }
        for (name, theirs) in other
            .collections
            .iter()
            .filter(|(name, _)| !self.collections.contains_key(*name))
        {
            found.push((
                name,
                format!("{} with {} documents is too many", theirs.kind, theirs.documents.len()),
            ));
        }
        found
            .into_iter()
            .map(|(name, what)| Difference {
                namespace: name.clone(),
                what,
            })
            .collect()
    }

    /// Fails, naming the first differences, unless `other` is the same.
    pub fn require_equal(&self, other: &Contents) -> Result<()> {
        let differences = self.differences(other);
        if differences.is_empty() {
            return Ok(());
        }
        let lines: Vec<String> = differences.iter().take(12).map(ToString::to_string).collect();
        bail!(
            "{} differences, wanted first, found second:\n{}",
            differences.len(),
            lines.join("\n")
        )
    }
}

impl Collection {
    fn differences(&self, other: &Collection) -> Vec<String> {
        let mut found = Vec::new();
        if self.kind != other.kind {
            found.push(format!("kind {} / {}", self.kind, other.kind));
        }
        if !same_fields(&self.options, &other.options) {
            found.push(format!("options {:?} / {:?}", self.options, other.options));
        }
        for name in self
            .indexes
            .keys()
            .chain(other.indexes.keys().filter(|name| !self.indexes.contains_key(*name)))
        {
            match (self.indexes.get(name), other.indexes.get(name)) {
                (Some(mine), Some(theirs)) if same_fields(mine, theirs) => {}
                (mine, theirs) => found.push(format!("index {name:?}: {mine:?} / {theirs:?}")),
            }
        }
        found.extend(self.document_differences(other));
        found
    }

    fn document_differences(&self, other: &Collection) -> Option<String> {
        let same = self
            .documents
            .iter()
            .zip(&other.documents)
            .take_while(|(mine, theirs)| mine == theirs)
            .count();
        if same == self.documents.len() && same == other.documents.len() {
            return None;
        }
        let show = |document: Option<&RawDocumentBuf>| {
            document.map_or("nothing".to_owned(), |document| short(&format!("{document:?}")))
        };
        Some(format!(
            "{} / {} documents, first difference at number {same}: {} / {}",
            self.documents.len(),
            other.documents.len(),
            show(self.documents.get(same)),
            show(other.documents.get(same)),
        ))
    }
}

/// `Document`'s own equality ignores the order of fields, so nested values are compared by their bytes.
fn same_fields(mine: &BTreeMap<String, Bson>, theirs: &BTreeMap<String, Bson>) -> bool {
    let bytes = |value: &Bson| doc! { "": value.clone() }.to_vec().unwrap_or_default();
    mine.len() == theirs.len()
        && mine
            .iter()
            .all(|(name, value)| theirs.get(name).is_some_and(|other| bytes(value) == bytes(other)))
}

fn short(text: &str) -> String {
    text.chars().take(600).collect()
}

/// The servers' own digests (`dbHash`) of every database within `scope`: `db.collection` to MD5. Quick and frugal for
/// data that does not fit in memory, but blind to the order of capped collections, to options and to indexes.
pub async fn hashes(client: &Client, scope: Scope) -> Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for db in database_names(client).await? {
        if db == "local" || (scope == Scope::Users && matches!(db.as_str(), "admin" | "config")) {
            continue;
        }
        let reply = client.database(&db).run_command(doc! { "dbHash": 1 }).await?;
        for (name, hash) in reply.get_document("collections")? {
            let namespace = Namespace::new(&db, name);
            if scope.holds(&namespace) {
                found.insert(namespace.to_string(), hash.as_str().unwrap_or_default().to_owned());
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(document: Document) -> Contents {
        let documents = vec![RawDocumentBuf::try_from(&document).unwrap()];
        let collection = Collection {
            kind: "collection".to_owned(),
            options: fields(doc! { "size": 4096 }),
            indexes: BTreeMap::new(),
            documents,
        };
        Contents {
            collections: BTreeMap::from([("a.b".to_owned(), collection)]),
        }
    }

    #[test]
    fn a_number_of_another_type_in_a_document_is_a_difference() {
        let here = one(doc! { "_id": 1_i32 });
        assert_eq!(here.differences(&one(doc! { "_id": 1_i32 })), []);
        assert_eq!(here.differences(&one(doc! { "_id": 1_i64 })).len(), 1);
    }

    #[test]
    fn the_order_of_fields_in_a_document_counts_and_that_of_options_does_not() {
        let here = one(doc! { "_id": 1, "a": 1, "b": 2 });
        assert_eq!(here.differences(&one(doc! { "_id": 1, "b": 2, "a": 1 })).len(), 1);
        assert!(same_fields(
            &fields(doc! { "a": 1, "b": 2_i64 }),
            &fields(doc! { "b": 2, "a": 1.0 })
        ));
        assert!(!same_fields(
            &fields(doc! { "key": { "a": 1, "b": 1 } }),
            &fields(doc! { "key": { "b": 1, "a": 1 } })
        ));
    }

    #[test]
    fn a_collection_too_few_and_one_too_many_are_differences() {
        let here = one(doc! { "_id": 1 });
        assert_eq!(here.differences(&Contents::default()).len(), 1);
        assert_eq!(Contents::default().differences(&here).len(), 1);
    }
}
