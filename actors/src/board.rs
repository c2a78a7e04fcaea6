//! What is known of a replica set right now, in memory only: hints for status, and the requests for missing
//! documents. Losing it costs a repeated request, never data.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use headwater_model::{CollectionUuid, Epoch, Optime, limits};
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
    /// The shard that the source says it is.
    pub shard: Option<String>,
}

/// Bytes of fetched documents that may wait for the head at once; one frame more can be there.
const FETCHED_WAITING_BYTES: usize = 64 * limits::MIB;

/// Documents of an answer to a fetch, or of a piece of it.
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
    memtable_bytes: usize,
    trouble: BTreeMap<&'static str, String>,
    wanted: BTreeMap<u64, FetchRequest>,
    arrived: Vec<Fetched>,
    arrived_bytes: usize,
    next_request: u64,
    groom_decision: String,
}

/// Shared by the ingest of a replica set, its children, and status.
#[derive(Debug, Default)]
pub struct Board(Mutex<Inner>);

impl Board {
    /// A board whose requests have numbers of their own: an agent that was asked by a former owner may answer this one.
    pub fn of(epoch: Epoch) -> Board {
        let board = Board::default();
        board.lock().next_request = epoch.0 << 32;
        board
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what an agent said.
    pub fn heard(&self, word: AgentWord) {
        self.lock().word = word;
    }

    /// Notes which shard the source says it is.
    pub fn opened(&self, shard: Option<String>) {
        self.lock().word.shard = shard;
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

    /// Notes how many bytes of changes the head holds in memory.
    pub fn set_memtable_bytes(&self, bytes: usize) {
        self.lock().memtable_bytes = bytes;
    }

    /// How many bytes of changes the head holds in memory.
    pub fn memtable_bytes(&self) -> usize {
        self.lock().memtable_bytes
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

    /// Notes what is decided about the next groom, and why.
    pub fn set_groom_decision(&self, decision: String) {
        self.lock().groom_decision = decision;
    }

    /// What is decided about the next groom, and why.
    pub fn groom_decision(&self) -> String {
        self.lock().groom_decision.clone()
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

    /// Takes an answer, or a piece of it when `more` follows; what answers no open request is dropped. `false` when so
    /// much waits for the head already that the piece must come again later.
    pub fn answer(&self, request: u64, fetched: Fetched, more: bool) -> bool {
        let mut inner = self.lock();
        if !inner.wanted.contains_key(&request) {
            return true;
        }
        if inner.arrived_bytes >= FETCHED_WAITING_BYTES {
            return false;
        }
        inner.arrived_bytes += fetched.documents.iter().map(Bytes::len).sum::<usize>();
        inner.arrived.push(fetched);
        if !more {
            inner.wanted.remove(&request);
        }
        true
    }

    /// Takes what has arrived, and whether nothing is asked for any more.
    pub fn take_arrived(&self) -> (Vec<Fetched>, bool) {
        let mut inner = self.lock();
        inner.arrived_bytes = 0;
        (std::mem::take(&mut inner.arrived), inner.wanted.is_empty())
    }

    /// Forgets every request and answer: their asker is gone.
    pub fn forget_requests(&self) {
        let mut inner = self.lock();
        inner.wanted.clear();
        inner.arrived.clear();
        inner.arrived_bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fetched(bytes: usize) -> Fetched {
        Fetched {
            collection: CollectionUuid([1; 16]),
            documents: vec![Bytes::from(vec![0; bytes])],
            observed: Optime::ZERO,
        }
    }

    #[test]
    fn a_fetch_is_over_when_every_request_has_its_last_piece() {
        let board = Board::default();
        let uuid = CollectionUuid([1; 16]);
        let (a, b) = (board.request(uuid, vec![]), board.request(uuid, vec![]));
        assert!(board.answer(a, fetched(5), true));
        assert!(board.answer(a, fetched(5), false));
        assert!(
            board.answer(a, fetched(5), false),
            "an answer nobody waits for is dropped"
        );
        assert!(matches!(board.take_arrived(), (pieces, false) if pieces.len() == 2));
        assert!(board.answer(b, fetched(5), false));
        assert!(matches!(board.take_arrived(), (pieces, true) if pieces.len() == 1));
        assert!(board.open_requests().is_empty());
    }

    /// An agent sends an answer again until somebody takes it, and by then another node may be the owner.
    #[test]
    fn an_answer_to_a_former_owner_is_none_for_its_successor() {
        let (former, present) = (Board::of(Epoch(5)), Board::of(Epoch(6)));
        let uuid = CollectionUuid([1; 16]);
        let (theirs, ours) = (former.request(uuid, vec![]), present.request(uuid, vec![]));
        assert_ne!(theirs, ours);
        assert!(present.answer(theirs, fetched(5), false));
        assert!(matches!(present.take_arrived(), (pieces, false) if pieces.is_empty()));
    }

    #[test]
    fn pieces_wait_at_the_agent_while_the_head_has_enough_to_take_in() {
        let board = Board::default();
        let request = board.request(CollectionUuid([1; 16]), vec![]);
        assert!(board.answer(request, fetched(FETCHED_WAITING_BYTES), true));
        assert!(!board.answer(request, fetched(5), false));
        assert_eq!(board.take_arrived().0.len(), 1);
        assert!(board.answer(request, fetched(5), false));
        assert!(board.take_arrived().1);
    }
}
