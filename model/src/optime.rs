//! Positions in the history of a replica set.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A MongoDB timestamp: seconds since 1970 in the high half, ordinal within the second in the low half.
///
/// Compared as one unsigned 64-bit number, as the server does. Written and read as `T,I`.
/// `Ts` values have gaps in a real oplog; a missing ordinal proves nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ts(pub u64);

impl Ts {
    /// The timestamp before every entry.
    pub const ZERO: Ts = Ts(0);
    /// The timestamp after every entry.
    pub const MAX: Ts = Ts(u64::MAX);

    /// Puts together seconds and ordinal.
    pub const fn new(seconds: u32, ordinal: u32) -> Self {
        Ts(((seconds as u64) << 32) | ordinal as u64)
    }

    /// Seconds since 1970.
    pub const fn seconds(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The ordinal within the second.
    pub const fn ordinal(self) -> u32 {
        self.0 as u32
    }
}

impl fmt::Display for Ts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{}", self.seconds(), self.ordinal())
    }
}

/// The text is not of the form `T,I`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no oplog position; write it as SECONDS,ORDINAL, for example 1795343068,24")]
pub struct InvalidTs(pub String);

impl FromStr for Ts {
    type Err = InvalidTs;

    fn from_str(text: &str) -> Result<Self, InvalidTs> {
        let invalid = || InvalidTs(text.to_owned());
        let (seconds, ordinal) = text.split_once([',', ':']).ok_or_else(invalid)?;
        let seconds = seconds.trim().parse().map_err(|_| invalid())?;
        let ordinal = ordinal.trim().parse().map_err(|_| invalid())?;
        Ok(Ts::new(seconds, ordinal))
    }
}

impl From<bson::Timestamp> for Ts {
    fn from(value: bson::Timestamp) -> Self {
        Ts::new(value.time, value.increment)
    }
}

impl From<Ts> for bson::Timestamp {
    fn from(value: Ts) -> Self {
        bson::Timestamp {
            time: value.seconds(),
            increment: value.ordinal(),
        }
    }
}

/// `(ts, term)`: identifies an oplog entry across histories; `ts` alone does so only within one.
///
/// Ordered by `ts`, then `term`: within one history both orders agree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Optime {
    /// When, in the order of the oplog.
    pub ts: Ts,
    /// The election term in which the entry was written; -1 for protocol version 0 and for "none".
    pub term: i64,
}

impl Optime {
    /// Before every entry.
    pub const ZERO: Optime = Optime { ts: Ts::ZERO, term: -1 };
    /// No entry is after it.
    pub const LAST: Optime = Optime {
        ts: Ts(u64::MAX),
        term: i64::MAX,
    };

    /// Puts the two halves together.
    pub const fn new(ts: Ts, term: i64) -> Self {
        Optime { ts, term }
    }
}

impl fmt::Display for Optime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (term {})", self.ts, self.term)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_written_and_read_as_seconds_and_ordinal() {
        let ts = Ts::new(1_795_343_068, 24);
        assert_eq!(ts.to_string(), "1795343068,24");
        assert_eq!("1795343068,24".parse(), Ok(ts));
        assert_eq!("1795343068:24".parse(), Ok(ts));
        for wrong in ["", "1", "a,b", "1,", "-1,2", "1,99999999999"] {
            assert!(wrong.parse::<Ts>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn positions_compare_as_unsigned_numbers() {
        assert!(Ts::new(1, u32::MAX) < Ts::new(2, 0));
        assert!(Ts::new(0x8000_0000, 0) > Ts::new(0x7fff_ffff, u32::MAX));
    }
}
