//! Instants in words.

use jiff::Timestamp;

fn timestamp(ms: i64) -> Timestamp {
    Timestamp::from_millisecond(ms).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// RFC 3339 in UTC, to the second: `2026-11-22T10:33:11Z`.
pub fn rfc3339(ms: i64) -> String {
    timestamp(ms).strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// The same without punctuation, for names: `20261122T103311Z`.
pub fn compact(ms: i64) -> String {
    timestamp(ms).strftime("%Y%m%dT%H%M%SZ").to_string()
}

#[cfg(test)]
mod tests {
    #[test]
    fn instants_are_written_in_utc() {
        assert_eq!(super::rfc3339(1_795_343_591_999), "2026-11-22T10:33:11Z");
        assert_eq!(super::compact(1_795_343_591_999), "20261122T103311Z");
    }
}
