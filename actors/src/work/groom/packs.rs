//! Grooming the packs: census → plan → batches, each: living blocks durable elsewhere → packs known to go → packs deleted.
//!
//! What lives: everything that the images refer to which are known or merely lie there, and everything that is put or asked
//! for from the beginning of the census on. What a running head holds is neither until it is spilled or folded; therefore a
//! cut is asked for after the census began: whatever the head had written before is in that image.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use headwater_cluster::grooms::PACKS_PER_COMMAND;
use headwater_cluster::{Command, GroomReport, ReplicaSet};
use headwater_head::Image;
use headwater_head::census::{Marks, visit};
use headwater_model::{BlockId, Ts, limits};
use headwater_store::objects::StoreError;
use headwater_store::pack::groom::{self, CensusRun, Thresholds};
use tokio::sync::OwnedMutexGuard;

use super::leftovers::{known, listed};
use crate::commands::submit_as_child;
use crate::set::Set;
use crate::work::cut::CutImage;
use crate::work::head_store::{blocks, fault, manifest};
use crate::worker::Fault;

/// How long the head's owner may take to cut an image.
const PATIENCE: Duration = Duration::from_secs(600);

struct Account<'a>(&'a CensusRun);

impl Marks for Account<'_> {
    fn leaf(&mut self, id: BlockId) -> Result<(), StoreError> {
        self.0.mark(id)
    }

    fn node(&mut self, id: BlockId) -> Result<bool, StoreError> {
        self.0.enter(id)
    }
}

/// Does it, and says in `report` what was found and done until then, whatever happens. Any trouble ends it: what is not known
/// to be dead stays.
pub async fn groom(
    set: &Arc<Set>,
    record: &ReplicaSet,
    thresholds: Thresholds,
    report: &mut GroomReport,
) -> Result<(), Fault> {
    let store = set.repository.blocks();
    let census = store.begin_census();
    let census = census.ok_or_else(|| Fault::Retry("another census runs".to_owned()))?;
    // An image is held until its manifest is marked, so that it is not taken for a leftover.
    let head = cut(set).await?;
    mark(set, &census).await?;
    let _no_head = match head {
        HeadSeen::Cut(cut) => {
            // Nobody makes it known.
            set.settled(&cut.image);
            None
        }
        HeadSeen::None(guard) => Some(guard),
    };
    (report.packs, report.bytes_before) = store.at_rest().await?;
    report.bytes_after = report.bytes_before;
    let plan = groom::plan(&census.weigh().await?, thresholds);
    report.living_bytes = plan.living_bytes;
    report.dead_bytes = plan.dead_bytes;
    if report.dry_run {
        report.packs_removed = plan.packs.len() as u64;
        report.copied_bytes = plan.copied_bytes;
        report.bytes_after = report.bytes_before.saturating_sub(plan.freed_bytes);
        return Ok(());
    }
    for batch in groom::batches(&plan, limits::PACK_TARGET_BYTES as u64, PACKS_PER_COMMAND) {
        let packs: Vec<String> = batch.iter().map(|pack| pack.key.clone()).collect();
        let removed = packs.len() as u64;
        report.copied_bytes += census.condemn(&batch).await?;
        let (id, epoch) = (set.id.clone(), record.epoch);
        let condemn = Command::CondemnPacks {
            set: id.clone(),
            epoch,
            packs: packs.clone(),
        };
        submit_as_child(&set.ground.control, condemn).await?;
        census.remove(&batch).await?;
        let removal = Command::PacksRemoved { set: id, epoch, packs };
        submit_as_child(&set.ground.control, removal).await?;
        report.packs_removed += removed;
    }
    (_, report.bytes_after) = store.at_rest().await?;
    Ok(())
}

/// What a head holds beside all images.
enum HeadSeen {
    /// This is an image of it as it is now.
    Cut(CutImage),
    /// There is none, nor will there be while this is held: whoever opens one from a known image waits.
    None(OwnedMutexGuard<()>),
}

async fn cut(set: &Arc<Set>) -> Result<HeadSeen, Fault> {
    let (state, _) = set.record().map_err(|r| Fault::Retry(r.message))?;
    let deployment = state.deployments.get(set.id.deployment());
    if !deployment.is_some_and(|deployment| deployment.active) {
        // The one who had it may not have heard yet that the deployment was stopped.
        let none = set.head.clone().try_lock_owned();
        return none.map(HeadSeen::None).map_err(|_| {
            Fault::Retry(
                "the deployment was stopped, and its head is still being put down; groom again later".to_owned(),
            )
        });
    }
    let image = set.cuts.ask(Ts::ZERO);
    set.head_waker.wake();
    match tokio::time::timeout(PATIENCE, image).await {
        Ok(Ok(cut)) => Ok(HeadSeen::Cut(cut)),
        Ok(Err(_)) | Err(_) => Err(Fault::Retry(
            "the head did not say what it holds; groom again later".to_owned(),
        )),
    }
}

/// Marks everything that images refer to.
async fn mark(set: &Arc<Set>, census: &CensusRun) -> Result<(), Fault> {
    // First what lies there, then what is known: an image that becomes known in between is in both, or is younger than the
    // census.
    let mut images: BTreeSet<_> = listed(set).await?;
    let (state, _) = set.record().map_err(|r| Fault::Retry(r.message))?;
    images.extend(known(&state, &set.id));
    let blocks = blocks(set);
    for (incarnation, name) in images {
        let image = Image::decode(&manifest(set, incarnation, &name).await?).map_err(fault)?;
        visit(&blocks, &image, &mut Account(census)).await.map_err(fault)?;
    }
    Ok(())
}
