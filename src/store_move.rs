//! Wiring of `store move`: what rests in the places of the settings is brought to other places. The decisions about objects are
//! `headwater_store::moving`'s; here is the order of steps, each of which may be the last before a crash:
//!
//! 1. the new places are claimed as being moved to; they must be empty
//! 2. passes, while the daemons work
//! 3. the old places are claimed as moved: their daemons end by themselves within seconds
//! 4. passes until nothing changes any more
//! 5. the new places are claimed for the cluster
//!
//! Run again after a crash or an error, it goes on.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use headwater_host::Host;
use headwater_model::StoreUri;
use headwater_store::backend::open::{self, Opened, Places};
use headwater_store::claim;
use headwater_store::moving::Pass;
use headwater_store::objects::{ObjectMeta, Objects, StoreError};
use tokio::time::Instant;

use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::recover::store_fault;

/// Copying beside the daemons ends when a pass was as small as this, or after so many.
const SMALL_PASS_BYTES: u64 = 32 << 20;
const PASSES: usize = 6;
/// Daemons look every five seconds whose the store is. Nothing may change over this time.
const QUIET: Duration = Duration::from_secs(12);
/// How long daemons may take to end.
const PATIENCE: Duration = Duration::from_secs(120);
const TELL_EVERY: Duration = Duration::from_secs(5);

/// A move between places that were looked at.
pub struct Move {
    from: Side,
    to: Side,
    /// The cluster whose backups move.
    pub cluster: String,
    /// Whether the old places were given up already.
    given_up: bool,
}

struct Side {
    places: Places,
    opened: Opened,
}

impl Side {
    async fn open(places: Places, host: &Host) -> Outcome<Side> {
        let opened = open::open(&places, host).await.map_err(store_fault)?;
        Ok(Side { places, opened })
    }

    fn stores(&self) -> BTreeMap<String, (&StoreUri, &Arc<dyn Objects>)> {
        let stores = self.opened.stores.iter();
        stores.map(|(uri, objects)| (uri.to_string(), (uri, objects))).collect()
    }

    fn has(&self, uri: &StoreUri) -> bool {
        self.opened.stores.iter().any(|(own, _)| own == uri)
    }
}

fn conflict(message: String) -> Failure {
    Failure::new(Exit::Conflict, message)
}

impl Move {
    /// Opens all places and looks whether the move can be made.
    pub async fn look(from: Places, to: Places) -> Outcome<Move> {
        if from == to {
            let failure = Failure::new(Exit::Usage, "the old and the new places are the same");
            return Err(failure.help("name the new ones: --to URI, --to-oplog URI, --to-sync URI"));
        }
        let host = Host::real().map_err(|e| Failure::new(Exit::Failed, e.to_string()))?;
        let (from, to) = (Side::open(from, &host).await?, Side::open(to, &host).await?);
        from.opened.require_in_use(&from.places).await.map_err(store_fault)?;
        let claimed = claim::claimed_by(from.opened.objects.as_ref())
            .await
            .map_err(store_fault)?;
        let Some(claimed) = claimed else {
            let failure = Failure::new(
                Exit::NotFound,
                format!("no cluster keeps its backups in {}", from.places.blocks),
            );
            return Err(failure.help("give the --store and the settings file that the daemons have"));
        };
        let cluster = claim::cluster_of(&claimed).to_owned();
        let given_up = claimed != cluster;
        let found = Move {
            from,
            to,
            cluster,
            given_up,
        };
        found.require_room().await?;
        Ok(found)
    }

    /// The parts that change their place, with the store they come to.
    fn parts(&self) -> impl Iterator<Item = (&'static str, &StoreUri, &StoreUri)> {
        let both = self.from.places.parts().into_iter().zip(self.to.places.parts());
        both.map(|((part, from), (_, to))| (part, from, to))
            .filter(|(_, from, to)| from != to)
    }

    /// New places are nobody's and empty, or this same move has begun to fill them; a part comes back only to where it left.
    async fn require_room(&self) -> Outcome {
        let begun = claim::moving_in(&self.cluster);
        for (part, _, to) in self.parts().filter(|(_, _, to)| self.from.has(to)) {
            let objects = self.to.opened.at(to);
            let left = claim::left(objects.as_ref(), part).await.map_err(store_fault)?;
            if left.is_none() && !self.of_part(objects, part).await?.is_empty() {
                return Err(conflict(format!("{to} holds {part} slices already")));
            }
        }
        for (name, (uri, objects)) in self.to.stores() {
            if self.from.has(uri) {
                continue;
            }
            match claim::claimed_by(objects.as_ref()).await.map_err(store_fault)? {
                Some(claimed) if claimed == begun => {}
                Some(claimed) if self.given_up && claimed == self.cluster => {
                    let message = format!("the backups of cluster {} are in {name} already", self.cluster);
                    return Err(conflict(message).help("start the daemons with that store"));
                }
                Some(claimed) => return Err(conflict(format!("{name} is kept for cluster {claimed}"))),
                None if objects.list("").await.map_err(store_fault)?.is_empty() => {}
                None => return Err(conflict(format!("{name} is not empty")).help("choose an empty place")),
            }
        }
        Ok(())
    }

    async fn of_part(&self, objects: &Arc<dyn Objects>, part: &str) -> Outcome<Vec<ObjectMeta>> {
        let mut all = objects.list("rs/").await.map_err(store_fault)?;
        all.retain(|object| object.key.split('/').nth(3) == Some(part));
        Ok(all)
    }

    /// What is to be copied as things stand: only what changes its place.
    pub async fn plan(&self) -> Outcome<Pass> {
        let moves = |object: &ObjectMeta| self.from.places.of(&object.key) != self.to.places.of(&object.key);
        let listed = |objects: Arc<dyn Objects>| async move {
            let mut all = objects.list("").await.map_err(store_fault)?;
            all.retain(moves);
            Ok::<_, Failure>(all)
        };
        // Target first: what is removed from both in between must not look as if it was lacking.
        let there = listed(self.to.opened.objects.clone()).await?;
        Ok(Pass::plan(&listed(self.from.opened.objects.clone()).await?, &there))
    }

    async fn carry_out(&self, pass: &Pass) -> Outcome {
        let (done, total) = (AtomicU64::new(0), pass.bytes());
        let (from, to) = (self.from.opened.objects.as_ref(), self.to.opened.objects.as_ref());
        telling(pass.carry_out(from, to, &done), &done, total)
            .await
            .map_err(store_fault)
    }

    /// Copies beside the daemons until little is left.
    pub async fn copy_beside(&self) -> Outcome<u64> {
        for (_, (uri, objects)) in self.to.stores() {
            if !self.from.has(uri) {
                let begun = claim::moving_in(&self.cluster);
                claim::take_over(objects.as_ref(), &begun).await.map_err(store_fault)?;
            }
        }
        // What a part left behind when it left is not what it is now.
        for (part, _, to) in self.parts().filter(|(_, _, to)| self.from.has(to)) {
            let objects = self.to.opened.at(to);
            for object in self.of_part(objects, part).await? {
                objects.delete(&object.key).await.map_err(store_fault)?;
            }
        }
        let mut bytes = 0;
        for _ in 0..PASSES {
            let pass = self.plan().await?;
            self.carry_out(&pass).await?;
            bytes += pass.bytes();
            if pass.bytes() <= SMALL_PASS_BYTES {
                break;
            }
        }
        Ok(bytes)
    }

    /// Ends the daemons, brings what is left, and gives the new places to the cluster.
    pub async fn finish(&self) -> Outcome<u64> {
        let new: Vec<String> = self.to.stores().into_keys().collect();
        let moved = claim::moved_to(&self.cluster, &new.join(" and "));
        for (_, (_, objects)) in self.from.stores() {
            claim::take_over(objects.as_ref(), &moved).await.map_err(store_fault)?;
        }
        eprintln!("the daemons end now; agents wait for them");
        let bytes = self.until_quiet().await?;
        for (part, from, to) in self.parts() {
            let left = claim::leave(self.from.opened.at(from).as_ref(), part, &to.to_string()).await;
            left.map_err(store_fault)?;
            let back = claim::come_back(self.to.opened.at(to).as_ref(), part).await;
            back.map_err(store_fault)?;
        }
        for (_, (_, objects)) in self.to.stores() {
            claim::take_over(objects.as_ref(), &self.cluster)
                .await
                .map_err(store_fault)?;
        }
        Ok(bytes)
    }

    async fn until_quiet(&self) -> Outcome<u64> {
        let (begin, mut changed, mut bytes) = (Instant::now(), Instant::now(), 0);
        loop {
            let pass = self.plan().await?;
            self.carry_out(&pass).await?;
            bytes += pass.bytes();
            match pass.first_change() {
                Some(key) if begin.elapsed() > PATIENCE => {
                    let failure = conflict(format!("somebody still writes to the old store: {key}"));
                    return Err(failure.help("end all daemons, then run the same command again; it goes on"));
                }
                Some(_) => changed = Instant::now(),
                None if changed.elapsed() >= QUIET => return Ok(bytes),
                None => {}
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// The new places, as a daemon is told them.
    pub fn destination(&self) -> &Places {
        &self.to.places
    }

    /// Places of the old that are not among the new.
    pub fn left_behind(&self) -> Vec<String> {
        let left = self.from.stores().into_iter();
        left.filter(|(_, (uri, _))| !self.to.has(uri))
            .map(|(name, _)| name)
            .collect()
    }
}

/// Says how far it is, now and then.
async fn telling(
    work: impl Future<Output = Result<(), StoreError>>,
    done: &AtomicU64,
    total: u64,
) -> Result<(), StoreError> {
    tokio::pin!(work);
    loop {
        match tokio::time::timeout(TELL_EVERY, &mut work).await {
            Ok(result) => return result,
            Err(_) => eprintln!(
                "{} of {} MB copied",
                done.load(Ordering::Relaxed) / 1_000_000,
                total / 1_000_000
            ),
        }
    }
}
