//! Random names, keys, documents and updates, with every oddity a server lets through.

use bson::oid::ObjectId;
use bson::spec::BinarySubtype;
use bson::{Binary, Bson, DateTime, Document, RawDocumentBuf, Regex, Timestamp, doc};
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

/// Databases the workload writes to.
pub const DATABASES: [&str; 3] = ["shop", "Lager-2", "übung"];
/// Collections of ordinary operations: some with names that are easily mistaken for something else.
pub const COLLECTIONS: [&str; 6] = [
    "orders",
    "orders.lines",
    "tmp.users",
    "Ünï cödé 集合",
    "0",
    "system_views",
];
/// Capped collections, when they are made before a first insert makes them ordinary ones; the last is made by conversion.
pub const CAPPED: [&str; 3] = ["ring", "ring.small", "ring.converted"];
/// A clustered collection, from 6.0 on.
pub const CLUSTERED: &str = "clustered";

/// A key out of a few hundred, so that writers meet; of every type that may be one.
pub fn id(rng: &mut StdRng) -> Bson {
    let number = rng.gen_range(0..60_i32);
    match rng.gen_range(0..24) {
        0..8 => Bson::Int32(number),
        8 => Bson::Int64(number.into()),
        9 => Bson::Double(number.into()),
        10 => Bson::Double(f64::from(number) / 8.0),
        11 => number.to_string().parse().map_or(Bson::Int32(number), Bson::Decimal128),
        12..15 => Bson::String(format!("key-{number}")),
        15 => Bson::String(
            ["", "\0", "ä", "a\0b", "A"]
                .choose(rng)
                .copied()
                .unwrap_or("")
                .to_owned(),
        ),
        16 => Bson::Document(doc! { "x": number % 4 }),
        17 => Bson::Document(doc! { "x": f64::from(number % 4), "y": [number % 2, Bson::Null] }),
        18 => Bson::ObjectId(ObjectId::from_bytes([number as u8; 12])),
        19 => Bson::DateTime(DateTime::from_millis(i64::from(number) * 1000 - 30_000)),
        20 => Bson::Binary(Binary {
            subtype: BinarySubtype::Generic,
            bytes: vec![7; number as usize % 5],
        }),
        21 => Bson::Timestamp(Timestamp {
            time: number as u32,
            increment: 1,
        }),
        22 => Bson::Boolean(number % 2 == 0),
        _ => [
            Bson::Null,
            Bson::MinKey,
            Bson::MaxKey,
            Bson::Double(f64::NAN),
            Bson::Double(-0.0),
        ]
        .choose(rng)
        .cloned()
        .unwrap_or(Bson::Null),
    }
}

/// A value of any type, at times deep or long.
pub fn value(rng: &mut StdRng) -> Bson {
    match rng.gen_range(0..20) {
        0..6 => Bson::Int32(rng.gen_range(-9..99)),
        6 => Bson::Int64(rng.r#gen()),
        7 => Bson::Double(rng.r#gen()),
        8..11 => Bson::String("x".repeat(rng.gen_range(0..80))),
        11 => Bson::Array((0..rng.gen_range(0..5)).map(Bson::Int32).collect()),
        12 => Bson::Document(doc! { "p": rng.gen_range(0..9), "q": [1, 2, { "z": 1 }] }),
        13 => Bson::Document(doc! {}),
        14 => Bson::Array(vec![]),
        15 => Bson::RegularExpression(Regex {
            pattern: bson::cstr!("^a.*$").into(),
            options: bson::cstr!("im").into(),
        }),
        16 => Bson::JavaScriptCode("function() {}".to_owned()),
        17 => Bson::Symbol("symbol".to_owned()),
        18 => Bson::Undefined,
        _ => Bson::Null,
    }
}

/// A document without a key.
pub fn body(rng: &mut StdRng) -> Document {
    let mut body = doc! {
        "a": rng.gen_range(0..9),
        "o": { "p": rng.gen_range(0..9), "q": [1, 2, { "z": 1 }], "": { "": 1 } },
        "arr": (0..rng.gen_range(0..5)).map(Bson::Int32).collect::<Vec<_>>(),
        "s": "x".repeat(rng.gen_range(0..80)),
    };
    for name in ["v", "0", "Ω"] {
        if rng.gen_bool(0.3) {
            body.insert(name, value(rng));
        }
    }
    if rng.gen_bool(0.01) {
        body.insert("long", "lorem ".repeat(rng.gen_range(1000..40_000)));
    }
    body
}

/// A document with a key, not always in front.
pub fn document(rng: &mut StdRng) -> Document {
    let key = id(rng);
    let body = body(rng);
    if rng.gen_bool(0.1) {
        let mut document = body;
        document.insert("_id", key);
        return document;
    }
    let mut document = doc! { "_id": key };
    document.extend(body);
    document
}

/// A document with the same field twice, and with names that look like operators and paths.
pub fn odd_document(rng: &mut StdRng, dollars: bool) -> RawDocumentBuf {
    let mut document = RawDocumentBuf::new();
    document.append(bson::cstr!("_id"), rng.gen_range(1000..1060_i32));
    document.append(bson::cstr!("twice"), 1_i32);
    document.append(bson::cstr!("twice"), 2_i32);
    document.append(bson::cstr!(""), "no name");
    if dollars {
        document.append(bson::cstr!("$price"), 1_i32);
        document.append(bson::cstr!("a.b"), 2_i32);
    }
    document
}

/// A modifier update, or one by pipeline: anything but a replacement.
pub fn modifiers(rng: &mut StdRng) -> Document {
    let n = rng.gen_range(0..99);
    let updates = [
        doc! { "$set": { "a": n } },
        doc! { "$set": { "v": value(rng), "new.deep.path": n } },
        doc! { "$set": { "o.q.2.z": n, "o.p": value(rng) } },
        doc! { "$set": { "o": { "p": 1, "q": [] } } },
        doc! { "$set": { "o": n } },
        doc! { "$set": { "arr.7": 1 } },
        doc! { "$set": { "arr": [[], [{ "z": 1 }]] } },
        doc! { "$inc": { "o.p": 1, "count": 1_i64 } },
        doc! { "$mul": { "a": 1.5 } },
        doc! { "$min": { "a": n }, "$max": { "m": n } },
        doc! { "$unset": { "s": 1 } },
        doc! { "$unset": { "o.q.0": 1, "a": 1 } },
        doc! { "$rename": { "s": "renamed.to" } },
        doc! { "$currentDate": { "when": true, "stamp": { "$type": "timestamp" } } },
        doc! { "$push": { "arr": n } },
        doc! { "$push": { "arr": { "$each": [n, 1], "$position": 0, "$slice": -4, "$sort": -1 } } },
        doc! { "$addToSet": { "arr": n % 5 } },
        doc! { "$pop": { "arr": -1 } },
        doc! { "$pull": { "arr": { "$lt": 2 } } },
        doc! { "$pullAll": { "arr": [1, 2] } },
        doc! { "$bit": { "a": { "xor": 5 } } },
        doc! { "$set": { "arr.$[]": n } },
        doc! { "$setOnInsert": { "born": n } },
    ];
    updates.choose(rng).cloned().unwrap_or_default()
}

/// An aggregation pipeline as an update.
pub fn pipeline(rng: &mut StdRng) -> Vec<Document> {
    let pipelines = [
        vec![doc! { "$set": { "a": { "$add": [1, { "$ifNull": ["$count", 0] }] } } }],
        vec![doc! { "$unset": ["o.p", "v"] }],
        vec![doc! { "$set": { "arr": [1, "$a"] } }, doc! { "$unset": "s" }],
        vec![doc! { "$replaceWith": { "_id": "$_id", "only": "$a" } }],
        vec![doc! { "$set": { "long": { "$concat": ["x", { "$toString": "$_id" }] } } }],
    ];
    pipelines.choose(rng).cloned().unwrap_or_default()
}
