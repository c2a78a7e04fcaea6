//! What `headwater restore` gave back of every shard, read from directories in mongodump's format.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use bson::{Document, Timestamp};
use serde_json::Value;

use super::truth::Accounts;
use crate::headwater::Headwater;

/// One collection on one shard.
#[derive(Debug, Default)]
pub struct Dumped {
    /// Its documents in their order.
    pub documents: Vec<Document>,
    /// Names of its indexes.
    pub indexes: BTreeSet<String>,
    /// Whether it has a validator.
    pub validated: bool,
}

/// Every shard at one instant.
#[derive(Debug, Default)]
pub struct Restored {
    files: BTreeMap<(String, String), PathBuf>,
}

impl Restored {
    /// Restores every shard of the deployment `shop` at an instant into a folder.
    pub async fn of(headwater: &Headwater, shards: &[String], at: &str, folder: &Path) -> Result<Restored> {
        let mut files = BTreeMap::new();
        for shard in shards {
            let own = folder.join(shard);
            let (source, dir) = (format!("shop/{shard}"), own.display().to_string());
            headwater
                .json(&["restore", &source, "--at", at, "--to-dir", &dir, "--yes"])
                .await?;
            for db in std::fs::read_dir(&own)? {
                let db = db?;
                if !db.file_type()?.is_dir() {
                    continue;
                }
                for file in std::fs::read_dir(db.path())? {
                    let file = file?.path();
                    let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                    if let Some(collection) = name.strip_suffix(".bson") {
                        let ns = format!("{}.{collection}", db.file_name().to_string_lossy());
                        files.insert((shard.clone(), ns), file);
                    }
                }
            }
        }
        Ok(Restored { files })
    }

    /// Shards and the namespaces on them.
    pub fn names(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files.keys().map(|(shard, ns)| (shard.as_str(), ns.as_str()))
    }

    /// A collection.
    pub fn collection(&self, shard: &str, ns: &str) -> Result<Dumped> {
        let file = self.files.get(&(shard.to_owned(), ns.to_owned()));
        let file = file.with_context(|| format!("{ns} is not on {shard}"))?;
        let metadata = std::fs::read(file.with_extension("metadata.json"))?;
        let metadata: Value = serde_json::from_slice(&metadata)?;
        let indexes = metadata["indexes"].as_array().into_iter().flatten();
        let names = indexes.filter_map(|index| Some(index["name"].as_str()?.to_owned()));
        Ok(Dumped {
            documents: documents(file)?,
            indexes: names.collect(),
            validated: metadata["options"].get("validator").is_some(),
        })
    }

    /// The accounts on every shard.
    pub fn accounts(&self, shards: &[String]) -> Result<Accounts> {
        let of = |shard: &String| Ok((shard.clone(), self.collection(shard, super::NS)?.documents));
        shards.iter().map(of).collect()
    }
}

fn documents(file: &Path) -> Result<Vec<Document>> {
    let bytes = std::fs::read(file)?;
    let mut rest = bytes.as_slice();
    let mut documents = Vec::new();
    while let Some(head) = rest.first_chunk::<4>() {
        let length = u32::from_le_bytes(*head) as usize;
        ensure!(length <= rest.len(), "{} ends in a document", file.display());
        let (document, others) = rest.split_at(length);
        documents.push(bson::deserialize_from_slice(document)?);
        rest = others;
    }
    Ok(documents)
}

/// A cluster time as commands take it.
pub fn instant(at: Timestamp) -> String {
    format!("{},{}", at.time, at.increment)
}
