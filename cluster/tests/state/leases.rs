//! Leases of agents: who gets one, who keeps it.

use std::collections::BTreeMap;

use headwater_cluster::leases::{AGENT_LOST_MS, Heard, plan};
use headwater_cluster::{RefusalKind, State, apply};

use crate::samples::*;

const LONG: u64 = AGENT_LOST_MS * 10;

fn heard(agents: &[(&str, u64)]) -> BTreeMap<String, Heard> {
    let heard = |silent_ms| Heard {
        silent_ms,
        ..Heard::default()
    };
    agents
        .iter()
        .map(|(agent, silent)| ((*agent).to_owned(), heard(*silent)))
        .collect()
}

fn held_by(agent: &str) -> State {
    let mut state = registered();
    done(&mut state, &grant(agent, 0));
    state
}

#[test]
fn a_deployment_has_one_agent_until_that_one_is_lost() {
    assert_eq!(plan(&registered(), &heard(&[]), LONG), []);
    assert_eq!(
        plan(&registered(), &heard(&[("a", 0), ("b", 0)]), LONG),
        [grant("a", 0)]
    );
    let held = held_by("b");
    assert_eq!(plan(&held, &heard(&[("a", 0), ("b", AGENT_LOST_MS - 1)]), LONG), []);
    assert_eq!(
        plan(&held, &heard(&[("a", 0), ("b", AGENT_LOST_MS)]), LONG),
        [grant("a", 1)]
    );
    assert_eq!(plan(&held, &heard(&[("a", 0)]), LONG), [grant("a", 1)]);
}

#[test]
fn an_agent_gets_only_what_its_key_is_for() {
    let with_scope = |scope: &str| {
        let mut agents = heard(&[("a", 0), ("b", 0)]);
        agents.get_mut("a").unwrap().scope = [scope.parse().unwrap()].into();
        agents
    };
    assert_eq!(plan(&registered(), &with_scope("shop"), LONG), [grant("a", 0)]);
    assert_eq!(plan(&registered(), &with_scope("blog"), LONG), [grant("b", 0)]);
    assert_eq!(plan(&held_by("a"), &with_scope("shop"), LONG), []);
    assert_eq!(plan(&held_by("a"), &with_scope("blog"), LONG), [grant("b", 1)]);
}

#[test]
fn a_new_leader_gives_the_holder_time_to_be_heard() {
    assert_eq!(plan(&held_by("b"), &heard(&[("a", 0)]), AGENT_LOST_MS - 1), []);
}

#[test]
fn nobody_to_take_over_leaves_the_lease_where_it_is() {
    assert_eq!(plan(&held_by("b"), &heard(&[("b", LONG)]), LONG), []);
}

#[test]
fn of_two_that_were_chosen_at_once_one_gets_it() {
    let mut state = registered();
    done(&mut state, &grant("a", 0));
    assert_eq!(apply(&mut state, &grant("b", 0)).refusal(), Some(RefusalKind::Stale));
    done(&mut state, &grant("b", 1));
    assert_eq!(apply(&mut state, &grant("a", 1)).refusal(), Some(RefusalKind::Stale));
    assert_eq!(state.leases[&deployment()].agent, "b");
}
