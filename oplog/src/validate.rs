//! Whether bytes from outside are BSON through and through. Without recursion: depth is bounded, the stack is not used.

use headwater_model::limits;

pub use crate::raw::BsonFault;
use crate::raw::{self, kind};

/// Checks a whole document: lengths, ends, types, names, texts, depth and size.
///
/// Names and texts need not be UTF-8 as long as they are well bounded: servers store what clients once wrote, and a
/// backup keeps it.
pub fn document(bytes: &[u8]) -> Result<(), BsonFault> {
    if bytes.len() > limits::BSON_MAX_BYTES {
        return Err(BsonFault::TooLarge(bytes.len()));
    }
    let mut open = vec![raw::elements(bytes)];
    while let Some(top) = open.last_mut() {
        let Some(element) = top.next().transpose()? else {
            open.pop();
            continue;
        };
        let inner = match element.kind {
            kind::DOCUMENT | kind::ARRAY => element.value,
            kind::CODE_WITH_SCOPE => scope(element.value)?,
            _ => {
                scalar(element.kind, element.value)?;
                continue;
            }
        };
        if open.len() >= limits::BSON_MAX_DEPTH {
            return Err(BsonFault::TooDeep);
        }
        open.push(raw::elements(inner));
    }
    Ok(())
}

fn scalar(kind: u8, value: &[u8]) -> Result<(), BsonFault> {
    match kind {
        kind::STRING | kind::CODE | kind::SYMBOL if value.last() != Some(&0) => Err(BsonFault::Unterminated),
        kind::DB_POINTER if value.get(value.len().wrapping_sub(13)) != Some(&0) => Err(BsonFault::Unterminated),
        kind::BOOL if value[0] > 1 => Err(BsonFault::Bool(value[0])),
        _ => Ok(()),
    }
}

/// The scope of a code with scope, whose three lengths must agree.
fn scope(value: &[u8]) -> Result<&[u8], BsonFault> {
    let code = raw::length_at(value, 4)?;
    let end = usize::try_from(code).ok().filter(|code| *code > 0).map(|code| code + 8);
    match end.and_then(|end| Some((*value.get(end - 1)?, value.get(end..)?))) {
        Some((0, scope)) => Ok(scope),
        Some(_) => Err(BsonFault::Unterminated),
        None => Err(BsonFault::Length(code)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raw::Writer;

    fn nested(levels: usize, kind: u8) -> Vec<u8> {
        let mut document = raw::EMPTY_DOCUMENT.to_vec();
        for _ in 1..levels {
            let mut outer = Vec::with_capacity(document.len() + 8);
            let writer = Writer::begin(&mut outer);
            raw::element(
                &mut outer,
                raw::Element {
                    kind,
                    name: b"0",
                    value: &document,
                },
            );
            writer.end(&mut outer).unwrap();
            document = outer;
        }
        document
    }

    #[test]
    fn depth_is_bounded_and_takes_no_stack() {
        for kind in [kind::DOCUMENT, kind::ARRAY] {
            assert_eq!(document(&nested(limits::BSON_MAX_DEPTH, kind)), Ok(()));
            assert_eq!(
                document(&nested(limits::BSON_MAX_DEPTH + 1, kind)),
                Err(BsonFault::TooDeep)
            );
            assert_eq!(document(&nested(10_000, kind)), Err(BsonFault::TooDeep));
        }
    }

    #[test]
    fn no_change_of_a_single_byte_makes_it_panic() {
        let good = bson::doc! {
            "a": 1, "b": "text", "c": [true, {"d": bson::Bson::Null}], "e": bson::Regex { pattern: "x".try_into().unwrap(), options: "i".try_into().unwrap() },
            "f": bson::JavaScriptCodeWithScope { code: "1".into(), scope: bson::doc! {"x": 1} },
            "g": bson::Binary { subtype: bson::spec::BinarySubtype::Generic, bytes: vec![1, 2] },
        };
        let good = bson::RawDocumentBuf::try_from(&good).unwrap().into_bytes();
        assert_eq!(document(&good), Ok(()));
        for at in 0..good.len() {
            assert!(document(&good[..at]).is_err());
            for byte in [0, 1, 0x7F, 0x80, 0xFF] {
                let mut hostile = good.clone();
                hostile[at] = byte;
                let _ = document(&hostile);
                let _ = crate::key::DocumentKey::of_id(kind::DOCUMENT, &hostile);
                let _ = crate::diff::v2::apply(&hostile, &hostile);
                let _ = crate::diff::v1::apply(&hostile, &hostile, crate::diff::NameOrder::Numeric);
            }
        }
    }

    #[test]
    fn damaged_values_are_named() {
        assert_eq!(document(b"\x09\0\0\0\x08a\0\x02\0"), Err(BsonFault::Bool(2)));
        assert_eq!(
            document(b"\x0d\0\0\0\x02a\0\x01\0\0\0\x01\0"),
            Err(BsonFault::Unterminated)
        );
        assert_eq!(document(b"\x08\0\0\0\x20a\0\0"), Err(BsonFault::Kind(0x20)));
        assert_eq!(document(b"\x08\0\0\0\x0aab\0"), Err(BsonFault::Unterminated));
        assert_eq!(
            document(b"\x0c\0\0\0\x02a\0\xff\xff\xff\x7f\0"),
            Err(BsonFault::Truncated)
        );
    }
}
