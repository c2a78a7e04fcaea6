//! Update bodies as real servers applied them.

use headwater_oplog::diff::{NameOrder, v1, v2};
use serde_json::Value;

use crate::vectors::{base64, extended, json_of, list, text};

#[test]
fn random_deltas_are_applied_byte_for_byte() {
    let file = json_of("diff-v2-fuzz.json");
    assert_eq!(list(&file["vectors"]).len(), 200);
    for (at, vector) in list(&file["vectors"]).iter().enumerate() {
        let diff = base64(&vector["diff"]);
        assert_eq!(v2::check(&diff), Ok(()));
        assert_eq!(
            v2::apply(&base64(&vector["pre"]), &diff).unwrap(),
            base64(&vector["post"]),
            "{at}"
        );
    }
}

#[test]
fn random_modifiers_are_applied_byte_for_byte() {
    let file = json_of("diff-v1-fuzz.json");
    assert_eq!(list(&file["vectors"]).len(), 200);
    for (at, vector) in list(&file["vectors"]).iter().enumerate() {
        let body = base64(&vector["o"]);
        assert_eq!(v1::check(&body, NameOrder::Bytewise), Ok(()));
        let after = v1::apply(&base64(&vector["pre"]), &body, NameOrder::Bytewise).unwrap();
        assert_eq!(after, base64(&vector["post"]), "{at}");
    }
}

fn hand_made(file: &str, apply: impl Fn(&[u8], &Value) -> Option<Vec<u8>>) -> usize {
    let file = json_of(file);
    for vector in list(&file["vectors"]) {
        let after = apply(&extended(&vector["pre"]), vector);
        let case = text(&vector["case"]);
        match vector.get("post") {
            Some(post) if !case.contains("not loggable") => {
                assert_eq!(after.as_deref(), Some(&*extended(post)), "{case}")
            }
            // Only users write these: they do not tell the outcome.
            Some(_) => assert_eq!(after, None, "{case}"),
            // The server refuses it from a user, yet a server's own entry would mean: no change.
            None if case == "empty $set" => assert!(after.is_some()),
            None => assert_eq!(after, None, "{case}"),
        }
    }
    list(&file["vectors"]).len()
}

#[test]
fn hand_made_deltas_are_applied_or_refused_as_the_server_does() {
    let count = hand_made("diff-v2-hand.json", |pre, vector| {
        v2::apply(pre, &extended(&vector["diff"])).ok()
    });
    assert_eq!(count, 46);
}

#[test]
fn hand_made_modifiers_are_applied_or_refused_as_the_server_does() {
    let count = hand_made("diff-v1-hand.json", |pre, vector| {
        v1::apply(pre, &extended(&vector["o"]), NameOrder::Bytewise).ok()
    });
    assert_eq!(count, 22);
}

#[test]
fn only_the_order_of_digit_names_differs_between_versions() {
    let pre = extended(&serde_json::json!({"_id": 1}));
    let body = extended(&serde_json::json!({"$v": 1, "$set": {"10": 1, "2": 2}}));
    let ten_first = extended(&serde_json::json!({"_id": 1, "10": 1, "2": 2}));
    let two_first = extended(&serde_json::json!({"_id": 1, "2": 2, "10": 1}));
    assert_eq!(v1::apply(&pre, &body, NameOrder::Bytewise).unwrap(), ten_first);
    assert_eq!(v1::apply(&pre, &body, NameOrder::Numeric).unwrap(), two_first);
}

#[test]
fn a_binary_delta_keeps_the_front_and_replaces_the_rest() {
    let data = |base64: &str| serde_json::json!({"$binary": {"base64": base64, "subType": "07"}});
    let pre = extended(&serde_json::json!({"_id": 1, "d": data("AQIDBA=="), "x": 1}));
    let diff =
        extended(&serde_json::json!({"b": {"d": {"o": 2, "d": data("CQkJ")}, "x": {"o": 0, "d": data("CQ==")}}}));
    let post = extended(&serde_json::json!({"_id": 1, "d": data("AQIJCQk="), "x": null}));
    assert_eq!(v2::apply(&pre, &diff).unwrap(), post);
}

#[test]
fn an_operator_that_does_not_tell_the_outcome_is_refused() {
    let body = extended(&serde_json::json!({"$inc": {"a": 1}}));
    assert_eq!(
        v1::check(&body, NameOrder::Numeric),
        Err(headwater_oplog::diff::DiffFault::NotReplayable)
    );
}

#[test]
fn no_array_grows_beyond_what_memory_bears() {
    let pre = extended(&serde_json::json!({"_id": 1, "a": []}));
    let long = extended(&serde_json::json!({"sa": {"a": true, "l": 2147483647}}));
    assert!(v2::apply(&pre, &long).is_err());
    let far = extended(&serde_json::json!({"sa": {"a": true, "u99999999999999999999999": 1}}));
    assert!(v2::apply(&pre, &far).is_err());
    let far = extended(&serde_json::json!({"$set": {"a.99999999999999999999999": 1}}));
    assert!(v1::apply(&pre, &far, NameOrder::Bytewise).is_err());
}
