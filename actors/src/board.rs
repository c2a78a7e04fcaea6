//! What is known of a replica set right now, in memory only: hints for status, and the requests for missing
//! documents. Losing it costs a repeated request, never data.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use headwater_model::{CollectionUuid, Optime};
use headwater_protocol::agent::{FetchRequest, ScanProgress, StreamFault};

/// The last an agent said of a replica set.
#[derive(Clone, Debug, Default)]
pub struct AgentWord {
    /// Which agent.
    pub agent: String,
    /// When, by this node's clock, in milliseconds.
    pub heard_ms: i64,
    /// The newest entry at the source.
    pub source_last: Option<Optime>,
    /// How far the scan is.
    pub scan: Option<ScanProgress>,
    /// What keeps the stream from going on.
    pub fault: Option<StreamFault>,
}

/// An answered fetch.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// Their collection.
    pub collection: CollectionUuid,
    /// The documents found.
    pub documents: Vec<Bytes>,
    /// The head must pass this before an image is cut.
    pub observed: Optime,
}

#[derive(Debug, Default)]
struct Inner {
    word: AgentWord,
    applied: Option<Optime>,
    trouble: BTreeMap<&'static str, String>,
    wanted: BTreeMap<u64, FetchRequest>,
    answers: BTreeMap<u64, Fetched>,
    next_request: u64,
}

/// Shared by the ingest of a replica set, its children, and status.
#[derive(Debug, Default)]
pub struct Board(Mutex<Inner>);

impl Board {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what an agent said.
    pub fn heard(&self, word: AgentWord) {
        self.lock().word = word;
    }

    /// The last an agent said.
    pub fn word(&self) -> AgentWord {
        self.lock().word.clone()
    }

    /// Notes how far the head is.
    pub fn set_applied(&self, applied: Optime) {
        self.lock().applied = Some(applied);
    }

    /// How far the head is.
    pub fn applied(&self) -> Option<Optime> {
        self.lock().applied
    }

    /// Forgets how far the head was: it is another head now.
    pub fn forget_applied(&self) {
        self.lock().applied = None;
    }

    /// Notes, or with `None` forgets, the trouble of a child.
    pub fn set_trouble(&self, child: &'static str, trouble: Option<String>) {
        match trouble {
            Some(text) => self.lock().trouble.insert(child, text),
            None => self.lock().trouble.remove(child),
        };
    }

    /// The troubles of all children, one a line.
    pub fn trouble(&self) -> Option<String> {
        let inner = self.lock();
        let lines: Vec<String> = inner
            .trouble
            .iter()
            .map(|(child, text)| format!("{child}: {text}"))
            .collect();
        (!lines.is_empty()).then(|| lines.join("; "))
    }

    /// Asks the agent for documents by `{_id: …}`; gives the request's number.
    pub fn request(&self, collection: CollectionUuid, ids: Vec<String>) -> u64 {
        let mut inner = self.lock();
        inner.next_request += 1;
        let request = inner.next_request;
        inner.wanted.insert(
            request,
            FetchRequest {
                request,
                collection,
                ids,
            },
        );
        request
    }

    /// A few open requests, to be handed to the agent; handing them out twice is harmless.
    pub fn open_requests(&self) -> Vec<FetchRequest> {
        const AT_ONCE: usize = 4;
        self.lock().wanted.values().take(AT_ONCE).cloned().collect()
    }

    /// Takes an answer; an answer to a request that is no longer open is dropped.
    pub fn answer(&self, request: u64, fetched: Fetched) {
        let mut inner = self.lock();
        if inner.wanted.remove(&request).is_some() {
            inner.answers.insert(request, fetched);
        }
    }

    /// Takes all answers once none of `requests` is open any more.
    pub fn take_answers(&self, requests: &[u64]) -> Option<Vec<Fetched>> {
        let mut inner = self.lock();
        if requests.iter().any(|r| inner.wanted.contains_key(r)) {
            return None;
        }
        Some(requests.iter().filter_map(|r| inner.answers.remove(r)).collect())
    }

    /// Forgets every request and answer: their asker is gone.
    pub fn forget_requests(&self) {
        let mut inner = self.lock();
        inner.wanted.clear();
        inner.answers.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_taken_only_when_every_request_is_answered() {
        let board = Board::default();
        let uuid = CollectionUuid([1; 16]);
        let (a, b) = (board.request(uuid, vec![]), board.request(uuid, vec![]));
        let fetched = || Fetched {
            collection: uuid,
            documents: vec![],
            observed: Optime::ZERO,
        };
        board.answer(a, fetched());
        assert!(board.take_answers(&[a, b]).is_none());
        board.answer(b, fetched());
        board.answer(b, fetched());
        assert_eq!(board.take_answers(&[a, b]).unwrap().len(), 2);
        assert!(board.open_requests().is_empty());
    }
}
