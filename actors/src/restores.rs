//! Restores: planned from the control state and the stores, described to users, carried out by [`crate::work::restore`]
//! or streamed as an archive.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use headwater_cluster::{
    Command, ImageRef, ReplicaSet, Response, Restore, RestoreState as State, Snapshot, State as ControlState,
    checkpoints, keeping,
};
use headwater_head::Image;
use headwater_model::{Incarnation, Optime, ReplicaSetId, SnapshotId, Ts, limits};
use headwater_protocol::admin::{
    At, Destination, PlannedNamespace, RestorePlanView, RestoreRequest, RestoreState, RestoreView,
};
use headwater_protocol::agent::{Refusal, RefusalKind};
use headwater_protocol::redact;
use headwater_restore::materialize::{AtT, MaterializeFault, Prepared};
use headwater_restore::naming::{Chosen, Selection, choose};
use headwater_restore::plan::{Base, NotRestorable, Plan, Proven, Reason, Wanted};
use headwater_restore::source::{Source, views};
use headwater_store::blocks::Blocks;
use headwater_store::objects::StoreError;
use headwater_store::oplog_store::OplogStore;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::archive::{ArchiveStream, ArchiveWriter, NobodyReads, pipe};
use crate::commands::submit;
use crate::set::Set;
use crate::times::rfc3339;
use crate::trouble::refusal;
use crate::work::head_store::blocks;

/// Pieces of an archive on their way to a reader.
const ARCHIVE_CHUNKS: usize = 4;

/// What a restore in the control state is made of: the request with its instant fixed, and what users were shown.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Kept {
    /// The request; `at` is a position, or a snapshot.
    pub request: RestoreRequest,
    /// What users see of the plan.
    pub view: RestorePlanView,
}

/// A plan with its choice of collections by the base image.
pub struct Planned {
    /// Which image and which oplog.
    pub plan: Plan,
    /// What users see of it.
    pub view: RestorePlanView,
}

/// The images a restore may begin with, over all incarnations, oldest first.
pub fn bases(state: &ControlState, set: &ReplicaSetId, record: &ReplicaSet) -> Vec<Base> {
    let snapshots = state
        .snapshots
        .iter()
        .filter(|((id, snapshot), _)| id == set && state.damage_of(id, snapshot).is_none());
    let mut bases: Vec<Base> = snapshots
        .filter_map(|((_, id), snapshot)| Some(base_of(id, snapshot, snapshot.image.as_ref()?)))
        .chain(
            record
                .waypoint
                .iter()
                .filter(|_| record.phase == headwater_model::Phase::Complete)
                .filter(|_| state.damage_of_head(set).is_none())
                .map(|image| base(None, image)),
        )
        .collect();
    bases.sort_by_key(|base| (base.incarnation, base.at));
    bases
}

/// The image of a snapshot. What commits at the cut of a checkpoint is in it, so that it shows nothing before the cut.
fn base_of(id: &SnapshotId, snapshot: &Snapshot, image: &ImageRef) -> Base {
    let base = base(Some(id.clone()), image);
    let at = snapshot
        .checkpoint
        .map_or(base.at, |cut| Optime::new(cut, base.at.term));
    Base { at, ..base }
}

fn base(snapshot: Option<SnapshotId>, image: &ImageRef) -> Base {
    Base {
        name: image.name.clone(),
        snapshot,
        incarnation: image.incarnation,
        at: image.at,
        documents: image.documents,
        bytes: image.logical_bytes,
    }
}

/// What of the oplog of one incarnation is stored without a hole and not given up; the command that gives up comes before
/// the deletion. Nothing of an oplog that cannot be opened for damage: snapshots can be restored without it.
pub async fn proven(set: &Set, state: &ControlState, incarnation: Incarnation) -> Result<Option<Proven>, Refusal> {
    let stores = match set.stores(incarnation).await {
        Err(StoreError::Damaged { key, detail }) => {
            tracing::warn!(set = %set.id, key, detail, "an oplog is damaged; nothing of it is offered");
            return Ok(None);
        }
        stores => stores.map_err(refusal)?,
    };
    let floor = keeping::oplog_floor(state, &set.id, incarnation).unwrap_or(Optime::ZERO);
    let range = stores.oplog.range().filter(|(_, tip)| floor <= *tip);
    Ok(range.map(|(start, tip)| Proven {
        incarnation,
        start: start.max(floor),
        tip,
    }))
}

/// The images and proven ranges of a replica set, over all incarnations.
pub async fn inventory(set: &Set) -> Result<(Vec<Base>, Vec<Proven>, Incarnation), Refusal> {
    let (state, record) = set.record()?;
    let mut ranges = Vec::new();
    for incarnation in (1..=record.incarnation.0).map(Incarnation) {
        let whole = proven(set, &state, incarnation).await?;
        ranges.extend(undamaged(&state, &set.id, whole));
    }
    Ok((bases(&state, &set.id, &record), ranges, record.incarnation))
}

/// The image that a plan begins with, as the control state names it.
fn image_ref(set: &Set, base: &Base) -> Result<Option<ImageRef>, Refusal> {
    let (state, record) = set.record()?;
    let snapshots = state.snapshots.iter().filter(|((id, _), _)| *id == set.id);
    let images = snapshots.filter_map(|(_, snapshot)| snapshot.image.as_ref());
    let mut images = images.chain(record.waypoint.as_ref());
    let found = images.find(|image| (image.incarnation, &image.name) == (base.incarnation, &base.name));
    Ok(found.cloned())
}

/// What of a proven range is not known to be damaged.
pub fn undamaged(state: &ControlState, set: &ReplicaSetId, whole: Option<Proven>) -> Vec<Proven> {
    whole.map_or_else(Vec::new, |whole| without_damage(whole, &lost_oplog(state, set)))
}

/// The stretches of the oplog that are known to be damaged.
fn lost_oplog(state: &ControlState, set: &ReplicaSetId) -> Vec<(Incarnation, Optime, Optime)> {
    let known = state
        .integrity_of(set)
        .into_iter()
        .flat_map(|known| known.damage.values());
    known.filter_map(|damage| damage.oplog).collect()
}

/// What is left of a range: everything before the first entry that is lost, between two, and after the last.
fn without_damage(whole: Proven, lost: &[(Incarnation, Optime, Optime)]) -> Vec<Proven> {
    let mut lost: Vec<_> = lost
        .iter()
        .filter(|(incarnation, _, until)| *incarnation == whole.incarnation && *until > whole.start)
        .collect();
    lost.sort_by_key(|(_, after, _)| *after);
    let (mut left, mut start) = (Vec::new(), whole.start);
    for (_, after, until) in lost {
        if *after >= start {
            left.push(Proven {
                start,
                tip: *after,
                ..whole
            });
        }
        start = start.max(*until);
    }
    if start <= whole.tip {
        left.push(Proven { start, ..whole });
    }
    left
}

/// A snapshot that is known to be damaged is refused with words of its own, and with what can be restored instead.
fn refuse_damaged(
    set: &Set,
    request: &RestoreRequest,
    found: &(Vec<Base>, Vec<Proven>, Incarnation),
) -> Result<(), Refusal> {
    let At::Snapshot(id) = &request.at else { return Ok(()) };
    let (state, _) = set.record()?;
    let Some((object, damage)) = state.damage_of(&set.id, id) else {
        return Ok(());
    };
    let snapshot = state.snapshots.get(&(set.id.clone(), id.clone()));
    let at = snapshot
        .and_then(|snapshot| snapshot.image.as_ref())
        .map_or(Ts::MAX, |image| image.at.ts);
    let (bases, ranges, current) = found;
    let instead = match headwater_restore::plan::plan(bases, ranges, *current, &Wanted::Position(at)) {
        Ok(_) => format!("the same instant can be restored from elsewhere: --at {at}"),
        Err(refused) => nearest(refused.before, refused.after),
    };
    let message = format!("snapshot {id} is damaged ({object}: {}); {instead}", damage.detail);
    Err(Refusal::new(RefusalKind::NotRestorable, message))
}

/// An idle source looks every ten seconds whether it should write an empty entry, and leaves it out when something was
/// written since it looked last: twice that, and a little more.
const NEXT_ENTRY: Duration = Duration::from_secs(25);
/// An agent that was heard within this time streams.
const AGENT_STREAMS_MS: i64 = 5_000;

/// A second is over once a later entry is stored. Waits for that entry where it is on its way: the second has begun by
/// our clock, and an agent streams.
async fn await_end_of_second(set: &Set, second: u32) -> Result<(), Refusal> {
    let deadline = Instant::now() + NEXT_ENTRY;
    loop {
        let (_, record) = set.record()?;
        let tip = set.tip(record.incarnation).await?;
        let is_over = tip.is_some_and(|tip| tip.ts.seconds() > second);
        let now_ms = set.ground.host.clock.now_ms();
        let word = set.board.word();
        let streams = word.fault.is_none() && now_ms - word.heard_ms < AGENT_STREAMS_MS;
        let has_begun = i64::from(second) <= now_ms / 1000;
        if is_over || !streams || !has_begun || Instant::now() > deadline {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Plans a restore.
pub async fn plan(set: &Set, request: &RestoreRequest) -> Result<Planned, Refusal> {
    // What can be restored grows while the end of the second is waited for.
    if let At::WallClock(ms) = &request.at
        && let Some(second) = Wanted::second(*ms)
    {
        await_end_of_second(set, second).await?;
    }
    let found = inventory(set).await?;
    refuse_damaged(set, request, &found)?;
    let (bases, ranges, current) = found;
    let wanted = match &request.at {
        At::Latest => Wanted::Latest,
        At::Snapshot(id) => Wanted::Snapshot(id.clone()),
        At::Position(position) => Wanted::Position(Ts::from(*position)),
        At::WallClock(ms) => {
            let mut found = Vec::new();
            if let Some(second) = Wanted::second(*ms) {
                for range in &ranges {
                    let stores = set.stores(range.incarnation).await.map_err(refusal)?;
                    let last = stores.oplog.find_wall(second).await.map_err(refusal)?;
                    found.extend(last.map(|optime| (range.incarnation, optime)));
                }
            }
            Wanted::WallClock { ms: *ms, found }
        }
    };
    let plan = headwater_restore::plan::plan(&bases, &ranges, current, &wanted);
    let plan = plan.map_err(|refused| told_of_damage(set, not_restorable(refused)))?;
    planned(set, request, plan).await
}

/// Plans a restore that is in the control state: it begins with the image that is kept for it.
pub async fn plan_kept(set: &Set, request: &RestoreRequest, restore: &Restore) -> Result<Planned, Refusal> {
    let Some(image) = &restore.uses else {
        return plan(set, request).await;
    };
    let (state, _) = set.record()?;
    let mut snapshots = state.snapshots.iter().filter(|((of, _), _)| *of == set.id);
    // A checkpoint's image is one of its cut: to make the same of the oplog, more of that would be needed.
    let snapshot = snapshots.find(|(_, snapshot)| snapshot.image.as_ref() == Some(image));
    let base = match snapshot {
        Some(((_, id), snapshot)) => base_of(id, snapshot, image),
        None => base(None, image),
    };
    let until = match &request.at {
        At::Position(position) => Ts::from(*position),
        At::Snapshot(_) => base.at.ts,
        _ => return plan(set, request).await,
    };
    planned(set, request, Plan { base, until }).await
}

async fn planned(set: &Set, request: &RestoreRequest, plan: Plan) -> Result<Planned, Refusal> {
    let selection = selection(request)?;
    // The image as it lies: where transactions are open in it nothing is decided, so that nothing has to be written.
    let image = image(set, &plan.base).await?;
    let until = image.applied.ts;
    let (own, prepared) = (blocks(set), Prepared::AtEntry);
    let source = headwater_restore::materialize::materialize(own.clone(), own, image, None, until, prepared, |_| {});
    let source = source.await.map_err(unmade)?;
    let chosen = chosen(&source, &selection).await?;
    let (oplog_slices, oplog_bytes) = match plan.is_whole_image() {
        true => (0, 0),
        false => {
            let stores = set.stores(plan.incarnation()).await.map_err(refusal)?;
            let until = Optime::new(plan.until, i64::MAX);
            stores.oplog.slices_between(plan.base.at, until)
        }
    };
    let view = RestorePlanView {
        replica_set: set.id.clone(),
        incarnation: plan.incarnation(),
        at: plan.until.into(),
        base: plan
            .base
            .snapshot
            .as_ref()
            .map_or_else(|| "waypoint".to_owned(), |id| id.to_string()),
        base_at: plan.base.at.ts.into(),
        oplog_slices,
        oplog_bytes,
        namespaces: chosen.items.iter().map(planned_namespace).collect(),
        namespaces_left_out: 0,
        bytes_left_out: 0,
        to: match &request.to {
            Destination::Uri(uri) => redact::uri(uri),
            Destination::Archive => "archive".to_owned(),
        },
    };
    Ok(Planned { plan, view })
}

fn planned_namespace(item: &headwater_restore::naming::Item) -> PlannedNamespace {
    PlannedNamespace {
        from: item.from.to_string(),
        to: item.to.to_string(),
        documents: item.data.as_ref().map_or(0, |data| data.documents),
        bytes: item.data.as_ref().map_or(0, |data| data.bytes),
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
    // A snapshot of one member whose oplog is not there any more shows what is known.
    if made.undecided() > 0 && (oplog.is_some() || !plan.is_whole_image()) {
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

/// Whether an image is that of a checkpoint.
fn is_of_checkpoint(state: &ControlState, set: &ReplicaSetId, base: &Base) -> bool {
    let key = base.snapshot.clone().map(|id| (set.clone(), id));
    let snapshot = key.and_then(|key| state.snapshots.get(&key));
    snapshot.is_some_and(|snapshot| snapshot.checkpoint.is_some())
}

fn unmade(fault: MaterializeFault) -> Refusal {
    match fault {
        MaterializeFault::Oplog(e) => refusal(e),
        other => Refusal::new(RefusalKind::Internal, other.to_string()),
    }
}

/// The oplog after an image with open transactions, where it is stored: it tells which of them belong to the image's instant.
async fn oplog_to_decide(set: &Set, image: &Image) -> Result<Option<Arc<OplogStore>>, Refusal> {
    if image.open_transactions.is_none() {
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

/// Where damage is known, what cannot be restored may be due to it.
fn told_of_damage(set: &Set, mut refusal: Refusal) -> Refusal {
    let Ok((state, _)) = set.record() else { return refusal };
    let damaged = state.integrity_of(&set.id).map_or(0, |known| known.damage.len());
    if damaged > 0 {
        let name = set.id.deployment();
        refusal.message +=
            &format!("; {damaged} objects of the backup are damaged, see `headwater check status {name}`");
    }
    refusal
}

fn not_restorable(e: NotRestorable) -> Refusal {
    Refusal::new(RefusalKind::NotRestorable, in_words(&e))
}

/// Why an instant cannot be restored and which ones near it can, with times as users read them.
fn in_words(refused: &NotRestorable) -> String {
    let reason = match &refused.reason {
        Reason::OutsideClock(ms) => format!("{} lies outside of what can be restored", rfc3339(*ms)),
        Reason::SecondNotOver(ms) => format!(
            "the oplog stored does not reach the end of {}: an idle source writes an entry every ten seconds, ask again \
             after that or restore the latest instant",
            rfc3339(*ms)
        ),
        other => other.to_string(),
    };
    format!("{reason}; {}", nearest(refused.before, refused.after))
}

fn nearest(before: Option<Ts>, after: Option<Ts>) -> String {
    let shown = |ts: Ts| format!("{} ({ts})", rfc3339(i64::from(ts.seconds()) * 1000));
    match (before, after) {
        (None, None) => "nothing can be restored yet: wait for the first snapshot".to_owned(),
        (Some(before), None) => format!("the nearest restorable instant is {}", shown(before)),
        (None, Some(after)) => format!("the first restorable instant is {}", shown(after)),
        (Some(before), Some(after)) => {
            let (before, after) = (shown(before), shown(after));
            format!("the nearest restorable instants are {before} and {after}")
        }
    }
}

/// How often a restore is planned anew because its image was given up before it was in the control state.
const PLANS: usize = 5;

/// Puts a restore into the control state, with its instant fixed.
pub async fn create(set: &Set, request: RestoreRequest) -> Result<RestoreView, Refusal> {
    for _ in 1..PLANS {
        match create_once(set, request.clone()).await {
            Err(refusal) if refusal.kind == RefusalKind::Conflict => tracing::debug!(%refusal.message, "planned anew"),
            ended => return ended,
        }
    }
    create_once(set, request).await
}

async fn create_once(set: &Set, mut request: RestoreRequest) -> Result<RestoreView, Refusal> {
    let planned = plan(set, &request).await?;
    let uses = image_ref(set, &planned.plan.base)?;
    // A checkpoint's image shows the cut, and needs no oplog up to there.
    let until = match (&uses, planned.plan.is_whole_image()) {
        (Some(image), true) => image.at.ts,
        _ => planned.plan.until,
    };
    if !matches!(request.at, At::Snapshot(_)) {
        request.at = At::Position(planned.plan.until.into());
    }
    let kept = Kept {
        request,
        view: shortened(planned.view, VIEW_KEPT_BYTES),
    };
    let request_json = serde_json::to_string(&kept).map_err(|e| Refusal::new(RefusalKind::Invalid, e.to_string()))?;
    let mut token = [0; 8];
    set.ground.host.entropy.fill(&mut token);
    let command = Command::CreateRestore {
        token: u64::from_le_bytes(token),
        set: set.id.clone(),
        request_json,
        created_ms: set.ground.host.clock.now_ms(),
        uses,
        until,
    };
    let Response::RestoreCreated { id } = submit(&set.ground.control, command).await? else {
        return Err(Refusal::new(
            RefusalKind::Internal,
            "the restore was not given a number",
        ));
    };
    set.restore_waker.wake();
    let state = set.ground.control.state();
    let restore = state.restores.get(&id);
    let restore = restore.ok_or_else(|| Refusal::new(RefusalKind::NotFound, format!("there is no restore {id}")))?;
    view(id, restore)
}

/// How many bytes of names a kept view may list.
const VIEW_KEPT_BYTES: usize = limits::RESTORE_TEXT_MAX_BYTES / 2;

/// The view with as many namespaces as `budget` bytes hold; the others are summed up.
fn shortened(mut view: RestorePlanView, budget: usize) -> RestorePlanView {
    const NUMBERS_AND_FIELDS: usize = 100;
    let mut used = 0;
    let fits = view.namespaces.iter().take_while(|n| {
        used += n.from.len() + n.to.len() + NUMBERS_AND_FIELDS;
        used <= budget
    });
    let left_out = view.namespaces.split_off(fits.count());
    view.namespaces_left_out += left_out.len() as u64;
    view.bytes_left_out += left_out.iter().map(|n| n.bytes).sum::<u64>();
    view
}

/// A restore's kept request.
pub fn kept(id: u64, restore: &Restore) -> Result<Kept, Refusal> {
    serde_json::from_str(&restore.request_json)
        .map_err(|e| Refusal::new(RefusalKind::Internal, format!("restore {id} cannot be read: {e}")))
}

/// A restore as users see it.
pub fn view(id: u64, restore: &Restore) -> Result<RestoreView, Refusal> {
    let kept = kept(id, restore)?;
    let listed: u64 = kept.view.namespaces.iter().map(|n| n.bytes).sum();
    let expected = listed + kept.view.bytes_left_out;
    Ok(RestoreView {
        id,
        plan: kept.view,
        state: match restore.state {
            State::Running => RestoreState::Running,
            State::Finished => RestoreState::Finished,
            State::Failed => RestoreState::Failed,
        },
        documents_done: restore.done_documents,
        bytes_done: restore.done_bytes,
        bytes_total: restore.total_bytes.max(expected),
        step: restore.step.clone(),
        error: restore.error.clone(),
        created: rfc3339(restore.created_ms),
    })
}

/// Streams the archive of a restore. The stream is cut with a refusal if it cannot be completed.
pub async fn archive(set: &Arc<Set>, id: u64, restore: &Restore) -> Result<ArchiveStream, Refusal> {
    let kept = kept(id, restore)?;
    if kept.request.to != Destination::Archive {
        return Err(Refusal::new(
            RefusalKind::Conflict,
            format!("restore {id} goes to a server, not to an archive"),
        ));
    }
    let planned = plan_kept(set, &kept.request, restore).await?;
    let selection = selection(&kept.request)?;
    let (writer, stream) = pipe(ARCHIVE_CHUNKS);
    let set = set.clone();
    set.ground.host.clone().spawn(async move {
        let outcome = match write_archive(&set, id, &planned.plan, &selection, &writer).await {
            Ok(()) => writer.finish().await.map_err(nobody_reads),
            Err(refused) => {
                writer.fail(refused.clone()).await;
                Err(refused)
            }
        };
        let ended = match outcome {
            Ok(()) => progress(&set, id, State::Finished, "finished", None).await,
            Err(refused) => progress(&set, id, State::Failed, "documents", Some(refused.message)).await,
        };
        if let Err(refused) = ended {
            tracing::warn!(restore = id, error = %refused.message, "the end of an archive could not be noted");
        }
        crate::set::remove_scratch(&set.ground, id).await;
    });
    Ok(stream)
}

async fn write_archive(
    set: &Set,
    id: u64,
    plan: &Plan,
    selection: &Selection,
    out: &ArchiveWriter,
) -> Result<(), Refusal> {
    let scratch = crate::set::scratch(set, id).await.map_err(refusal)?;
    let source = materialize(set, plan, scratch).await?;
    let chosen = chosen(&source, selection).await?;
    let version = source.source_version().to_owned();
    let mut chunks = std::pin::pin!(headwater_restore::dump::archive(Arc::new(source), chosen, &version));
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|e| Refusal::new(RefusalKind::Internal, e.to_string()))?;
        out.write(chunk).await.map_err(nobody_reads)?;
    }
    Ok(())
}

fn nobody_reads(_: NobodyReads) -> Refusal {
    Refusal::new(RefusalKind::Conflict, "the reader went away before the end")
}

async fn progress(set: &Set, id: u64, state: State, step: &str, error: Option<String>) -> Result<(), Refusal> {
    let (control, record) = set.record()?;
    let Some(restore) = control.restores.get(&id) else {
        return Ok(());
    };
    let progress = headwater_cluster::command::RestoreProgress {
        state,
        step: step.to_owned(),
        done_documents: restore.done_documents,
        done_bytes: restore.done_bytes,
        total_bytes: restore.total_bytes,
        error,
        cursor_json: String::new(),
    };
    let command = Command::UpdateRestore {
        id,
        epoch: record.epoch,
        progress,
    };
    submit(&set.ground.control, command).await.map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_of_thousands_of_namespaces_is_kept_short() {
        let namespaces = (0..10_000).map(|n| PlannedNamespace {
            from: format!("shop.c{n}"),
            to: format!("shop.c{n}"),
            documents: 1,
            bytes: 7,
        });
        let view = RestorePlanView {
            replica_set: "a/b".parse().unwrap(),
            incarnation: Incarnation(1),
            at: Ts::ZERO.into(),
            base: String::new(),
            base_at: Ts::ZERO.into(),
            oplog_slices: 0,
            oplog_bytes: 0,
            namespaces: namespaces.collect(),
            namespaces_left_out: 0,
            bytes_left_out: 0,
            to: String::new(),
        };
        let short = shortened(view, VIEW_KEPT_BYTES);
        assert_eq!(short.namespaces.len() as u64 + short.namespaces_left_out, 10_000);
        assert_eq!(short.bytes_left_out, 7 * short.namespaces_left_out);
        let text = serde_json::to_string(&short).unwrap();
        assert!(
            (5_000..limits::RESTORE_TEXT_MAX_BYTES).contains(&text.len()),
            "{}",
            text.len()
        );
        let whole = shortened(short.clone(), usize::MAX);
        assert_eq!(whole.namespaces.len(), short.namespaces.len());
    }

    #[test]
    fn damage_cuts_a_range_in_two() {
        let at = |n: u64| Optime::new(Ts(n), 1);
        let range = |start, tip| Proven {
            incarnation: Incarnation(1),
            start: at(start),
            tip: at(tip),
        };
        let lost = |after, until| (Incarnation(1), at(after), at(until));
        for (damage, left) in [
            (vec![], vec![range(10, 50)]),
            (vec![lost(20, 30)], vec![range(10, 20), range(30, 50)]),
            (
                vec![lost(30, 40), lost(15, 20)],
                vec![range(10, 15), range(20, 30), range(40, 50)],
            ),
            (vec![lost(20, 30), lost(25, 35)], vec![range(10, 20), range(35, 50)]),
            (vec![lost(5, 15)], vec![range(15, 50)]),
            (vec![lost(10, 50)], vec![range(10, 10), range(50, 50)]),
            (vec![lost(1, 5), (Incarnation(2), at(20), at(30))], vec![range(10, 50)]),
        ] {
            assert_eq!(without_damage(range(10, 50), &damage), left, "{damage:?}");
        }
    }

    #[test]
    fn a_refused_instant_is_told_in_times_with_the_nearest_ones() {
        let refused = |reason, before, after| in_words(&NotRestorable { reason, before, after });
        let (before, after) = (Some(Ts::new(1_795_343_591, 42)), Some(Ts::new(1_795_343_600, 1)));
        assert_eq!(
            refused(Reason::OutsideClock(1_795_343_595_500), before, after),
            "2026-11-22T10:33:15Z lies outside of what can be restored; the nearest restorable instants are \
             2026-11-22T10:33:11Z (1795343591,42) and 2026-11-22T10:33:20Z (1795343600,1)"
        );
        let not_over = refused(Reason::SecondNotOver(1_795_343_591_000), before, None);
        assert!(
            not_over.contains("end of 2026-11-22T10:33:11Z") && not_over.contains("latest"),
            "{not_over}"
        );
    }
}
