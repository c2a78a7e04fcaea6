//! Decimal128 (binary integer form) and its exact comparison with doubles.

use std::cmp::Ordering;

/// A decoded Decimal128.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decimal {
    /// Any NaN.
    Nan,
    /// Plus or minus infinity.
    Infinite {
        /// Which of the two.
        negative: bool,
    },
    /// `coefficient * 10^exponent`.
    Finite {
        /// The sign; a zero may have one.
        negative: bool,
        /// Below 10^34.
        coefficient: u128,
        /// From -6176 to 6111.
        exponent: i32,
    },
}

const COEFFICIENT_MAX: u128 = 10u128.pow(34) - 1;
const EXPONENT_BIAS: i32 = 6176;

impl Decimal {
    /// Decodes the 16 bytes of the value. What is not canonical counts as zero, as IEEE 754 says.
    pub fn decode(bytes: [u8; 16]) -> Decimal {
        let bits = u128::from_le_bytes(bytes);
        let high = (bits >> 64) as u64;
        let negative = high >> 63 == 1;
        match (high >> 58) & 0x1F {
            0x1F => Decimal::Nan,
            0x1E => Decimal::Infinite { negative },
            // The long form of the coefficient begins at 2^113: never canonical.
            0x18..=0x1D => Decimal::Finite {
                negative,
                coefficient: 0,
                exponent: ((high >> 47) & 0x3FFF) as i32 - EXPONENT_BIAS,
            },
            _ => {
                let coefficient = bits & ((1 << 113) - 1);
                let coefficient = if coefficient > COEFFICIENT_MAX { 0 } else { coefficient };
                Decimal::Finite {
                    negative,
                    coefficient,
                    exponent: ((high >> 49) & 0x3FFF) as i32 - EXPONENT_BIAS,
                }
            }
        }
    }
}

/// The largest finite double that is not above `coefficient * 10^exponent` (positive), and whether it is the same.
pub fn floor_double(coefficient: u128, exponent: i32) -> (f64, bool) {
    let text = format!("{coefficient}e{exponent}");
    let first = exponent + text.find('e').unwrap_or(0) as i32 - 1;
    if first > 308 {
        return (f64::MAX, false);
    }
    if first < -324 {
        return (0.0, false);
    }
    // The standard library rounds correctly to the nearest; the exact comparison tells which side that is.
    let nearest: f64 = text.parse().unwrap_or(0.0);
    if nearest.is_infinite() {
        return (f64::MAX, false);
    }
    match compare(nearest, coefficient, exponent) {
        Ordering::Equal => (nearest, true),
        Ordering::Less => (nearest, false),
        Ordering::Greater => (nearest.next_down(), false),
    }
}

/// Compares a finite non-negative double with `coefficient * 10^exponent`, exactly.
fn compare(double: f64, coefficient: u128, exponent: i32) -> Ordering {
    let bits = double.to_bits();
    let (field, fraction) = ((bits >> 52) as i32, bits & ((1 << 52) - 1));
    let (mantissa, power) = if field == 0 {
        (fraction, -1074)
    } else {
        (fraction | 1 << 52, field - 1075)
    };
    // mantissa * 2^power against coefficient * 5^exponent * 2^exponent, with every negative power moved across.
    let mut left = Natural::new(u128::from(mantissa));
    let mut right = Natural::new(coefficient);
    if exponent < 0 { &mut left } else { &mut right }.times_power_of_five(exponent.unsigned_abs());
    let shift = power - exponent;
    if shift < 0 { &mut right } else { &mut left }.shift_left(shift.unsigned_abs());
    left.cmp(&right)
}

/// A natural number of any size: base 2^32, least limb first, no zero limb at the end.
#[derive(PartialEq, Eq)]
struct Natural(Vec<u32>);

impl Natural {
    fn new(mut value: u128) -> Self {
        let mut limbs = Vec::with_capacity(48);
        while value != 0 {
            limbs.push(value as u32);
            value >>= 32;
        }
        Natural(limbs)
    }

    fn times(&mut self, factor: u32) {
        let mut carry = 0u64;
        for limb in &mut self.0 {
            let product = u64::from(*limb) * u64::from(factor) + carry;
            *limb = product as u32;
            carry = product >> 32;
        }
        if carry != 0 {
            self.0.push(carry as u32);
        }
    }

    fn times_power_of_five(&mut self, mut power: u32) {
        while power > 0 {
            let step = power.min(13);
            self.times(5u32.pow(step));
            power -= step;
        }
    }

    fn shift_left(&mut self, bits: u32) {
        self.times(1 << (bits % 32));
        if !self.0.is_empty() {
            self.0.splice(0..0, std::iter::repeat_n(0, (bits / 32) as usize));
        }
    }
}

impl Ord for Natural {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0
            .len()
            .cmp(&other.0.len())
            .then_with(|| self.0.iter().rev().cmp(other.0.iter().rev()))
    }
}

impl PartialOrd for Natural {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decimal_finds_the_double_below_it() {
        assert_eq!(floor_double(1, 0), (1.0, true));
        assert_eq!(
            floor_double(1, -1),
            (0.1f64.next_down(), false),
            "0.1 as a double is above one tenth"
        );
        assert_eq!(floor_double(5, -1), (0.5, true));
        assert_eq!(floor_double(4, -324), (0.0, false));
        assert_eq!(floor_double(5, -324), (f64::from_bits(1), false));
        assert_eq!(floor_double(1, 309), (f64::MAX, false));
        assert_eq!(floor_double(18, 307), (f64::MAX, false));
        assert_eq!(floor_double(9_223_372_036_854_775_808, 0), (2f64.powi(63), true));
        assert_eq!(
            floor_double(9_223_372_036_854_775_807, 0),
            (2f64.powi(63).next_down(), false)
        );
    }
}
