//! Sharded clusters and their checkpoints.

use headwater_cluster::checkpoints::{self, Bound, Outcome, PATIENCE_MS};
use headwater_cluster::sharding;
use headwater_cluster::{Command, RefusalKind, State, apply};
use headwater_model::{Incarnation, Ts, limits};

use crate::checkpoint_samples::{
    cluster, cut_checkpoint, fail_checkpoint, join, member, member_cut, note_checkpoint, noted, open_checkpoint,
    resume_checkpoint, set_sharding, sharding as members,
};
use crate::samples::{at, deployment, done, registered, snapshot};

fn refusal(state: &mut State, command: &Command) -> RefusalKind {
    let before = state.clone();
    let answer = apply(state, command);
    assert_eq!(*state, before, "{command:?}");
    answer.refusal().unwrap()
}

fn bounds(state: &State) -> [Bound; 2] {
    ["cfg", "sh0"].map(|set| checkpoints::bound(state, &member(set)))
}

#[test]
fn members_come_leave_and_come_back_and_a_replica_set_never_becomes_a_cluster() {
    let mut state = cluster();
    let plan = |state: &State, found| sharding::plan(state, &deployment(), &found, 21600);
    assert_eq!(plan(&state, members(&[("cfg", None), ("sh0", Some("sh0"))])), None);
    let grown = members(&[("cfg", None), ("sh0", Some("sh0")), ("sh1", Some("sh1"))]);
    let command = plan(&state, grown.clone()).unwrap();
    assert!(matches!(command, Command::SetSharding { interval_s: None, .. }));
    done(&mut state, &command);
    let shrunk = members(&[("cfg", None), ("sh1", Some("sh1"))]);
    let command = plan(&state, shrunk.clone()).unwrap();
    done(&mut state, &command);
    assert!(sharding::member_of(&state, &member("sh0")).unwrap().removed);
    assert_eq!(plan(&state, shrunk), None, "who has left is no news");
    let command = plan(&state, grown).unwrap();
    done(&mut state, &command);
    assert!(!sharding::member_of(&state, &member("sh0")).unwrap().removed);

    let mut other = members(&[("cfg", None)]);
    other.cluster = "60".repeat(12);
    let command = plan(&state, other).unwrap();
    assert_eq!(refusal(&mut state, &command), RefusalKind::Conflict);
    let headless = set_sharding(&[("sh0", Some("sh0"))]);
    assert_eq!(refusal(&mut state, &headless), RefusalKind::Limit);
    let cluster = set_sharding(&[("cfg", None)]);
    assert_eq!(refusal(&mut registered(), &cluster), RefusalKind::Conflict);
}

#[test]
fn heads_stand_still_then_go_to_their_notes_then_to_the_cut_and_then_on() {
    let mut state = cluster();
    assert_eq!(bounds(&state), [Bound::Free, Bound::Free]);
    done(&mut state, &open_checkpoint("c1", 0));
    assert_eq!(bounds(&state), [Bound::Here, Bound::Here]);
    done(&mut state, &note_checkpoint("c1", "cfg", 1, 140));
    assert_eq!(bounds(&state), [Bound::UpTo(at(140).ts), Bound::Here]);
    // A second note of the same member, of an agent that lost the answer, changes nothing: the head may be at the first.
    done(&mut state, &note_checkpoint("c1", "cfg", 1, 145));
    done(&mut state, &note_checkpoint("c1", "sh0", 2, 150));
    let cut = Bound::Cut(snapshot("c1"), 0, at(150).ts);
    assert_eq!(bounds(&state), [cut.clone(), cut.clone()]);
    done(&mut state, &cut_checkpoint("c1", "cfg", 1, 140));
    assert_eq!(bounds(&state), [Bound::Free, cut]);
    assert!(
        state.snapshots.is_empty(),
        "one member alone is no snapshot of the cluster"
    );
    let config = member("cfg");
    let kept = headwater_cluster::keeping::used(&state, &config).count();
    assert_eq!(kept, 1, "and its image is not taken for a leftover");
    done(&mut state, &cut_checkpoint("c1", "sh0", 2, 150));
    assert_eq!(bounds(&state), [Bound::Free, Bound::Free]);
    let snapshots: Vec<_> = state.snapshots.values().collect();
    assert_eq!(snapshots.len(), 2);
    assert!(snapshots.iter().all(|snapshot| snapshot.checkpoint == Some(at(150).ts)));
    assert_eq!(snapshots[0].expires_ms, snapshots[1].expires_ms);
}

#[test]
fn notes_are_asked_for_until_every_oplog_stored_reaches_the_cut() {
    let mut state = cluster();
    let wanted = |state: &State, tip| {
        let wanted = checkpoints::wanted_note(state, &member("cfg"), tip)?;
        assert_eq!(wanted.attempt, 0);
        Some((wanted.checkpoint, wanted.at_least))
    };
    assert_eq!(wanted(&state, Ts::ZERO), None);
    done(&mut state, &open_checkpoint("c1", 0));
    assert_eq!(wanted(&state, Ts::MAX), Some((snapshot("c1"), Ts::ZERO)));
    done(&mut state, &note_checkpoint("c1", "cfg", 1, 140));
    assert_eq!(wanted(&state, Ts::ZERO), None, "the cut is not known yet");
    done(&mut state, &note_checkpoint("c1", "sh0", 2, 150));
    assert_eq!(wanted(&state, at(149).ts), Some((snapshot("c1"), at(150).ts)));
    assert_eq!(wanted(&state, at(150).ts), None);
}

#[test]
fn what_an_ended_owner_or_history_says_is_refused_and_so_is_an_image_past_the_cut() {
    let mut state = noted();
    for (command, kind) in [
        (note_checkpoint("c1", "sh0", 1, 150), RefusalKind::Stale),
        (cut_checkpoint("c1", "sh0", 1, 150), RefusalKind::Stale),
        (cut_checkpoint("c1", "sh0", 2, 151), RefusalKind::OutOfOrder),
        (cut_checkpoint("c2", "sh0", 2, 150), RefusalKind::OutOfOrder),
        (note_checkpoint("c1", "sh9", 2, 150), RefusalKind::NotFound),
        (open_checkpoint("c2", 0), RefusalKind::NotReady),
    ] {
        assert_eq!(refusal(&mut state, &command), kind, "{command:?}");
    }
    let mut early = cluster();
    done(&mut early, &open_checkpoint("c1", 0));
    assert_eq!(
        refusal(&mut early, &cut_checkpoint("c1", "sh0", 2, 150)),
        RefusalKind::OutOfOrder
    );
    let anew = Command::StartIncarnation {
        set: member("sh0"),
        expected: Incarnation(1),
    };
    done(&mut state, &anew);
    assert_eq!(
        refusal(&mut state, &note_checkpoint("c1", "sh0", 2, 150)),
        RefusalKind::Stale
    );
}

#[test]
fn the_leader_opens_what_is_due_and_gives_up_what_cannot_be_completed() {
    let open_for =
        |state: &State, now_ms, open_ms| checkpoints::plan(state, now_ms, |_, _| open_ms, || Some(snapshot("c2")));
    let plan = |state: &State, now_ms| open_for(state, now_ms, 0);
    let mut state = cluster();
    let begin = state.deployments[&deployment()].created_ms;
    let first = plan(&state, begin);
    assert!(matches!(&first[..], [Command::OpenCheckpoint { asked_ms, .. }] if *asked_ms == begin));
    done(&mut state, &first[0]);
    assert!(open_for(&state, begin, PATIENCE_MS - 1).is_empty(), "one at a time");
    assert!(
        plan(&state, begin + 10 * PATIENCE_MS).is_empty(),
        "who asked may have had another clock"
    );
    let late = open_for(&state, begin, PATIENCE_MS);
    let [Command::FailCheckpoint { why, .. }] = &late[..] else {
        panic!("{late:?}")
    };
    assert!(why.contains("cfg, sh0"), "{why}");
    done(&mut state, &late[0]);
    assert_eq!(bounds(&state), [Bound::Free, Bound::Free], "it does no harm");
    assert!(matches!(
        state.checkpoints[&deployment()].all[&snapshot("c2")].outcome,
        Outcome::Failed(_)
    ));
    let due = state.deployments[&deployment()].schedule.timetable.next_after(begin);
    assert!((1..=900_000).contains(&(due - begin)) && plan(&state, due - 1).is_empty());
    let next = checkpoints::plan(&state, due, |_, _| 0, || Some(snapshot("c3")));
    assert!(matches!(&next[..], [Command::OpenCheckpoint { .. }]));

    let mut state = noted();
    let grown = set_sharding(&[("cfg", None), ("sh0", Some("sh0")), ("sh1", Some("sh1"))]);
    done(&mut state, &grown);
    let given_up = plan(&state, begin);
    let [Command::FailCheckpoint { why, .. }] = &given_up[..] else {
        panic!("{given_up:?}")
    };
    assert!(why.contains("sh1"), "{why}");
    done(&mut state, &given_up[0]);
    assert!(
        plan(&state, begin + 10_000_000).is_empty(),
        "not before the new shard is copied"
    );
    join(&mut state, "sh1", 3);
    assert_eq!(plan(&state, begin + 10_000_000).len(), 1);
}

#[test]
fn snapshots_of_one_checkpoint_are_kept_and_go_together() {
    let mut state = noted();
    done(&mut state, &cut_checkpoint("c1", "cfg", 1, 140));
    done(&mut state, &cut_checkpoint("c1", "sh0", 2, 150));
    let keep = Command::UpdateSnapshot {
        set: member("cfg"),
        id: snapshot("c1"),
        keep: true,
        expires_ms: None,
    };
    done(&mut state, &keep);
    assert!(state.snapshots.values().all(|snapshot| snapshot.keep));
    let drop = Command::DropSnapshot {
        set: member("sh0"),
        id: snapshot("c1"),
    };
    done(&mut state, &drop);
    assert!(state.snapshots.is_empty() && state.checkpoints[&deployment()].all.is_empty());
}

#[test]
fn a_members_own_snapshot_and_a_checkpoint_cannot_have_one_id_whichever_comes_first() {
    let own = |id: &str| Command::RequestSnapshot {
        set: member("cfg"),
        id: snapshot(id),
        incarnation: Incarnation(1),
        reason: "sync".to_owned(),
        asked_ms: 0,
    };
    let mut state = cluster();
    done(&mut state, &open_checkpoint("c1", 0));
    assert_eq!(refusal(&mut state, &own("c1")), RefusalKind::Conflict);
    done(&mut state, &own("c2"));
    done(&mut state, &fail_checkpoint("c1"));
    assert_eq!(refusal(&mut state, &own("c1")), RefusalKind::Conflict);
    assert_eq!(refusal(&mut state, &open_checkpoint("c2", 0)), RefusalKind::Conflict);
}

/// Both members say so of an attempt.
fn attempted(state: &mut State, attempt: u32, under_way: &[&str]) {
    for (set, epoch) in [("cfg", 1), ("sh0", 2)] {
        let mut command = note_checkpoint("c1", set, epoch, 160);
        if let Command::NoteCheckpoint { attempt: of, .. } = &mut command {
            *of = attempt;
        }
        done(state, &command);
    }
    for (set, epoch, texts) in [("cfg", 1, under_way), ("sh0", 2, &[])] {
        let mut command = cut_checkpoint("c1", set, epoch, 160);
        if let Command::CutCheckpoint { attempt: of, cut, .. } = &mut command {
            (*of, *cut) = (attempt, member_cut(160, texts, 1_000));
        }
        done(state, &command);
    }
}

#[test]
fn what_is_under_way_at_the_cut_is_waited_for_by_new_attempts_and_then_told_of() {
    let resharding = ["resharding of d.c (cloning)"];
    let of_c1 = |state: &State| state.checkpoints[&deployment()].all[&snapshot("c1")].clone();
    let marks = |state: &State| -> Vec<Option<String>> {
        let snapshots = state.snapshots.values();
        snapshots.map(|s| s.possibly_inconsistent.clone()).collect()
    };
    let plan = |state: &State, stage_ms| checkpoints::plan(state, 0, |_, _| stage_ms, || None);
    let mut state = cluster();
    done(&mut state, &open_checkpoint("c1", 0));
    attempted(&mut state, 0, &resharding);
    assert!(state.snapshots.is_empty());
    assert_eq!(
        bounds(&state),
        [Bound::Free, Bound::Free],
        "nobody stands still meanwhile"
    );
    assert_eq!(checkpoints::wanted_note(&state, &member("cfg"), Ts::ZERO), None);
    let what = of_c1(&state).waits_for;
    assert_eq!(what.as_deref(), Some("resharding of d.c (cloning) (cfg)"));
    assert!(plan(&state, limits::CHECKPOINT_REST_MS - 1).is_empty());
    assert_eq!(plan(&state, limits::CHECKPOINT_REST_MS), [resume_checkpoint("c1", 1)]);
    done(&mut state, &resume_checkpoint("c1", 1));
    assert_eq!(bounds(&state), [Bound::Here, Bound::Here]);
    // What was said of the attempt before is over.
    for late in [
        note_checkpoint("c1", "cfg", 1, 145),
        cut_checkpoint("c1", "sh0", 2, 150),
    ] {
        assert_eq!(refusal(&mut state, &late), RefusalKind::OutOfOrder);
    }
    let wanted = checkpoints::wanted_note(&state, &member("cfg"), Ts::ZERO).unwrap();
    assert_eq!((wanted.attempt, wanted.at_least), (1, Ts::ZERO));
    assert!(plan(&state, PATIENCE_MS - 1).is_empty());
    assert!(matches!(
        plan(&state, PATIENCE_MS)[..],
        [Command::FailCheckpoint { .. }]
    ));

    // It is over by then: the checkpoint is like any other.
    let mut over = state.clone();
    attempted(&mut over, 1, &[]);
    assert_eq!(marks(&over), [None, None]);

    // It is never over: the last attempt is sealed and marked.
    let mut rests_ms = limits::CHECKPOINT_REST_MS;
    for attempt in 1..limits::CHECKPOINT_ATTEMPTS {
        assert!(state.snapshots.is_empty());
        attempted(&mut state, attempt, &resharding);
        if attempt + 1 < limits::CHECKPOINT_ATTEMPTS {
            let rest_ms = (0..).find(|ms| !plan(&state, *ms).is_empty()).unwrap();
            rests_ms += rest_ms;
            done(&mut state, &resume_checkpoint("c1", attempt + 1));
        }
    }
    assert!((100_000..130_000).contains(&rests_ms), "{rests_ms}");
    let why = "under way at the cut: resharding of d.c (cloning) (cfg)";
    assert_eq!(marks(&state), [Some(why.to_owned()), Some(why.to_owned())]);
    assert_eq!(
        (of_c1(&state).outcome, of_c1(&state).doubt.as_deref()),
        (Outcome::Sealed, Some(why))
    );
}
