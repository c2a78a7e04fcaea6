//! The MongoDB that is written to.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bson::{Bson, Document, RawDocumentBuf, doc};
use headwater_model::Namespace;
use headwater_protocol::redact;
use mongodb::Client;
use mongodb::error::{Error, ErrorKind};

use super::{LoadFault, address};

/// How long an unreachable target is waited for, in all, before a load ends. It can be resumed.
const PATIENCE: [Duration; 7] = [
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
    Duration::from_secs(15),
];
/// How long one attempt looks for a primary.
const SELECTION: Duration = Duration::from_secs(10);
/// How long a write waits for a majority of the target's members before a load ends. It can be resumed.
pub(crate) const MAJORITY_WITHIN: Duration = Duration::from_secs(60);

/// The write concern of everything that is written.
pub(crate) fn majority() -> Document {
    doc! { "w": "majority", "wtimeout": MAJORITY_WITHIN.as_millis() as i32 }
}

pub(crate) mod code {
    pub const NAMESPACE_NOT_FOUND: i32 = 26;
    pub const NAMESPACE_EXISTS: i32 = 48;
    pub const UNAUTHORIZED: i32 = 13;
    pub const WRITE_CONCERN_FAILED: i32 = 64;
    pub const DUPLICATE_KEY: i32 = 11000;
    pub const COLLATION_VERSION: i32 = 161;
    pub const INDEX_OPTION: i32 = 197;
    /// The node stops being what it was, or is not reachable for a while: another attempt may find a primary.
    pub const PASSING: [i32; 16] = [
        6, 7, 64, 89, 91, 112, 134, 189, 262, 9001, 10107, 11600, 11602, 13435, 13436, 50,
    ];
}

/// A connected target. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Target {
    client: Client,
    shown: String,
    listener: Listener,
}

/// Hears why a target cannot be written to at present, and `None` when it can again.
pub type Hear = Arc<dyn Fn(Option<&str>) + Send + Sync>;

#[derive(Clone, Default)]
struct Listener(Option<Hear>);

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Listener")
    }
}

impl Listener {
    fn hear(&self, why: Option<&str>) {
        if let Some(hear) = &self.0 {
            hear(why);
        }
    }
}

/// What a target says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct About {
    pub version: String,
    pub fcv: String,
    pub hosts: BTreeSet<String>,
    pub writable: bool,
    pub sharded: bool,
    /// Whether it is a member of a replica set.
    pub in_a_set: bool,
    pub config_server: bool,
    /// The shard it is; empty if its name may not be read.
    pub shard: Option<String>,
}

/// What bears a name at a target.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct There {
    pub name: String,
    /// `collection`, `view` or `timeseries`.
    pub kind: String,
    pub options: Option<Document>,
    /// In hexadecimal.
    pub uuid: Option<String>,
}

impl Target {
    /// Reads the connection string; nothing is sent yet. `connections` is how many commands may run at once.
    pub async fn new(uri: &str, connections: u32) -> Result<Target, LoadFault> {
        let shown = redact::uri(uri);
        let mut options = address::read(uri).await.map_err(|detail| LoadFault::Uri { detail })?;
        options.app_name.get_or_insert_with(|| "headwater restore".to_owned());
        options.server_selection_timeout.get_or_insert(SELECTION);
        options.max_pool_size = Some(options.max_pool_size.unwrap_or(0).max(connections + 2));
        let client = Client::with_options(options).map_err(|e| LoadFault::Uri {
            // The driver's words may cite the string with its password.
            detail: address::words(uri, &e),
        })?;
        let listener = Listener::default();
        Ok(Target {
            client,
            shown,
            listener,
        })
    }

    /// With somebody who is told of every try that failed.
    pub fn heard_by(mut self, hear: Hear) -> Target {
        self.listener = Listener(Some(hear));
        self
    }

    /// Where it is, without credentials.
    pub fn shown(&self) -> &str {
        &self.shown
    }

    pub(crate) async fn about(&self) -> Result<About, LoadFault> {
        let hello = self.run("admin", &doc! { "hello": 1 }).await?;
        let build = self.run("admin", &doc! { "buildInfo": 1 }).await?;
        let sharded = hello.get_str("msg").is_ok_and(|msg| msg == "isdbgrid");
        let fcv = if sharded {
            String::new()
        } else {
            let reply = self
                .run("admin", &doc! { "getParameter": 1, "featureCompatibilityVersion": 1 })
                .await?;
            let fcv = reply.get_document("featureCompatibilityVersion").ok();
            fcv.and_then(|f| f.get_str("version").ok())
                .unwrap_or_default()
                .to_owned()
        };
        let hosts = hello
            .get_array("hosts")
            .map(|h| h.iter().filter_map(Bson::as_str).map(str::to_owned).collect());
        Ok(About {
            version: build.get_str("version").unwrap_or_default().to_owned(),
            fcv,
            hosts: hosts.unwrap_or_default(),
            writable: hello.get_bool("isWritablePrimary").unwrap_or(false),
            sharded,
            in_a_set: hello.contains_key("setName"),
            config_server: hello.contains_key("configsvr"),
            shard: if sharded { None } else { self.shard(&hello).await? },
        })
    }

    async fn shard(&self, hello: &Document) -> Result<Option<String>, LoadFault> {
        let find = doc! { "find": "system.version", "filter": { "_id": "shardIdentity" }, "limit": 1 };
        match self.try_run("admin", &find).await {
            Ok(reply) => Ok(first_batch(&reply).find_map(|d| d.get_str("shardName").map(str::to_owned).ok())),
            // Members of clusters add this to every answer.
            Err(e) if error_code(&e) == Some(code::UNAUTHORIZED) => {
                Ok(hello.contains_key("lastCommittedOpTime").then(String::new))
            }
            Err(e) => Err(self.fault("find in admin.system.version", &e)),
        }
    }

    /// A fault that is over when the load is begun again.
    pub(super) fn interrupted(&self, detail: &str) -> LoadFault {
        LoadFault::Unreachable {
            target: self.shown.clone(),
            detail: detail.to_owned(),
        }
    }

    /// What bears one of these names.
    pub(super) async fn there(&self, db: &str, names: &[&str]) -> Result<Vec<There>, LoadFault> {
        let names: Vec<_> = names.iter().copied().map(Bson::from).collect();
        let command = doc! { "listCollections": 1, "filter": { "name": { "$in": names } } };
        let reply = self.run(db, &command).await?;
        Ok(first_batch(&reply).map(There::read).collect())
    }

    /// Whether a collection holds no documents.
    pub(super) async fn is_empty(&self, name: &Namespace) -> Result<bool, LoadFault> {
        let find = doc! { "find": &name.coll, "limit": 1, "singleBatch": true, "projection": { "_id": 1 } };
        let reply = self.run(&name.db, &find).await?;
        Ok(first_batch(&reply).next().is_none())
    }

    /// The names in a database, of collections and views alike.
    pub(super) async fn names(&self, db: &str) -> Result<BTreeSet<String>, LoadFault> {
        let listed = self.client.database(db).list_collection_names().await;
        listed
            .map(|names| names.into_iter().collect())
            .map_err(|e| self.fault("listCollections", &e))
    }

    /// The names of a collection's indexes.
    pub(super) async fn index_names(&self, db: &str, collection: &str) -> Result<BTreeSet<String>, LoadFault> {
        let listed = self
            .client
            .database(db)
            .collection::<Document>(collection)
            .list_index_names()
            .await;
        listed
            .map(|names| names.into_iter().collect())
            .map_err(|e| self.fault("listIndexes", &e))
    }

    /// Runs a command, patiently. What the server refuses for good is a fault.
    pub(crate) async fn run(&self, db: &str, command: &Document) -> Result<Document, LoadFault> {
        let what = command.keys().next().cloned().unwrap_or_default();
        self.try_run(db, command).await.map_err(|e| self.fault(&what, &e))
    }

    /// As [`Target::run`], leaving the judgement of refusals to the caller.
    pub(crate) async fn try_run(&self, db: &str, command: &Document) -> Result<Document, Error> {
        let raw = RawDocumentBuf::try_from(command)?;
        self.run_raw(db, &raw).await.map(|(reply, _)| reply)
    }

    /// Runs a raw command; tells whether an earlier attempt may have had an effect.
    pub(crate) async fn run_raw(&self, db: &str, command: &RawDocumentBuf) -> Result<(Document, bool), Error> {
        let database = self.client.database(db);
        let mut pauses = PATIENCE.iter();
        let mut repeated = false;
        loop {
            let failure = match database.run_raw_command(command.clone()).await {
                Ok(reply) => match passing_write_error(&reply) {
                    None if repeated => {
                        self.listener.hear(None);
                        return Ok((reply, repeated));
                    }
                    None => return Ok((reply, repeated)),
                    // It is written; sent again at once it would only wait again. A resume sends it again.
                    Some(detail) if lacks_majority(&reply) => return Err(Error::custom(no_majority(&detail))),
                    Some(detail) => Error::custom(detail),
                },
                // A try without an answer may have made it. Who resumes looks whether it is ours.
                Err(e) if repeated && error_code(&e) == Some(code::NAMESPACE_EXISTS) => {
                    return Err(Error::custom(format!("it was lost for a moment while creating: {e}")));
                }
                Err(e) if is_passing(&e) => e,
                Err(e) => return Err(e),
            };
            let Some(pause) = pauses.next() else {
                return Err(failure);
            };
            tracing::warn!(target = %self.shown, error = %failure, "restore target does not answer; trying again");
            let why = format!("the target {} does not answer: {failure}", self.shown);
            self.listener.hear(Some(&why));
            tokio::time::sleep(*pause).await;
            repeated = true;
        }
    }

    pub(crate) fn fault(&self, what: &str, error: &Error) -> LoadFault {
        let detail = error.get_custom::<String>().cloned();
        let detail = detail.unwrap_or_else(|| error.to_string());
        match error_code(error) {
            Some(code::UNAUTHORIZED) => LoadFault::Unauthorized {
                what: what.to_owned(),
                detail,
            },
            Some(code::NAMESPACE_EXISTS) => LoadFault::Taken { what: what.to_owned() },
            Some(code) if !code::PASSING.contains(&code) => LoadFault::Refused {
                what: what.to_owned(),
                detail,
            },
            _ if is_authentication(error) => LoadFault::Unauthorized {
                what: what.to_owned(),
                detail,
            },
            _ => LoadFault::Unreachable {
                target: self.shown.clone(),
                detail,
            },
        }
    }
}

fn is_authentication(error: &Error) -> bool {
    matches!(*error.kind, ErrorKind::Authentication { .. })
}

pub(crate) fn error_code(error: &Error) -> Option<i32> {
    match &*error.kind {
        ErrorKind::Command(e) => Some(e.code),
        _ => None,
    }
}

fn is_passing(error: &Error) -> bool {
    match &*error.kind {
        ErrorKind::Command(e) => code::PASSING.contains(&e.code),
        ErrorKind::Io(_) | ErrorKind::ConnectionPoolCleared { .. } | ErrorKind::ServerSelection { .. } => true,
        _ => false,
    }
}

impl There {
    fn read(listed: &Document) -> There {
        let text = |name| listed.get_str(name).unwrap_or_default().to_owned();
        let uuid = listed
            .get_document("info")
            .ok()
            .and_then(|info| match info.get("uuid") {
                Some(Bson::Binary(uuid)) => Some(hex::encode(&uuid.bytes)),
                _ => None,
            });
        There {
            name: text("name"),
            kind: text("type"),
            options: listed.get_document("options").cloned().ok(),
            uuid,
        }
    }
}

fn first_batch(reply: &Document) -> impl Iterator<Item = &Document> {
    let batch = reply.get_document("cursor").and_then(|c| c.get_array("firstBatch"));
    batch.into_iter().flatten().filter_map(Bson::as_document)
}

/// Whether something was written and too few members said so in time.
fn lacks_majority(reply: &Document) -> bool {
    let error = reply.get_document("writeConcernError");
    error.is_ok_and(|e| e.get_i32("code").is_ok_and(|c| c == code::WRITE_CONCERN_FAILED))
}

fn no_majority(detail: &str) -> String {
    format!(
        "no majority of its members confirmed a write within {} seconds ({detail}): start the members that are down, or \
         wait until they caught up",
        MAJORITY_WITHIN.as_secs()
    )
}

/// Errors that come inside of an answer that is itself a success.
fn passing_write_error(reply: &Document) -> Option<String> {
    let text = |e: &Document| e.get_str("errmsg").unwrap_or("no details").to_owned();
    if let Ok(error) = reply.get_document("writeConcernError") {
        return Some(text(error));
    }
    let errors = reply.get_array("writeErrors").ok()?;
    let passing = |e: &&Document| e.get_i32("code").is_ok_and(|c| code::PASSING.contains(&c));
    errors.iter().filter_map(Bson::as_document).find(passing).map(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_within_an_answer_are_told_apart() {
        let step_down = doc! { "ok": 1, "writeErrors": [{ "index": 0, "code": 11602, "errmsg": "stepped down" }] };
        assert_eq!(passing_write_error(&step_down).as_deref(), Some("stepped down"));
        let slow = doc! { "ok": 1, "n": 1, "writeConcernError": { "code": 64, "errmsg": "waiting" } };
        assert_eq!(passing_write_error(&slow).as_deref(), Some("waiting"));
        assert!(lacks_majority(&slow) && !lacks_majority(&step_down));
        let duplicate = doc! { "ok": 1, "writeErrors": [{ "index": 0, "code": 11000, "errmsg": "dup" }] };
        assert_eq!(passing_write_error(&duplicate), None);
    }

    #[tokio::test]
    async fn a_majority_that_does_not_confirm_passes_like_a_target_that_is_away() {
        let target = Target::new("mongodb://ann:hidden@h1:1/", 1).await.unwrap();
        let fault = target.fault("documents of a.b", &Error::custom(no_majority("waiting")));
        assert!(matches!(fault, LoadFault::Unreachable { .. }), "{fault}");
        let told = fault.to_string();
        assert!(
            told.contains("no majority of its members confirmed a write within 60 seconds"),
            "{told}"
        );
        assert!(
            told.contains("resume the restore") && !told.contains("hidden"),
            "{told}"
        );
    }
}
