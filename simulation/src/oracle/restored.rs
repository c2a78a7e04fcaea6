//! What is restored is what the source had at that instant: collections, documents, options, indexes.

use std::collections::BTreeMap;

use bson::{Bson, Document};
use bytes::Bytes;
use headwater_model::{Namespace, Ts};
use headwater_restore::dump::{ArchiveParser, Event};

use crate::mongo::history::Meta;
use crate::mongo::{Mongo, set};
use crate::planted::{self, Bug};

/// A restore that shows something else.
#[derive(Clone, Debug, thiserror::Error)]
#[error("a restore equals the source: at {at} {what}")]
pub struct Differs {
    /// The instant.
    pub at: Ts,
    /// What is different.
    pub what: String,
}

/// A collection as it comes out of an archive, or as it should.
#[derive(Debug, Default, PartialEq)]
struct Contents {
    options: String,
    indexes: Vec<String>,
    documents: Vec<Vec<u8>>,
}

/// What an instant is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instant {
    /// A place in one oplog.
    Entry(Ts),
    /// A time of a sharded cluster.
    Cluster(Ts),
    /// A snapshot of one member of a cluster alone: what was prepared by then may count or not.
    Member(Ts),
}

impl Instant {
    /// As a position.
    pub fn ts(self) -> Ts {
        match self {
            Instant::Entry(at) | Instant::Cluster(at) | Instant::Member(at) => at,
        }
    }
}

/// What came out of a restore.
#[derive(Debug)]
pub struct Restored(BTreeMap<Namespace, Contents>);

impl Restored {
    /// How many documents.
    pub fn documents(&self) -> u64 {
        self.0.values().map(|contents| contents.documents.len() as u64).sum()
    }

    /// What an account of the bank holds, if it is there.
    pub fn balance(&self, account: i64) -> Option<i64> {
        let bank = self.0.get(&Namespace::new("bank", "accounts"))?;
        bank.documents.iter().find_map(|bytes| {
            let document = bson::RawDocument::from_bytes(bytes).ok()?;
            let is_meant = document.get_i64("_id").ok()? == account;
            is_meant.then(|| document.get_i64("balance").ok())?
        })
    }
}

/// Holds an archive of an instant against the source.
pub fn check(archive: &Bytes, at: Instant, source: &set::Shared) -> Result<Restored, Differs> {
    let differs = |what: String| Differs {
        at: at.ts(),
        what: format!("{} {what}", set::lock(source).name),
    };
    let found = read(archive).map_err(differs)?;
    let wanted = wanted(&set::lock(source), at);
    for (namespace, contents) in &wanted {
        let Some(found) = found.get(namespace) else {
            return Err(differs(format!("{namespace} is missing")));
        };
        compare(namespace, contents, found).map_err(differs)?;
    }
    if let Some(other) = found.keys().find(|namespace| !wanted.contains_key(*namespace)) {
        return Err(differs(format!("{other} should not be there")));
    }
    Ok(Restored(found))
}

fn compare(namespace: &Namespace, wanted: &Contents, found: &Contents) -> Result<(), String> {
    if wanted.options != found.options {
        return Err(format!(
            "{namespace} has options {}, not {}",
            found.options, wanted.options
        ));
    }
    if wanted.indexes != found.indexes {
        return Err(format!(
            "{namespace} has indexes {:?}, not {:?}",
            found.indexes, wanted.indexes
        ));
    }
    let text = |bytes: &Vec<u8>| {
        Document::try_from(bson::RawDocument::from_bytes(bytes).ok()?)
            .ok()
            .map(|d| d.to_string())
    };
    let lacks = wanted
        .documents
        .iter()
        .find(|document| found.documents.binary_search(document).is_err());
    let extra = found
        .documents
        .iter()
        .find(|document| wanted.documents.binary_search(document).is_err());
    match (lacks, extra) {
        (None, None) if wanted.documents.len() == found.documents.len() => Ok(()),
        (None, None) => Err(format!("{namespace} holds a document twice")),
        (lacks, extra) => Err(format!(
            "{namespace} lacks {:?} and holds {:?} instead ({} documents, {} wanted)",
            lacks.and_then(text),
            extra.and_then(text),
            found.documents.len(),
            wanted.documents.len()
        )),
    }
}

/// Of the cluster's own collections users get their settings only.
fn is_restored(meta: &Meta) -> bool {
    meta.db != "config" || meta.name == "settings"
}

fn wanted(source: &Mongo, at: Instant) -> BTreeMap<Namespace, Contents> {
    let mut count = source.history.count_at(at.ts());
    if planted::is(Bug::RestoreStopsShort) {
        count -= 1;
    }
    let collections = source.history.collections(count).filter(|(_, meta)| is_restored(meta));
    let contents = collections.map(|(uuid, meta)| {
        let documents: Vec<&Document> = match at {
            Instant::Entry(_) => source.history.documents(uuid, count, 0).map(|(_, d)| d).collect(),
            Instant::Cluster(at) | Instant::Member(at) => source.history.documents_at(uuid, at).into_values().collect(),
        };
        let mut contents = Contents {
            options: canonical(&Bson::Document(meta.options.clone())),
            indexes: meta
                .indexes
                .iter()
                .map(|index| canonical(&Bson::Document(index.clone())))
                .collect(),
            documents: documents
                .into_iter()
                .filter_map(|d| bson::serialize_to_vec(d).ok())
                .collect(),
        };
        contents.indexes.sort();
        contents.documents.sort();
        (Namespace::new(&meta.db, &meta.name), contents)
    });
    contents.collect()
}

fn canonical(value: &Bson) -> String {
    value.clone().into_canonical_extjson().to_string()
}

fn read(archive: &Bytes) -> Result<BTreeMap<Namespace, Contents>, String> {
    let mut parser = ArchiveParser::default();
    parser.push(archive);
    let mut names = Vec::new();
    let mut all: BTreeMap<Namespace, Contents> = BTreeMap::new();
    while let Some(event) = parser.next_event().map_err(|e| e.to_string())? {
        match event {
            Event::Header { .. } | Event::End(_) => {}
            Event::Entry(entry) => {
                let metadata: serde_json::Value = serde_json::from_str(&entry.metadata).map_err(|e| e.to_string())?;
                let options = metadata
                    .get("options")
                    .cloned()
                    .unwrap_or_else(|| serde_json::json!({}));
                let indexes = metadata
                    .get("indexes")
                    .and_then(|list| list.as_array())
                    .cloned()
                    .unwrap_or_default();
                let mut contents = Contents {
                    options: options.to_string(),
                    indexes: indexes.iter().map(ToString::to_string).collect(),
                    documents: Vec::new(),
                };
                contents.indexes.sort();
                all.insert(entry.namespace.clone(), contents);
                names.push(entry.namespace);
            }
            Event::Document(entry, bytes) => {
                let name = names.get(entry).ok_or("a document of no collection")?;
                let mut bytes = bytes.to_vec();
                if planted::strikes(Bug::RestoreAlters, 50) {
                    let last = bytes.len() - 2;
                    bytes[last] ^= 1;
                }
                all.entry(name.clone()).or_default().documents.push(bytes);
            }
        }
    }
    parser.finish().map_err(|e| e.to_string())?;
    for contents in all.values_mut() {
        contents.documents.sort();
    }
    Ok(all)
}
