//! Canonical extended JSON v2 with fields in their order. Pure.

use bson::{Bson, Document};

/// Writes a document.
pub fn document(out: &mut String, document: &Document) {
    out.push('{');
    for (n, (name, value)) in document.iter().enumerate() {
        if n > 0 {
            out.push(',');
        }
        text(out, name);
        out.push(':');
        self::value(out, value);
    }
    out.push('}');
}

/// Writes an array of documents.
pub fn documents(out: &mut String, documents: &[Document]) {
    out.push('[');
    for (n, each) in documents.iter().enumerate() {
        if n > 0 {
            out.push(',');
        }
        document(out, each);
    }
    out.push(']');
}

/// Writes a string.
pub fn text(out: &mut String, text: &str) {
    out.push_str(&serde_json::Value::from(text).to_string());
}

fn value(out: &mut String, bson: &Bson) {
    match bson {
        Bson::Document(inner) => document(out, inner),
        Bson::Array(values) => {
            out.push('[');
            for (n, each) in values.iter().enumerate() {
                if n > 0 {
                    out.push(',');
                }
                value(out, each);
            }
            out.push(']');
        }
        Bson::JavaScriptCodeWithScope(code) => {
            out.push_str("{\"$code\":");
            text(out, &code.code);
            out.push_str(",\"$scope\":");
            document(out, &code.scope);
            out.push('}');
        }
        // What holds no documents has no order to lose.
        scalar => out.push_str(&scalar.clone().into_canonical_extjson().to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::{Binary, Timestamp, doc, spec::BinarySubtype};

    #[test]
    fn every_type_is_written_canonically_and_in_order() {
        let uuid = Binary {
            subtype: BinarySubtype::Uuid,
            bytes: vec![1; 16],
        };
        for (doc, json) in [
            (
                doc! { "z": 1, "a": 2_i64 },
                r#"{"z":{"$numberInt":"1"},"a":{"$numberLong":"2"}}"#,
            ),
            (
                doc! { "d": 1.0, "e": 0.1 },
                r#"{"d":{"$numberDouble":"1.0"},"e":{"$numberDouble":"0.1"}}"#,
            ),
            (
                doc! { "n": f64::NAN, "i": f64::NEG_INFINITY },
                r#"{"n":{"$numberDouble":"NaN"},"i":{"$numberDouble":"-Infinity"}}"#,
            ),
            (
                doc! { "s": "a\"\u{1}ü", "b": true, "n": Bson::Null },
                "{\"s\":\"a\\\"\\u0001ü\",\"b\":true,\"n\":null}",
            ),
            (
                doc! { "a": [1, { "y": [], "b": {} }] },
                r#"{"a":[{"$numberInt":"1"},{"y":[],"b":{}}]}"#,
            ),
            (
                doc! { "t": Timestamp { time: 1, increment: 2 } },
                r#"{"t":{"$timestamp":{"i":2,"t":1}}}"#,
            ),
            (
                doc! { "d": bson::DateTime::from_millis(-1) },
                r#"{"d":{"$date":{"$numberLong":"-1"}}}"#,
            ),
            (
                doc! { "u": uuid },
                r#"{"u":{"$binary":{"base64":"AQEBAQEBAQEBAQEBAQEBAQ==","subType":"04"}}}"#,
            ),
            (
                doc! { "x": Bson::MinKey, "y": Bson::MaxKey },
                r#"{"x":{"$minKey":1},"y":{"$maxKey":1}}"#,
            ),
            (doc! { "$a.b": { "$gt": 1 } }, r#"{"$a.b":{"$gt":{"$numberInt":"1"}}}"#),
        ] {
            let mut out = String::new();
            document(&mut out, &doc);
            let parsed: serde_json::Value = serde_json::from_str(&out).unwrap();
            let expected: serde_json::Value = serde_json::from_str(json).unwrap();
            assert_eq!(parsed, expected);
            assert_eq!(out.len(), json.len(), "{out}");
            assert!(json.contains("timestamp") || out == json, "{out}");
        }
    }
}
