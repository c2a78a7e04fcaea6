//! Why something cannot be restored, as users read it.

use headwater_model::{Incarnation, Ts};
use headwater_protocol::admin::At;
use headwater_protocol::agent::{Refusal, RefusalKind};
use headwater_restore::plan::{Base, NotRestorable, Proven, Reason, Wanted};

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
    use super::*;

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
