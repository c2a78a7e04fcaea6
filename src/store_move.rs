//! Wiring of `store move`: what rests in the places of the settings is brought to other places. The decisions about objects are
//! `headwater_store::moving`'s; here is the order of steps, each of which may be the last before a crash:
//!
//! 1. the new places are claimed as being moved to; they must be empty
//! 2. passes, while the daemons work
//! 3. the old places are claimed as moved, that of blocks last: their daemons end by themselves within seconds
//! 4. passes until nothing changes any more
//! 5. notes: which part left its old place, and where it rests again
//! 6. the new places are claimed for the cluster: last that of blocks, or the old place of blocks if it goes on to hold a part
//!
//! Run again after a crash or an error, it goes on. The claims on the two places of blocks tell how far it was: the old is claimed
//! as moved to just these places from step 3 on, and step 6 ends with the one that was claimed last. In between no daemon can
//! start anywhere, so every step can be made again.

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
    /// Whether they were given up for just these new places, so that this same move may have come to any later step.
    goes_on: bool,
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

    /// Claims every place, `last` after all others, so that its claim tells of theirs.
    async fn claim_all(&self, claim: &str, last: &StoreUri) -> Outcome {
        let others = self.opened.stores.iter().filter(|(uri, _)| uri != last);
        for objects in others.map(|(_, objects)| objects).chain([self.opened.at(last)]) {
            claim::take_over(objects.as_ref(), claim).await.map_err(store_fault)?;
        }
        Ok(())
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
        Move::between(Side::open(from, &host).await?, Side::open(to, &host).await?).await
    }

    async fn between(from: Side, to: Side) -> Outcome<Move> {
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
        let mut found = Move {
            from,
            to,
            given_up: claimed != cluster,
            goes_on: false,
            cluster,
        };
        found.goes_on = claimed == found.moved();
        found.require_in_use().await?;
        found.require_unfinished().await?;
        found.require_room().await?;
        Ok(found)
    }

    fn all_parts(&self) -> impl Iterator<Item = (&'static str, &StoreUri, &StoreUri)> {
        let both = self.from.places.parts().into_iter().zip(self.to.places.parts());
        both.map(|((part, from), (_, to))| (part, from, to))
    }

    /// The parts that change their place, with the store they come to.
    fn parts(&self) -> impl Iterator<Item = (&'static str, &StoreUri, &StoreUri)> {
        self.all_parts().filter(|(_, from, to)| from != to)
    }

    /// The claim on the old places from when they are given up.
    fn moved(&self) -> String {
        let new: Vec<String> = self.to.stores().into_keys().collect();
        claim::moved_to(&self.cluster, &new.join(" and "))
    }

    /// Whether the old place notes that this same move brought the part to its new one.
    async fn has_left(&self, part: &str, from: &StoreUri, to: &StoreUri) -> Outcome<bool> {
        let left = claim::left(self.from.opened.at(from).as_ref(), part).await;
        Ok(self.goes_on && left.map_err(store_fault)? == Some(to.to_string()))
    }

    /// The parts rest in the old places, but for those that this same move has brought away.
    async fn require_in_use(&self) -> Outcome {
        let looked = self.from.opened.require_in_use(&self.from.places).await;
        let mut own = true;
        for (part, from, to) in self.all_parts() {
            let left = claim::left(self.from.opened.at(from).as_ref(), part).await;
            let stays = left.map_err(store_fault)?.is_none();
            own &= stays || from != to && self.has_left(part, from, to).await?;
        }
        if self.goes_on && own {
            return Ok(());
        }
        looked.map_err(store_fault)
    }

    /// A move that came to its end is not made again: daemons may have written to the new places since.
    async fn require_unfinished(&self) -> Outcome {
        let blocks = self.to.opened.objects.as_ref();
        let claimed = claim::claimed_by(blocks).await.map_err(store_fault)?;
        // A place of blocks that goes on to hold something is claimed last of all: given up, it is not at the end.
        let stays = self.to.has(&self.from.places.blocks);
        match self.given_up && !stays && claimed.as_ref() == Some(&self.cluster) {
            true => Err(self.is_there(&self.to.places.blocks.to_string())),
            false => Ok(()),
        }
    }

    fn is_there(&self, place: &str) -> Failure {
        let message = format!("the backups of cluster {} are in {place} already", self.cluster);
        conflict(message).help("start the daemons with that store")
    }

    /// New places are nobody's and empty, or this same move has begun to fill them; a part comes back only to where it left.
    async fn require_room(&self) -> Outcome {
        let begun = claim::moving_in(&self.cluster);
        for (part, from, to) in self.parts().filter(|(_, _, to)| self.from.has(to)) {
            if self.has_left(part, from, to).await? {
                continue;
            }
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
                // Claimed at the end of this same move, which has not reached the place of the blocks.
                Some(claimed) if self.goes_on && claimed == self.cluster => {}
                Some(claimed) if self.given_up && claimed == self.cluster => return Err(self.is_there(&name)),
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
        // What a part left behind when it left is not what it is now. Marked before it is filled, so that a second run knows
        // that what it finds there is its own.
        for (part, from, to) in self.parts().filter(|(_, _, to)| self.from.has(to)) {
            if self.has_left(part, from, to).await? {
                continue;
            }
            let objects = self.to.opened.at(to);
            let marked = claim::leave(objects.as_ref(), part, &from.to_string()).await;
            marked.map_err(store_fault)?;
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
        let (old, new) = (&self.from.places.blocks, &self.to.places.blocks);
        self.from.claim_all(&self.moved(), old).await?;
        eprintln!("the daemons end now; agents wait for them");
        let bytes = self.until_quiet().await?;
        for (part, from, to) in self.parts() {
            let left = claim::leave(self.from.opened.at(from).as_ref(), part, &to.to_string()).await;
            left.map_err(store_fault)?;
            let back = claim::come_back(self.to.opened.at(to).as_ref(), part).await;
            back.map_err(store_fault)?;
        }
        let last = if self.to.has(old) { old } else { new };
        self.to.claim_all(&self.cluster, last).await?;
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

#[cfg(test)]
mod tests;
