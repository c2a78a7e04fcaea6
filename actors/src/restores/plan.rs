//! Plans a restore of one replica set.

use std::time::Duration;

use headwater_cluster::{ImageRef, Restore};
use headwater_model::{Optime, Ts};
use headwater_protocol::admin::{At, Destination, PlannedNamespace, RestorePlanView, RestoreRequest};
use headwater_protocol::agent::Refusal;
use headwater_protocol::redact;
use headwater_restore::naming::Chosen;
use headwater_restore::plan::{Plan, Wanted};
use tokio::time::Instant;

use super::inventory::{inventory, kept_base};
use super::open::{as_it_lies, chosen, selection};
use super::words::{not_restorable, refuse_damaged, told_of_damage};
use crate::set::Set;
use crate::trouble::refusal;

/// A plan with its choice of collections by the base image.
pub struct Planned {
    /// Which image and which oplog.
    pub plan: Plan,
    /// What users see of it.
    pub view: RestorePlanView,
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
    // A slip of the pen is told before anything is waited for.
    selection(request)?;
    let plan = plan_at(set, &request.at).await?;
    planned(set, request, plan).await
}

/// Chooses the image and the oplog for an instant.
pub(super) async fn plan_at(set: &Set, at: &At) -> Result<Plan, Refusal> {
    // What can be restored grows while the end of the second is waited for.
    if let At::WallClock(ms) = at
        && let Some(second) = Wanted::second(*ms)
    {
        await_end_of_second(set, second).await?;
    }
    let found = inventory(set).await?;
    refuse_damaged(set, at, &found)?;
    let (bases, ranges, current) = found;
    let wanted = match at {
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
    plan.map_err(|refused| told_of_damage(set, not_restorable(refused)))
}

/// The plan of a restore that is in the control state: it begins with the image that is kept for it.
pub(super) async fn plan_kept_at(set: &Set, at: &At, restore: &Restore) -> Result<Plan, Refusal> {
    let Some(image) = restore.uses.get(&set.id) else {
        return plan_at(set, at).await;
    };
    let base = kept_base(set, image)?;
    let (until, as_it_is) = match at {
        At::Position(position) => (Ts::from(*position), false),
        At::Snapshot(_) => (base.at.ts, true),
        _ => return plan_at(set, at).await,
    };
    Ok(Plan { base, until, as_it_is })
}

/// Where the oplog ends that a plan applies to its image; nothing is needed of it for a whole image, whose last entry lies
/// before the cut of its checkpoint.
pub(super) fn oplog_until(plan: &Plan, image: Option<&ImageRef>) -> Ts {
    match image {
        Some(image) if plan.is_whole_image() => image.at.ts,
        _ => plan.until,
    }
}

/// What a plan applies of the oplog: slices, and their bytes.
pub(super) async fn oplog_of(set: &Set, plan: &Plan) -> Result<(u64, u64), Refusal> {
    if plan.is_whole_image() {
        return Ok((0, 0));
    }
    let stores = set.stores(plan.incarnation()).await.map_err(refusal)?;
    let until = Optime::new(plan.until, i64::MAX);
    Ok(stores.oplog.slices_between(plan.base.at, until))
}

pub(super) fn base_name(plan: &Plan) -> String {
    let snapshot = plan.base.snapshot.as_ref();
    snapshot.map_or_else(|| "waypoint".to_owned(), |id| id.to_string())
}

async fn planned(set: &Set, request: &RestoreRequest, plan: Plan) -> Result<Planned, Refusal> {
    let source = as_it_lies(set, &plan.base).await?;
    let chosen = chosen(&source, &selection(request)?).await?;
    let (oplog_slices, oplog_bytes) = oplog_of(set, &plan).await?;
    let view = RestorePlanView {
        replica_set: set.id.clone(),
        incarnation: plan.incarnation(),
        at: plan.until.into(),
        base: base_name(&plan),
        base_at: plan.base.at.ts.into(),
        oplog_slices,
        oplog_bytes,
        namespaces: namespaces(&chosen),
        namespaces_left_out: 0,
        bytes_left_out: 0,
        to: shown(&request.to),
        members: Vec::new(),
    };
    Ok(Planned { plan, view })
}

/// Where a restore goes, without credentials.
pub(super) fn shown(to: &Destination) -> String {
    match to {
        Destination::Uri(uri) => redact::uri(uri),
        Destination::Archive => "archive".to_owned(),
        Destination::Cluster(targets) => {
            let targets = targets
                .iter()
                .map(|(member, uri)| format!("{member}={}", redact::uri(uri)));
            format!("a new cluster: {}", targets.collect::<Vec<_>>().join(", "))
        }
    }
}

/// What is restored, as users see it.
pub(super) fn namespaces(chosen: &Chosen) -> Vec<PlannedNamespace> {
    chosen.items.iter().map(planned_namespace).collect()
}

fn planned_namespace(item: &headwater_restore::naming::Item) -> PlannedNamespace {
    PlannedNamespace {
        from: item.from.to_string(),
        to: item.to.to_string(),
        documents: item.data.as_ref().map_or(0, |data| data.documents),
        bytes: item.data.as_ref().map_or(0, |data| data.bytes),
    }
}

#[cfg(test)]
mod tests {
    use headwater_model::Incarnation;
    use headwater_restore::plan::Base;

    use super::*;

    #[test]
    fn the_image_of_a_checkpoint_needs_no_oplog_up_to_its_cut() {
        let at = |n: u64| Optime::new(Ts(n), 1);
        let image = ImageRef {
            name: "image".to_owned(),
            incarnation: Incarnation(1),
            at: at(90),
            replay_from: at(90),
            documents: 0,
            collections: 0,
            logical_bytes: 0,
        };
        let plan = |until| Plan {
            base: Base {
                name: image.name.clone(),
                snapshot: None,
                incarnation: Incarnation(1),
                // The cut.
                at: at(100),
                documents: 0,
                bytes: 0,
            },
            until: Ts(until),
            as_it_is: false,
        };
        assert_eq!(oplog_until(&plan(100), Some(&image)), Ts(90));
        assert_eq!(oplog_until(&plan(120), Some(&image)), Ts(120));
    }
}
