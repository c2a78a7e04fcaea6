//! Reads entries and cuts them into runs, by size or by age. Survives elections, lost connections and lagging servers.

use std::convert::Infallible;
use std::time::Duration;

use bson::RawDocument;
use headwater_model::{Optime, Ts, limits};
use headwater_protocol::agent::StreamFault;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Stop;
use super::chain::Run;
use super::place::{self, Finding, Place};
use crate::backoff::Backoff;
use crate::slicer::{Cut, Slicer};
use crate::source::oplog::Sight;
use crate::source::{Node, SourceError};
use crate::stream::{Conversation, End};

/// An oplog is never silent for longer: the primary writes a no-op every 10 seconds.
const SILENCE: Duration = Duration::from_secs(15);
/// A server that is this much further behind than the primary is left, in seconds of the source's clock.
const LAG_MAX_SECS: u32 = 30;
/// After so many failures in a row a trouble is reported.
const TROUBLE_AFTER: u32 = 3;

/// Reads from after `after` for ever; runs go to `out`, which holds reading up when it is full.
pub async fn run(conversation: &Conversation, after: Optime, out: mpsc::Sender<Run>) -> Result<Infallible, Stop> {
    let mut reader = Reader {
        conversation,
        last: after,
        cutter: Cutter::new(),
        out,
    };
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
    let mut primary_first = false;
    loop {
        let before = reader.last;
        let why = match reader.follow(primary_first).await {
            Ok(Pause::Behind(why)) => why,
            Ok(Pause::Overtaken(why)) => {
                primary_first = true;
                why
            }
            Ok(Pause::Lost(detail)) => return Err(End::Fault(StreamFault::HistoryLost { detail }).into()),
            Err(error) if error.is_unauthorized() => {
                let (node, _) = conversation.source.reader().await?;
                let fault = crate::source::privileges::missing("read the oplog", &node).await;
                return Err(End::Fault(fault).into());
            }
            Err(error) => error.to_string(),
        };
        if reader.last > before {
            backoff.reset();
        }
        let wait = backoff.after_failure(conversation.host.entropy.number());
        tracing::warn!(set = %conversation.set, after = %reader.last, "the tail was interrupted: {why}");
        if backoff.failures() >= TROUBLE_AFTER {
            conversation
                .status
                .trouble(Some(StreamFault::Unreachable { detail: why }));
        }
        tokio::time::sleep(wait).await;
    }
}

/// Why following a cursor paused.
enum Pause {
    /// No server has the place yet.
    Behind(String),
    /// The primary has what this server has not.
    Overtaken(String),
    /// The place is gone for good.
    Lost(String),
}

struct Reader<'a> {
    conversation: &'a Conversation,
    /// The last entry taken.
    last: Optime,
    cutter: Cutter,
    out: mpsc::Sender<Run>,
}

impl Reader<'_> {
    async fn follow(&mut self, primary_first: bool) -> Result<Pause, SourceError> {
        let node = match place::locate(&self.conversation.source, self.last, primary_first).await? {
            Place::At(node) => node,
            Place::Wait(why) => return Ok(Pause::Behind(why)),
            Place::Lost(detail) => return Ok(Pause::Lost(detail)),
        };
        let mut batches = node.tail(self.last.ts).await?;
        let mut joined = false;
        let (mut heard, mut compared) = (Instant::now(), Instant::now());
        loop {
            let batch = match self.cutter.due() {
                Some(due) => tokio::select! {
                    batch = batches.next() => Some(batch),
                    () = tokio::time::sleep_until(due) => None,
                },
                None => Some(batches.next().await),
            };
            let Some(batch) = batch else {
                let rest = self.cutter.rest();
                self.send(rest).await;
                continue;
            };
            let Some(batch) = batch? else {
                return Ok(Pause::Behind(format!("{} closed the cursor", node.address())));
            };
            let mut taken = false;
            for entry in batch.documents()? {
                let entry = entry?;
                let at = position(entry)?;
                if !joined {
                    // Truncation may have run between the look and the cursor.
                    if place::judge(self.last, Some(at), None) != Finding::Here {
                        return Ok(Pause::Behind(format!(
                            "{} no longer begins at {}",
                            node.address(),
                            self.last
                        )));
                    }
                    joined = true;
                    self.conversation.status.trouble(None);
                    continue;
                }
                if at.ts <= self.last.ts {
                    return Err(SourceError::Answer(format!(
                        "entry {at} came after entry {}",
                        self.last
                    )));
                }
                taken = true;
                if let Some(run) = self.cutter.make_room(entry.as_bytes().len()) {
                    self.send(Some(run)).await;
                }
                self.last = at;
                let run = self.cutter.add(at, entry.as_bytes());
                self.send(run).await;
            }
            if taken {
                heard = Instant::now();
                self.conversation.status.source_at(self.last);
            } else if heard.elapsed() > SILENCE {
                if let Some(why) = self.overtaken(&node).await? {
                    return Ok(Pause::Overtaken(why));
                }
                heard = Instant::now();
            }
            if compared.elapsed() > SILENCE {
                // Without a primary to compare with there is no better server.
                if let Ok(Some(why)) = self.lags(&node).await {
                    return Ok(Pause::Overtaken(why));
                }
                compared = Instant::now();
            }
            if self.cutter.due().is_some_and(|due| due <= Instant::now()) {
                let rest = self.cutter.rest();
                self.send(rest).await;
            }
        }
    }

    /// A server cut off from the others answers for ever, with nothing: asks the primary whether there is more.
    async fn overtaken(&self, node: &Node) -> Result<Option<String>, SourceError> {
        let (primary, _) = self.conversation.source.primary().await?;
        let newest = primary.newest(Sight::Majority).await?;
        Ok((newest.ts > self.last.ts).then(|| {
            format!(
                "{} has nothing after {}, {} is at {newest}",
                node.address(),
                self.last,
                primary.address()
            )
        }))
    }

    /// A server that is slow, or delayed on purpose, answers all the time, and with less than there is.
    async fn lags(&self, node: &Node) -> Result<Option<String>, SourceError> {
        let (primary, _) = self.conversation.source.primary().await?;
        let here = node.newest(Sight::Majority).await?;
        let there = primary.newest(Sight::Majority).await?;
        let lag = there.ts.seconds().saturating_sub(here.ts.seconds());
        let (node, primary) = (node.address(), primary.address());
        Ok((lag > LAG_MAX_SECS).then(|| format!("{node} is {lag} s behind {primary}")))
    }

    async fn send(&mut self, run: Option<Run>) {
        if let Some(run) = run
            && self.out.send(run).await.is_err()
        {
            // The steps behind are being dropped, and this one with them.
            std::future::pending::<()>().await;
        }
    }
}

/// `(ts, t)` of an entry, without looking into its body.
fn position(entry: &RawDocument) -> Result<Optime, SourceError> {
    let ts = entry.get_timestamp("ts").map_err(SourceError::answer)?;
    Ok(Optime::new(Ts::from(ts), entry.get_i64("t").unwrap_or(-1)))
}

/// Cuts entries into runs: at a size, or when the oldest entry waiting has come of age.
struct Cutter {
    slicer: Slicer,
    first: Optime,
    last: Optime,
    since: Option<Instant>,
}

impl Cutter {
    fn new() -> Self {
        let slicer = Slicer::new(limits::OPLOG_SLICE_TARGET_BYTES, limits::DOCUMENT_MAX_BYTES);
        Cutter {
            slicer,
            first: Optime::ZERO,
            last: Optime::ZERO,
            since: None,
        }
    }

    fn due(&self) -> Option<Instant> {
        self.since
            .map(|since| since + Duration::from_millis(limits::OPLOG_SLICE_MAX_AGE_MS))
    }

    fn run(&mut self, cut: Option<Cut>) -> Option<Run> {
        let cut = cut?;
        self.since = None;
        Some(Run {
            first: self.first,
            last: self.last,
            cut,
        })
    }

    fn make_room(&mut self, len: usize) -> Option<Run> {
        let cut = self.slicer.make_room(len);
        self.run(cut)
    }

    fn add(&mut self, at: Optime, entry: &[u8]) -> Option<Run> {
        if self.slicer.is_empty() {
            self.first = at;
            self.since = Some(Instant::now());
        }
        self.last = at;
        let cut = self.slicer.add(entry);
        self.run(cut)
    }

    fn rest(&mut self) -> Option<Run> {
        let cut = self.slicer.close();
        self.run(cut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::{RawDocumentBuf, Timestamp, rawdoc};

    fn entry(n: u32, len: usize) -> RawDocumentBuf {
        rawdoc! { "op": "i", "o": { "x": "x".repeat(len) }, "ts": Timestamp { time: n, increment: 1 }, "t": 7_i64 }
    }

    #[test]
    fn the_position_of_an_entry_is_found_wherever_it_stands() {
        assert_eq!(position(&entry(4, 10)).unwrap(), Optime::new(Ts::new(4, 1), 7));
        assert!(position(&rawdoc! { "op": "n" }).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn runs_close_at_their_size_or_at_their_age_and_join_without_a_gap() {
        let mut cutter = Cutter::new();
        let mut runs = Vec::new();
        for n in 1..=20 {
            let entry = entry(n, 1 << 20);
            let at = position(&entry).unwrap();
            runs.extend(cutter.make_room(entry.as_bytes().len()));
            runs.extend(cutter.add(at, entry.as_bytes()));
        }
        assert_eq!(runs.len(), 5);
        assert!(
            runs.windows(2)
                .all(|pair| pair[1].first.ts.seconds() == pair[0].last.ts.seconds() + 1)
        );
        assert_eq!(cutter.due(), None, "nothing waits");

        let late = entry(21, 10);
        assert!(cutter.add(position(&late).unwrap(), late.as_bytes()).is_none());
        assert_eq!(
            cutter.due(),
            Some(Instant::now() + Duration::from_millis(limits::OPLOG_SLICE_MAX_AGE_MS))
        );
        assert_eq!(cutter.rest().map(|run| run.first), Some(Optime::new(Ts::new(21, 1), 7)));
    }
}
