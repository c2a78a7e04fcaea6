//! From a document key back to an `_id` that the source takes for equal: a missing document is asked for by it.
//!
//! A key does not tell 5 from 5.0, nor a string from a symbol, but nor does the source's `_id` index.

use bytes::Bytes;
use headwater_oplog::key::DocumentKey;
use headwater_oplog::raw::{self, Writer, kind};

/// `{_id: …}` with that key. `None` when the key holds something no client can ask for (code with scope).
pub(crate) fn of_key(key: &DocumentKey) -> Option<Bytes> {
    let mut reader = Reader { rest: &key.0 };
    let mut out = Vec::new();
    let document = Writer::begin(&mut out);
    let class = reader.byte()?;
    member(&mut out, &mut reader, class, b"_id", 0)?;
    document.end(&mut out).ok()?;
    let same = DocumentKey::of_document(&out).is_ok_and(|found| found == *key);
    same.then(|| out.into())
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    /// Up to a zero byte, which is passed over.
    fn name(&mut self) -> Option<&'a [u8]> {
        let end = self.rest.iter().position(|byte| *byte == 0)?;
        let name = self.take(end)?;
        self.byte()?;
        Some(name)
    }

    /// Up to two zero bytes; a zero byte within is followed by FF.
    fn text(&mut self) -> Option<Vec<u8>> {
        let mut text = Vec::new();
        loop {
            match self.byte()? {
                0 => match self.byte()? {
                    0 => return Some(text),
                    _ => text.push(0),
                },
                byte => text.push(byte),
            }
        }
    }
}

/// Writes one element of the class read.
fn member(out: &mut Vec<u8>, reader: &mut Reader<'_>, class: u8, name: &[u8], depth: usize) -> Option<()> {
    if depth > headwater_model::limits::BSON_MAX_DEPTH {
        return None;
    }
    let simple = |out: &mut Vec<u8>, kind, value: &[u8]| {
        raw::name(out, kind, name);
        out.extend_from_slice(value);
    };
    match class {
        10 => simple(out, kind::MIN_KEY, &[]),
        15 => simple(out, kind::UNDEFINED, &[]),
        20 => simple(out, kind::NULL, &[]),
        30 => {
            let (kind, value) = number(reader)?;
            simple(out, kind, &value);
        }
        60 | 160 => {
            let text = reader.text()?;
            let len = i32::try_from(text.len() + 1).ok()?.to_le_bytes();
            let kind = if class == 60 { kind::STRING } else { kind::CODE };
            simple(out, kind, &[&len[..], &text, &[0]].concat());
        }
        70 | 80 => {
            raw::name(out, if class == 70 { kind::DOCUMENT } else { kind::ARRAY }, name);
            let inner = Writer::begin(out);
            let mut index = 0u32;
            loop {
                match reader.byte()? {
                    0 => break,
                    member_class if class == 70 => {
                        let name = reader.name()?;
                        member(out, reader, member_class, name, depth + 1)?;
                    }
                    member_class => {
                        member(out, reader, member_class, index.to_string().as_bytes(), depth + 1)?;
                        index += 1;
                    }
                }
            }
            inner.end(out).ok()?;
        }
        90 => {
            let len = u32::from_be_bytes(reader.array()?);
            let bytes = reader.take(usize::try_from(len).ok()?.checked_add(1)?)?;
            simple(out, kind::BINARY, &[&len.to_le_bytes()[..], bytes].concat());
        }
        100 => simple(out, kind::OBJECT_ID, reader.take(12)?),
        110 => simple(out, kind::BOOL, reader.take(1)?),
        120 => {
            let millis = u64::from_be_bytes(reader.array()?) ^ (1 << 63);
            simple(out, kind::DATE, &millis.to_le_bytes());
        }
        130 => simple(out, kind::TIMESTAMP, &u64::from_be_bytes(reader.array()?).to_le_bytes()),
        140 => {
            let (pattern, flags) = (reader.name()?, reader.name()?);
            simple(out, kind::REGEX, &[pattern, &[0], flags, &[0]].concat());
        }
        150 => {
            let len = u32::from_be_bytes(reader.array()?);
            let bytes = reader.take(usize::try_from(len).ok()?.checked_add(12)?)?;
            simple(out, kind::DB_POINTER, &[&len.to_le_bytes()[..], bytes].concat());
        }
        240 => simple(out, kind::MAX_KEY, &[]),
        _ => return None,
    }
    Some(())
}

/// A number as its key has it (`headwater_oplog::key`): type and value.
fn number(reader: &mut Reader<'_>) -> Option<(u8, Vec<u8>)> {
    let double = |x: f64| Some((kind::DOUBLE, x.to_le_bytes().to_vec()));
    let negative = match reader.byte()? {
        0 => return double(f64::NAN),
        1 => true,
        2 => return double(0.0),
        3 => false,
        _ => return None,
    };
    let turn = if negative { 0xFF } else { 0 };
    let floor = f64::from_bits(u64::from_be_bytes(reader.array::<8>()?.map(|byte| byte ^ turn)));
    if reader.byte()? ^ turn == 0 {
        return double(if negative { -floor } else { floor });
    }
    let first = i32::from(u16::from_be_bytes(reader.array::<2>()?.map(|byte| byte ^ turn))) - 0x8000;
    let (mut coefficient, mut digits) = (0u128, 0);
    loop {
        match reader.byte()? ^ turn {
            0 => break,
            digit @ 1..=10 => {
                coefficient = coefficient.checked_mul(10)?.checked_add(u128::from(digit) - 1)?;
                digits += 1;
            }
            _ => return None,
        }
    }
    whole_or_decimal(negative, coefficient, first + 1 - digits)
}

/// An int64 where one fits, else a decimal.
fn whole_or_decimal(negative: bool, mut coefficient: u128, mut exponent: i32) -> Option<(u8, Vec<u8>)> {
    const BIAS: i32 = 6176;
    const EXPONENT_MAX: i32 = 6111;
    if let Some(whole) = u32::try_from(exponent).ok().and_then(|e| 10i128.checked_pow(e))
        && let Some(whole) = i128::try_from(coefficient).ok().and_then(|c| c.checked_mul(whole))
        && let Ok(whole) = i64::try_from(if negative { -whole } else { whole })
    {
        return Some((kind::INT64, whole.to_le_bytes().to_vec()));
    }
    while exponent > EXPONENT_MAX {
        coefficient = coefficient.checked_mul(10)?;
        exponent -= 1;
    }
    let biased = u128::try_from(exponent + BIAS).ok()?;
    let sign = u128::from(negative) << 127;
    Some((
        kind::DECIMAL128,
        (sign | (biased << 113) | coefficient).to_le_bytes().to_vec(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::raw;
    use bson::{Bson, doc};

    #[test]
    fn every_id_a_document_may_have_comes_back_as_one_the_source_takes_for_equal() {
        let binary = |subtype, bytes: &[u8]| {
            Bson::Binary(bson::Binary {
                subtype,
                bytes: bytes.to_vec(),
            })
        };
        let decimal = |text: &str| Bson::Decimal128(text.parse().unwrap());
        let ids: Vec<Bson> = vec![
            Bson::MinKey,
            Bson::Null,
            5.into(),
            (-5i64).into(),
            5.5.into(),
            (-0.0).into(),
            f64::NAN.into(),
            f64::NEG_INFINITY.into(),
            f64::MIN_POSITIVE.into(),
            i64::MAX.into(),
            i64::MIN.into(),
            ((1i64 << 53) + 1).into(),
            (-(1i64 << 53) - 1).into(),
            decimal("0.1"),
            decimal("-0.1"),
            decimal("9223372036854775807.9"),
            decimal("9.999999999999999999999999999999999E+6144"),
            decimal("-1E-6176"),
            decimal("1E+6144"),
            decimal("5E-324"),
            "".into(),
            "a\0b".into(),
            "text".into(),
            Bson::Symbol("sym".into()),
            doc! { "a": 1, "b": { "c": "x" }, "d": [1, "y", [true, { "e": 2.5 }]] }.into(),
            doc! {}.into(),
            doc! { "r": bson::Regex { pattern: "^a".try_into().unwrap(), options: "i".try_into().unwrap() } }.into(),
            binary(bson::spec::BinarySubtype::Uuid, &[7; 16]),
            binary(bson::spec::BinarySubtype::Generic, &[]),
            bson::oid::ObjectId::from_bytes([9; 12]).into(),
            true.into(),
            false.into(),
            Bson::DateTime(bson::DateTime::from_millis(-1)),
            Bson::Timestamp(bson::Timestamp { time: 7, increment: 8 }),
            Bson::JavaScriptCode("f()".into()),
            Bson::MaxKey,
        ];
        for id in ids {
            let key = DocumentKey::of_document(&raw(&doc! { "_id": id.clone() })).unwrap();
            let back = of_key(&key).unwrap_or_else(|| panic!("{id:?} does not come back"));
            assert_eq!(DocumentKey::of_document(&back).unwrap(), key, "{id:?}");
        }
    }

    #[test]
    fn common_ids_come_back_exactly() {
        for id in [
            Bson::from(bson::oid::ObjectId::from_bytes([9; 12])),
            "text".into(),
            ((1i64 << 53) + 1).into(),
            doc! { "a": "x", "b": true }.into(),
        ] {
            let document = raw(&doc! { "_id": id });
            assert_eq!(of_key(&DocumentKey::of_document(&document).unwrap()), Some(document));
        }
    }

    #[test]
    fn bytes_that_are_no_key_give_nothing() {
        for wrong in [
            &b""[..],
            b"\x07",
            b"\x3cabc",
            b"\x64short",
            b"\x46\x3cname",
            b"\x1e\x03\x00",
            b"\x64123456789012more",
        ] {
            assert_eq!(of_key(&DocumentKey(Bytes::copy_from_slice(wrong))), None, "{wrong:?}");
        }
    }
}
