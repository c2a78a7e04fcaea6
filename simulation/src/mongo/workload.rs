//! What users do to the source.

use bson::{Bson, Document, doc};
use headwater_model::{CollectionUuid, Optime, Ts};
use rand::Rng;
use rand::rngs::StdRng;

use super::history::{Count, Effect, Meta, Transaction, binary, id_index};
use super::set::{Mongo, Role};
use super::update;
use crate::trace;

/// How users behave.
#[derive(Clone, Debug)]
pub struct WorkloadDraw {
    /// Documents that are there before the backup begins.
    pub documents: u32,
    /// Collections that are there before the backup begins.
    pub collections: u32,
    /// Operations a second.
    pub rate: u32,
    /// Bytes of text in a document at the most.
    pub text: usize,
    /// Of a hundred operations, so many are about collections and indexes.
    pub ddl: u32,
    /// Of a hundred operations, so many are transactions.
    pub transactions: u32,
}

/// One operation of a client, on whatever the primary has.
pub fn step(mongo: &mut Mongo, rng: &mut StdRng, draw: &WorkloadDraw) {
    if !mongo.is_writable() {
        return;
    }
    let kind = rng.gen_range(0..100);
    if kind < draw.ddl {
        ddl(mongo, rng);
    } else if kind < draw.ddl + draw.transactions {
        transaction(mongo, rng, draw);
    } else if let Some((operation, effect)) = crud(mongo, rng, draw, &[]) {
        mongo.write(operation, vec![effect]);
    }
    // Prepared transactions do not stay open for ever.
    let open = mongo
        .history
        .transactions
        .iter()
        .position(|t| t.decided.is_none() && t.prepared && !t.is_shared);
    if let Some(at) = open
        && rng.gen_bool(0.1)
    {
        let commit = rng.gen_bool(0.7);
        mongo.decide_alone(at, commit);
    }
}

/// Ends what is undecided: the load is over.
pub fn finish(mongo: &mut Mongo) {
    let open = |mongo: &Mongo| {
        let mut all = mongo.history.transactions.iter();
        all.position(|t| t.decided.is_none() && !t.is_shared)
    };
    while let Some(at) = open(mongo) {
        mongo.decide_alone(at, true);
    }
}

/// The state before the backup begins.
pub fn prepare(mongo: &mut Mongo, rng: &mut StdRng, draw: &WorkloadDraw) {
    for _ in 0..draw.collections {
        create(mongo, rng);
    }
    for _ in 0..draw.documents {
        if let Some((operation, effect)) = insert(mongo, rng, draw) {
            mongo.write(operation, vec![effect]);
        }
    }
}

/// The cluster's own and the bank's collections are left to them.
fn is_of_users(meta: &Meta) -> bool {
    !matches!(meta.db.as_str(), "config" | "bank")
}

fn some_collection(mongo: &Mongo, rng: &mut StdRng) -> Option<(CollectionUuid, Meta)> {
    let now = mongo.history.count();
    let all: Vec<_> = mongo
        .history
        .collections(now)
        .filter(|(_, meta)| is_of_users(meta))
        .collect();
    if all.is_empty() {
        return None;
    }
    let (uuid, meta) = all[rng.gen_range(0..all.len())];
    Some((uuid, meta.clone()))
}

/// One insert, update or delete: the operation as entries have it, and what it does. `taken` are effects of the same
/// transaction: what they touch is left alone.
fn crud(mongo: &mut Mongo, rng: &mut StdRng, draw: &WorkloadDraw, taken: &[Effect]) -> Option<(Document, Effect)> {
    if rng.gen_bool(0.35) {
        return insert(mongo, rng, draw);
    }
    let (uuid, meta) = some_collection(mongo, rng)?;
    let now = mongo.history.count();
    let (_, held) = mongo.history.held(now);
    let touched = |record: i64| {
        taken.iter().any(|effect| match effect {
            Effect::Put(u, r, _) | Effect::Remove(u, r) => (*u, *r) == (uuid, record),
            Effect::Meta(..) => false,
        })
    };
    let free: Vec<i64> = mongo
        .history
        .documents(uuid, now, 0)
        .map(|(record, _)| record)
        .filter(|record| !held.contains(&(uuid, *record)) && !touched(*record))
        .collect();
    if free.is_empty() {
        return insert(mongo, rng, draw);
    }
    let record = free[rng.gen_range(0..free.len())];
    let document = mongo.history.document(uuid, record, now)?.clone();
    let key = doc! { "_id": document.get("_id").cloned().unwrap_or(Bson::Null) };
    let ns = format!("{}.{}", meta.db, meta.name);
    if rng.gen_bool(0.25) {
        let operation = doc! { "op": "d", "ns": ns, "ui": binary(uuid), "o": key };
        return Some((operation, Effect::Remove(uuid, record)));
    }
    let diffs = mongo.writes_diffs();
    let (o, after) = update::draw(rng, &document, diffs);
    let operation = doc! { "op": "u", "ns": ns, "ui": binary(uuid), "o": o, "o2": key };
    Some((operation, Effect::Put(uuid, record, after)))
}

fn insert(mongo: &mut Mongo, rng: &mut StdRng, draw: &WorkloadDraw) -> Option<(Document, Effect)> {
    let (uuid, meta) = some_collection(mongo, rng)?;
    let record = mongo.history.new_record(uuid);
    // Every id is used once, so that an insert never meets a document.
    let id = match rng.gen_range(0..5) {
        0 => Bson::Int32(record as i32),
        1 => Bson::Int64(record * 1_000_003),
        2 => Bson::String(format!("k{record}-{}", update::text(rng, 6))),
        3 => Bson::Document(doc! { "n": record, "s": "x" }),
        _ => Bson::Double(record as f64 + 0.5),
    };
    let mut document = doc! { "_id": id };
    for name in ["a", "b", "sub", "list", "c"] {
        if rng.gen_bool(0.8) {
            document.insert(name, update::fitting(rng, name));
        }
    }
    document.insert("text", update::text(rng, draw.text));
    let key = doc! { "_id": document.get("_id").cloned().unwrap_or(Bson::Null) };
    let mut operation =
        doc! { "op": "i", "ns": format!("{}.{}", meta.db, meta.name), "ui": binary(uuid), "o": document.clone() };
    if mongo.writes_insert_keys() {
        operation.insert("o2", key);
    }
    Some((operation, Effect::Put(uuid, record, document)))
}

/// A new session, and a number in it.
pub fn session(rng: &mut StdRng) -> (Document, i64) {
    let uuid = binary(CollectionUuid(rng.r#gen()));
    let uid = bson::Binary {
        subtype: bson::spec::BinarySubtype::Generic,
        bytes: vec![7; 32],
    };
    (doc! { "id": uuid, "uid": uid }, rng.gen_range(1..100))
}

fn transaction(mongo: &mut Mongo, rng: &mut StdRng, draw: &WorkloadDraw) {
    let (mut operations, mut effects) = (Vec::new(), Vec::new());
    for _ in 0..rng.gen_range(1..8) {
        if let Some((operation, effect)) = crud(mongo, rng, draw, &effects) {
            operations.push(operation);
            effects.push(effect);
        }
    }
    if operations.is_empty() {
        return;
    }
    let session = session(rng);
    let entry = |part: &[Document], flags: Document, previous: Optime| apply_ops(&session, part, flags, previous);
    match rng.gen_range(0..4) {
        0 => {
            _ = prepared(
                mongo,
                entry(&operations, doc! { "prepare": true }, Optime::ZERO),
                &session,
                effects,
                false,
            )
        }
        1 if operations.len() > 1 => {
            trace::mark("source: transaction of several entries");
            let cut = operations.len() / 2;
            let first = mongo.write(
                entry(&operations[..cut], doc! { "partialTxn": true }, Optime::ZERO),
                Vec::new(),
            );
            let at = mongo.history.position(first);
            let last = mongo.write(
                entry(&operations[cut..], doc! { "count": operations.len() as i64 }, at),
                effects.clone(),
            );
            mongo.history.transactions.push(Transaction {
                session,
                first: (first, at),
                last: (first, at),
                prepared: false,
                effects,
                decided: Some(last),
                commit: None,
                is_shared: false,
            });
        }
        _ => {
            mongo.write(entry(&operations, Document::new(), Optime::ZERO), effects);
        }
    }
}

/// An entry of a transaction.
pub fn apply_ops(session: &(Document, i64), part: &[Document], flags: Document, previous: Optime) -> Document {
    let mut o = doc! { "applyOps": part.to_vec() };
    o.extend(flags);
    let (ts, t) = if previous == Optime::ZERO {
        (Ts::ZERO, -1)
    } else {
        (previous.ts, previous.term)
    };
    doc! {
        "op": "c", "ns": "admin.$cmd", "o": o, "lsid": session.0.clone(), "txnNumber": session.1, "stmtId": 0,
        "prevOpTime": { "ts": bson::Timestamp::from(ts), "t": t },
    }
}

/// Writes the entry that prepares a transaction; gives where.
pub fn prepared(
    mongo: &mut Mongo,
    entry: Document,
    session: &(Document, i64),
    effects: Vec<Effect>,
    is_shared: bool,
) -> (Count, Optime) {
    trace::mark("source: prepared transaction");
    let first = mongo.write(entry, Vec::new());
    let at = mongo.history.position(first);
    mongo.history.transactions.push(Transaction {
        session: session.clone(),
        first: (first, at),
        last: (first, at),
        prepared: true,
        effects,
        decided: None,
        commit: None,
        is_shared,
    });
    (first, at)
}

/// How a database of users is called: what is not sharded is on one shard only.
pub fn database(mongo: &Mongo, name: &str) -> String {
    match mongo.role {
        Role::Plain => name.to_owned(),
        Role::ConfigServers | Role::Shard => format!("{name}_{}", mongo.name),
    }
}

/// Creates a collection under a name that was never used.
fn create(mongo: &mut Mongo, rng: &mut StdRng) {
    mongo.next_name += 1;
    let (db, name) = (["app", "crm"][rng.gen_range(0..2)], format!("c{}", mongo.next_name));
    let db = &database(mongo, db);
    let mut options = Document::new();
    if rng.gen_bool(0.3) {
        options.insert("validator", doc! { "a": { "$ne": rng.gen_range(1000..2000) } });
        options.insert("validationLevel", "moderate");
        options.insert("validationAction", "warn");
    }
    let uuid = mongo.new_uuid();
    let mut o = doc! { "create": &name };
    o.extend(options.clone());
    o.insert("idIndex", id_index());
    let meta = Meta {
        db: db.to_owned(),
        name,
        options,
        indexes: vec![id_index()],
    };
    let fields = doc! { "op": "c", "ns": format!("{db}.$cmd"), "ui": binary(uuid), "o": o };
    mongo.write(fields, vec![Effect::Meta(uuid, Some(meta))]);
}

fn ddl(mongo: &mut Mongo, rng: &mut StdRng) {
    let now = mongo.history.count();
    let kind = rng.gen_range(0..10);
    if kind < 3 || mongo.history.collections(now).count() < 2 {
        return create(mongo, rng);
    }
    let Some((uuid, mut meta)) = some_collection(mongo, rng) else {
        return;
    };
    if mongo.history.held(now).0.contains(&uuid) {
        return;
    }
    let (db, name) = (meta.db.clone(), meta.name.clone());
    let write = |mongo: &mut Mongo, o: Document, meta: Option<Meta>| {
        let fields = doc! { "op": "c", "ns": format!("{db}.$cmd"), "ui": binary(uuid), "o": o };
        mongo.write(fields, vec![Effect::Meta(uuid, meta)]);
    };
    match kind {
        3 => {
            trace::mark("source: collection dropped");
            write(mongo, doc! { "drop": name }, None);
        }
        4 | 5 => {
            trace::mark("source: collection renamed");
            mongo.next_name += 1;
            // Renames between databases are copies; here they stay in one.
            let to = format!("r{}", mongo.next_name);
            meta.name.clone_from(&to);
            let o = doc! { "renameCollection": format!("{db}.{name}"), "to": format!("{db}.{to}"), "stayTemp": false };
            write(mongo, o, Some(meta));
        }
        6 if meta.indexes.len() > 1 => {
            let index = meta.indexes.pop().unwrap_or_default();
            let o = doc! { "dropIndexes": name, "index": index.get_str("name").unwrap_or_default() };
            write(mongo, o, Some(meta));
        }
        _ => index(mongo, rng, uuid, meta),
    }
}

/// Builds an index: at once on an empty collection, in two entries otherwise.
fn index(mongo: &mut Mongo, rng: &mut StdRng, uuid: CollectionUuid, mut meta: Meta) {
    let field = format!("f{}", rng.gen_range(0..1_000_000));
    let named = format!("{field}_1");
    if meta
        .indexes
        .iter()
        .any(|index| index.get_str("name").is_ok_and(|there| there == named))
    {
        return;
    }
    let spec = doc! { "v": 2, "key": { &field: 1 }, "name": named };
    let now = mongo.history.count();
    let empty = mongo.history.documents(uuid, now, 0).next().is_none();
    let ns = format!("{}.$cmd", meta.db);
    let name = meta.name.clone();
    meta.indexes.push(spec.clone());
    let effects = vec![Effect::Meta(uuid, Some(meta))];
    if empty {
        let mut o = doc! { "createIndexes": name };
        o.extend(spec);
        mongo.write(doc! { "op": "c", "ns": ns, "ui": binary(uuid), "o": o }, effects);
    } else {
        trace::mark("source: index built");
        let build = binary(CollectionUuid(rng.r#gen()));
        let o = |command: &str| doc! { command: &name, "indexBuildUUID": build.clone(), "indexes": [spec.clone()] };
        mongo.write(
            doc! { "op": "c", "ns": &ns, "ui": binary(uuid), "o": o("startIndexBuild") },
            Vec::new(),
        );
        mongo.write(
            doc! { "op": "c", "ns": &ns, "ui": binary(uuid), "o": o("commitIndexBuild") },
            effects,
        );
    }
}
