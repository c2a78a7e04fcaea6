//! The balancer, stopped for checkpoints and put back.

use headwater_cluster::balancer::{self, BalancerStep, PATIENCE_MS, Wanted};
use headwater_cluster::checkpoints::{self, Bound, Quiet};
use headwater_cluster::{RefusalKind, State, apply};
use headwater_model::Ts;

use crate::checkpoint_samples::{
    cluster, cut_checkpoint, fail_checkpoint, member, note_balancer, note_checkpoint, open_checkpoint, stop_balancer,
};
use crate::samples::{deployment, done, snapshot};

fn wanted(state: &State) -> Option<(u64, Wanted)> {
    assert_eq!(
        balancer::wanted(state, &member("sh0")),
        None,
        "only config servers have one"
    );
    balancer::wanted(state, &member("cfg"))
}

fn quiet(state: &State) -> Quiet {
    state.checkpoints[&deployment()].all[&snapshot("c1")].quiet.clone()
}

/// A cluster whose balancer is to be stopped, with an open checkpoint.
fn asked() -> State {
    let mut state = cluster();
    done(&mut state, &stop_balancer(true));
    assert_eq!(wanted(&state), None);
    done(&mut state, &open_checkpoint("c1", 0));
    state
}

fn found(mode: &str) -> BalancerStep {
    BalancerStep::Found(mode.to_owned())
}

#[test]
fn it_is_known_how_it_was_before_it_is_stopped_and_notes_come_after() {
    let mut state = asked();
    assert_eq!(wanted(&state), Some((0, Wanted::Look)));
    let is_quiet = |state: &State| {
        let free = checkpoints::bound(state, &member("sh0")) == Bound::Free;
        assert_eq!(
            free,
            checkpoints::wanted_note(state, &member("sh0"), Ts::ZERO).is_none()
        );
        !free
    };
    done(&mut state, &note_balancer(0, found("autoSplitOnly")));
    assert_eq!(wanted(&state), Some((1, Wanted::Stop)));
    let twice = apply(&mut state, &note_balancer(0, found("off")));
    assert_eq!(twice.refusal(), Some(RefusalKind::OutOfOrder));
    assert!(!is_quiet(&state));
    done(&mut state, &note_balancer(1, BalancerStep::Stopped));
    assert!(is_quiet(&state));
    assert_eq!(wanted(&state), None, "it stays stopped while the checkpoint is open");
    let back = Some((2, Wanted::PutBack("autoSplitOnly".to_owned())));

    let mut sealed = state.clone();
    for (set, epoch) in [("cfg", 1), ("sh0", 2)] {
        done(&mut sealed, &note_checkpoint("c1", set, epoch, 150));
    }
    for (set, epoch) in [("cfg", 1), ("sh0", 2)] {
        done(&mut sealed, &cut_checkpoint("c1", set, epoch, 150));
    }
    assert_eq!(wanted(&sealed), back);
    assert!(sealed.snapshots.values().all(|s| s.possibly_inconsistent.is_none()));
    // Whoever asks next finds it as it is owed to be, not as it is.
    done(&mut sealed, &open_checkpoint("c2", 0));
    assert_eq!(wanted(&sealed), Some((2, Wanted::Stop)));

    done(&mut state, &fail_checkpoint("c1"));
    assert_eq!(wanted(&state), back);
    done(&mut state, &stop_balancer(false));
    assert_eq!(wanted(&state), back, "what is owed is put back all the same");
    done(&mut state, &note_balancer(2, BalancerStep::PutBack));
    assert_eq!(wanted(&state), None);
}

#[test]
fn one_that_was_off_is_let_be() {
    let mut state = asked();
    done(&mut state, &note_balancer(0, found("off")));
    assert_eq!((quiet(&state), wanted(&state)), (Quiet::Stopped, None));
    done(&mut state, &fail_checkpoint("c1"));
    assert_eq!(wanted(&state), None);
}

#[test]
fn one_that_cannot_be_stopped_marks_the_checkpoint_and_is_put_back_nevertheless() {
    let mut state = asked();
    done(&mut state, &note_balancer(0, found("full")));
    assert!(checkpoints::plan(&state, 0, |_, _| PATIENCE_MS - 1, || None).is_empty());
    let late = checkpoints::plan(&state, 0, |_, _| PATIENCE_MS, || None);
    assert_eq!(late.len(), 1);
    done(&mut state, &late[0]);
    assert!(matches!(quiet(&state), Quiet::Failed(_)));
    assert_eq!(wanted(&state), Some((2, Wanted::PutBack("full".to_owned()))));
    for (set, epoch) in [("cfg", 1), ("sh0", 2)] {
        done(&mut state, &note_checkpoint("c1", set, epoch, 150));
    }
    for (set, epoch) in [("cfg", 1), ("sh0", 2)] {
        done(&mut state, &cut_checkpoint("c1", set, epoch, 150));
    }
    let marks: Vec<_> = state
        .snapshots
        .values()
        .map(|s| s.possibly_inconsistent.clone().unwrap())
        .collect();
    assert!(
        marks.len() == 2 && marks[0].contains("the balancer was not stopped"),
        "{marks:?}"
    );
}
