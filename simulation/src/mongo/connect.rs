//! The agent's way to a replica set: in place of the driver.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bson::{Bson, Document, RawDocumentBuf, doc};
use headwater_agent::source::connect::Reply;
use headwater_agent::source::{Connect, Replies, Servers, SourceError, To};
use headwater_model::Ts;
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};

use super::history::Count;
use super::scan::Scan;
use super::server::{Refused, reply};
use super::set::{Shared, lock};
use crate::planted::{self, Bug};
use crate::process::Life;
use crate::trace;

/// The replica sets of a world, as one process reaches them.
pub struct Sources {
    /// All of them.
    pub sets: Vec<Shared>,
    /// The process.
    pub life: Life,
    /// For the time commands take.
    pub rng: Mutex<StdRng>,
}

struct Deployment {
    set: Shared,
    life: Life,
    rng: Arc<Mutex<StdRng>>,
}

#[async_trait]
impl Connect for Sources {
    async fn connect(&self, uri: &str) -> Result<Arc<dyn Servers>, SourceError> {
        let is_meant = |set: &&Shared| {
            let set = lock(set);
            uri.ends_with(&format!("replicaSet={}", set.name)) && uri.contains(&set.members[0].address)
        };
        let set = self.sets.iter().find(is_meant);
        let set = set.ok_or_else(|| SourceError::Uri(format!("nothing at {uri}")))?;
        let seed = self.rng.lock().unwrap_or_else(PoisonError::into_inner).next_u64();
        Ok(Arc::new(Deployment {
            set: set.clone(),
            life: self.life.clone(),
            rng: Arc::new(Mutex::new(StdRng::seed_from_u64(seed))),
        }))
    }
}

pub(super) fn of_server(refused: Refused) -> SourceError {
    SourceError::Server {
        code: refused.code.0,
        name: refused.code.1.to_owned(),
        words: refused.words,
    }
}

impl Deployment {
    /// The time one message takes; a dead process hears nothing.
    async fn travel(&self) {
        let most = lock(&self.set).draw.latency_ms;
        let ms = self
            .rng
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .gen_range(0..=most);
        tokio::time::sleep(Duration::from_millis(ms)).await;
        if !self.life.is_alive() {
            std::future::pending::<()>().await;
        }
    }

    fn choose(&self, to: &To) -> Result<usize, SourceError> {
        let mongo = lock(&self.set);
        let up = |at: &usize| mongo.is_up(*at);
        let secondary = (0..mongo.members.len()).filter(|at| *at != mongo.primary).find(up);
        let chosen = match to {
            To::Primary => Some(mongo.primary).filter(up),
            To::Secondary | To::Only => secondary.or(Some(mongo.primary).filter(up)),
            To::Member(address) => mongo
                .members
                .iter()
                .position(|member| member.address == *address)
                .filter(up),
        };
        chosen.ok_or_else(|| SourceError::Lost(format!("no server for {to:?}")))
    }

    /// Writes a note into the oplog, and answers once a majority has it, or after a while.
    async fn note(&self, at: usize, command: &Document) -> Result<Document, SourceError> {
        let failed = |code, name, words: &str| {
            of_server(Refused {
                code: (code, name),
                words: words.to_owned(),
            })
        };
        let written = {
            let mut mongo = lock(&self.set);
            if mongo.primary != at {
                return Err(failed(10107, "NotWritablePrimary", "not primary"));
            }
            let data = command.get_document("data").cloned().unwrap_or_default();
            let count = mongo.write(doc! { "op": "n", "ns": "", "o": data }, Vec::new());
            (count, mongo.history.position(count))
        };
        trace::mark("source: note written");
        let concern = command.get_document("writeConcern");
        let within = concern.and_then(|concern| concern.get_i32("wtimeout")).unwrap_or(5000);
        let began = tokio::time::Instant::now();
        let time = bson::Timestamp::from(written.1.ts);
        loop {
            match lock(&self.set).is_durable(written) {
                Some(true) => return Ok(doc! { "ok": 1.0, "operationTime": time }),
                Some(false) => {}
                None => {
                    return Err(failed(
                        11602,
                        "InterruptedDueToReplStateChange",
                        "operation was interrupted",
                    ));
                }
            }
            if began.elapsed() >= Duration::from_millis(within.unsigned_abs().into()) {
                trace::line("source: a note is not committed in time");
                let error = doc! { "code": 64, "codeName": "WriteConcernFailed" };
                return Ok(doc! { "ok": 1.0, "operationTime": time, "writeConcernError": error });
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

#[async_trait]
impl Servers for Deployment {
    fn is_direct(&self) -> bool {
        false
    }

    async fn command(&self, to: &To, db: &str, command: Document) -> Result<Document, SourceError> {
        self.travel().await;
        let at = self.choose(to)?;
        let answer = match command.contains_key("appendOplogNote") {
            true => self.note(at, &command).await,
            false => lock(&self.set).answer(at, db, &command).map_err(of_server),
        };
        self.travel().await;
        answer
    }

    async fn cursor(
        &self,
        to: &To,
        db: &str,
        command: RawDocumentBuf,
        wait: Option<Duration>,
    ) -> Result<Box<dyn Replies>, SourceError> {
        self.travel().await;
        let at = self.choose(to)?;
        let command = Document::try_from(&command).map_err(|e| SourceError::Answer(e.to_string()))?;
        let mut mongo = lock(&self.set);
        if command.contains_key("listCollections") && !command.contains_key("filter") {
            mongo.listed = mongo.history.count();
        }
        let kind = match (command.get_bool("tailable"), command.get("find")) {
            (Ok(true), _) => {
                let from = command
                    .get_document("filter")
                    .and_then(|f| f.get_document("ts")?.get_timestamp("$gte"));
                let from = from.map_or(Ts::ZERO, Ts::from);
                let first = mongo
                    .history
                    .count_at(Ts(from.0.saturating_sub(1)))
                    .max(mongo.history.truncated);
                Kind::Tail { sent: first, wait }
            }
            (_, Some(Bson::Binary(_))) if !command.contains_key("filter") => {
                Kind::Scan(Box::new(Scan::open(&mongo, at, &command)?))
            }
            _ => Kind::Once(Some(mongo.answer(at, db, &command).map_err(of_server)?)),
        };
        let boot = mongo.members[at].boot;
        drop(mongo);
        Ok(Box::new(Cursor {
            deployment: Deployment {
                set: self.set.clone(),
                life: self.life.clone(),
                rng: self.rng.clone(),
            },
            at,
            boot,
            command,
            kind,
        }))
    }
}

enum Kind {
    /// The whole answer.
    Once(Option<Document>),
    /// A tailing cursor: the newest count it sent.
    Tail { sent: Count, wait: Option<Duration> },
    /// A scan of a collection.
    Scan(Box<Scan>),
}

struct Cursor {
    deployment: Deployment,
    at: usize,
    boot: u64,
    command: Document,
    kind: Kind,
}

/// How often a cursor that waits for data looks for some.
const LOOK_EVERY: Duration = Duration::from_millis(25);

#[async_trait]
impl Replies for Cursor {
    async fn next(&mut self) -> Option<Result<Reply, SourceError>> {
        self.deployment.travel().await;
        let began = tokio::time::Instant::now();
        loop {
            match self.step() {
                Ok(Some(Some(reply))) => return Some(Ok(Reply::Made(reply))),
                Ok(Some(None)) => return None,
                Err(error) => return Some(Err(error)),
                Ok(None) => {}
            }
            if let Kind::Tail { wait, .. } = &self.kind
                && began.elapsed() >= wait.unwrap_or_default()
            {
                return Some(Ok(Reply::Made(reply(Vec::new(), None))));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

impl Cursor {
    /// `None`: nothing yet. `Some(None)`: the end.
    fn step(&mut self) -> Result<Option<Option<RawDocumentBuf>>, SourceError> {
        let mongo = lock(&self.deployment.set);
        if !mongo.is_up(self.at) || mongo.members[self.at].boot != self.boot {
            return Err(SourceError::Lost(format!("the connection to m{} broke", self.at)));
        }
        let view = mongo.view(self.at, &self.command);
        let most = mongo.draw.batch;
        match &mut self.kind {
            Kind::Once(answer) => Ok(Some(
                answer.take().and_then(|answer| RawDocumentBuf::try_from(&answer).ok()),
            )),
            Kind::Tail { sent, .. } => {
                if *sent < mongo.history.truncated {
                    return Err(of_server(Refused {
                        code: (136, "CappedPositionLost"),
                        words: "the oplog was truncated under the cursor".to_owned(),
                    }));
                }
                if view <= *sent {
                    return Ok(None);
                }
                let upto = view.min(*sent + most);
                let entries = (*sent + 1..=upto).filter_map(|count| mongo.history.entry(count));
                let mut entries: Vec<RawDocumentBuf> = entries.map(|entry| entry.bytes.clone()).collect();
                if planted::is(Bug::TailSkipsMigrated) {
                    entries.retain(|entry| !entry.get_bool("fromMigrate").unwrap_or(false));
                }
                if entries.len() > 3 && planted::strikes(Bug::TailSkipsEntry, 5) {
                    entries.remove(1);
                }
                if planted::strikes(Bug::TailAltersEntry, 7) {
                    alter(&mut entries);
                }
                *sent = upto;
                Ok(Some(Some(reply(entries, None))))
            }
            Kind::Scan(scan) => scan.step(&mongo, view).map(Some),
        }
    }
}

/// Changes one inserted document on its way.
fn alter(entries: &mut [RawDocumentBuf]) {
    for entry in entries {
        let Ok(mut document) = Document::try_from(&*entry) else {
            continue;
        };
        if document.get_str("op").is_ok_and(|op| op == "i")
            && let Ok(o) = document.get_document_mut("o")
        {
            o.insert("a", "altered");
            if let Ok(altered) = RawDocumentBuf::try_from(&document) {
                *entry = altered;
                return;
            }
        }
    }
}
