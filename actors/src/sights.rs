//! Which nodes answer and are heard of, as seen from here. Every node looks at every other all the time, so that whoever is
//! elected knows at once who is lost. One that answers but whose own questions do not arrive is lost all the same: it
//! could not tell the leader what it has done.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use headwater_cluster::NodeId;
use headwater_cluster::placement::Sight;
use tokio::time::Instant;

/// What is remembered of a node.
#[derive(Clone, Copy, Debug)]
struct Seen {
    last: Instant,
    /// When it last asked something itself.
    heard: Instant,
    /// Since when it has answered without a pause.
    since: Instant,
    leaving: bool,
}

#[derive(Debug, Default)]
struct Inner {
    nodes: BTreeMap<NodeId, Seen>,
    beat: Option<Instant>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Sights(Mutex<Inner>);

/// Who looks around every quarter of a second and has not for so long was standing still, in milliseconds.
const STOOD_STILL_MS: u64 = 1_000;

impl Sights {
    /// This process is running. If it was not for a while, it knows nothing of the others' silence in that time.
    pub fn beat(&self) {
        self.lock().beat(Instant::now());
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A node answered, after at most `pause_ms` of silence if it is to count as steady.
    pub fn answered(&self, node: NodeId, leaving: bool, pause_ms: u64) {
        let now = Instant::now();
        let mut inner = self.lock();
        let seen = inner.nodes.entry(node).or_insert(Seen::now(now));
        if ms(now - seen.last) >= pause_ms {
            seen.since = now;
        }
        (seen.last, seen.leaving) = (now, leaving);
    }

    /// A node asked something, after at most `pause_ms` of silence if it is to count as steady.
    pub fn heard(&self, node: NodeId, pause_ms: u64) {
        let now = Instant::now();
        let mut inner = self.lock();
        let seen = inner.nodes.entry(node).or_insert(Seen::now(now));
        if ms(now - seen.heard) >= pause_ms {
            seen.since = now;
        }
        seen.heard = now;
    }

    /// For how long, in milliseconds, nothing was asked by `node`.
    pub fn unheard_ms(&self, node: NodeId) -> u64 {
        let now = Instant::now();
        let mut inner = self.lock();
        if inner.beat.is_some() {
            inner.beat(now);
        }
        inner.nodes.get(&node).map_or(0, |seen| ms(now - seen.heard))
    }

    /// What is known of `nodes`. One that is looked at for the first time counts as having answered now.
    pub fn of(&self, nodes: impl Iterator<Item = NodeId>) -> BTreeMap<NodeId, Sight> {
        let now = Instant::now();
        let mut inner = self.lock();
        if inner.beat.is_some() {
            inner.beat(now);
        }
        let seen = &mut inner.nodes;
        nodes
            .map(|node| {
                let known = seen.entry(node).or_insert(Seen::now(now));
                let sight = Sight {
                    silent_ms: ms(now - known.last.min(known.heard)),
                    steady_ms: ms(now - known.since),
                    leaving: known.leaving,
                };
                (node, sight)
            })
            .collect()
    }
}

impl Seen {
    /// As one that is met for the first time.
    fn now(now: Instant) -> Seen {
        Seen {
            last: now,
            heard: now,
            since: now,
            leaving: false,
        }
    }
}

impl Inner {
    fn beat(&mut self, now: Instant) {
        if self.beat.is_some_and(|last| ms(now - last) > STOOD_STILL_MS) {
            self.nodes
                .values_mut()
                .for_each(|seen| (seen.last, seen.heard) = (now, now));
        }
        self.beat = Some(now);
    }
}

fn ms(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn silence_grows_and_a_pause_ends_steadiness() {
        let (sights, node) = (Sights::default(), NodeId(1));
        let look = || sights.of([node].into_iter())[&node];
        assert_eq!((look().silent_ms, look().steady_ms), (0, 0));
        tokio::time::advance(Duration::from_millis(900)).await;
        assert_eq!(look().silent_ms, 900);
        sights.answered(node, true, 1000);
        assert_eq!(look().silent_ms, 900, "it answers, but is not heard of");
        sights.heard(node, 1000);
        assert_eq!((look().silent_ms, look().steady_ms, look().leaving), (0, 900, true));
        tokio::time::advance(Duration::from_millis(1000)).await;
        assert_eq!(sights.unheard_ms(node), 1000);
        sights.answered(node, false, 1000);
        sights.heard(node, 1000);
        assert_eq!((look().silent_ms, look().steady_ms, look().leaving), (0, 0, false));
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_that_stood_still_does_not_blame_the_others() {
        let (sights, node) = (Sights::default(), NodeId(1));
        let silent = || sights.of([node].into_iter())[&node].silent_ms;
        sights.beat();
        assert_eq!(silent(), 0);
        for _ in 0..12 {
            tokio::time::advance(Duration::from_millis(250)).await;
            sights.beat();
        }
        assert_eq!(silent(), 3000, "it ran all the time");
        tokio::time::advance(Duration::from_millis(5000)).await;
        assert_eq!(silent(), 0, "it stood still");
    }
}
