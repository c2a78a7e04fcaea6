//! What a member answers to the commands a backup sends.

use bson::oid::ObjectId;
use bson::{Bson, Document, RawDocumentBuf, doc};
use headwater_model::{CollectionUuid, Ts};

use super::history::{Count, Meta, binary, id_index};
use super::scan::by_order;
use super::set::{Mongo, Role};
use crate::planted::{self, Bug};

/// A server's error.
#[derive(Clone, Debug)]
pub struct Refused {
    /// Code and name.
    pub code: (i32, &'static str),
    /// Words.
    pub words: String,
}

fn refused(code: i32, name: &'static str, words: &str) -> Refused {
    Refused {
        code: (code, name),
        words: words.to_owned(),
    }
}

/// The name of a member's process.
fn process(at: usize, boot: u64) -> ObjectId {
    if planted::is(Bug::ProcessesBearOneName) {
        return ObjectId::from_bytes([0; 12]);
    }
    let mut name = [at as u8; 12];
    name[4..].copy_from_slice(&boot.to_be_bytes());
    ObjectId::from_bytes(name)
}

fn missing() -> Refused {
    refused(26, "NamespaceNotFound", "no such collection")
}

impl Mongo {
    /// How much a member shows to a read.
    pub fn view(&self, member: usize, command: &Document) -> Count {
        let level = command
            .get_document("readConcern")
            .and_then(|concern| concern.get_str("level"));
        if planted::is(Bug::TailReadsLocal) {
            // As if everything were asked of the primary.
            return self.members[self.primary].applied;
        }
        let member = &self.members[member];
        if level.unwrap_or("local") == "majority" {
            member.known.min(member.applied)
        } else {
            member.applied
        }
    }

    /// Answers a command; a cursor's first batch is all there is.
    pub fn answer(&self, at: usize, db: &str, command: &Document) -> Result<Document, Refused> {
        let name = command.keys().next().cloned().unwrap_or_default();
        match name.as_str() {
            "hello" => Ok(self.hello(at)),
            "buildInfo" => Ok(doc! { "version": self.draw.version, "ok": 1.0 }),
            "connectionStatus" => Ok(doc! { "authInfo": { "authenticatedUsers": [] }, "ok": 1.0 }),
            "listDatabases" => Ok(self.databases(at)),
            "listCollections" => Ok(batch(self.list_collections(at, db, command))),
            "listIndexes" => self.list_indexes(at, command).map(batch),
            "collStats" => self.statistics(at, db, command),
            "find" => self.find(at, db, command).map(batch),
            "aggregate" => Ok(batch(self.sample(at, db, command))),
            other => Err(refused(59, "CommandNotFound", &format!("no such command: {other}"))),
        }
    }

    fn hello(&self, at: usize) -> Document {
        let member = &self.members[at];
        let hosts: Vec<&str> = self.members.iter().map(|member| member.address.as_str()).collect();
        let known = self.history.position(member.known.min(member.applied));
        let mut hello = doc! {
            "setName": &self.name, "me": &member.address, "hosts": hosts,
            "isWritablePrimary": at == self.primary, "secondary": at != self.primary,
            "lastWrite": { "majorityOpTime": { "ts": bson::Timestamp::from(known.ts), "t": known.term } },
            "topologyVersion": { "processId": process(at, member.boot) }, "ok": 1.0,
        };
        if self.role == Role::ConfigServers {
            hello.insert("configsvr", 2);
        }
        hello
    }

    fn databases(&self, at: usize) -> Document {
        let mut names: Vec<String> = ["admin", "config", "local"].map(str::to_owned).into();
        for (_, meta) in self.history.collections(self.members[at].applied) {
            if !names.contains(&meta.db) {
                names.push(meta.db.clone());
            }
        }
        let databases: Vec<Document> = names.into_iter().map(|name| doc! { "name": name }).collect();
        doc! { "databases": databases, "ok": 1.0 }
    }

    fn list_collections(&self, at: usize, db: &str, command: &Document) -> Vec<Document> {
        let wanted = command.get_document("filter").ok().and_then(|filter| {
            filter
                .get_binary_generic("info.uuid")
                .ok()
                .cloned()
                .or_else(|| uuid_bytes(filter.get("info.uuid")))
        });
        let mut here: Vec<(CollectionUuid, &Meta)> = self
            .history
            .collections(self.members[at].applied)
            .filter(|(uuid, meta)| meta.db == db && wanted.as_ref().is_none_or(|wanted| wanted[..] == uuid.0[..]))
            .collect();
        if planted::is(Bug::ListingForgetsCollection) && wanted.is_none() {
            here.pop();
        }
        here.into_iter()
            .map(|(uuid, meta)| {
                doc! {
                    "name": &meta.name, "type": "collection", "options": meta.options.clone(),
                    "info": { "readOnly": false, "uuid": binary(uuid) }, "idIndex": id_index(),
                }
            })
            .collect()
    }

    fn list_indexes(&self, at: usize, command: &Document) -> Result<Vec<Document>, Refused> {
        let uuid = collection(command.get("listIndexes")).ok_or_else(missing)?;
        let meta = self.history.meta(uuid, self.members[at].applied).ok_or_else(missing)?;
        Ok(meta.indexes.clone())
    }

    fn statistics(&self, at: usize, db: &str, command: &Document) -> Result<Document, Refused> {
        let name = command.get_str("collStats").map_err(|_| missing())?;
        let applied = self.members[at].applied;
        let found = self
            .history
            .collections(applied)
            .find(|(_, meta)| meta.db == db && meta.name == name);
        let (uuid, _) = found.ok_or_else(missing)?;
        let count = self.history.documents(uuid, applied, 0).count();
        Ok(doc! { "count": count as i64, "size": 200 * count as i64, "ok": 1.0 })
    }

    fn find(&self, at: usize, db: &str, command: &Document) -> Result<Vec<Document>, Refused> {
        match (db, command.get_str("find")) {
            ("local", Ok("oplog.rs")) => Ok(self.oplog(at, command)),
            ("config", Ok("transactions")) => Ok(self.transactions(at)),
            ("admin", Ok("system.version")) if asks_for(command, "shardIdentity") => Ok(self.identity()),
            ("admin", Ok("system.version")) => {
                let version = &self.draw.version[..3];
                Ok(vec![doc! { "_id": "featureCompatibilityVersion", "version": version }])
            }
            (db, Ok(name)) => Ok(self.by_name(db, name, self.view(at, command))),
            (_, Err(_)) => self.by_ids(at, command),
        }
    }

    /// Ids that lie apart, in their order: the one aggregation that is asked for.
    fn sample(&self, at: usize, db: &str, command: &Document) -> Vec<Document> {
        let view = self.view(at, command);
        let stage = command
            .get_array("pipeline")
            .ok()
            .and_then(|stages| stages.first()?.as_document());
        let size = stage.and_then(|stage| stage.get_document("$sample").ok()?.get_i64("size").ok());
        let uuid = command
            .get_str("aggregate")
            .ok()
            .and_then(|name| self.history.named(db, name, view));
        let all = uuid.into_iter().flat_map(|uuid| self.history.documents(uuid, view, 0));
        let mut ids: Vec<Bson> = all.filter_map(|(_, document)| document.get("_id").cloned()).collect();
        ids.sort_by(by_order);
        let apart = ids.len().div_ceil(size.unwrap_or(1).max(1) as usize).max(1);
        ids.into_iter().step_by(apart).map(|id| doc! { "_id": id }).collect()
    }

    /// What a shard knows of itself.
    fn identity(&self) -> Vec<Document> {
        match self.role {
            Role::Shard => vec![doc! { "_id": "shardIdentity", "shardName": &self.name }],
            Role::Plain | Role::ConfigServers => Vec::new(),
        }
    }

    /// All documents of a small collection.
    fn by_name(&self, db: &str, name: &str, view: Count) -> Vec<Document> {
        let found = self.history.named(db, name, view).into_iter();
        let documents = found.flat_map(|uuid| self.history.documents(uuid, view, 0));
        documents.map(|(_, document)| document.clone()).collect()
    }

    /// Single entries of the oplog, for a look at a position.
    fn oplog(&self, at: usize, command: &Document) -> Vec<Document> {
        let view = self.view(at, command);
        let ts = command
            .get_document("filter")
            .and_then(|filter| filter.get_document("ts"));
        let bound = |name: &str| ts.as_ref().ok()?.get_timestamp(name).ok().map(Ts::from);
        let below = bound("$lt").map_or(view, |ts| self.history.count_at(Ts(ts.0.saturating_sub(1))).min(view));
        let above = bound("$gte").map_or(0, |ts| self.history.count_at(Ts(ts.0.saturating_sub(1))));
        let above = above.max(self.history.truncated);
        if below <= above {
            return Vec::new();
        }
        let backwards = command
            .get_document("sort")
            .is_ok_and(|sort| sort.get_i32("$natural").is_ok_and(|way| way < 0));
        let position = self.history.position(if backwards { below } else { above + 1 });
        vec![doc! { "ts": bson::Timestamp::from(position.ts), "t": position.term }]
    }

    fn transactions(&self, at: usize) -> Vec<Document> {
        let open = self
            .history
            .open(self.members[at].applied)
            .min_by_key(|transaction| transaction.first.0);
        let row = |(_, position): (Count, headwater_model::Optime)| {
            doc! { "state": "prepared", "startOpTime": { "ts": bson::Timestamp::from(position.ts), "t": position.term } }
        };
        open.map(|transaction| row(transaction.first)).into_iter().collect()
    }

    /// Documents by their ids.
    fn by_ids(&self, at: usize, command: &Document) -> Result<Vec<Document>, Refused> {
        let uuid = collection(command.get("find")).ok_or_else(missing)?;
        let view = self.view(at, command);
        self.history.meta(uuid, view).ok_or_else(missing)?;
        let ids = command
            .get_document("filter")
            .and_then(|filter| filter.get_document("_id"))
            .and_then(|id| id.get_array("$in"))
            .map_err(|_| refused(2, "BadValue", "only finds by _id are simulated"))?;
        let ids: Vec<Bson> = ids.iter().map(compared).collect();
        if planted::is(Bug::FetchFindsNothing) {
            return Ok(Vec::new());
        }
        let found = self.history.documents(uuid, view, 0).map(|(_, document)| document);
        Ok(found
            .filter(|document| document.get("_id").is_some_and(|id| ids.contains(&compared(id))))
            .cloned()
            .collect())
    }
}

/// A value as servers compare it: numbers by what they are worth, whatever their types.
fn compared(value: &Bson) -> Bson {
    match value {
        Bson::Int32(n) => Bson::Double(f64::from(*n)),
        Bson::Int64(n) if (*n as f64) as i64 == *n => Bson::Double(*n as f64),
        Bson::Document(fields) => Bson::Document(fields.iter().map(|(name, v)| (name.clone(), compared(v))).collect()),
        Bson::Array(values) => Bson::Array(values.iter().map(compared).collect()),
        other => other.clone(),
    }
}

/// Whether a command asks for the document of this id.
fn asks_for(command: &Document, id: &str) -> bool {
    let filter = command.get_document("filter");
    filter.is_ok_and(|filter| filter.get_str("_id").is_ok_and(|asked| asked == id))
}

fn uuid_bytes(value: Option<&Bson>) -> Option<Vec<u8>> {
    match value {
        Some(Bson::Binary(binary)) => Some(binary.bytes.clone()),
        _ => None,
    }
}

/// A collection named by its UUID.
pub fn collection(value: Option<&Bson>) -> Option<CollectionUuid> {
    CollectionUuid::from_slice(&uuid_bytes(value)?)
}

fn batch(documents: Vec<Document>) -> Document {
    doc! { "cursor": { "firstBatch": documents, "id": 0_i64, "ns": "" }, "ok": 1.0 }
}

/// A reply with one batch, as a cursor gives it.
pub fn reply(documents: Vec<RawDocumentBuf>, token: Option<Document>) -> RawDocumentBuf {
    let mut cursor = RawDocumentBuf::new();
    let mut array = bson::RawArrayBuf::new();
    for document in documents {
        array.push(document);
    }
    cursor.append(bson::raw::cstr!("nextBatch"), array);
    if let Some(token) = token.and_then(|token| RawDocumentBuf::try_from(&token).ok()) {
        cursor.append(bson::raw::cstr!("postBatchResumeToken"), token);
    }
    let mut whole = RawDocumentBuf::new();
    whole.append(bson::raw::cstr!("cursor"), cursor);
    whole
}
