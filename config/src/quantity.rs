//! Durations and byte counts as people write them: `6h`, `1h30m`, `200ms`, `96MiB`.

/// A text that is no such quantity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidQuantity {
    /// No duration.
    #[error("{0:?} is no duration; write numbers with units ms, s, m, h, d or w, for example 6h or 1h30m")]
    Duration(String),
    /// No byte count.
    #[error("{0:?} is no byte count; write a number with a unit KiB, MiB or GiB, for example 96MiB")]
    Bytes(String),
}

const TIME_UNITS: [(&str, u64); 6] = [
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
    ("w", 604_800_000),
];
const BYTE_UNITS: [(&str, u64); 5] = [("", 1), ("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

fn unit(units: &[(&str, u64)], name: &str) -> Option<u64> {
    units
        .iter()
        .find(|(n, _)| n.eq_ignore_ascii_case(name))
        .map(|(_, size)| *size)
}

/// Reads a duration into milliseconds.
pub fn milliseconds(text: &str) -> Result<u64, InvalidQuantity> {
    sum_of_parts(text.trim()).ok_or_else(|| InvalidQuantity::Duration(text.to_owned()))
}

fn sum_of_parts(mut rest: &str) -> Option<u64> {
    let mut sum = 0_u64;
    let mut finer_than = u64::MAX;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, tail) = rest.split_at(digits);
        let letters = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
        let (name, tail) = tail.split_at(letters);
        let size = unit(&TIME_UNITS, name).filter(|size| *size < finer_than)?;
        sum = sum.checked_add(number.parse::<u64>().ok()?.checked_mul(size)?)?;
        finer_than = size;
        rest = tail.trim_start();
    }
    (finer_than != u64::MAX).then_some(sum)
}

/// Reads a byte count.
pub fn bytes(text: &str) -> Result<u64, InvalidQuantity> {
    let trimmed = text.trim();
    let digits = trimmed.find(|c: char| !c.is_ascii_digit()).unwrap_or(trimmed.len());
    let (number, name) = trimmed.split_at(digits);
    number
        .parse::<u64>()
        .ok()
        .and_then(|n| n.checked_mul(unit(&BYTE_UNITS, name.trim())?))
        .ok_or_else(|| InvalidQuantity::Bytes(text.to_owned()))
}

/// Writes milliseconds the way [`milliseconds`] reads them.
pub fn duration_text(mut ms: u64) -> String {
    if ms == 0 {
        return "0s".to_owned();
    }
    let mut out = String::new();
    for (name, size) in TIME_UNITS.iter().rev().filter(|(name, _)| *name != "w") {
        if ms >= *size {
            out.push_str(&format!("{}{name}", ms / size));
            ms %= size;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, ms) in [
            ("6h", 21_600_000),
            ("1h30m", 5_400_000),
            ("1h 30m", 5_400_000),
            ("200ms", 200),
            ("0s", 0),
            ("2d", 172_800_000),
            ("1w", 604_800_000),
            (" 5M ", 300_000),
        ] {
            assert_eq!(milliseconds(text), Ok(ms), "{text}");
        }
        for wrong in [
            "",
            "6",
            "h",
            "-6h",
            "6 h",
            "6y",
            "1m1h",
            "1h1h",
            "6h!",
            "99999999999999999999h",
            "999999999999999w",
        ] {
            assert!(milliseconds(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn byte_counts_are_read_as_people_write_them() {
        for (text, count) in [
            ("1024", 1024),
            ("96MiB", 96 << 20),
            ("4 mib", 4 << 20),
            ("1GiB", 1 << 30),
            ("7B", 7),
        ] {
            assert_eq!(bytes(text), Ok(count), "{text}");
        }
        for wrong in ["", "MiB", "96MB", "-1", "1.5MiB", "99999999999GiB"] {
            assert!(bytes(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_duration_reads_back_what_it_writes() {
        for ms in [0, 1, 200, 1_000, 5_400_000, 21_600_000, 90_061_001, 1_209_600_000] {
            assert_eq!(milliseconds(&duration_text(ms)), Ok(ms));
        }
        assert_eq!(duration_text(5_400_000), "1h30m");
    }
}
