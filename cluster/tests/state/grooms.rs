//! Grooms.

use headwater_cluster::{Command, RefusalKind, apply};
use headwater_model::Epoch;

use crate::samples::*;

fn packs(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn condemn(epoch: u64, names: &[&str]) -> Command {
    Command::CondemnPacks {
        set: set(),
        epoch: Epoch(epoch),
        packs: packs(names),
    }
}

#[test]
fn packs_are_condemned_by_the_owner_only_and_until_they_are_removed() {
    let mut state = routine();
    done(&mut state, &condemn(1, &["a", "b"]));
    assert_eq!(
        apply(&mut state, &condemn(2, &["c"])).refusal(),
        Some(RefusalKind::Stale)
    );
    let removed = Command::PacksRemoved {
        set: set(),
        epoch: Epoch(1),
        packs: packs(&["a"]),
    };
    done(&mut state, &removed);
    let left: Vec<String> = state.grooms[&set()].condemned.iter().cloned().collect();
    assert_eq!(left, packs(&["b"]));
    let many: Vec<String> = (0..65).map(|n| n.to_string()).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(
        apply(&mut state, &condemn(1, &many)).refusal(),
        Some(RefusalKind::Limit)
    );
}

#[test]
fn a_wish_stands_until_the_groom_that_carried_it_out_is_noted() {
    let mut state = routine();
    let ask = |asked_ms| Command::RequestGroom {
        set: set(),
        dry_run: false,
        asked_ms,
    };
    let note = |asked_ms| {
        let mut report = report();
        report.asked_ms = asked_ms;
        Command::NoteGroom {
            set: set(),
            epoch: Epoch(1),
            report,
        }
    };
    done(&mut state, &ask(1));
    done(&mut state, &note(None));
    assert!(state.grooms[&set()].asked.is_some());
    done(&mut state, &ask(2));
    done(&mut state, &note(Some(1)));
    assert!(state.grooms[&set()].asked.is_some(), "it was asked for again meanwhile");
    done(&mut state, &note(Some(2)));
    assert_eq!(state.grooms[&set()].asked, None);
}
