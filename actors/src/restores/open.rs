//! Opens what a plan names.

use std::sync::Arc;

use headwater_cluster::{Restore, State, checkpoints, keeping};
use headwater_head::{HeadError, Image};
use headwater_model::ReplicaSetId;
use headwater_protocol::admin::RestoreRequest;
use headwater_protocol::agent::{Refusal, RefusalKind};
use headwater_restore::materialize::{AtT, MaterializeFault, Prepared};
use headwater_restore::naming::{Chosen, Selection, choose};
use headwater_restore::plan::{Base, Plan};
use headwater_restore::source::{Source, SourceFault, views};
use headwater_store::blocks::Blocks;
use headwater_store::objects::StoreError;
use headwater_store::oplog_store::OplogStore;

use super::plan::plan_kept_at;
use super::words::refuse_undecided;
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

/// Whether an image is that of a checkpoint.
fn is_of_checkpoint(state: &State, set: &ReplicaSetId, base: &Base) -> bool {
    let key = base.snapshot.clone().map(|id| (set.clone(), id));
    let snapshot = key.and_then(|key| state.snapshots.get(&key));
    snapshot.is_some_and(|snapshot| snapshot.checkpoint.is_some())
}

fn unmade(fault: MaterializeFault) -> Refusal {
    match fault {
        MaterializeFault::Oplog(e) | MaterializeFault::Head(HeadError::Store(e)) => refusal(e),
        other => Refusal::new(RefusalKind::Internal, other.to_string()),
    }
}

/// Opens the base image and applies the oplog up to the plan's instant. `scratch` takes what does not fit in memory.
pub async fn materialize(set: &Set, plan: &Plan, scratch: Arc<dyn Blocks>) -> Result<AtT, Refusal> {
    let image = image(set, &plan.base).await?;
    let state = set.ground.control.state();
    // Of a checkpoint's image everything is decided.
    let is_decided = plan.is_whole_image() && is_of_checkpoint(&state, &set.id, &plan.base);
    let prepared = match checkpoints::is_cut_together(&state, &set.id) && !is_decided {
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
    // A snapshot of one member whose oplog is not there any more shows what is known; an instant is a promise.
    match made.undecided() {
        Some(undecided) if oplog.is_some() || !plan.as_it_is => Err(refuse_undecided(set, plan, undecided).await?),
        _ => Ok(made),
    }
}

/// The oplog after an image with open transactions, where it is stored: it tells which of them belong to the image's instant.
async fn oplog_to_decide(set: &Set, image: &Image) -> Result<Option<Arc<OplogStore>>, Refusal> {
    let state = set.ground.control.state();
    if image.open_transactions.is_none() || keeping::is_given_up(&state, &set.id, image.incarnation) {
        return Ok(None);
    }
    let oplog = match set.stores(image.incarnation).await {
        Ok(stores) => stores.oplog,
        Err(StoreError::Damaged { .. }) => return Ok(None),
        Err(e) => return Err(refusal(e)),
    };
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

fn unread(fault: SourceFault) -> Refusal {
    let kind = match fault {
        SourceFault::Away(_) => RefusalKind::Unavailable,
        _ => RefusalKind::Internal,
    };
    Refusal::new(kind, fault.to_string())
}

/// What of the source is restored, under which names.
pub async fn chosen(source: &dyn Source, selection: &Selection) -> Result<Chosen, Refusal> {
    let views = views(source).await.map_err(unread)?;
    choose(source.collections(), views, selection).map_err(|e| Refusal::new(RefusalKind::Invalid, e.to_string()))
}

/// The request's choice of names.
pub fn selection(request: &RestoreRequest) -> Result<Selection, Refusal> {
    Selection::new(&request.include, &request.rename, request.with_users)
        .map_err(|e| Refusal::new(RefusalKind::Invalid, e.to_string()))
}
