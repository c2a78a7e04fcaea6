//! When packs are groomed: decided here, from figures alone.
//!
//! Counting is cheap (it reads no leaf of data), removing is not. So a groom begins with a census whenever much may be dead, or
//! the last count is old, and ends after it unless the thresholds of the plan are passed.

use headwater_cluster::GroomReport;
use headwater_store::pack::groom::Thresholds;

/// The rules.
#[derive(Clone, Copy, Debug)]
pub struct GroomRules {
    /// When packs are worth rewriting.
    pub thresholds: Thresholds,
    /// The oldest that a count may become, in milliseconds.
    pub count_max_age_ms: i64,
    /// The least time between two, in milliseconds; also after one that failed.
    pub rest_ms: i64,
}

impl Default for GroomRules {
    /// Three days, as Ops Manager counts; an hour.
    fn default() -> Self {
        GroomRules {
            thresholds: Thresholds::default(),
            count_max_age_ms: 3 * 86_400_000,
            rest_ms: 3_600_000,
        }
    }
}

/// What is known.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// Whether a user asked for one.
    pub asked: bool,
    /// The last that ended.
    pub last: Option<&'a GroomReport>,
    /// Bytes of all packs.
    pub packs_bytes: u64,
    /// Milliseconds since 1970.
    pub now_ms: i64,
}

/// What to do, with the reason in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Count, and groom what passes the thresholds.
    Run {
        /// Why.
        why: String,
    },
    /// Not now.
    Wait {
        /// Why not.
        why: String,
    },
}

/// Decides.
pub fn decide(rules: &GroomRules, seen: &Seen<'_>) -> Decision {
    let run = |why: &str| Decision::Run { why: why.to_owned() };
    let wait = |why: String| Decision::Wait { why };
    if seen.asked {
        return run("a user asked for it");
    }
    let least = rules.thresholds.dead_min_bytes;
    let Some(last) = seen.last else {
        return match seen.packs_bytes > least {
            true => run("it was never counted what is dead"),
            false => wait(format!(
                "there are {} bytes of packs, less than the {least} that must be dead",
                seen.packs_bytes
            )),
        };
    };
    let age_ms = seen.now_ms - last.ended_ms;
    // A clock that was set back must not put a groom off for ever.
    if (0..rules.rest_ms).contains(&age_ms) {
        let outcome = match &last.error {
            Some(error) => format!("failed: {error}"),
            None => "was a moment ago".to_owned(),
        };
        let left_s = (rules.rest_ms - age_ms) / 1000;
        return wait(format!("the last one {outcome}; looked at again in {left_s} s"));
    }
    if last.error.is_some() {
        return run("the last one failed");
    }
    if !(0..rules.count_max_age_ms).contains(&age_ms) {
        return run("the last count is too old");
    }
    let may_be_dead = seen.packs_bytes.saturating_sub(last.living_bytes);
    let share = 100 - rules.thresholds.living_percent.min(100);
    if may_be_dead >= least.max(1) && may_be_dead * 100 > seen.packs_bytes * share {
        return run("much may be dead since the last count");
    }
    let left_s = (rules.count_max_age_ms - age_ms) / 1000;
    wait(format!(
        "at most {may_be_dead} of {} bytes are dead; worth it from {least} bytes and {share} % on, counted again in {left_s} s",
        seen.packs_bytes
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: i64 = 3_600_000;

    fn decided(asked: bool, last: Option<&GroomReport>, packs_bytes: u64, now_ms: i64) -> Result<String, String> {
        let rules = GroomRules {
            thresholds: Thresholds {
                living_percent: 75,
                dead_min_bytes: 1000,
                small_bytes: 0,
            },
            ..GroomRules::default()
        };
        let seen = Seen {
            asked,
            last,
            packs_bytes,
            now_ms,
        };
        match decide(&rules, &seen) {
            Decision::Run { why } => Ok(why),
            Decision::Wait { why } => Err(why),
        }
    }

    #[test]
    fn each_rule_decides_on_both_sides_of_its_threshold() {
        let last = GroomReport {
            living_bytes: 10_000,
            ..GroomReport::default()
        };
        let failed = GroomReport {
            error: Some("no".to_owned()),
            ..last.clone()
        };
        let table = [
            (true, None, 0, 0, true),
            (true, Some(&last), 0, 1, true),
            (false, None, 1000, 0, false),
            (false, None, 1001, 0, true),
            (false, Some(&last), 20_000, HOUR_MS - 1, false),
            (false, Some(&last), 20_000, HOUR_MS, true),
            (false, Some(&last), 20_000, -1, true),
            (false, Some(&failed), 10_000, HOUR_MS - 1, false),
            (false, Some(&failed), 10_000, HOUR_MS, true),
            // A quarter of 13 334 bytes may be dead.
            (false, Some(&last), 13_333, 2 * HOUR_MS, false),
            (false, Some(&last), 13_334, 2 * HOUR_MS, true),
            (false, Some(&last), 10_000, 72 * HOUR_MS - 1, false),
            (false, Some(&last), 10_000, 72 * HOUR_MS, true),
        ];
        for (asked, last, bytes, now_ms, runs) in table {
            let decided = decided(asked, last, bytes, now_ms);
            assert_eq!(decided.is_ok(), runs, "{asked} {last:?} {bytes} {now_ms}: {decided:?}");
        }
    }

    #[test]
    fn little_that_is_dead_is_left_alone() {
        let last = GroomReport {
            living_bytes: 1,
            ..GroomReport::default()
        };
        assert!(decided(false, Some(&last), 1000, 2 * HOUR_MS).is_err());
        assert!(decided(false, Some(&last), 1001, 2 * HOUR_MS).is_ok());
    }
}
