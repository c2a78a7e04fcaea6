//! The hash of hashed indexes and shard keys: the first 64 bits of an MD5 over the value, least significant byte first.
//!
//! ```text
//! input := seed (0, i32), value
//! value := rank of the type (i32), payload                     in an object: rank, name with closing zero, payload
//! payload of numbers: a whole one as i64 (decimals rounded, half to even; doubles cut off), held within its range, 0 for NaN;   of objects and arrays: values, 0 (i32)
//!            code with scope: text with closing zero, values of the scope, 0 (i32);       all else: the bytes of BSON
//! ```
//! Established against `mongod` 6.0 by reading keys back from a hashed index (`restore/tests/load.rs`).

use bson::Decimal128;
use headwater_model::limits;
use headwater_oplog::raw::{self, BsonFault, kind};
use md5::{Digest, Md5};

/// The hash of a value of that type and those bytes.
pub fn of(kind: u8, value: &[u8]) -> Result<i64, BsonFault> {
    let mut md5 = Md5::new();
    md5.update(0_i32.to_le_bytes());
    take_in(&mut md5, kind, None, value, 0)?;
    let digest: [u8; 16] = md5.finalize().into();
    let (first, _) = digest.split_first_chunk::<8>().ok_or(BsonFault::Truncated)?;
    Ok(i64::from_le_bytes(*first))
}

/// The rank of a type in the server's order of types.
fn rank(of: u8) -> i32 {
    match of {
        kind::MIN_KEY => -1,
        kind::UNDEFINED => 0,
        kind::NULL => 5,
        kind::DOUBLE | kind::INT32 | kind::INT64 | kind::DECIMAL128 => 10,
        kind::STRING | kind::SYMBOL => 15,
        kind::DOCUMENT => 20,
        kind::ARRAY => 25,
        kind::BINARY => 30,
        kind::OBJECT_ID => 35,
        kind::BOOL => 40,
        kind::DATE => 45,
        kind::TIMESTAMP => 47,
        kind::REGEX => 50,
        kind::DB_POINTER => 55,
        kind::CODE => 60,
        kind::CODE_WITH_SCOPE => 65,
        _ => 127,
    }
}

fn take_in(md5: &mut Md5, of: u8, name: Option<&[u8]>, value: &[u8], depth: usize) -> Result<(), BsonFault> {
    if depth > limits::BSON_MAX_DEPTH {
        return Err(BsonFault::TooDeep);
    }
    md5.update(rank(of).to_le_bytes());
    if let Some(name) = name {
        md5.update(name);
        md5.update([0]);
    }
    match of {
        kind::DOUBLE | kind::INT32 | kind::INT64 | kind::DECIMAL128 => md5.update(whole(of, value)?.to_le_bytes()),
        kind::DOCUMENT | kind::ARRAY => members(md5, value, depth)?,
        kind::CODE_WITH_SCOPE => {
            let length = value.get(4..8).ok_or(BsonFault::Truncated)?;
            let length = usize::try_from(i32::from_le_bytes(fixed(length)?)).map_err(|_| BsonFault::Truncated)?;
            let text_and_scope = value.get(8..).and_then(|rest| rest.split_at_checked(length));
            let (text, scope) = text_and_scope.ok_or(BsonFault::Truncated)?;
            md5.update(text);
            members(md5, scope, depth)?;
        }
        _ => md5.update(value),
    }
    Ok(())
}

fn members(md5: &mut Md5, document: &[u8], depth: usize) -> Result<(), BsonFault> {
    for element in raw::elements(document) {
        let element = element?;
        take_in(md5, element.kind, Some(element.name), element.value, depth + 1)?;
    }
    md5.update(0_i32.to_le_bytes());
    Ok(())
}

/// A number as a whole one.
fn whole(of: u8, value: &[u8]) -> Result<i64, BsonFault> {
    match of {
        kind::INT32 => Ok(i64::from(i32::from_le_bytes(fixed(value)?))),
        kind::INT64 => Ok(i64::from_le_bytes(fixed(value)?)),
        kind::DOUBLE => {
            let number = f64::from_le_bytes(fixed(value)?);
            // The first number beyond the range is the one that servers once cast without looking, and kept so.
            let beyond = number == 9_223_372_036_854_775_808.0;
            // The cast holds all others within the range, and makes 0 of NaN.
            Ok(if beyond { i64::MIN } else { number as i64 })
        }
        _ => Ok(whole_decimal(&Decimal128::from_bytes(fixed(value)?).to_string())),
    }
}

fn fixed<const N: usize>(value: &[u8]) -> Result<[u8; N], BsonFault> {
    value.try_into().map_err(|_| BsonFault::Truncated)
}

/// The whole number nearest to a decimal in text, such as `-12.5`, `1E+3`, `Infinity`; the even one of two.
fn whole_decimal(text: &str) -> i64 {
    let (negative, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let most = if negative { i64::MIN } else { i64::MAX };
    if text.starts_with("Inf") {
        return most;
    }
    let (digits, exponent) = text.split_once('E').unwrap_or((text, "0"));
    let (before, after) = digits.split_once('.').unwrap_or((digits, ""));
    let Ok(exponent) = exponent.parse::<i64>() else {
        return 0;
    };
    let digits: Vec<u8> = before.bytes().chain(after.bytes()).collect();
    if !digits.iter().all(u8::is_ascii_digit) {
        return 0;
    }
    // The digits before the point; beyond those there are, zeros.
    let places = before.len() as i64 + exponent;
    let split = usize::try_from(places).unwrap_or(0).min(digits.len());
    let (whole, rest) = digits.split_at(split);
    let mut number = whole.iter().fold(0_i128, |n, digit| n * 10 + i128::from(digit - b'0'));
    for _ in digits.len() as i64..places {
        if number == 0 || number > i128::from(u64::MAX) {
            break;
        }
        number *= 10;
    }
    // A negative number of places leaves only zeros before the first digit.
    if places >= 0 {
        let half = match rest.split_first() {
            Some((b'5', more)) if more.iter().all(|digit| *digit == b'0') => number % 2 == 1,
            Some((first, _)) => *first >= b'5',
            None => false,
        };
        number += i128::from(half);
    }
    let number = if negative { -number } else { number };
    i64::try_from(number).unwrap_or(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_rounded_to_whole_numbers_within_range() {
        for (text, number) in [
            ("0", 0),
            ("7", 7),
            ("-7.9", -8),
            ("7.5", 8),
            ("8.5", 8),
            ("8.5001", 9),
            ("0.5", 0),
            ("0.05", 0),
            ("5E-2", 0),
            ("1E+3", 1000),
            ("12345E-3", 12),
            ("0E+6000", 0),
            ("1E-6000", 0),
            ("9223372036854775807", i64::MAX),
            ("9223372036854775808", i64::MAX),
            ("-1E+40", i64::MIN),
            ("Infinity", i64::MAX),
            ("-Infinity", i64::MIN),
            ("NaN", 0),
        ] {
            assert_eq!(whole_decimal(text), number, "{text}");
        }
    }
}
