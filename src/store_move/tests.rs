//! A move that is interrupted anywhere goes on when it is made again, and is not made again once it came to its end.

use std::sync::Mutex;

use bytes::Bytes;
use headwater_store::backend::memory::{Fault, MemoryObjects};
use headwater_store::backend::split::SplitObjects;

use super::*;

const CLUSTER: &str = "a";
const OBJECTS: [&str; 4] = ["keys/k", "rs/d/s/blocks/b", "rs/d/s/oplog/1/o", "rs/d/s/sync/1/s"];

/// Stores in memory, by their places.
#[derive(Default)]
struct World(Mutex<BTreeMap<String, MemoryObjects>>);

fn uri(name: &str) -> StoreUri {
    format!("file:/{name}").parse().unwrap()
}

/// `blocks`, or `blocks oplog`, or `blocks oplog sync`.
fn places(names: &str) -> Places {
    let mut names = names.split(' ').map(uri);
    Places {
        blocks: names.next().unwrap(),
        oplog: names.next(),
        sync: names.next(),
    }
}

impl World {
    /// Daemons of the cluster have worked in these places.
    async fn with(from: &Places) -> World {
        let world = World::default();
        let side = world.side(from);
        side.claim_all(CLUSTER, &from.blocks).await.unwrap();
        for key in OBJECTS {
            let put = side.opened.objects.put(key, Bytes::from_static(key.as_bytes()));
            put.await.unwrap();
        }
        world
    }

    fn store(&self, uri: &StoreUri) -> MemoryObjects {
        self.0.lock().unwrap().entry(uri.to_string()).or_default().clone()
    }

    fn side(&self, places: &Places) -> Side {
        let open = |uri: &StoreUri| Arc::new(self.store(uri)) as Arc<dyn Objects>;
        let mut stores = vec![(places.blocks.clone(), open(&places.blocks))];
        let apart = |uri: &Option<StoreUri>| uri.clone().filter(|uri| *uri != places.blocks);
        let (oplog, sync) = (apart(&places.oplog), apart(&places.sync));
        for uri in [&oplog, &sync].into_iter().flatten() {
            stores.push((uri.clone(), open(uri)));
        }
        let objects = Arc::new(SplitObjects {
            blocks: open(&places.blocks),
            oplog: oplog.as_ref().map(open),
            sync: sync.as_ref().map(open),
        });
        Side {
            places: places.clone(),
            opened: Opened {
                objects,
                stores,
                backing_sets: Vec::new(),
            },
        }
    }

    async fn make(&self, from: &Places, to: &Places) -> Outcome {
        let moving = Move::between(self.side(from), self.side(to)).await?;
        moving.copy_beside().await?;
        moving.finish().await?;
        Ok(())
    }

    /// Lets the call of this number fail, counted over all stores, with its effect or without, and none after it succeed: the
    /// process is over.
    fn fail_from(&self, number: u64, fault: fn(StoreError) -> Fault) {
        let counted = Arc::new(AtomicU64::new(0));
        for store in self.0.lock().unwrap().values() {
            let counted = counted.clone();
            let lost = || StoreError::unavailable("k", "the process is over");
            store.set_hook(move |_| match counted.fetch_add(1, Ordering::Relaxed) {
                now if now < number => Fault::Pass,
                now if now == number => fault(lost()),
                _ => Fault::Before(lost()),
            });
        }
    }

    fn heal(&self) {
        self.0.lock().unwrap().values().for_each(MemoryObjects::clear_hook);
    }

    /// Everything is where the daemons look for it, and they can begin there and not in the old places.
    async fn is_moved(&self, from: &Places, to: &Places) {
        let side = self.side(to);
        for (place, objects) in &side.opened.stores {
            let claimed = claim::claimed_by(objects.as_ref()).await.unwrap();
            assert_eq!(claimed.as_deref(), Some(CLUSTER), "{place}");
        }
        side.opened.require_in_use(to).await.unwrap();
        for key in OBJECTS {
            assert_eq!(side.opened.objects.get(key).await.unwrap(), key.as_bytes());
        }
        let old = self.side(from);
        let blocks = claim::claimed_by(old.opened.objects.as_ref()).await.unwrap();
        let usable = blocks.as_deref() == Some(CLUSTER) && old.opened.require_in_use(from).await.is_ok();
        assert!(!usable, "the old places can still be used");
    }
}

async fn goes_on_wherever_it_was_interrupted(from: &str, to: &str) {
    let (from, to) = (places(from), places(to));
    for fault in [Fault::Before as fn(StoreError) -> Fault, Fault::After] {
        for number in 0.. {
            let world = World::with(&from).await;
            drop(world.side(&to));
            world.fail_from(number, fault);
            let interrupted = world.make(&from, &to).await;
            world.heal();
            if interrupted.is_ok() {
                assert!(number > 20, "nothing was interrupted");
                break;
            }
            let at = format!("{from:?} to {to:?}, interrupted at call {number}");
            // With an answer that was lost the last claim may stand: then there is nothing left to do.
            match world.make(&from, &to).await {
                Ok(()) => {}
                Err(failure) if failure.message.contains("already") || failure.message.contains("do not rest") => {}
                Err(failure) => panic!("{at}: {failure}"),
            }
            world.is_moved(&from, &to).await;
            let again = world.make(&from, &to).await;
            assert!(again.is_err(), "{at}: made again");
            world.is_moved(&from, &to).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_move_of_everything_goes_on_wherever_it_was_interrupted() {
    goes_on_wherever_it_was_interrupted("old", "new").await;
    goes_on_wherever_it_was_interrupted("old x y", "new x y").await;
}

#[tokio::test(start_paused = true)]
async fn a_move_of_the_oplog_alone_goes_on_wherever_it_was_interrupted() {
    goes_on_wherever_it_was_interrupted("old", "old new").await;
    goes_on_wherever_it_was_interrupted("old second", "old first").await;
}

#[tokio::test(start_paused = true)]
async fn a_move_to_several_new_places_goes_on_wherever_it_was_interrupted() {
    goes_on_wherever_it_was_interrupted("old", "b a c").await;
    goes_on_wherever_it_was_interrupted("old apart", "a b").await;
}

#[tokio::test(start_paused = true)]
async fn parts_that_come_together_again_go_on_wherever_it_was_interrupted() {
    goes_on_wherever_it_was_interrupted("old apart", "old").await;
    goes_on_wherever_it_was_interrupted("old apart", "apart").await;
    goes_on_wherever_it_was_interrupted("old apart", "apart old apart").await;
}

#[tokio::test(start_paused = true)]
async fn a_move_that_came_to_its_end_is_not_gone_on_with_under_other_names() {
    let (old, new) = (places("old"), places("new"));
    let world = World::with(&old).await;
    world.make(&old, &new).await.unwrap();
    let newer = "rs/d/s/oplog/1/p";
    let put = world.store(&new.blocks).put(newer, Bytes::from_static(b"p")).await;
    put.unwrap();
    for to in ["new", "third", "third new new", "new third"] {
        let failure = world.make(&old, &places(to)).await;
        assert!(failure.is_err(), "to {to}");
    }
    assert!(world.store(&new.blocks).contents().contains_key(newer));
    world.is_moved(&old, &new).await;
}
