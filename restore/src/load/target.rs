//! The MongoDB that is written to.

use std::collections::BTreeSet;
use std::time::Duration;

use bson::{Bson, Document, RawDocumentBuf, doc};
use headwater_protocol::redact;
use mongodb::Client;
use mongodb::error::{Error, ErrorKind};
use mongodb::options::ClientOptions;

use super::LoadFault;

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

pub(crate) mod code {
    pub const NAMESPACE_NOT_FOUND: i32 = 26;
    pub const NAMESPACE_EXISTS: i32 = 48;
    pub const UNAUTHORIZED: i32 = 13;
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
}

/// What a target says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct About {
    pub version: String,
    pub fcv: String,
    pub hosts: BTreeSet<String>,
    pub writable: bool,
    pub sharded: bool,
}

impl Target {
    /// Reads the connection string; nothing is sent yet. `connections` is how many commands may run at once.
    pub async fn new(uri: &str, connections: u32) -> Result<Target, LoadFault> {
        let shown = redact::uri(uri);
        // The driver's words may cite the string with its password.
        let invalid = |e: Error| LoadFault::Uri {
            detail: e.to_string().replace(uri, &shown),
        };
        let mut options = ClientOptions::parse(uri).await.map_err(invalid)?;
        options.app_name.get_or_insert_with(|| "headwater restore".to_owned());
        options.server_selection_timeout.get_or_insert(SELECTION);
        options.max_pool_size = Some(options.max_pool_size.unwrap_or(0).max(connections + 2));
        let client = Client::with_options(options).map_err(invalid)?;
        Ok(Target { client, shown })
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
        })
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
                    None => return Ok((reply, repeated)),
                    Some(detail) => Error::custom(detail),
                },
                Err(e) if is_passing(&e) => e,
                Err(e) => return Err(e),
            };
            let Some(pause) = pauses.next() else {
                return Err(failure);
            };
            tracing::warn!(target = %self.shown, error = %failure, "restore target does not answer; trying again");
            tokio::time::sleep(*pause).await;
            repeated = true;
        }
    }

    pub(crate) fn fault(&self, what: &str, error: &Error) -> LoadFault {
        let detail = error.to_string();
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
        let duplicate = doc! { "ok": 1, "writeErrors": [{ "index": 0, "code": 11000, "errmsg": "dup" }] };
        assert_eq!(passing_write_error(&duplicate), None);
    }
}
