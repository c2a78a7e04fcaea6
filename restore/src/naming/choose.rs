//! From the collections of a backup to the list of what is restored.

use std::collections::BTreeMap;

use headwater_model::{CollectionUuid, Namespace};

use super::{BUCKETS, NamingFault, Selection, view};
use crate::source::{CollectionAtT, ViewAtT};

/// Bytes of the longest database name.
const DB_MAX: usize = 63;
/// Bytes of the longest full name (servers from 4.4 on).
const NAMESPACE_MAX: usize = 255;
/// How many names a refusal cites.
const CITED: usize = 5;

/// What kind of thing an item is.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// An ordinary collection: capped, clustered or plain.
    Collection,
    /// The data are buckets: documents of `system.buckets.<name>`.
    TimeSeries,
    /// A view, as it is to be defined under its new name. It has no documents.
    View(ViewAtT),
    /// Settings in `config`: each document replaces the one of the same `_id`.
    Settings,
    /// `admin.system.users`.
    Users,
    /// `admin.system.roles`.
    Roles,
    /// `admin.system.version`: only the document `authSchema` is given back.
    AuthSchema,
}

/// One thing that is restored.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// Its name in the backup, as users see it.
    pub from: Namespace,
    /// Its name at the target, as users see it.
    pub to: Namespace,
    /// What it is.
    pub kind: Kind,
    /// Where the documents are; for a time-series collection the buckets. `None` for a view.
    pub data: Option<CollectionAtT>,
}

impl Item {
    /// The collection that holds the documents at the target.
    pub fn to_data(&self) -> Namespace {
        match self.kind {
            Kind::TimeSeries => Namespace::new(&self.to.db, format!("{BUCKETS}{}", self.to.coll)),
            _ => self.to.clone(),
        }
    }

    /// The identity of its documents in the backup.
    pub fn uuid(&self) -> Option<CollectionUuid> {
        self.data.as_ref().map(|c| c.uuid)
    }
}

/// The decision.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Chosen {
    /// What is restored, by name in the backup.
    pub items: Vec<Item>,
    /// What is left out or changed without being asked for, for people.
    pub notes: Vec<String>,
}

impl Chosen {
    /// Documents expected, an estimate.
    pub fn documents(&self) -> u64 {
        self.items
            .iter()
            .filter_map(|i| i.data.as_ref())
            .map(|c| c.documents)
            .sum()
    }

    /// Bytes of BSON expected, an estimate.
    pub fn bytes(&self) -> u64 {
        self.items.iter().filter_map(|i| i.data.as_ref()).map(|c| c.bytes).sum()
    }
}

/// Decides what is restored of `collections` and `views` (all there are, internal ones included).
pub fn choose(
    collections: Vec<CollectionAtT>,
    views: Vec<ViewAtT>,
    selection: &Selection,
) -> Result<Chosen, NamingFault> {
    let mut chosen = Chosen::default();
    let mut offered = Vec::new();
    for collection in collections {
        match role(&collection) {
            Some(Kind::Users | Kind::Roles | Kind::AuthSchema) if !selection.with_users => {}
            Some(kind @ (Kind::Users | Kind::Roles | Kind::AuthSchema)) => {
                let name = collection.namespace.clone();
                chosen.items.push(Item {
                    from: name.clone(),
                    to: name,
                    kind,
                    data: Some(collection),
                });
            }
            Some(kind) => offered.push((seen_name(&collection), kind, Some(collection))),
            None => {}
        }
    }
    for view in views {
        if view.view_on.starts_with(BUCKETS) {
            if !offered
                .iter()
                .any(|(name, kind, _)| *kind == Kind::TimeSeries && *name == view.namespace)
            {
                chosen.notes.push(format!(
                    "{} is left out: its buckets are missing in the backup",
                    view.namespace
                ));
            }
        } else {
            offered.push((view.namespace.clone(), Kind::View(view), None));
        }
    }
    offered.sort_by(|a, b| a.0.cmp(&b.0));
    must_match(selection, &offered.iter().map(|(name, ..)| name).collect::<Vec<_>>())?;

    for (from, kind, data) in offered {
        if !selection.includes(&from) {
            continue;
        }
        let to = if kind == Kind::Settings {
            from.clone()
        } else {
            selection.renamed(&from)?
        };
        check_target(&from, &to)?;
        let kind = match kind {
            Kind::View(view) => Kind::View(view::renamed(&view, &to, selection)?),
            kind => kind,
        };
        chosen.items.push(Item { from, to, kind, data });
    }
    check_clashes(&chosen.items)?;
    chosen.items.sort_by(|a, b| a.from.cmp(&b.from));
    Ok(chosen)
}

/// What a stored collection is to a user; `None` if it is not restored.
fn role(collection: &CollectionAtT) -> Option<Kind> {
    let Namespace { db, coll } = &collection.namespace;
    if !collection.namespace.is_kept() || collection.is_temporary() {
        return None;
    }
    if coll.starts_with(BUCKETS) {
        return Some(Kind::TimeSeries);
    }
    match (db.as_str(), coll.as_str()) {
        ("admin", "system.users") => Some(Kind::Users),
        ("admin", "system.roles") => Some(Kind::Roles),
        ("admin", "system.version") => Some(Kind::AuthSchema),
        ("config", name) => is_setting(name).then_some(Kind::Settings),
        (_, "system.js") => Some(Kind::Collection),
        (_, name) if name.starts_with("system.") => None,
        _ => Some(Kind::Collection),
    }
}

/// Whether a collection of `config` is the user's, on a plain replica set. Routing tables and what runs by itself are not.
fn is_setting(name: &str) -> bool {
    const ROUTING_OR_RUNTIME: [&str; 20] = [
        "actionlog",
        "changelog",
        "chunks",
        "collections",
        "csrs.indexes",
        "databases",
        "lockpings",
        "locks",
        "migrations",
        "mongos",
        "placementHistory",
        "queryAnalyzers",
        "reshardingOperations",
        "sampledQueries",
        "sampledQueriesDiff",
        "shard.indexes",
        "shards",
        "tags",
        "transaction_coordinators",
        "version",
    ];
    !ROUTING_OR_RUNTIME.contains(&name) && !name.starts_with("system.") && !name.starts_with("shard.")
}

fn seen_name(collection: &CollectionAtT) -> Namespace {
    let Namespace { db, coll } = &collection.namespace;
    Namespace::new(db, coll.strip_prefix(BUCKETS).unwrap_or(coll))
}

/// A pattern that means nothing is a slip of the pen, and silence would restore too little.
fn must_match(selection: &Selection, names: &[&Namespace]) -> Result<(), NamingFault> {
    let fault = |pattern: &str| {
        let cited: Vec<_> = names.iter().take(CITED).map(|n| n.to_string()).collect();
        let known = if cited.is_empty() {
            "nothing".to_owned()
        } else {
            cited.join(", ")
        };
        NamingFault::NothingMatches {
            pattern: pattern.to_owned(),
            known,
        }
    };
    for pattern in &selection.include {
        if !names.iter().any(|name| pattern.matches(name)) {
            return Err(fault(pattern.text()));
        }
    }
    for rename in &selection.renames {
        if !names
            .iter()
            .any(|name| selection.includes(name) && rename.from().matches(name))
        {
            return Err(fault(rename.from().text()));
        }
    }
    Ok(())
}

fn check_target(from: &Namespace, to: &Namespace) -> Result<(), NamingFault> {
    let refuse = |why| {
        Err(NamingFault::Target {
            to: to.to_string(),
            why,
        })
    };
    if from == to {
        return Ok(());
    }
    if to.db.len() > DB_MAX || to.to_string().len() > NAMESPACE_MAX {
        return refuse("it is too long: 63 bytes for the database, 255 with the collection");
    }
    if to
        .db
        .contains(['/', '\\', ' ', '"', '$', '*', '<', '>', ':', '|', '?', '\0'])
    {
        return refuse("a database name takes none of / \\ \" $ * < > : | ? and no space");
    }
    if to.coll.contains(['$', '\0']) || to.coll.starts_with('.') {
        return refuse("a collection name takes no $ and begins with no dot");
    }
    if to.coll.starts_with("system.") && from.coll != to.coll {
        return refuse("names that begin with system. belong to the server");
    }
    if matches!(to.db.as_str(), "local" | "config") && from.db != to.db {
        return refuse("databases local and config belong to the server");
    }
    Ok(())
}

fn check_clashes(items: &[Item]) -> Result<(), NamingFault> {
    let mut names: BTreeMap<&Namespace, &Namespace> = BTreeMap::new();
    let mut databases: BTreeMap<String, &str> = BTreeMap::new();
    for item in items {
        if let Some(first) = names.insert(&item.to, &item.from) {
            let (first, second) = (first.clone(), item.from.clone());
            return Err(NamingFault::TwoToOne {
                first,
                second,
                to: item.to.clone(),
            });
        }
        match databases.insert(item.to.db.to_lowercase(), &item.to.db) {
            Some(first) if first != item.to.db => {
                return Err(NamingFault::CaseOnly {
                    first: first.to_owned(),
                    second: item.to.db.clone(),
                });
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
