//! Reads the files of `tests/captures/`.

use std::path::Path;

use bson::{Bson, Document, RawDocumentBuf};
use bytes::Bytes;
use headwater_model::{CollectionUuid, Namespace};
use headwater_oplog::SourceVersion;
use serde_json::{Value, json};

/// One node's history.
pub struct History {
    pub name: String,
    pub version: SourceVersion,
    pub databases: Vec<String>,
    pub pre: Vec<Catalogued>,
    pub oplog: Vec<Bytes>,
    pub post: Vec<Catalogued>,
}

/// A collection as a server showed it.
pub struct Catalogued {
    pub namespace: Namespace,
    pub uuid: CollectionUuid,
    pub options: Bytes,
    pub indexes: Vec<Bytes>,
    pub docs: Vec<Bytes>,
}

fn text_of(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/captures").join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub fn json_of(file: &str) -> Value {
    serde_json::from_str(&text_of(file)).unwrap()
}

pub const FILES: [&str; 5] = [
    "4.2.6.jsonl",
    "4.4.2.jsonl",
    "5.0.4.jsonl",
    "6.0.5.jsonl",
    "sharded-6.0.5.jsonl",
];

pub fn histories(file: &str) -> Vec<History> {
    text_of(file)
        .lines()
        .map(|line| history(&serde_json::from_str(line).unwrap()))
        .collect()
}

fn history(value: &Value) -> History {
    History {
        name: format!("{} {}", text(&value["version"]), text(&value["name"])),
        version: text(&value["version"]).parse().unwrap(),
        databases: list(&value["databases"])
            .iter()
            .map(|name| text(name).to_owned())
            .collect(),
        pre: list(&value["pre"]).iter().map(catalogued).collect(),
        oplog: list(&value["oplog"]).iter().map(base64).collect(),
        post: list(&value["post"]).iter().map(catalogued).collect(),
    }
}

fn catalogued(value: &Value) -> Catalogued {
    let without_ns = |spec: &Value| {
        let mut spec = spec.clone();
        spec.as_object_mut().unwrap().shift_remove("ns");
        extended(&spec)
    };
    Catalogued {
        namespace: Namespace::parse(text(&value["ns"])).unwrap(),
        uuid: CollectionUuid::from_hex(&text(&value["uuid"]).replace('-', "")).unwrap(),
        options: extended(&value["options"]),
        indexes: list(&value["indexes"]).iter().map(without_ns).collect(),
        docs: list(&value["docs"]).iter().map(base64).collect(),
    }
}

pub fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap()
}

pub fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

pub fn base64(value: &Value) -> Bytes {
    match Bson::try_from(json!({"$binary": {"base64": value, "subType": "00"}})).unwrap() {
        Bson::Binary(binary) => binary.bytes.into(),
        other => panic!("{other}"),
    }
}

/// Extended JSON as raw BSON.
pub fn extended(value: &Value) -> Bytes {
    let Bson::Document(document) = Bson::try_from(value.clone()).unwrap() else {
        panic!("{value}")
    };
    RawDocumentBuf::try_from(&document).unwrap().into_bytes().into()
}

/// Raw BSON for reading.
pub fn document(raw: &[u8]) -> Document {
    RawDocumentBuf::from_bytes(raw.to_vec()).unwrap().try_into().unwrap()
}
