//! Room for calls of other daemons until it is known who calls: the seal covers the body, so the body is read before. Strangers
//! may neither fill the memory nor take the room of the cluster's nodes.
//!
//! Short calls need no room: votes, heartbeats and pings come through whatever strangers do, and with all connections taken
//! they take 64 MiB. By the seal of any call an address proves that a node is there; longer calls of such addresses have room
//! of their own.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use headwater_model::limits;
use headwater_protocol::internal::KIND_JOIN;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::fault::Fault;

/// The largest call: the whole control state.
const CALL_MAX_BYTES: usize = limits::CONTROL_STATE_MAX_BYTES + limits::MIB;
/// The largest call of an address where no node is known: a frame with some words around it.
const STRANGE_MAX_BYTES: usize = limits::FRAME_MAX_BYTES + limits::MIB;
/// Calls up to this length need no room. All that a node says before its first long call is shorter.
const SHORT_MAX_BYTES: usize = 64 << 10;
/// Addresses that are remembered. With more of them all are forgotten; the next pings bring them back.
const PROVEN_MAX: usize = 4 * limits::NODES_MAX;

/// Who calls this process.
pub(crate) static CALLERS: Callers = Callers::new();

/// Given back when it is dropped.
pub(crate) type Room = SemaphorePermit<'static>;

/// See the module.
pub(crate) struct Callers {
    /// Addresses that a sealed call came from.
    proven: Mutex<BTreeSet<IpAddr>>,
    /// In MiB.
    nodes: Semaphore,
    /// In MiB.
    strangers: Semaphore,
}

impl Callers {
    const fn new() -> Self {
        Callers {
            proven: Mutex::new(BTreeSet::new()),
            nodes: Semaphore::const_new(2 * mib(CALL_MAX_BYTES)),
            strangers: Semaphore::const_new(2 * mib(STRANGE_MAX_BYTES)),
        }
    }

    /// How long a call may be.
    pub(crate) fn limit(&self, from: Option<IpAddr>, kind: u8) -> usize {
        match kind {
            KIND_JOIN => SHORT_MAX_BYTES,
            _ if self.is_proven(from) => CALL_MAX_BYTES,
            _ => STRANGE_MAX_BYTES,
        }
    }

    /// Waits until there is room for a call of this length; `None` for one that needs none.
    pub(crate) async fn room(&'static self, from: Option<IpAddr>, length: usize) -> Result<Option<Room>, Fault> {
        if length <= SHORT_MAX_BYTES {
            return Ok(None);
        }
        let rooms = match self.is_proven(from) {
            true => &self.nodes,
            false => &self.strangers,
        };
        let room = rooms.acquire_many(mib(length) as u32).await;
        room.map(Some).map_err(|_| Fault::not_wired())
    }

    /// A call from there was sealed with the cluster's key.
    pub(crate) fn prove(&self, from: Option<IpAddr>) {
        let Some(from) = from else { return };
        let mut proven = self.proven.lock().unwrap_or_else(PoisonError::into_inner);
        if proven.len() >= PROVEN_MAX && !proven.contains(&from) {
            proven.clear();
        }
        proven.insert(from);
    }

    fn is_proven(&self, from: Option<IpAddr>) -> bool {
        let proven = self.proven.lock().unwrap_or_else(PoisonError::into_inner);
        from.is_some_and(|from| proven.contains(&from))
    }
}

const fn mib(bytes: usize) -> usize {
    bytes.div_ceil(limits::MIB)
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    const NODE: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1)));
    const STRANGER: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2)));
    const RAFT: u8 = 1;

    fn callers() -> &'static Callers {
        let callers = Box::leak(Box::new(Callers::new()));
        callers.prove(NODE);
        callers
    }

    fn room(callers: &'static Callers, from: Option<IpAddr>, length: usize) -> Option<Option<Room>> {
        callers.room(from, length).now_or_never().map(|room| room.ok().unwrap())
    }

    #[test]
    fn strangers_that_take_all_they_get_keep_no_node_out() {
        let callers = callers();
        let held: Vec<_> = std::iter::from_fn(|| room(callers, STRANGER, STRANGE_MAX_BYTES)).collect();
        assert_eq!(held.len(), 2);
        assert!(room(callers, STRANGER, limits::MIB).is_none(), "it waits");
        assert!(room(callers, None, limits::MIB).is_none(), "it waits");
        assert!(room(callers, NODE, CALL_MAX_BYTES).unwrap().is_some());
        assert!(
            room(callers, STRANGER, SHORT_MAX_BYTES).unwrap().is_none(),
            "a vote needs no room"
        );
        drop(held);
        assert!(room(callers, STRANGER, limits::MIB).unwrap().is_some());
    }

    #[test]
    fn only_a_node_may_send_a_whole_control_state_and_who_joins_has_little_to_say() {
        let callers = callers();
        assert_eq!(callers.limit(NODE, RAFT), CALL_MAX_BYTES);
        assert_eq!(callers.limit(STRANGER, RAFT), STRANGE_MAX_BYTES);
        assert_eq!(callers.limit(None, RAFT), STRANGE_MAX_BYTES);
        assert_eq!(callers.limit(NODE, KIND_JOIN), SHORT_MAX_BYTES);
    }

    #[test]
    fn addresses_that_come_and_go_do_not_pile_up() {
        let callers = callers();
        for n in 0..10_000_u32 {
            let from = Some(IpAddr::V4((0x0b00_0000 + n).into()));
            callers.prove(from);
            assert!(callers.is_proven(from));
        }
        assert!(callers.proven.lock().unwrap().len() <= PROVEN_MAX);
    }
}
