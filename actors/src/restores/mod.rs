//! Restores: planned from the control state and the stores, described to users, carried out by [`crate::work::restore`]
//! or streamed as an archive.
//!
//! * [`mod@inventory`]: what there is to restore from.
//! * [`mod@plan`]: one replica set at an instant; [`mod@whole`]: a sharded cluster at one cluster time.
//! * [`mod@open`]: what a plan names, as a source of documents; [`mod@archive`]: the source as a stream.
//! * [`mod@words`]: why not, as users read it.

mod archive;
mod inventory;
mod open;
mod plan;
mod whole;
mod words;

use std::collections::BTreeMap;

use headwater_cluster::command::Use;
use headwater_cluster::{Command, Response, Restore, RestoreState as State};
use headwater_model::{ReplicaSetId, limits};
use headwater_protocol::admin::{At, RestoreOrder, RestorePlanView, RestoreRequest, RestoreState, RestoreView};
use headwater_protocol::agent::{Refusal, RefusalKind};
use serde::{Deserialize, Serialize};

use crate::commands::submit;
use crate::set::Set;
use crate::times::rfc3339;

pub use archive::archive;
pub use inventory::{bases, inventory, proven, undamaged};
pub use open::{chosen, materialize, selection, source_of};
pub use plan::plan;
pub use whole::{Members, Names, open as open_whole, plan as plan_whole};

use inventory::image_ref;
use plan::oplog_until;

/// What a restore in the control state is made of: the request with its instant fixed, and what users were shown.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Kept {
    /// The request; `at` is a position, or a snapshot.
    pub request: RestoreRequest,
    /// What users see of the plan.
    pub view: RestorePlanView,
    /// Whether it is of a whole sharded cluster.
    #[serde(default)]
    pub whole: bool,
}

impl Kept {
    fn new(request: RestoreRequest, view: RestorePlanView, whole: bool) -> Self {
        let view = shortened(view, VIEW_KEPT_BYTES);
        Kept { request, view, whole }
    }
}

/// How often a restore is planned anew because its image was given up before it was in the control state.
const PLANS: usize = 5;

/// Puts a restore of one replica set into the control state, with its instant fixed; ordered again, it is the one there is.
pub async fn create(set: &Set, order: RestoreOrder) -> Result<RestoreView, Refusal> {
    let token = match ordered_before(set, &order)? {
        Ok(view) => return Ok(view),
        Err(token) => token,
    };
    anew(async || {
        let planned = plan(set, &order.request).await?;
        let image = image_ref(set, &planned.plan.base)?;
        let until = oplog_until(&planned.plan, Some(&image));
        let uses = BTreeMap::from([(set.id.clone(), Use { image, until })]);
        let mut request = order.request.clone();
        if !matches!(request.at, At::Snapshot(_)) {
            request.at = At::Position(planned.plan.until.into());
        }
        let kept = Kept::new(request, planned.view, false);
        store(set, token, kept, uses).await
    })
    .await
}

/// The same of a whole sharded cluster, for which the config servers' replica set stands.
pub async fn create_whole(members: &Members, order: RestoreOrder) -> Result<RestoreView, Refusal> {
    let token = match ordered_before(&members.config, &order)? {
        Ok(view) => return Ok(view),
        Err(token) => token,
    };
    anew(async || {
        let planned = whole::plan(members, &order.request).await?;
        let mut uses = BTreeMap::new();
        for (set, plan) in planned.plans.iter() {
            let image = image_ref(set, &plan.base)?;
            let until = oplog_until(plan, Some(&image));
            uses.insert(set.id.clone(), Use { image, until });
        }
        let request = RestoreRequest {
            at: planned.at.clone(),
            ..order.request.clone()
        };
        store(&members.config, token, Kept::new(request, planned.view, true), uses).await
    })
    .await
}

/// Plans again what was overtaken by the end of an image: before it was in the control state, or while the image was read.
pub async fn anew<T>(once: impl AsyncFn() -> Result<T, Refusal>) -> Result<T, Refusal> {
    let overtaken = |refusal: &Refusal| matches!(refusal.kind, RefusalKind::Conflict | RefusalKind::NotFound);
    for _ in 1..PLANS {
        match once().await {
            Err(refusal) if overtaken(&refusal) => tracing::debug!(%refusal.message, "planned anew"),
            ended => return ended,
        }
    }
    once().await
}

/// The restore that was ordered with this token before; else the token for a new one.
fn ordered_before(set: &Set, order: &RestoreOrder) -> Result<Result<RestoreView, u64>, Refusal> {
    let Some(token) = order.token else {
        return Ok(Err(set.ground.host.entropy.number()));
    };
    let state = set.ground.control.state();
    match state.restores.iter().find(|(_, restore)| restore.token == token) {
        Some((id, restore)) => same(*id, restore, &order.request).map(Ok),
        None => Ok(Err(token)),
    }
}

/// The restore, if it is the one that is wanted; its instant was fixed when it was planned.
fn same(id: u64, restore: &Restore, wanted: &RestoreRequest) -> Result<RestoreView, Refusal> {
    let there = kept(id, restore)?.request;
    let at = wanted.at.clone();
    if (RestoreRequest { at, ..there }) == *wanted {
        return view_of(id, restore);
    }
    let message = "another restore was ordered with that token; draw a fresh one at random";
    Err(Refusal::new(RefusalKind::Conflict, message))
}

async fn store(set: &Set, token: u64, kept: Kept, uses: BTreeMap<ReplicaSetId, Use>) -> Result<RestoreView, Refusal> {
    let request_json = serde_json::to_string(&kept).map_err(|e| Refusal::new(RefusalKind::Invalid, e.to_string()))?;
    let command = Command::CreateRestore {
        token,
        set: set.id.clone(),
        request_json,
        created_ms: set.ground.host.clock.now_ms(),
        uses,
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
    same(id, restore, &kept.request)
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
pub fn view_of(id: u64, restore: &Restore) -> Result<RestoreView, Refusal> {
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
            State::Cancelled => RestoreState::Cancelled,
        },
        documents_done: restore.done_documents,
        bytes_done: restore.done_bytes,
        bytes_total: restore.total_bytes.max(expected),
        step: restore.step.clone(),
        error: restore.error.clone(),
        notes: restore.notes.clone(),
        created: rfc3339(restore.created_ms),
    })
}

#[cfg(test)]
mod tests {
    use headwater_model::{Incarnation, Ts};
    use headwater_protocol::admin::PlannedNamespace;

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
            members: Vec::new(),
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

    #[tokio::test]
    async fn a_plan_whose_image_ends_while_it_is_read_is_made_again_and_what_stays_missing_is_said() {
        use RefusalKind::{Conflict, Invalid, NotFound};
        for (overtaken, then, planned) in [
            (vec![NotFound, Conflict], Ok(7), 3),
            (vec![Invalid], Err(Invalid), 1),
            (vec![NotFound; PLANS], Err(NotFound), PLANS),
        ] {
            let times = std::cell::Cell::new(0);
            let outcome = anew(async || {
                times.set(times.get() + 1);
                match overtaken.get(times.get() - 1) {
                    Some(kind) => Err(Refusal::new(*kind, "overtaken")),
                    None => Ok(7),
                }
            });
            assert_eq!(
                (outcome.await.map_err(|refusal| refusal.kind), times.get()),
                (then, planned)
            );
        }
    }
}
