//! Schedules and retention: what stays, and that a decision is made again when its command is carried out.

use std::collections::{BTreeMap, BTreeSet};

use headwater_cluster::command::Use;
use headwater_cluster::retention::{Reason, Retention, Tier};
use headwater_cluster::timetable::ReferenceTime;
use headwater_cluster::{Command, RefusalKind, Response, State, apply, keeping};
use headwater_model::{Epoch, Incarnation, Phase, ReplicaSetId};

use crate::samples::*;

const HOUR_S: u32 = 3600;
const DAY_S: u32 = 86_400;
/// 2026-01-01T00:00:00Z.
const NEW_YEAR_S: u32 = 1_767_225_600;

fn set_schedule(retention: Retention) -> Command {
    Command::SetSchedule {
        name: deployment(),
        interval_s: 21_600,
        reference: ReferenceTime::default(),
        retention,
        now_ms: 0,
    }
}

fn scheduled(id: &str) -> Command {
    let Command::RequestSnapshot {
        set,
        id,
        incarnation,
        asked_ms,
        ..
    } = request(id)
    else {
        panic!()
    };
    Command::RequestSnapshot {
        set,
        id,
        incarnation,
        reason: "schedule".to_owned(),
        asked_ms,
    }
}

/// Takes a scheduled snapshot, moves the head to it, and expires what may be expired.
fn pass(state: &mut State, seconds: u32) {
    let id = format!("s{seconds}");
    done(state, &scheduled(&id));
    done(state, &complete_at(&id, seconds));
    done(state, &waypoint(seconds));
    expire_all(state, seconds);
}

fn expire_all(state: &mut State, seconds: u32) {
    let now_ms = i64::from(seconds) * 1000;
    for id in keeping::plan(state, &set(), now_ms).unwrap().dropped {
        done(state, &expire(id.as_str(), now_ms));
    }
}

fn ages_h(state: &State, now_s: u32) -> Vec<u32> {
    let mut ages: Vec<u32> = state
        .snapshots
        .values()
        .filter_map(|snapshot| Some((now_s - snapshot.image.as_ref()?.at.ts.seconds()) / HOUR_S))
        .collect();
    ages.sort_unstable();
    ages
}

#[test]
fn four_years_of_snapshots_leave_what_the_policy_says() {
    // Days of base, daily, weeks, months → how many there are, by age in days.
    let table = [
        (
            (2, 7, 4, 13),
            [(0, 2, 8, 8), (2, 7, 5, 5), (7, 28, 2, 4), (28, 400, 11, 13)],
        ),
        (
            (1, 0, 0, 0),
            [(0, 1, 4, 4), (1, 2, 1, 1), (2, 7, 0, 0), (7, 4000, 0, 0)],
        ),
        (
            (5, 30, 0, 0),
            [(0, 5, 20, 20), (5, 30, 25, 25), (30, 60, 0, 1), (60, 4000, 0, 0)],
        ),
        (
            (0, 0, 0, 36),
            [(0, 1, 1, 4), (1, 2, 0, 1), (2, 1000, 30, 34), (1000, 4000, 2, 5)],
        ),
    ];
    for ((base, daily, weekly, monthly), expected) in table {
        let mut state = routine();
        done(
            &mut state,
            &set_schedule(Retention {
                snapshot_retention_days: base,
                daily_snapshot_retention_days: daily,
                weekly_snapshot_retention_weeks: weekly,
                monthly_snapshot_retention_months: monthly,
                point_in_time_window_hours: 24,
            }),
        );
        let last = NEW_YEAR_S + 4 * 365 * DAY_S;
        for seconds in (NEW_YEAR_S..=last).step_by(6 * HOUR_S as usize) {
            pass(&mut state, seconds);
        }
        let ages = ages_h(&state, last);
        for (from, to, least, most) in expected {
            let count = ages.iter().filter(|age| (from * 24..to * 24).contains(*age)).count();
            assert!(
                (least..=most).contains(&count),
                "policy {base}/{daily}/{weekly}/{monthly}: {count} from {from} d to {to} d: {ages:?}"
            );
        }
    }
}

#[test]
fn the_first_of_a_period_is_promoted_and_one_on_demand_never_is() {
    let mut state = routine();
    done(&mut state, &request("mine"));
    done(&mut state, &complete_at("mine", NEW_YEAR_S));
    for (id, seconds) in [("first", NEW_YEAR_S + 60), ("second", NEW_YEAR_S + 120)] {
        done(&mut state, &scheduled(id));
        done(&mut state, &complete_at(id, seconds));
    }
    let tiers = |id: &str| state.snapshots[&(set(), snapshot(id))].tiers.clone();
    let expires = |id: &str| state.snapshots[&(set(), snapshot(id))].expires_ms.unwrap() / 1000;
    assert_eq!(tiers("mine"), BTreeSet::from([Tier::Base]));
    assert_eq!(
        tiers("first"),
        BTreeSet::from([Tier::Base, Tier::Daily, Tier::Weekly, Tier::Monthly])
    );
    assert_eq!(tiers("second"), BTreeSet::from([Tier::Base]));
    assert_eq!(expires("second"), i64::from(NEW_YEAR_S + 120 + 2 * DAY_S));
    assert!(expires("first") > i64::from(NEW_YEAR_S + 390 * DAY_S));
}

#[test]
fn a_smaller_policy_leaves_existing_snapshots_their_dates() {
    let mut state = routine();
    pass(&mut state, NEW_YEAR_S);
    let before = state.snapshots.clone();
    done(
        &mut state,
        &set_schedule(Retention {
            monthly_snapshot_retention_months: 0,
            ..Retention::default()
        }),
    );
    assert_eq!(state.snapshots, before);
}

#[test]
fn a_users_word_on_a_snapshot_holds_before_and_after_it_completes() {
    let mut state = routine();
    done(&mut state, &request("a"));
    let update = |keep, expires_ms| Command::UpdateSnapshot {
        set: set(),
        id: snapshot("a"),
        keep,
        expires_ms,
    };
    done(&mut state, &update(false, Some(5)));
    done(&mut state, &complete_at("a", NEW_YEAR_S));
    assert_eq!(state.snapshots[&(set(), snapshot("a"))].expires_ms, Some(5));
    pass(&mut state, NEW_YEAR_S + 3 * DAY_S);
    pass(&mut state, NEW_YEAR_S + 6 * DAY_S);
    assert!(!state.snapshots.contains_key(&(set(), snapshot("a"))), "its date came");
    let gone = apply(&mut state, &update(true, None));
    assert_eq!(gone.refusal(), Some(RefusalKind::NotFound));
}

/// A state with snapshots of days 0, 10 and 20, all past their dates on day 30.
fn three() -> State {
    let mut state = routine();
    done(
        &mut state,
        &set_schedule(Retention {
            daily_snapshot_retention_days: 0,
            weekly_snapshot_retention_weeks: 0,
            monthly_snapshot_retention_months: 0,
            ..Retention::default()
        }),
    );
    for day in [0, 10, 20] {
        let id = format!("d{day}");
        done(&mut state, &scheduled(&id));
        done(&mut state, &complete_at(&id, NEW_YEAR_S + day * DAY_S));
    }
    done(&mut state, &waypoint(NEW_YEAR_S + 30 * DAY_S));
    state
}

const DAY_30_MS: i64 = (NEW_YEAR_S + 30 * DAY_S) as i64 * 1000;

fn reasons(state: &State, id: &str) -> Vec<Reason> {
    let plan = keeping::plan(state, &set(), DAY_30_MS).unwrap();
    let kept = plan.kept.into_iter().find(|(kept, _)| kept.as_str() == id);
    kept.map_or_else(Vec::new, |(_, reasons)| reasons.into_iter().collect())
}

#[test]
fn the_last_good_the_kept_and_the_used_are_never_expired() {
    let mut state = three();
    assert_eq!(reasons(&state, "d20"), [Reason::Window, Reason::LastGood]);
    let keep = |keep| Command::UpdateSnapshot {
        set: set(),
        id: snapshot("d0"),
        keep,
        expires_ms: Some(0),
    };
    done(&mut state, &keep(true));
    let create = Command::CreateRestore {
        token: 1,
        set: set(),
        request_json: "{}".to_owned(),
        created_ms: 0,
        uses: uses(10, 10),
    };
    done(&mut state, &create);
    assert_eq!(reasons(&state, "d10"), [Reason::InUse]);
    for id in ["d0", "d10", "d20"] {
        let refused = apply(&mut state, &expire(id, DAY_30_MS));
        assert_eq!(refused.refusal(), Some(RefusalKind::OutOfOrder), "{id}");
    }
    done(&mut state, &keep(false));
    done(&mut state, &expire("d0", DAY_30_MS));
    done(&mut state, &progress(1, headwater_cluster::RestoreState::Failed));
    done(&mut state, &expire("d10", DAY_30_MS));
    let stale = Command::ExpireSnapshot {
        set: set(),
        id: snapshot("d20"),
        epoch: Epoch(9),
        now_ms: DAY_30_MS,
    };
    assert_eq!(apply(&mut state, &stale).refusal(), Some(RefusalKind::Stale));
    assert_eq!(state.snapshots.len(), 1);
}

fn uses(day: u32, until_day: u32) -> BTreeMap<ReplicaSetId, Use> {
    let image = image(NEW_YEAR_S + day * DAY_S);
    let until = at(NEW_YEAR_S + until_day * DAY_S).ts;
    BTreeMap::from([(set(), Use { image, until })])
}

#[test]
fn a_restore_cannot_begin_with_what_is_given_up() {
    let mut state = three();
    let create = |token, day: u32, until_day: u32| Command::CreateRestore {
        token,
        set: set(),
        request_json: "{}".to_owned(),
        created_ms: 0,
        uses: uses(day, until_day),
    };
    done(&mut state, &expire("d0", DAY_30_MS));
    let refused = apply(&mut state, &create(1, 0, 0));
    assert_eq!(refused.refusal(), Some(RefusalKind::OutOfOrder));
    done(&mut state, &trim(NEW_YEAR_S + 19 * DAY_S, DAY_30_MS));
    let refused = apply(&mut state, &create(2, 10, 11));
    assert_eq!(
        refused.refusal(),
        Some(RefusalKind::OutOfOrder),
        "its oplog is given up"
    );
    done(&mut state, &create(3, 10, 10));
    done(&mut state, &create(4, 30, 30));
}

#[test]
fn the_oplog_is_given_up_only_before_what_is_needed_and_never_taken_back() {
    let mut state = three();
    let day = |day: u32| NEW_YEAR_S + day * DAY_S;
    let refused = apply(&mut state, &trim(day(20), DAY_30_MS));
    assert_eq!(
        refused.refusal(),
        Some(RefusalKind::OutOfOrder),
        "it is replayed from a second before"
    );
    done(&mut state, &trim(day(15), DAY_30_MS));
    done(&mut state, &trim(day(12), DAY_30_MS));
    assert_eq!(keeping::oplog_floor(&state, &set(), Incarnation(1)), Some(at(day(15))));
    // A head that lags needs what it has not seen, and the window stretches.
    let mut lagging = three();
    lagging.replica_sets.get_mut(&set()).unwrap().waypoint = Some(image(day(5)));
    let refused = apply(&mut lagging, &trim(day(5), DAY_30_MS));
    assert_eq!(refused.refusal(), Some(RefusalKind::OutOfOrder));
}

#[test]
fn an_ended_history_stays_restorable_until_the_present_one_is_and_its_window_is_over() {
    let mut state = three();
    done(
        &mut state,
        &Command::StartIncarnation {
            set: set(),
            expected: Incarnation(1),
        },
    );
    let tip = at(NEW_YEAR_S + 30 * DAY_S);
    let late_ms = DAY_30_MS + 100 * i64::from(DAY_S) * 1000;
    assert!(!keeping::is_over(&state, &set(), Incarnation(1), tip, late_ms));
    let record = state.replica_sets.get_mut(&set()).unwrap();
    record.phase = Phase::Complete;
    let mut of_now = image(NEW_YEAR_S + 31 * DAY_S);
    of_now.incarnation = Incarnation(2);
    record.waypoint = Some(of_now.clone());
    assert!(!keeping::is_over(&state, &set(), Incarnation(1), tip, late_ms));
    let snapshot_of_now = headwater_cluster::Snapshot {
        incarnation: Incarnation(2),
        image: Some(of_now),
        ..state.snapshots[&(set(), snapshot("d20"))].clone()
    };
    state.snapshots.insert((set(), snapshot("now")), snapshot_of_now);
    assert!(keeping::is_over(&state, &set(), Incarnation(1), tip, late_ms));
    assert!(!keeping::is_over(&state, &set(), Incarnation(1), tip, DAY_30_MS));
    // It goes as a whole: a slice behind the tip that takes effect late is nobody's.
    assert!(!keeping::is_given_up(&state, &set(), Incarnation(1)));
    done(&mut state, &trim(NEW_YEAR_S + 30 * DAY_S, late_ms));
    assert!(keeping::is_given_up(&state, &set(), Incarnation(1)));
}

#[test]
fn settings_out_of_bounds_are_refused() {
    let mut state = routine();
    let wrong = set_schedule(Retention {
        monthly_snapshot_retention_months: 121,
        ..Retention::default()
    });
    assert_eq!(apply(&mut state, &wrong).refusal(), Some(RefusalKind::Limit));
    let Command::SetSchedule { name, retention, .. } = wrong else {
        panic!()
    };
    let wrong = Command::SetSchedule {
        name,
        interval_s: 59,
        reference: ReferenceTime::default(),
        retention: Retention {
            monthly_snapshot_retention_months: 1,
            ..retention
        },
        now_ms: 0,
    };
    assert_eq!(apply(&mut state, &wrong).refusal(), Some(RefusalKind::Limit));
    let schedule = state.deployments[&deployment()].schedule;
    assert_eq!(schedule.timetable.interval_s, 21_600);
    assert_eq!(apply(&mut state, &set_schedule(Retention::default())), Response::Done);
    assert_eq!(
        state.deployments[&deployment()].schedule.timetable,
        schedule.timetable,
        "a change of the retention does not move the timetable"
    );
}
