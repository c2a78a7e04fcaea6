//! Instants in the words of users.

use headwater_protocol::admin::Position;
use jiff::Timestamp;

/// What `-15m` is counted from, by this machine's clock. The service knows the source's clock only by its oplog.
pub fn now() -> Timestamp {
    Timestamp::now()
}

/// A position as a time with its oplog position: `2026-11-22T10:33:11Z (1795343591,42)`.
pub fn position(p: Position) -> String {
    format!("{} ({},{})", wall_clock(i64::from(p.t) * 1000), p.t, p.i)
}

/// Milliseconds since 1970 as RFC 3339.
pub fn wall_clock(ms: i64) -> String {
    Timestamp::from_millisecond(ms).map_or_else(|_| format!("{ms} ms since 1970"), |t| t.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_shown_with_its_time() {
        assert_eq!(
            position(Position {
                t: 1_795_343_591,
                i: 42
            }),
            "2026-11-22T10:33:11Z (1795343591,42)"
        );
        assert_eq!(wall_clock(1_795_343_591_500), "2026-11-22T10:33:11.5Z");
    }
}
