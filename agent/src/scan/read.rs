//! Reads the documents of one part, from wherever it stands, and cuts them into pieces; gets over everything but a drop.

use std::time::Duration;

use bson::raw::cstr;
use bson::{Document, RawDocument, RawDocumentBuf, rawdoc};
use headwater_model::limits;
use tokio::sync::mpsc;

use super::listing;
use super::node::ScanNode;
use super::part::{Job, Outcome};
use super::plan::{Counted, Method, Place, Token};
use crate::backoff::Backoff;
use crate::slicer::{Cut, Slicer};
use crate::source::{Batch, Node, SourceError, privileges, uuid};
use crate::stream::{Conversation, End};

/// Part of a part, with the place where the scan goes on after it.
#[derive(Debug)]
pub struct Piece {
    /// The documents.
    pub cut: Cut,
    /// See [`mod@super::plan`].
    pub resume: Document,
    /// Whether nothing follows.
    pub last: bool,
}

/// The first batch of a scan may be as large as the later ones: most collections then take one round trip.
const FIRST_BATCH: i32 = 100_000;
/// After so many failures in a row without a document in between, the stream looks at the source anew.
const FAILURES: u32 = 8;
/// An `_id` longer than this is not taken as a place to go on from: the header of a slice has its limits.
const PLACE_MAX_BYTES: usize = 64 << 10;

/// Reads until the end of the part, or of its collection.
pub async fn run(
    conversation: &Conversation,
    nodes: &ScanNode,
    job: Job,
    out: mpsc::Sender<Piece>,
) -> Result<Outcome, End> {
    let mut reader = Reader::new(job, conversation.settings.slice_bytes, out);
    if let Some(views) = reader.job.views.take() {
        for view in &views {
            reader.take(view, None).await;
        }
        reader.finish().await;
        return Ok(Outcome::Complete);
    }
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
    loop {
        let before = reader.counted;
        let node = match nodes.get().await {
            Ok(node) => node,
            Err(error) if backoff.failures() >= FAILURES => return Err(error.into()),
            Err(_) => {
                tokio::time::sleep(backoff.after_failure(conversation.host.entropy.number())).await;
                continue;
            }
        };
        let Err(error) = reader.read(&node).await else {
            reader.finish().await;
            return Ok(Outcome::Complete);
        };
        if reader.counted != before {
            backoff.reset();
        }
        match after(&error) {
            After::Dropped => return Ok(Outcome::Dropped),
            After::Lookup => {
                if !listing::exists(&node, &reader.job.db, reader.job.part.collection).await? {
                    return Ok(Outcome::Dropped);
                }
            }
            After::StartOver => reader.start_over(),
            After::Refused => {
                let what = format!("read collection {}", reader.job.name);
                return Err(End::Fault(privileges::missing(&what, &node).await));
            }
            After::Retry => nodes.failed(&node).await,
        }
        let wait = backoff.after_failure(conversation.host.entropy.number());
        if backoff.failures() > FAILURES {
            return Err(error.into());
        }
        tracing::warn!(collection = %reader.job.name, part = reader.job.part.part, "the scan was interrupted: {error}");
        tokio::time::sleep(wait).await;
    }
}

/// What to do after an error.
#[derive(Debug, PartialEq)]
enum After {
    Dropped,
    /// A rename, or a drop.
    Lookup,
    /// The place where to go on is gone.
    StartOver,
    Refused,
    Retry,
}

fn after(error: &SourceError) -> After {
    if error.is_dropped() {
        After::Dropped
    } else if error.is_plan_killed() {
        After::Lookup
    } else if error.is_place_lost() {
        After::StartOver
    } else if error.is_unauthorized() {
        After::Refused
    } else {
        After::Retry
    }
}

struct Reader {
    job: Job,
    /// The place after everything taken so far, as far as it can be named.
    place: Place,
    counted: Counted,
    shipped: Counted,
    slicer: Slicer,
    out: mpsc::Sender<Piece>,
}

impl Reader {
    fn new(job: Job, slice_bytes: usize, out: mpsc::Sender<Piece>) -> Self {
        let slicer = Slicer::new(slice_bytes, limits::SYNC_SLICE_MAX_BYTES);
        let (place, counted) = (job.part.place.clone(), job.part.counted);
        Reader {
            place,
            counted,
            shipped: counted,
            slicer,
            out,
            job,
        }
    }

    async fn read(&mut self, node: &Node) -> Result<(), SourceError> {
        let process = self.process(node).await?;
        if let Place::Natural(Some(token)) = &self.place
            && process.as_ref() != Some(&token.process)
        {
            tracing::info!(collection = %self.job.name, "read anew: its server is another one, or was restarted");
            self.start_over();
        }
        let mut batches = node.batches(&self.job.db, self.command(), None).await?;
        // The same one before and after is the one that has the cursor.
        if self.process(node).await? != process {
            return Err(SourceError::Lost(format!("{} was restarted", node.address())));
        }
        while let Some(batch) = batches.next().await? {
            self.take_batch(&batch, process.as_deref()).await?;
        }
        Ok(())
    }

    /// The process that gives tokens, where they are used.
    async fn process(&self, node: &Node) -> Result<Option<String>, SourceError> {
        match self.job.tokens && self.job.part.method == Method::Natural {
            true => Ok(node.hello().await?.process),
            false => Ok(None),
        }
    }

    fn command(&self) -> RawDocumentBuf {
        let mut command = rawdoc! {
            "find": uuid(self.job.part.collection),
            "readConcern": { "level": "majority" },
            "batchSize": FIRST_BATCH,
        };
        match (&self.job.part.method, &self.place) {
            (Method::Ranges(_), place) => {
                command.append(cstr!("hint"), rawdoc! { "_id": 1 });
                let (below, above) = self.job.part.bounds();
                let from = match place {
                    Place::Range(Some(after)) => Some(after),
                    _ => below,
                };
                if let Some(from) = from {
                    command.append(cstr!("min"), from.clone());
                }
                if let Some(above) = above {
                    command.append(cstr!("max"), above.clone());
                }
            }
            (Method::Natural, place) => {
                command.append(cstr!("hint"), rawdoc! { "$natural": 1 });
                if self.job.tokens {
                    command.append(cstr!("$_requestResumeToken"), true);
                    if let Place::Natural(Some(token)) = place {
                        command.append(cstr!("$_resumeAfter"), token.token.clone());
                    }
                }
            }
        }
        command
    }

    async fn take_batch(&mut self, batch: &Batch, process: Option<&str>) -> Result<(), SourceError> {
        let mut last = None;
        let mut outcome = Ok(());
        for document in batch.documents()? {
            match document {
                Ok(document) => {
                    self.take(document, last).await;
                    last = Some(document);
                }
                Err(error) => {
                    outcome = Err(error);
                    break;
                }
            }
        }
        self.stand_after(last);
        outcome?;
        if let (Some(process), Some(token)) = (process, batch.resume_token()) {
            let process = process.to_owned();
            self.place = Place::Natural(Some(Token { token, process }));
        }
        Ok(())
    }

    /// Takes a document; `before` is the one before it, if that came in the same batch.
    async fn take(&mut self, document: &RawDocument, before: Option<&RawDocument>) {
        if let Some(cut) = self.slicer.make_room(document.as_bytes().len()) {
            self.stand_after(before);
            self.send(cut, false).await;
        }
        self.counted.documents += 1;
        self.counted.bytes += document.as_bytes().len() as u64;
        if let Some(cut) = self.slicer.add(document.as_bytes()) {
            self.stand_after(Some(document));
            self.send(cut, false).await;
        }
    }

    /// In a range, the scan goes on after this document.
    fn stand_after(&mut self, document: Option<&RawDocument>) {
        if let (Method::Ranges(_), Some(document)) = (&self.job.part.method, document)
            && let Ok(Some(id)) = document.get("_id")
        {
            let mut place = RawDocumentBuf::new();
            place.append(cstr!("_id"), id);
            if place.as_bytes().len() <= PLACE_MAX_BYTES {
                self.place = Place::Range(Some(place));
            }
        }
    }

    async fn finish(&mut self) {
        let cut = self.slicer.close().unwrap_or(Cut {
            payload: Vec::new(),
            count: 0,
        });
        self.send(cut, true).await;
    }

    /// Reads everything again, under new numbers: what comes twice is harmless, the later one wins.
    fn start_over(&mut self) {
        self.place = match self.job.part.method {
            Method::Natural => Place::Natural(None),
            Method::Ranges(_) => Place::Range(None),
        };
    }

    async fn send(&mut self, cut: Cut, last: bool) {
        self.shipped.documents += u64::from(cut.count);
        self.shipped.bytes += cut.payload.len() as u64;
        let resume = self.job.part.resume(&self.place, self.shipped);
        if self.out.send(Piece { cut, resume, last }).await.is_err() {
            // The steps behind failed, and their error is about to drop this one.
            std::future::pending::<()>().await;
        }
    }
}
