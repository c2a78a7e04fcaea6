//! The instant of a restore, as typed: `latest`, `snapshot:ID`, RFC 3339, `T,I`, or a time ago such as `-15m`.

use headwater_config::quantity::milliseconds;
use headwater_model::{SnapshotId, Ts};
use headwater_protocol::admin::At;
use jiff::Timestamp;

/// What `--at` takes, for messages.
pub const FORMS: &str = "latest, snapshot:ID, an RFC 3339 time with zone such as 2026-11-22T10:33:11Z, \
                         an oplog position T,I such as 1795343591,42, or a time ago such as -15m";

/// Reads an instant; `now` is what times ago are counted from.
pub fn parse(text: &str, now: Timestamp) -> Result<At, String> {
    let text = text.trim();
    if text.eq_ignore_ascii_case("latest") {
        return Ok(At::Latest);
    }
    if let Some(id) = text.strip_prefix("snapshot:") {
        return SnapshotId::new(id).map(At::Snapshot).map_err(|e| e.to_string());
    }
    if let Some(ago) = text.strip_prefix('-') {
        return ago_of(ago, now);
    }
    if let Ok(ts) = text.parse::<Ts>() {
        return Ok(At::Position(ts.into()));
    }
    if let Ok(instant) = text.parse::<Timestamp>() {
        return Ok(At::WallClock(instant.as_millisecond()));
    }
    if text.parse::<jiff::civil::DateTime>().is_ok() {
        return Err(format!(
            "{text:?} has no time zone; add Z for UTC, or an offset such as +01:00"
        ));
    }
    Err(format!("{text:?} is no instant; write {FORMS}"))
}

fn ago_of(ago: &str, now: Timestamp) -> Result<At, String> {
    let ms = milliseconds(ago).map_err(|e| e.to_string())?;
    let then = i64::try_from(ms)
        .ok()
        .and_then(|ms| now.as_millisecond().checked_sub(ms))
        .filter(|then| *then >= 0);
    then.map(At::WallClock).ok_or_else(|| format!("-{ago} is before 1970"))
}

/// An instant as users read it.
pub fn text(at: &At) -> String {
    match at {
        At::Latest => "the newest restorable instant".to_owned(),
        At::Snapshot(id) => format!("snapshot {id}"),
        At::Position(p) => crate::instants::position(*p),
        At::WallClock(ms) => crate::instants::wall_clock(*ms),
    }
}

#[cfg(test)]
mod tests {
    use headwater_protocol::admin::Position;

    use super::*;

    fn now() -> Timestamp {
        "2026-11-22T10:33:11.500Z".parse().unwrap()
    }

    #[test]
    fn every_form_of_an_instant_is_understood() {
        let ms = now().as_millisecond();
        for (text, at) in [
            ("latest", At::Latest),
            ("LATEST", At::Latest),
            ("snapshot:snap-7f3", At::Snapshot(SnapshotId::new("snap-7f3").unwrap())),
            (
                "1795343591,42",
                At::Position(Position {
                    t: 1_795_343_591,
                    i: 42,
                }),
            ),
            (
                "1795343591:42",
                At::Position(Position {
                    t: 1_795_343_591,
                    i: 42,
                }),
            ),
            ("2026-11-22T10:33:11.5Z", At::WallClock(ms)),
            ("2026-11-22T11:33:11.5+01:00", At::WallClock(ms)),
            ("2026-11-22 10:33:11.5Z", At::WallClock(ms)),
            ("-15m", At::WallClock(ms - 15 * 60_000)),
            ("-1h30m", At::WallClock(ms - 90 * 60_000)),
            ("-2d", At::WallClock(ms - 2 * 86_400_000)),
            ("-0s", At::WallClock(ms)),
        ] {
            assert_eq!(parse(text, now()), Ok(at), "{text}");
        }
    }

    #[test]
    fn what_could_mean_two_instants_is_refused() {
        let error = parse("2026-11-22T10:33:11", now()).unwrap_err();
        assert!(error.contains("time zone"), "{error}");
    }

    #[test]
    fn what_is_no_instant_is_refused_with_the_forms_there_are() {
        for wrong in [
            "",
            "yesterday",
            "-",
            "-15",
            "15m",
            "snapshot:",
            "snapshot:a/b",
            "1795343591",
            "-9999w",
            "2026-13-01T00:00:00Z",
        ] {
            let error = parse(wrong, now()).unwrap_err();
            assert!(!error.is_empty(), "{wrong:?}");
        }
        assert!(parse("yesterday", now()).unwrap_err().contains("snapshot:ID"));
    }
}
