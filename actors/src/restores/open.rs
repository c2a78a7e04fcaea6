//! Opens what a plan names.

use std::sync::Arc;

use headwater_cluster::{Restore, checkpoints};
use headwater_head::Image;
use headwater_protocol::admin::RestoreRequest;
use headwater_protocol::agent::{Refusal, RefusalKind};
use headwater_restore::materialize::{AtT, MaterializeFault, Prepared};
use headwater_restore::naming::{Chosen, Selection, choose};
use headwater_restore::plan::{Base, Plan};
use headwater_restore::source::{Source, views};
use headwater_store::blocks::Blocks;
use headwater_store::oplog_store::OplogStore;

use super::plan::plan_kept_at;
use super::{kept, whole};
use crate::set::Set;
use crate::trouble::refusal;
use crate::work::head_store::blocks;

/// What a restore in the control state reads, and the version of the servers it was read from.
pub async fn source_of(set: &Set, id: u64, restore: &Restore) -> Result<(Arc<dyn Source>, String), Refusal> {
    let kept = kept(id, restore)?;
    let scratch = crate::set::scratch(set, id).await.map_err(refusal)?;
    if kept.whole {
        return Ok(whole::open(set, &kept.request.at, restore, scratch).await?.merged());
    }
    let plan = plan_kept_at(set, &kept.request.at, restore).await?;
    let source = materialize(set, &plan, scratch).await?;
    let version = source.source_version().to_owned();
    Ok((Arc::new(source), version))
}

/// An image as it lies: where transactions are open in it nothing is decided, so that nothing has to be written.
pub(super) async fn as_it_lies(set: &Set, base: &Base) -> Result<AtT, Refusal> {
    let image = image(set, base).await?;
    let until = image.applied.ts;
    let (own, prepared) = (blocks(set), Prepared::AtEntry);
    let source = headwater_restore::materialize::materialize(own.clone(), own, image, None, until, prepared, |_| {});
    source.await.map_err(unmade)
}

fn unmade(fault: MaterializeFault) -> Refusal {
    match fault {
        MaterializeFault::Oplog(e) => refusal(e),
        other => Refusal::new(RefusalKind::Internal, other.to_string()),
    }
}

/// Opens the base image and applies the oplog up to the plan's instant. `scratch` takes what does not fit in memory.
pub async fn materialize(set: &Set, plan: &Plan, scratch: Arc<dyn Blocks>) -> Result<AtT, Refusal> {
    let image = image(set, &plan.base).await?;
    let prepared = match checkpoints::is_cut_together(&set.ground.control.state(), &set.id) {
        true => Prepared::AtCommitTime,
        false => Prepared::AtEntry,
    };
    // An image of a checkpoint shows a cluster time after its last entry.
    let (oplog, until) = match plan.is_whole_image() {
        true if prepared == Prepared::AtEntry => (None, image.applied.ts),
        true => (oplog_to_decide(set, &image).await?, image.applied.ts),
        false => {
            let stores = set.stores(plan.incarnation()).await.map_err(refusal)?;
            (Some(stores.oplog), plan.until)
        }
    };
    let oplog = oplog.as_ref();
    let made = headwater_restore::materialize::materialize(blocks(set), scratch, image, oplog, until, prepared, |_| {});
    let made = made.await.map_err(unmade)?;
    if made.undecided() > 0 && !plan.is_whole_image() {
        let message = format!(
            "{} transactions over several shards were prepared by {} and are not decided in the oplog stored so far: choose an \
             earlier instant, or ask again in a moment",
            made.undecided(),
            plan.until
        );
        return Err(Refusal::new(RefusalKind::NotRestorable, message));
    }
    Ok(made)
}

/// The oplog after an image with open transactions, where it is stored: it tells which of them belong to the image's instant.
async fn oplog_to_decide(set: &Set, image: &Image) -> Result<Option<Arc<OplogStore>>, Refusal> {
    if image.open_transactions.is_none() {
        return Ok(None);
    }
    let oplog = set.stores(image.incarnation).await.map_err(refusal)?.oplog;
    let covers = oplog
        .range()
        .is_some_and(|(start, tip)| start <= image.applied && image.applied <= tip);
    Ok(covers.then_some(oplog))
}

async fn image(set: &Set, base: &Base) -> Result<Image, Refusal> {
    let bytes = crate::work::head_store::manifest(set, base.incarnation, &base.name)
        .await
        .map_err(refusal)?;
    Image::decode(&bytes).map_err(|e| Refusal::new(RefusalKind::Internal, e.to_string()))
}

/// What of the source is restored, under which names.
pub async fn chosen(source: &dyn Source, selection: &Selection) -> Result<Chosen, Refusal> {
    let internal = |e: headwater_restore::source::SourceFault| Refusal::new(RefusalKind::Internal, e.to_string());
    let views = views(source).await.map_err(internal)?;
    choose(source.collections(), views, selection).map_err(|e| Refusal::new(RefusalKind::Invalid, e.to_string()))
}

/// The request's choice of names.
pub fn selection(request: &RestoreRequest) -> Result<Selection, Refusal> {
    Selection::new(&request.include, &request.rename, request.with_users)
        .map_err(|e| Refusal::new(RefusalKind::Invalid, e.to_string()))
}
