//! Why something cannot be restored, as users read it.

use headwater_cluster::{ReplicaSet, State, sharding};
use headwater_model::{Incarnation, ReplicaSetId, Ts};
use headwater_protocol::admin::At;
use headwater_protocol::agent::{Refusal, RefusalKind};
use headwater_restore::materialize::Undecided;
use headwater_restore::plan::{Base, NotRestorable, Plan, Proven, Reason, Wanted};

use super::inventory::inventory;
use crate::set::Set;
use crate::times::rfc3339;

/// A snapshot that is known to be damaged is refused with words of its own, and with what can be restored instead.
pub(super) fn refuse_damaged(set: &Set, at: &At, found: &(Vec<Base>, Vec<Proven>, Incarnation)) -> Result<(), Refusal> {
    let At::Snapshot(id) = at else { return Ok(()) };
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

/// An instant at which not everything is decided is refused with the nearest one before it.
pub(super) async fn refuse_undecided(set: &Set, plan: &Plan, undecided: Undecided) -> Result<Refusal, Refusal> {
    let (state, record) = set.record()?;
    let (bases, ranges, current) = inventory(set).await?;
    let before = last_decided(&bases, &ranges, current, undecided);
    let goes_on = goes_on(&state, &set.id, &record, plan.incarnation());
    let message = undecided_in_words(undecided.count, plan.until, before, goes_on);
    Ok(Refusal::new(RefusalKind::NotRestorable, message))
}

/// The last instant before the first undecided transaction was prepared that can be restored.
fn last_decided(bases: &[Base], ranges: &[Proven], current: Incarnation, undecided: Undecided) -> Option<Ts> {
    let before = Ts(undecided.from.0.saturating_sub(1));
    match headwater_restore::plan::plan(bases, ranges, current, &Wanted::Position(before)) {
        Ok(_) => Some(before),
        Err(refused) => refused.before,
    }
}

/// Whether more of the oplog of a history is to come.
fn goes_on(state: &State, set: &ReplicaSetId, record: &ReplicaSet, history: Incarnation) -> bool {
    let deployment = state.deployments.get(set.deployment());
    let removed = sharding::member_of(state, set).is_some_and(|member| member.removed);
    history == record.incarnation && deployment.is_some_and(|deployment| deployment.active) && !removed
}

fn undecided_in_words(count: usize, until: Ts, before: Option<Ts>, goes_on: bool) -> String {
    let (stored, later) = match goes_on {
        true => ("so far", ", or ask again in a moment"),
        false => ("of this history, which has ended", ""),
    };
    let transactions = match count {
        1 => "1 transaction over several shards was prepared by".to_owned(),
        _ => format!("{count} transactions over several shards were prepared by"),
    };
    let nearest = match before {
        Some(_) => nearest(before, None),
        None => "no earlier instant can be restored".to_owned(),
    };
    format!("{transactions} {until} and not decided in the oplog stored {stored}: {nearest}{later}")
}

/// Where damage is known, what cannot be restored may be due to it.
pub(super) fn told_of_damage(set: &Set, mut refusal: Refusal) -> Refusal {
    let Ok((state, _)) = set.record() else { return refusal };
    let damaged = state.integrity_of(&set.id).map_or(0, |known| known.damage.len());
    if damaged > 0 {
        let name = set.id.deployment();
        refusal.message +=
            &format!("; {damaged} objects of the backup are damaged, see `headwater check status {name}`");
    }
    refusal
}

pub(super) fn not_restorable(e: NotRestorable) -> Refusal {
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

#[cfg(test)]
mod tests {
    use headwater_cluster::{Command, NodeId, apply};
    use headwater_model::Optime;

    use super::*;

    fn at(n: u32) -> Optime {
        Optime::new(Ts::new(n, 1), 1)
    }

    #[test]
    fn an_undecided_instant_is_told_with_the_last_one_before_the_first_prepare() {
        let base = |n: u32| Base {
            name: format!("image {n}"),
            snapshot: None,
            incarnation: Incarnation(1),
            at: at(n),
            documents: 0,
            bytes: 0,
        };
        let range = Proven {
            incarnation: Incarnation(1),
            start: at(5),
            tip: at(50),
        };
        let before = |bases: &[u32], from: u32| {
            let bases: Vec<Base> = bases.iter().map(|n| base(*n)).collect();
            let from = Ts::new(from, 1);
            last_decided(&bases, &[range], Incarnation(2), Undecided { count: 1, from })
        };
        for (bases, from, want) in [
            (&[10][..], 40, Some(Ts::new(40, 0))),
            (&[10, 45], 40, Some(Ts::new(40, 0))),
            // An image without oplog after it, which ends before that.
            (&[2, 45], 40, Some(Ts::new(2, 1))),
            (&[45], 40, None),
        ] {
            assert_eq!(before(bases, from), want, "{bases:?} {from}");
        }
    }

    #[test]
    fn a_history_that_has_ended_is_not_to_be_asked_again() {
        let (until, before) = (Ts::new(1_795_343_600, 1), Ts::new(1_795_343_591, 42));
        assert_eq!(
            undecided_in_words(2, until, Some(before), true),
            "2 transactions over several shards were prepared by 1795343600,1 and not decided in the oplog stored so far: \
             the nearest restorable instant is 2026-11-22T10:33:11Z (1795343591,42), or ask again in a moment"
        );
        assert_eq!(
            undecided_in_words(1, until, None, false),
            "1 transaction over several shards was prepared by 1795343600,1 and not decided in the oplog stored of this \
             history, which has ended: no earlier instant can be restored"
        );
        let set: ReplicaSetId = "shop/rs0".parse().unwrap();
        let mut state = State::default();
        let add = Command::AddDeployment {
            name: set.deployment().clone(),
            uri: "mongodb://h".into(),
            snapshot_interval_s: 3600,
            created_ms: 0,
            key: None,
        };
        let register = Command::RegisterReplicaSet {
            set: set.clone(),
            node: NodeId(1),
            source_version: "6.0.5".into(),
        };
        for command in [add, register] {
            assert!(!apply(&mut state, &command).is_refused());
        }
        let record = state.replica_sets[&set].clone();
        let now = |state: &State, history| goes_on(state, &set, &record, history);
        assert!(now(&state, record.incarnation));
        assert!(!now(&state, Incarnation(0)), "an earlier one");
        state.deployments.get_mut(set.deployment()).unwrap().active = false;
        assert!(!now(&state, record.incarnation), "the backup was stopped");
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
