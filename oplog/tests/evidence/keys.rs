//! Document keys: the order and the equality of real `_id` indexes.

use std::cmp::Ordering;

use headwater_oplog::DocumentKey;
use headwater_oplog::raw::{self, Writer, kind};
use proptest::prelude::*;
use serde_json::Value;

use crate::vectors::{json_of, list, text};

fn bytes_of(hex: &Value) -> Vec<u8> {
    let text = text(hex);
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

fn key(kind: u8, value: &[u8]) -> DocumentKey {
    DocumentKey::of_id(kind, value).unwrap()
}

/// The key of `{v: value}`.
fn nested(kind: u8, value: &[u8]) -> DocumentKey {
    let mut out = Vec::new();
    let writer = Writer::begin(&mut out);
    raw::element(
        &mut out,
        raw::Element {
            kind,
            name: b"v",
            value,
        },
    );
    writer.end(&mut out).unwrap();
    key(kind::DOCUMENT, &out)
}

fn value_of(member: &Value) -> (u8, Vec<u8>) {
    (member["type"].as_u64().unwrap() as u8, bytes_of(&member["value"]))
}

#[test]
fn keys_have_the_order_and_equality_of_the_index_of_every_version() {
    for (version, count) in [("4.2.6", 226), ("4.4.2", 226), ("5.0.4", 226), ("6.0.5", 226)] {
        let file = json_of(&format!("key-order-{version}.json"));
        let classes = list(&file["classes"]);
        assert_eq!(classes.len(), count, "{version}");
        for make in [key, nested] {
            let mut last: Option<(DocumentKey, &str)> = None;
            for class in classes {
                let mut first: Option<DocumentKey> = None;
                for member in list(class) {
                    let (kind, value) = value_of(member);
                    let made = make(kind, &value);
                    assert_eq!(*first.get_or_insert(made.clone()), made, "{version} {}", member["name"]);
                }
                let (first, name) = (first.unwrap(), text(&class[0]["name"]));
                if let Some((before, before_name)) = &last {
                    assert!(*before < first, "{version}: {before_name} < {name}");
                }
                last = Some((first, name));
            }
        }
    }
}

#[test]
fn keys_compare_as_the_servers_own_key_bytes_do() {
    let file = json_of("keystring-6.0.5.json");
    let mut compared = 0;
    for how in ["top", "nested in {v:..}"] {
        let values: Vec<_> = list(&file["values"])
            .iter()
            .filter(|value| text(&value["how"]) == how)
            .collect();
        let make = if how == "top" { key } else { nested };
        let keys: Vec<_> = values
            .iter()
            .map(|value| {
                let (kind, bytes) = value_of(value);
                (make(kind, &bytes), bytes_of(&value["keystring"]), &value["name"])
            })
            .collect();
        for (ours, theirs, name) in &keys {
            for (other_ours, other_theirs, other_name) in &keys {
                assert_eq!(ours.cmp(other_ours), theirs.cmp(other_theirs), "{name} {other_name}");
                compared += 1;
            }
        }
    }
    assert!(compared > 60_000, "{compared}");
}

/// A number of any type, written out in full: sign, digits before and after the point.
#[derive(Clone, Debug)]
struct Number {
    kind: u8,
    value: Vec<u8>,
    negative: bool,
    whole: String,
    fraction: String,
}

impl Number {
    fn new(kind: u8, value: Vec<u8>, text: &str) -> Self {
        let (negative, text) = text.strip_prefix('-').map_or((false, text), |text| (true, text));
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        Number {
            kind,
            value,
            negative,
            whole: whole.trim_start_matches('0').to_owned(),
            fraction: fraction.trim_end_matches('0').to_owned(),
        }
    }

    fn int32(n: i32) -> Self {
        Number::new(kind::INT32, n.to_le_bytes().to_vec(), &n.to_string())
    }

    fn int64(n: i64) -> Self {
        Number::new(kind::INT64, n.to_le_bytes().to_vec(), &n.to_string())
    }

    fn double(n: f64) -> Self {
        // 1074 digits after the point write any double exactly.
        Number::new(kind::DOUBLE, n.to_le_bytes().to_vec(), &format!("{n:.1074}"))
    }

    fn decimal(negative: bool, coefficient: u128, exponent: i32) -> Self {
        let bits = u128::from(negative) << 127 | ((exponent + 6176) as u128) << 113 | coefficient;
        let digits = coefficient.to_string();
        let text = if exponent >= 0 {
            digits + &"0".repeat(exponent as usize)
        } else {
            let places = exponent.unsigned_abs() as usize;
            let padded = "0".repeat((places + 1).saturating_sub(digits.len())) + &digits;
            let (whole, fraction) = padded.split_at(padded.len() - places);
            format!("{whole}.{fraction}")
        };
        let sign = if negative { "-" } else { "" };
        Number::new(kind::DECIMAL128, bits.to_le_bytes().to_vec(), &format!("{sign}{text}"))
    }

    fn is_zero(&self) -> bool {
        self.whole.is_empty() && self.fraction.is_empty()
    }

    fn compare(&self, other: &Self) -> Ordering {
        let sign = |n: &Self| {
            if n.is_zero() {
                0
            } else if n.negative {
                -1
            } else {
                1
            }
        };
        let size = |n: &Self| (n.whole.len(), n.whole.clone(), n.fraction.clone());
        sign(self).cmp(&sign(other)).then_with(|| match sign(self) {
            -1 => size(other).cmp(&size(self)),
            _ => size(self).cmp(&size(other)),
        })
    }
}

fn numbers() -> impl Strategy<Value = Number> {
    let near = prop_oneof![Just(1i64 << 53), Just(i64::MAX), Just(0), Just(i64::MIN)];
    prop_oneof![
        any::<i32>().prop_map(Number::int32),
        any::<i64>().prop_map(Number::int64),
        (near.clone(), -3..3i64).prop_map(|(n, by)| Number::int64(n.wrapping_add(by))),
        any::<f64>()
            .prop_filter("finite", |n| n.is_finite())
            .prop_map(Number::double),
        (-50..50i32).prop_map(|n| Number::double(f64::from(n) / 8.0)),
        near.prop_map(|n| Number::double(n as f64)),
        (any::<bool>(), 0..10u128.pow(34), -6176..6112i32).prop_map(|(s, c, e)| Number::decimal(s, c, e)),
        (any::<bool>(), 0..10u128.pow(34), -360..310i32).prop_map(|(s, c, e)| Number::decimal(s, c, e)),
        (any::<bool>(), 0..400u128, -3..3i32).prop_map(|(s, c, e)| Number::decimal(s, c, e)),
    ]
}

/// A double, and a decimal that is very near to it.
fn neighbours() -> impl Strategy<Value = (Number, Number)> {
    (
        any::<f64>().prop_filter("finite", |n| n.is_finite() && *n != 0.0),
        -2..3i128,
    )
        .prop_map(|(n, by)| {
            let text = format!("{:.33e}", n.abs());
            let (digits, exponent) = text.split_once('e').unwrap();
            let coefficient: u128 = digits.replace('.', "").parse().unwrap();
            let coefficient = coefficient.saturating_add_signed(by).clamp(0, 10u128.pow(34) - 1);
            let exponent: i32 = exponent.parse().unwrap();
            (Number::double(n), Number::decimal(n < 0.0, coefficient, exponent - 33))
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn numbers_of_all_types_compare_by_their_exact_value(a in numbers(), b in numbers()) {
        prop_assert_eq!(key(a.kind, &a.value).cmp(&key(b.kind, &b.value)), a.compare(&b));
    }

    #[test]
    fn a_double_and_a_decimal_beside_it_compare_exactly((double, decimal) in neighbours()) {
        let ordering = key(double.kind, &double.value).cmp(&key(decimal.kind, &decimal.value));
        prop_assert_eq!(ordering, double.compare(&decimal));
    }
}
