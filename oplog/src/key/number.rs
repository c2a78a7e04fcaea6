//! Numbers of all four types on one scale.
//!
//! ```text
//! NaN        00
//! negative   01, the payload of |x| after its first byte, inverted
//! zero       02
//! positive   03, B, rest
//!   B     bits of the largest finite double d <= |x| (u64 BE); infinity is itself; below the least double, 0
//!   rest  00 when d is |x| exactly, else 01, DEC(|x|)
//!   DEC   exponent of the first decimal digit + 8000 (u16 BE), the significant digits each plus one, 00
//! ```

use super::decimal::{self, Decimal};
use super::fixed;
use crate::raw::{BsonFault, kind};

const NAN: u8 = 0;
const NEGATIVE: u8 = 1;
const ZERO: u8 = 2;
const POSITIVE: u8 = 3;

/// Writes the payload of a number of any type.
pub fn payload(out: &mut Vec<u8>, kind: u8, value: &[u8]) -> Result<(), BsonFault> {
    match kind {
        kind::DOUBLE => double(out, f64::from_le_bytes(fixed(value)?)),
        kind::INT32 => double(out, f64::from(i32::from_le_bytes(fixed(value)?))),
        kind::INT64 => integer(out, i64::from_le_bytes(fixed(value)?)),
        _ => match Decimal::decode(fixed(value)?) {
            Decimal::Nan => out.push(NAN),
            Decimal::Infinite { negative } => double(out, if negative { f64::NEG_INFINITY } else { f64::INFINITY }),
            Decimal::Finite {
                negative,
                coefficient,
                exponent,
            } => finite(out, negative, coefficient, exponent),
        },
    }
    Ok(())
}

fn double(out: &mut Vec<u8>, x: f64) {
    if x.is_nan() {
        out.push(NAN);
    } else {
        signed(out, x < 0.0, x.abs(), None);
    }
}

fn integer(out: &mut Vec<u8>, x: i64) {
    let magnitude = x.unsigned_abs();
    let nearest = magnitude as f64;
    // As u128, since rounding may reach 2^64.
    let floor = if nearest as u128 > u128::from(magnitude) {
        nearest.next_down()
    } else {
        nearest
    };
    let exact = floor as u128 == u128::from(magnitude);
    signed(out, x < 0, floor, (!exact).then_some((u128::from(magnitude), 0)));
}

fn finite(out: &mut Vec<u8>, negative: bool, coefficient: u128, exponent: i32) {
    if coefficient == 0 {
        out.push(ZERO);
        return;
    }
    let (floor, exact) = decimal::floor_double(coefficient, exponent);
    signed(out, negative, floor, (!exact).then_some((coefficient, exponent)));
}

fn signed(out: &mut Vec<u8>, negative: bool, floor: f64, rest: Option<(u128, i32)>) {
    if floor == 0.0 && rest.is_none() {
        out.push(ZERO);
        return;
    }
    out.push(if negative { NEGATIVE } else { POSITIVE });
    let start = out.len();
    out.extend_from_slice(&floor.to_bits().to_be_bytes());
    match rest {
        None => out.push(0),
        Some((coefficient, exponent)) => {
            out.push(1);
            decimal_digits(out, coefficient, exponent);
        }
    }
    if negative {
        out[start..].iter_mut().for_each(|byte| *byte = !*byte);
    }
}

fn decimal_digits(out: &mut Vec<u8>, coefficient: u128, exponent: i32) {
    let text = coefficient.to_string();
    let first = exponent + text.len() as i32 - 1;
    out.extend_from_slice(&((first + 0x8000) as u16).to_be_bytes());
    out.extend(text.trim_end_matches('0').bytes().map(|digit| digit - b'0' + 1));
    out.push(0);
}
