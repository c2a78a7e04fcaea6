//! Shard keys: the part of a document that says which chunk it is in.
//!
//! A key's encoding compares, byte by byte, as the server compares shard keys: field by field, each as an index without
//! collation does. A field that is missing counts as null; a hashed field counts as its hash, a 64-bit integer.

use bson::{Bson, Document};
use headwater_oplog::key::DocumentKey;
use headwater_oplog::raw::{self, BsonFault, kind};

use super::hash;

/// `config.collections.key`: the fields in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardKey {
    fields: Vec<Field>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Field {
    path: Vec<String>,
    hashed: bool,
}

impl ShardKey {
    /// Reads a key pattern such as `{a: 1, "b.c": "hashed"}`; `None` if it is none.
    pub fn read(pattern: &Document) -> Option<ShardKey> {
        let field = |(name, value): (&String, &Bson)| {
            let hashed = match value {
                Bson::String(text) if text == "hashed" => true,
                Bson::Int32(1) | Bson::Int64(1) => false,
                Bson::Double(one) if *one == 1.0 => false,
                _ => return None,
            };
            let path = name.split('.').map(str::to_owned).collect();
            Some(Field { path, hashed })
        };
        let fields: Option<Vec<_>> = pattern.iter().map(field).collect();
        fields
            .filter(|fields| !fields.is_empty())
            .map(|fields| ShardKey { fields })
    }

    /// The key of a document.
    pub fn of_document(&self, document: &[u8]) -> Result<Vec<u8>, BsonFault> {
        let mut key = Vec::new();
        for field in &self.fields {
            let (kind, value) = at(document, &field.path)?;
            if field.hashed {
                let hashed = hash::of(kind, value)?.to_le_bytes();
                push(&mut key, kind::INT64, &hashed)?;
            } else {
                push(&mut key, kind, value)?;
            }
        }
        Ok(key)
    }

    /// The key of a chunk's bound, whose values stand for the fields in their order, hashed ones already as their hashes.
    pub fn of_bound(&self, bound: &[u8]) -> Result<Vec<u8>, BsonFault> {
        let mut key = Vec::new();
        for element in raw::elements(bound) {
            let element = element?;
            push(&mut key, element.kind, element.value)?;
        }
        Ok(key)
    }
}

fn push(key: &mut Vec<u8>, kind: u8, value: &[u8]) -> Result<(), BsonFault> {
    key.extend_from_slice(DocumentKey::of_id(kind, value)?.as_bytes());
    Ok(())
}

/// The value at a path; null where there is none.
fn at<'a>(document: &'a [u8], path: &[String]) -> Result<(u8, &'a [u8]), BsonFault> {
    let mut here = document;
    let mut names = path.iter().peekable();
    while let Some(name) = names.next() {
        match raw::find(here, name)? {
            Some(found) if names.peek().is_none() => return Ok((found.kind, found.value)),
            Some(found) if found.kind == kind::DOCUMENT => here = found.value,
            _ => break,
        }
    }
    Ok((kind::NULL, &[]))
}

#[cfg(test)]
mod tests {
    use bson::{doc, serialize_to_vec};

    use super::*;

    fn key(pattern: &Document, document: &Document) -> Vec<u8> {
        let key = ShardKey::read(pattern).unwrap();
        key.of_document(&serialize_to_vec(document).unwrap()).unwrap()
    }

    fn bound(pattern: &Document, bound: &Document) -> Vec<u8> {
        let key = ShardKey::read(pattern).unwrap();
        key.of_bound(&serialize_to_vec(bound).unwrap()).unwrap()
    }

    #[test]
    fn keys_lie_between_bounds_as_the_server_sees_it() {
        let one = doc! { "k": 1 };
        let two = doc! { "a": 1, "b.c": 1 };
        for (pattern, min, document, max) in [
            (&one, doc! { "k": Bson::MinKey }, doc! { "k": -5 }, doc! { "k": 0 }),
            (&one, doc! { "k": 0 }, doc! { "_id": 9, "k": 0.0 }, doc! { "k": 10_i64 }),
            (&one, doc! { "k": 10 }, doc! { "k": "text" }, doc! { "k": Bson::MaxKey }),
            (&one, doc! { "k": Bson::MinKey }, doc! { "_id": 1 }, doc! { "k": -1000 }),
            (
                &two,
                doc! { "a": 1, "b.c": Bson::MinKey },
                doc! { "b": { "c": 7 }, "a": 1 },
                doc! { "a": 1, "b.c": 8 },
            ),
            (
                &two,
                doc! { "a": 1, "b.c": 8 },
                doc! { "a": 1, "b": { "c": "x" } },
                doc! { "a": 2, "b.c": Bson::MinKey },
            ),
            (
                &two,
                doc! { "a": "", "b.c": 1 },
                doc! { "a": "a" },
                doc! { "a": "aa", "b.c": 1 },
            ),
        ] {
            let found = key(pattern, &document);
            assert!(
                bound(pattern, &min) <= found && found < bound(pattern, &max),
                "{document}"
            );
        }
    }

    #[test]
    fn a_hashed_field_lies_where_its_hash_does() {
        let pattern = doc! { "k": "hashed" };
        let hashed = bound(&pattern, &doc! { "k": hash::of(kind::INT32, &[7, 0, 0, 0]).unwrap() });
        assert_eq!(key(&pattern, &doc! { "k": 7 }), hashed);
        assert_eq!(
            key(&pattern, &doc! { "k": 7.9 }),
            hashed,
            "numbers are hashed as whole ones"
        );
    }

    #[test]
    fn what_is_no_key_pattern_is_none() {
        for wrong in [
            doc! {},
            doc! { "a": -1 },
            doc! { "a": "text" },
            doc! { "a": { "b": 1 } },
        ] {
            assert_eq!(ShardKey::read(&wrong), None, "{wrong}");
        }
    }
}
