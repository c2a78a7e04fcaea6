//! Names of the objects of one oplog, all under `oplog/<incarnation>/`.
//!
//! | key | holds |
//! |---|---|
//! | `<ts>-<term>` | the slice that follows this position: its predecessor names it, so that a position has one successor |
//! | `manifest/<number>` | note: start of the oplog and its segments; the highest number holds |
//! | `segment/<number>-<previous>-<last>` | slices merged for the manifest of this number |
//!
//! All numbers are 16 hexadecimal digits, a term as two's complement, so that names sort as positions do.

use headwater_model::{Incarnation, Optime, Ts};

/// The folder of an incarnation, with a `/` at its end.
pub fn folder(prefix: &str, incarnation: Incarnation) -> String {
    format!("{prefix}oplog/{:016x}/", incarnation.0)
}

/// A position as part of a key.
pub fn position(at: Optime) -> String {
    format!("{:016x}-{:016x}", at.ts.0, at.term as u64)
}

fn parse_position(text: &str) -> Option<Optime> {
    let (ts, term) = text.split_once('-')?;
    if ts.len() != 16 || term.len() != 16 {
        return None;
    }
    let term = u64::from_str_radix(term, 16).ok()? as i64;
    Some(Optime::new(Ts(u64::from_str_radix(ts, 16).ok()?), term))
}

/// The slice after `previous`.
pub fn slice(folder: &str, previous: Optime) -> String {
    format!("{folder}{}", position(previous))
}

/// The manifest of this number.
pub fn manifest(folder: &str, number: u64) -> String {
    format!("{folder}manifest/{number:016x}")
}

/// The segment from `previous` to `last`, made for the manifest of this number.
pub fn segment(folder: &str, number: u64, previous: Optime, last: Optime) -> String {
    format!(
        "{folder}segment/{number:016x}-{}-{}",
        position(previous),
        position(last)
    )
}

/// What a listed key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A slice, by its predecessor.
    Slice(Optime),
    /// A manifest, by number.
    Manifest(u64),
    /// A segment, by the manifest it was made for.
    Segment(u64),
}

/// Reads a key; `None` for what no oplog store wrote.
pub fn parse(folder: &str, key: &str) -> Option<Kind> {
    let name = key.strip_prefix(folder)?;
    if let Some(number) = name.strip_prefix("manifest/") {
        return u64::from_str_radix(number, 16).ok().map(Kind::Manifest);
    }
    if let Some(rest) = name.strip_prefix("segment/") {
        return u64::from_str_radix(rest.get(..16)?, 16).ok().map(Kind::Segment);
    }
    parse_position(name).map(Kind::Slice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_read_back_what_they_name() {
        let at = Optime::new(Ts::new(7, 9), -1);
        assert_eq!(slice("f/", at), "f/0000000700000009-ffffffffffffffff");
        assert_eq!(parse("f/", &slice("f/", at)), Some(Kind::Slice(at)));
        assert_eq!(parse("f/", &manifest("f/", 3)), Some(Kind::Manifest(3)));
        assert_eq!(parse("f/", &segment("f/", 3, at, at)), Some(Kind::Segment(3)));
        assert_eq!(parse("f/", "f/other"), None);
    }
}
